"""What the image's sshd would do: asked of the host's sshd, for every client that a Match block speaks of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING

from firstkey import NamedTuple, image_reasons, reasons
from firstkey.image.verdict import Doubt, Finding
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import restrictions, sshd_config
from firstkey.system import sshd_tree
from firstkey.system.sshd import CONFIG, LIMIT
from firstkey.system.sshd_tree import TreeSshd

if TYPE_CHECKING:
    from firstkey.ssh.sshd_config import Effective, Line
    from firstkey.system.tree import Tree

MOST_CLIENTS = 64
"""Of how many clients sshd is asked at most; each takes some hundredths of a second."""


class Answer(NamedTuple):
    """What sshd does for one client."""

    client: str
    effective: Effective


class Settings:
    """sshd's configuration in a tree, or as it would be with some files replaced."""

    def __init__(self, tree: Tree, replaced: Mapping[str, bytes] | None = None) -> None:
        # Never asked as it runs: sshd then reads the copies, and nothing of the host's.
        self._sshd = TreeSshd(tree, replaced)
        self.where = partial(sshd_tree.where, self._sshd)
        self.key_files = partial(sshd_tree.key_files, self._sshd)

    def place_of(self, keyword: str) -> str:
        """The file to change so that the setting changes: the options come before all others."""
        start = self._sshd.start
        set_there = (re.split(r"[\s=]", line, maxsplit=1)[0].lower() for line in start.lines)
        if keyword.lower() not in set_there:
            return self.config
        # In a file with the unit's variables, the keyword stands as it is in the options.
        named = keyword.lower().encode()
        return next((file for file in start.files[1:] if named in self._content(file)), start.files[0])

    def _content(self, file: str) -> bytes:
        return (self._sshd.tree.read(file, limit=LIMIT) or b"").lower()

    def finding(self, keyword: str, reason: str, remedy: str) -> Finding:
        """A finding about the setting, with the first line that sets it, for a person to look at."""
        place = self.place_of(keyword)
        path, _, line = ((place == self.config and self.where(keyword)) or "").rpartition(":")
        return Finding(path or place, reason, remedy, int(line) if path else None)

    @property
    def config(self) -> str:
        """The main file."""
        return self._sshd.config or CONFIG

    @property
    def is_there(self) -> bool:
        """Whether OpenSSH's server is in the image at all."""
        return bool(sshd_tree.program(self._sshd.tree) or self._sshd.config)

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """The files that the configuration consists of."""
        return self._sshd.files

    @cached_property
    def clients(self) -> tuple[str, ...]:
        """The clients to ask about."""
        return self._all_clients[:MOST_CLIENTS]

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Why not all is known, where there are more clients than are asked about."""
        more = len(self._all_clients) - MOST_CLIENTS
        if more <= 0:
            return ()
        detail = (
            f"Match blocks name more clients than the {MOST_CLIENTS} that sshd is asked about: {more} more"
        )
        return (Doubt(self.config, Refusal(image_reasons.NOT_LOOKED_AT, detail)),)

    @cached_property
    def _all_clients(self) -> tuple[str, ...]:
        return sshd_tree.connections(self.files.values())

    def answers(self, user: str) -> list[Answer]:
        """What sshd does when `user` comes, for each client. Raises FirstkeyError if it cannot be asked."""
        return [Answer(client, self._effective(user, client)) for client in self.clients]

    def effective(self, user: str) -> Effective:
        """What sshd does when `user` comes from anywhere. Raises FirstkeyError where it cannot be asked."""
        return self._effective(user, self.clients[0])

    def logins(self, names: Iterable[str]) -> Iterator[tuple[str, Effective]]:
        """What sshd does for root and each user, with whom that is for: everybody, without a Match block."""
        if not sshd_config.has_blocks(self.files.values()):
            yield "everybody", self.effective("root")
            return
        for name in dict.fromkeys(("root", *names)):
            yield from ((f"{name}, for one", answer.effective) for answer in self.answers(name))

    @property
    def uses_pam(self) -> bool:
        """Whether sshd leaves it to PAM who may log in; where it cannot be asked, what is written counts."""
        try:
            return not self.is_there or restrictions.use_pam(self.effective("root"))
        except FirstkeyError:
            return "yes" in self.written("UsePAM")

    def written(self, keyword: str) -> list[str]:
        """Every value that any line gives the keyword, whether it has an effect or not."""
        return [value for line in self._lines if line.keyword == keyword.lower() for value in line.words]

    @cached_property
    def _lines(self) -> list[Line]:
        return [line for content in self.files.values() for _, line in sshd_config.lines(content)]

    def _effective(self, user: str, client: str) -> Effective:
        meaning = self._sshd.meaning(user, client)
        if not meaning.refusal:
            return meaning.effective
        reason, detail, hint = meaning.refusal.reason, meaning.refusal.detail, None
        if self._sshd.start.unknown:
            reason = image_reasons.NOT_LOOKED_AT
        elif reason is reasons.SSHD_MISSING and self._sshd.files:
            hint = (
                "Install openssh-server on this host: its sshd is asked what the image's configuration means."
            )
        raise FirstkeyError(detail, reason=reason, hint=hint)
