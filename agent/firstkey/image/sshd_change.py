"""Changing one of sshd's settings so that it takes effect, and proving it before and after.

The first value wins, and a Match block outranks it, so appending does nothing or worse. Tried in turn: an
early drop-in where the main file includes such, the same for every Match block, the top of the main file, and
at last the very lines that say otherwise. The first that sshd takes, and that is effective for every client,
is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from firstkey import NamedTuple, image_reasons, reasons
from firstkey.image.changes import SetSshd
from firstkey.image.door import LIMIT
from firstkey.image.sshd import Settings
from firstkey.reasons import FirstkeyError
from firstkey.ssh import restrictions, sshd_config
from firstkey.ssh.sshd_config import Effective
from firstkey.system.tree import Tree

DROP_IN = "/etc/ssh/sshd_config.d/00-firstkey.conf"
HEADER = "# Written by firstkey seal. The first value that sshd reads wins, so this file comes early.\n"
COMMENT = "# Set by firstkey seal at the top: the first value that sshd reads wins.\n"
TAKEN_OUT = "# Taken out by firstkey seal: "

_INCLUDES = {f"{above}sshd_config.d/{names}" for above in ("", "/etc/ssh/") for names in ("*", "*.conf")}

Files = Mapping[str, bytes]


class Setting(NamedTuple):
    """A setting as it shall be; `holds` says whether what sshd does is good enough."""

    keyword: str
    value: str
    holds: Callable[[Effective], bool]

    @property
    def line(self) -> str:
        """The line that sets it."""
        return f"{self.keyword} {self.value}\n"

    def before(self, content: bytes, comment: str) -> bytes:
        """The file with it above everything else; under that comment where it begins with it already."""
        return (comment + self.line).encode() + content.removeprefix(comment.encode())


PERMIT_ROOT_LOGIN = Setting(
    "PermitRootLogin",
    "prohibit-password",
    lambda effective: restrictions.permit_root_login(effective) != "yes",
)
USE_DNS = Setting("UseDNS", "no", lambda effective: effective.first("usedns", "no") == "no")
SETTINGS = {setting.keyword: setting for setting in (PERMIT_ROOT_LOGIN, USE_DNS)}
"""All settings that seal makes, by their keywords."""


def change(tree: Tree, setting: Setting, replaced: Files) -> SetSshd:
    """The change that makes the setting effective, some files being `replaced` before.

    Raises FirstkeyError where none can be proved.
    """
    now = Settings(tree, replaced)

    def content(path: str) -> bytes | None:
        return replaced[path] if path in replaced else tree.read(path, limit=LIMIT)

    for candidate in _candidates(now, setting, content(DROP_IN) or b""):
        try:
            if holds(tree, setting.keyword, {**replaced, **candidate}):
                files = tuple((path, content(path), after) for path, after in candidate.items())
                return SetSshd(setting.keyword, setting.value, files)
        except FirstkeyError as error:  # noqa: PERF203 - the next candidate may be one that sshd takes
            if error.reason is not reasons.SSHD_CONFIG_INVALID:
                raise
    message = f"nothing was found that sshd accepts and that makes {setting.line.strip()} effective for all"
    raise FirstkeyError(message, reason=image_reasons.NO_PROOF)


def holds(tree: Tree, keyword: str, replaced: Files) -> bool:
    """Whether the setting of that keyword is as it should be for root, whatever client comes.

    Some files are `replaced`. Raises FirstkeyError where sshd cannot be asked.
    """
    return all(map(SETTINGS[keyword].holds, Settings(tree, replaced).answers("root").values()))


def _candidates(now: Settings, setting: Setting, drop_in: bytes) -> Iterator[Files]:
    main = now.files.get(now.main_file, b"")
    lines = (line for _, line in sshd_config.lines(main))
    if any(line.keyword == "include" and _INCLUDES.intersection(line.words) for line in lines):
        above = setting.before(drop_in, HEADER)
        yield {DROP_IN: above}
        # A block outranks later ones, and the options that sshd is started with.
        yield {DROP_IN: above + f"\nMatch all\n    {setting.line}".encode()}
    yield {now.main_file: setting.before(main, COMMENT)}
    # The same, and every other line that sets it made a comment.
    without = {path: _without(content, setting) for path, content in now.files.items()}
    changed = {path: content for path, content in without.items() if content != now.files[path]}
    yield {**changed, now.main_file: setting.before(without.get(now.main_file, b""), COMMENT)}


def _without(content: bytes, setting: Setting) -> bytes:
    """The file with every line a comment that sets it to something else."""
    lines = content.split(b"\n")
    for number, line in sshd_config.lines(content):
        if line.keyword == setting.keyword.lower() and line.words[:1] != (setting.value,):
            lines[number - 1] = TAKEN_OUT.encode() + lines[number - 1].strip()
    return b"\n".join(lines)
