"""What the image's sshd would do: asked of the host's sshd, for every client that a Match block speaks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from firstkey import image_reasons, reasons
from firstkey.errors import FirstkeyError
from firstkey.image import sshd_start
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal
from firstkey.ssh import sshd_match
from firstkey.ssh.sshd_config import DEFAULTS
from firstkey.system.openssh import Sshd
from firstkey.system.sshd_files import CONFIG

if TYPE_CHECKING:
    from firstkey.image.sshd_start import Start
    from firstkey.ssh.sshd_config import Effective
    from firstkey.system.openssh import Meaning
    from firstkey.system.tree import Tree

PROGRAMS = ("/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd")
MOST_CLIENTS = 64
"""Of how many clients sshd is asked at most; each takes some hundredths of a second."""


class Answer(NamedTuple):
    """What sshd does for one client."""

    client: str
    effective: Effective


class Settings:
    """sshd's configuration in a tree, or as it would be with some files replaced."""

    def __init__(self, tree: Tree, replaced: Mapping[str, bytes] | None = None) -> None:
        self._tree = tree
        self._replaced = dict(replaced or {})
        self._sshd = Sshd(_View(tree, self._replaced, self.start.lines))  # type: ignore[arg-type]
        self._answers: dict[tuple[str, str], Meaning] = {}

    @cached_property
    def start(self) -> Start:
        """The options that it is started with."""
        return sshd_start.start(self._tree)

    def place_of(self, keyword: str) -> str:
        """The file to change so that the setting changes: the options come before all others."""
        return self.start.place if self.start.sets(keyword) else CONFIG

    @property
    def is_there(self) -> bool:
        """Whether OpenSSH's server is in the image at all."""
        return any(self._tree.exists(path) for path in (*PROGRAMS, CONFIG))

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """The files that the configuration consists of; sshd does without any."""
        return self._sshd.files()

    @cached_property
    def clients(self) -> tuple[str, ...]:
        """The clients to ask about."""
        return self._all_clients[:MOST_CLIENTS]

    @property
    def unasked(self) -> Refusal | None:
        """Why not all is known, where there are more clients than are asked about."""
        more = len(self._all_clients) - MOST_CLIENTS
        if more <= 0:
            return None
        detail = (
            f"Match blocks name more clients than the {MOST_CLIENTS} that sshd is asked about: {more} more"
        )
        return Refusal(image_reasons.NOT_LOOKED_AT, detail)

    @cached_property
    def _all_clients(self) -> tuple[str, ...]:
        return sshd_match.clients(self.files.values())

    @cached_property
    def has_blocks(self) -> bool:
        """Whether what it does depends on who comes."""
        return sshd_match.has_blocks(self.files.values())

    def answers(self, user: str) -> list[Answer]:
        """What sshd does when `user` comes, for each client. Raises FirstkeyError if it cannot be asked."""
        return [Answer(client, self._effective(user, client)) for client in self.clients]

    def effective(self, user: str) -> Effective:
        """What sshd does when `user` comes from anywhere. Raises FirstkeyError where it cannot be asked."""
        return self._effective(user, self.clients[0])

    def guessed(self, user: str) -> Effective:
        """The same, but OpenSSH's defaults where sshd cannot be asked."""
        try:
            return self.effective(user)
        except FirstkeyError:
            return DEFAULTS

    @property
    def uses_pam(self) -> bool:
        """Whether sshd leaves it to PAM who may log in; where it cannot be asked, what is written counts."""
        try:
            return not self.is_there or self.effective("root").use_pam
        except FirstkeyError:
            return "yes" in self.written("UsePAM")

    def written(self, keyword: str) -> list[str]:
        """Every value that any line gives the keyword, whether it has an effect or not."""
        lines = (line for content in self.files.values() for line in sshd_match.settings(content))
        return [value for _, name, values in lines if name == keyword.lower() for value in values]

    def _effective(self, user: str, client: str) -> Effective:
        if self.start.refusal:
            raise FirstkeyError(self.start.refusal.detail, reason=self.start.refusal.reason)
        if CONFIG not in self.files:
            return DEFAULTS
        # Without a Match block every user and client gets the same answer.
        key = (user, client) if self.has_blocks else ("root", self.clients[0])
        if key not in self._answers:
            self._answers[key] = self._sshd.meaning(*key)
        meaning = self._answers[key]
        if meaning.refusal:
            raise FirstkeyError(
                meaning.refusal.detail, reason=meaning.refusal.reason, hint=_hint(meaning.refusal.reason)
            )
        return meaning.effective


def _hint(reason: reasons.Reason) -> str | None:
    if reason is reasons.SSHD_MISSING:
        return "Install openssh-server on this host: its sshd is asked what the image's configuration means."
    return None


class _View:
    """The tree as the configuration would see it: some files replaced, the options that sshd is started with
    put at the top of its main file.

    Never the running system itself: sshd then reads the copies, and nothing of the host's.
    """

    is_running_system = False

    def __init__(self, tree: Tree, replaced: Mapping[str, bytes], options: Sequence[str]) -> None:
        self._tree = tree
        self._replaced = replaced
        self._options = "".join(f"{line}\n" for line in options).encode("utf-8", "surrogateescape")

    def exists(self, path: str) -> bool:
        return path in self._replaced or bool(path == CONFIG and self._options) or self._tree.exists(path)

    def names(self, path: str) -> list[str]:
        inside = {name.rpartition("/")[2] for name in self._replaced if name.rpartition("/")[0] == path}
        return sorted(inside.union(self._tree.names(path)))

    def read(self, path: str, *, limit: int) -> bytes | None:
        content = self._replaced.get(path)
        if content is None:
            content = self._tree.read(path, limit=limit)
        return self._options + (content or b"") if path == CONFIG and self._options else content
