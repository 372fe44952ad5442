"""A sudo rule of the configuration's: put in place only once visudo has found it right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey import events, reasons, text
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.system import command, scratch
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from firstkey.boot.site import Site
    from firstkey.config import User
    from firstkey.system.files import File

SUDOERS = "/etc/sudoers.d"
SUDOERS_MODE = 0o440
HEADER = "# Written by firstkey from [User {name}] of its configuration; changes here are lost.\n"
GOOD_RULE = b"root ALL=(ALL) ALL\n"
"""What every sudo takes: a checker that rejects this one as well cannot look."""
_LIMIT = 65536


class WriteSudoers(NamedTuple):
    """Write the rule of one user's section."""

    user: User

    @property
    def name(self) -> str:
        """A file name that sudo reads: it passes over names with a dot (sudoers(5))."""
        return "firstkey-" + re.sub(
            r"[^A-Za-z0-9_-]", lambda match: f"={ord(match.group()):02x}", self.user.name
        )

    @property
    def content(self) -> bytes:
        """The rule as it stands in the file."""
        return f"{HEADER.format(name=self.user.name)}{self.user.name} {self.user.sudo}\n".encode()

    def describe(self) -> str:
        """What would stand where."""
        return f"write {SUDOERS}/{self.name}: {self.user.name} {self.user.sudo}"

    def entry(self) -> events.Entry:
        """For the journal."""
        return events.SUDOERS_WRITTEN(user=self.user.name, file=f"{SUDOERS}/{self.name}")

    def is_done(self, site: Site) -> bool:
        """Whether the rule stands there, in a file that sudo heeds: one that others cannot write."""
        try:
            there = self._there(site)
        except FirstkeyError:
            return False
        return there is not None and there.content == self.content and not there.mode & 0o022

    def diff(self, site: Site) -> str:
        """What would change in the file. Raises FirstkeyError as `apply` does."""
        self._prove(site)
        there = self._there(site)
        return text.diff(f"{SUDOERS}/{self.name}", there.content if there else None, self.content)

    def apply(self, site: Site) -> None:
        """Have it checked, and only then write it. Raises FirstkeyError(sudoers-invalid, ...)."""
        self._prove(site)
        with site.tree.ensure(SUDOERS, mode=0o750) as directory:
            directory.remove_stale()
            directory.replace(self.name, self.content, Looks(SUDOERS_MODE))

    def _there(self, site: Site) -> File | None:
        directory = site.tree.open(SUDOERS)
        if directory is None:
            return None
        with directory:
            return directory.read(self.name, limit=_LIMIT)

    def _prove(self, site: Site) -> None:
        wrong = _objection(site, self.content)
        if wrong is None:
            return
        if _objection(site, GOOD_RULE):
            message = f"visudo looks at no rule, not even at one that is right: {wrong}"
            raise FirstkeyError(message, reason=reasons.SUDO_UNCHECKED)
        message = f"visudo rejects {self.user.sudo!a} as the Sudo= rule of {self.user.name}: {wrong}"
        raise FirstkeyError(message, reason=reasons.SUDOERS_INVALID)


def _objection(site: Site, content: bytes) -> str | None:
    """What visudo has against it. It gets a private file: that of sudo-rs reads no standard input."""
    program = command.find("visudo")
    if program is None:
        raise FirstkeyError("visudo is not installed", reason=reasons.SUDO_MISSING)
    if site.tree.is_running_system:
        with scratch.directory() as private:
            private.replace("rule", content, Looks(SUDOERS_MODE, durable=False))
            path = f"{private.on_host}/rule"
            outcome = command.run([program, "-c", "-f", path])
    else:
        from firstkey.system import inspector  # a boot works on the running system

        path = f"{inspector.HERE}/rule"
        outcome = inspector.run([program, "-c", "-f", path], files={"rule": content})
    if not outcome.status:
        return None
    # The first line says what is wrong and where; those behind it only draw an arrow below the rule.
    words = (outcome.stderr or outcome.stdout).decode("utf-8", "replace").split("\n")[0]
    return words.replace(path, "the rule").strip(" :<>") or outcome.words
