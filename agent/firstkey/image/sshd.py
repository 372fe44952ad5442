"""What the image's sshd would do: asked of the host's sshd, for every client that a Match block speaks of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property

from firstkey import image_reasons
from firstkey.image.verdict import Finding, Unknown, not_looked_at
from firstkey.reasons import FirstkeyError
from firstkey.ssh import restrictions, sshd_config
from firstkey.ssh.sshd_config import Effective
from firstkey.system import sshd_tree
from firstkey.system.sshd import CONFIG, LIMIT
from firstkey.system.sshd_tree import TreeSshd

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
