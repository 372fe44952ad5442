"""What the image's sshd would do, asked of the host's; and changing a setting so that it takes effect."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property

from firstkey import NamedTuple, image_reasons, reasons
from firstkey.image import door
from firstkey.image.changes import SetSshd
from firstkey.image.verdict import Finding, Unknown, not_looked_at
from firstkey.reasons import FirstkeyError
from firstkey.ssh import restrictions, sshd_config
from firstkey.ssh.sshd_config import Effective
from firstkey.system import sshd_tree
from firstkey.system.sshd import CONFIG, LIMIT
from firstkey.system.sshd_tree import TreeSshd
from firstkey.system.tree import Tree

MOST_CLIENTS = 64
"""Of how many clients sshd is asked at most; each takes some hundredths of a second."""


class Settings(TreeSshd):
    """sshd's configuration in a tree, or as it would be with some files replaced.

    Never asked as it runs: sshd then reads the copies, and nothing of the host's.
    """

    # --- what it is made of -----------------------------------------------------------------------

    @property
    def main_file(self) -> str:
        """The main file, or the place for it."""
        return self.config or CONFIG

    @property
    def is_there(self) -> bool:
        """Whether OpenSSH's server is in the image at all."""
        return bool(sshd_tree.program(self.tree) or self.config)

    def written(self, keyword: str) -> list[str]:
        """Every value that any line gives the keyword, whether it has an effect or not."""
        lines = (line for content in self.files.values() for _, line in sshd_config.lines(content))
        return [value for line in lines if line.keyword == keyword.lower() for value in line.words]

    def place_of(self, keyword: str) -> str:
        """The file to change so that the setting changes: the options come before all others."""
        start, wanted = self.start, keyword.lower()
        if all(re.split(r"[\s=]", line)[0].lower() != wanted for line in sshd_tree.option_lines(start)):
            return self.main_file
        # In a file with the unit's variables, the keyword stands as it is in the options.
        contents = ((file, self.tree.read(file, limit=LIMIT) or b"") for file in start.files[1:])
        return next((file for file, text in contents if wanted.encode() in text.lower()), start.files[0])

    def finding(self, keyword: str, reason: str, remedy: str) -> Finding:
        """A finding about the setting, with the first line that sets it, for a person to look at."""
        place = self.place_of(keyword)
        line = sshd_tree.where(self, keyword) if place == self.main_file else None
        return Finding(line.path if line else place, reason, remedy, line and line.number)

    # --- what it means ----------------------------------------------------------------------------

    @cached_property
    def _all_clients(self) -> tuple[str, ...]:
        return sshd_tree.connections(self.files.values())

    @property
    def unknowns(self) -> tuple[Unknown, ...]:
        """Why not all is known, where there are more clients than are asked about."""
        more = len(self._all_clients) - MOST_CLIENTS
        why = f"Match blocks name more clients than the {MOST_CLIENTS} that sshd is asked about: {more} more"
        return (not_looked_at(self.main_file, why),) if more > 0 else ()

    def answers(self, user: str) -> dict[str, Effective]:
        """What sshd does when `user` comes, by the client. Raises FirstkeyError if it cannot be asked."""
        return {client: self.effective(user, client) for client in self._all_clients[:MOST_CLIENTS]}

    def logins(self, names: Iterable[str]) -> Iterator[tuple[str, Effective]]:
        """What sshd does for root and each user, and for whom: everybody, without a Match block."""
        if not sshd_config.has_blocks(self.files.values()):
            yield "everybody", self.effective("root")
            return
        for name in dict.fromkeys(("root", *names)):
            yield from ((f"{name}, for one", effective) for effective in self.answers(name).values())

    @property
    def uses_pam(self) -> bool:
        """Whether sshd leaves it to PAM who may log in; where it cannot be asked, what can be read counts."""
        with suppress(FirstkeyError):
            return not self.is_there or restrictions.use_pam(self.effective("root"))
        with suppress(FirstkeyError):
            return "yes" in self.written("UsePAM")
        return False

    def effective(self, user: str, client: str = sshd_config.ANY_CLIENT) -> Effective:
        """What sshd does when `user` comes from there. Raises FirstkeyError where it cannot be asked."""
        meaning = self.meaning(user, client)
        if not meaning.refusal:
            return meaning.effective
        reason = image_reasons.NOT_LOOKED_AT if self.start.unknown else meaning.refusal.reason
        raise FirstkeyError(meaning.refusal.detail, reason=reason)


# --- changing a setting ----------------------------------------------------------------------------

# The first value wins, and a Match block outranks it, so appending does nothing or worse. Tried in turn: an
# early drop-in where the main file includes such, the same for every Match block, the top of the main file,
# and at last the very lines that say otherwise. The first that sshd takes, and that is effective for every
# client, is used.

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
        return replaced[path] if path in replaced else tree.read(path, limit=door.LIMIT)

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
