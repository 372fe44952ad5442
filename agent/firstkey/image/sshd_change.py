"""Changing one of sshd's settings so that it takes effect, and proving it before and after.

The first value wins, and a Match block outranks it, so appending does nothing or worse. Tried in turn: an
early drop-in where the main file includes such, the same for every Match block, the top of the main file, and
at last the very lines that say otherwise. The first that sshd takes, and that is effective for every client,
is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from firstkey import NamedTuple, image_reasons, reasons
from firstkey.image.changes import SetSshd
from firstkey.image.door import LIMIT
from firstkey.image.sshd import Settings
from firstkey.reasons import FirstkeyError
from firstkey.ssh import restrictions, sshd_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.image.subject import Image
    from firstkey.ssh.sshd_config import Effective
    from firstkey.system.tree import Tree

DIRECTORY = "/etc/ssh/sshd_config.d"
DROP_IN = f"{DIRECTORY}/00-firstkey.conf"
HEADER = "# Written by firstkey seal. The first value that sshd reads wins, so this file comes early.\n"
COMMENT = "# Set by firstkey seal at the top: the first value that sshd reads wins.\n"
TAKEN_OUT = "# Taken out by firstkey seal: "

_MATCH_ALL = "Match all\n"
_INCLUDES = {f"{above}sshd_config.d/{names}" for above in ("", "/etc/ssh/") for names in ("*", "*.conf")}

Files = Mapping[str, bytes]


class Setting(NamedTuple):
    """A setting as it shall be; `holds` tells whether what sshd does is good enough."""

    keyword: str
    value: str
    holds: Callable[[Effective], bool]
    in_match: bool = True
    """Whether sshd allows it inside a Match block (sshd_config(5): Match)."""

    @property
    def line(self) -> str:
        """The line that sets it."""
        return f"{self.keyword} {self.value}\n"


PERMIT_ROOT_LOGIN = Setting(
    "PermitRootLogin",
    "prohibit-password",
    lambda effective: restrictions.permit_root_login(effective) != "yes",
)
USE_DNS = Setting("UseDNS", "no", lambda effective: effective.first("usedns", "no") == "no", in_match=False)
SETTINGS = {setting.keyword: setting for setting in (PERMIT_ROOT_LOGIN, USE_DNS)}
"""All settings that seal makes, by their keywords."""


def change(image: Image, setting: Setting, before: Files | None = None) -> SetSshd:
    """The change that makes the setting effective, some files perhaps being changed `before`.

    Raises FirstkeyError where none can be proved.
    """
    tree = _Changed(image.tree, before or {})
    return SetSshd(setting.keyword, setting.value, tuple(_planned(tree, setting)))


def holds(tree: Tree, keyword: str, replaced: Files) -> bool:
    """Whether the setting of that keyword is as it should be, with some files replaced.

    Raises FirstkeyError where sshd cannot be asked.
    """
    return holds_everywhere(Settings(tree, replaced), SETTINGS[keyword])


def holds_everywhere(settings: Settings, setting: Setting) -> bool:
    """Whether it holds for root, whatever client comes. Raises FirstkeyError where sshd cannot be asked."""
    return all(setting.holds(answer.effective) for answer in settings.answers("root"))


class _Changed(NamedTuple):
    """The tree as it will be when some files of sshd's are replaced."""

    tree: Tree
    before: Files

    def read(self, path: str) -> bytes | None:
        """The file, None where there is none."""
        content = self.before.get(path)
        return self.tree.read(path, limit=LIMIT) if content is None else content

    def settings(self, replaced: Files) -> Settings:
        """What sshd makes of it, with others replaced too."""
        return Settings(self.tree, {**self.before, **replaced})


def _planned(tree: _Changed, setting: Setting) -> Iterator[tuple[str, bytes | None, bytes]]:
    for candidate in _candidates(tree, setting):
        try:
            if holds_everywhere(tree.settings(candidate), setting):
                return ((path, tree.read(path), content) for path, content in candidate.items())
        except FirstkeyError as error:  # noqa: PERF203 - the next candidate may be one that sshd takes
            if error.reason is not reasons.SSHD_CONFIG_INVALID:
                raise
    message = f"nothing was found that sshd accepts and that makes {setting.line.strip()} effective for all"
    raise FirstkeyError(message, reason=image_reasons.NO_PROOF)


def _candidates(tree: _Changed, setting: Setting) -> Iterator[Files]:
    path = tree.settings({}).config
    main = tree.read(path) or b""
    lines = (line for _, line in sshd_config.lines(main))
    if any(line.keyword == "include" and _INCLUDES.intersection(line.words) for line in lines):
        yield {DROP_IN: _drop_in(tree, setting, everywhere=False)}
        if setting.in_match:
            yield {DROP_IN: _drop_in(tree, setting, everywhere=True)}
    yield {path: _on_top(main, setting)}
    yield _without_others(tree, setting, path)


def _drop_in(tree: _Changed, setting: Setting, *, everywhere: bool) -> bytes:
    """Firstkey's own file with the setting in it, beside those that it has already."""
    text = (tree.read(DROP_IN) or b"").decode("utf-8", "surrogateescape")
    above, _, below = text.removeprefix(HEADER).partition(_MATCH_ALL)
    above = _with(above, setting, "")
    if everywhere or setting.keyword in below:
        below = _with(below, setting, "    ")
    return (HEADER + above + (_MATCH_ALL + below if below else "")).encode("utf-8", "surrogateescape")


def _with(lines: str, setting: Setting, indent: str) -> str:
    others = [line for line in lines.splitlines(keepends=True) if line.split()[:1] != [setting.keyword]]
    return "".join([*others, indent + setting.line])


def _on_top(main: bytes, setting: Setting) -> bytes:
    """Before everything else; under firstkey's comment where that is there already."""
    return (COMMENT + setting.line).encode() + main.removeprefix(COMMENT.encode())


def _without_others(tree: _Changed, setting: Setting, main: str) -> Files:
    """The top of the main file, and every other line that sets it made a comment."""
    files: dict[str, bytes] = {}
    for path in tree.settings({}).files:
        content = tree.read(path) or b""
        lines = content.split(b"\n")
        for number, line in sshd_config.lines(content):
            if line.keyword == setting.keyword.lower() and line.words[:1] != (setting.value,):
                lines[number - 1] = TAKEN_OUT.encode() + lines[number - 1].strip()
        changed = b"\n".join(lines)
        if changed != content:
            files[path] = changed
    files[main] = _on_top(files.get(main) or tree.read(main) or b"", setting)
    return files
