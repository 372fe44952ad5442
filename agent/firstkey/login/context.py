"""What a login is about: a user, the key, where the client comes from, and what sshd says."""

from __future__ import annotations

import os
import shlex
from contextlib import nullcontext

from firstkey import NamedTuple
from firstkey.boot.target import Target
from firstkey.login.finding import Finding, obstacle
from firstkey.login.storage import Storage
from firstkey.model import Account
from firstkey.reasons import Reason
from firstkey.ssh import restrictions
from firstkey.ssh.access import Client
from firstkey.ssh.public_key import PublicKey
from firstkey.ssh.sshd_config import Effective
from firstkey.system import sshd_tree
from firstkey.system.sshd import Sshd

UNITS = ("ssh", "sshd")
DISABLED = "s/^/#/"
"""What sed does to a line of sshd_config so that the default is in force again."""


class LaunchKey(NamedTuple):
    """A key that should let the user in; `key` is None where only its fingerprint is known."""

    fingerprint: str
    source: str
    key: PublicKey | None = None
    type: str | None = None
    file: str | None = None
    """Where it was named with --key: then it is no launch key, and firstkey will not install it."""

    @property
    def printed(self) -> str:
        """The command that prints a key that was named with --key."""
        if self.file == "-" and self.key:
            return f"echo {shlex.quote(self.key.line)}"
        return f"cat {shlex.quote(self.file or '')}"

    def __str__(self) -> str:
        return f"{self.fingerprint} ({self.type or 'of a type that is not known'}), says {self.source}"


class Context(NamedTuple):
    """What the checks are about. `now` is in seconds since the epoch; a `client` of None may be anywhere."""

    target: Target
    account: Account
    key: LaunchKey
    client: Client | None
    sshd: Sshd
    effective: Effective
    now: float

    @property
    def name(self) -> str:
        """The user's name."""
        return self.account.name

    def how_to_install(self, path: str, kept: Storage) -> str:
        """The command that puts the key into the file at `path`; none where there is no room for it.

        What lies in a home is written with its user's rights: its links lead where the user wants. In a tree,
        the key comes from the command's input: its file is one of this machine.
        """
        name = shlex.quote(self.name)
        if kept.is_full:
            return ""
        if not (self.key.file or kept.is_mount):
            return f"{kept.unlock}firstkey run --force --user {name}"
        directory, file = shlex.quote(path.rpartition("/")[0]), shlex.quote(path)
        inside = path.startswith(f"{self.account.home}/")
        append = f"umask {'077' if inside else '022'}; mkdir -p {directory}; (echo; cat) >> {file}"
        user = f"runuser -u {name} -- " if inside else ""
        put = f"{user}sh -c {shlex.quote(append)}"
        if not self.target.tree.is_running_system:
            return put
        source = self.key.printed if self.key.file else f"firstkey authorized-keys {name}"
        return f"{kept.unlock}{source} | {put}"

    @property
    def reload(self) -> str:
        """The command that has sshd read its configuration, if it is one that sshd takes; none in a tree."""
        if not self.target.tree.is_running_system:
            return ""
        return f"sshd -t && {how_to_reload(self.target, self.effective)}"

    def says(self, keyword: str) -> str:
        """The keyword's effective value, and "" for "none" or where sshd has no such keyword."""
        value = self.effective.first(keyword) or ""
        return "" if value.lower() == "none" else value

    def words(self, keyword: str) -> list[str]:
        """All words of the keyword, in order."""
        return restrictions.words(self.effective, keyword)

    def in_config(
        self, keyword: str, reason: Reason, detail: str, *, word: str = "", edit: str = "", check: str = ""
    ) -> Finding:
        """That a line of sshd's configuration is in the way (the one with that word), and which one it is.

        `edit` is what sed does to the line to remove the obstacle; without it, a person has to decide.
        """
        place = sshd_tree.where(self.sshd, keyword, word)
        if place is None:
            return obstacle(check or keyword, reason, detail)
        command = edit and " && ".join(
            filter(None, [f"sed -i '{place.number}{edit}' {shlex.quote(place.path)}", self.reload])
        )
        found = obstacle(check or keyword, reason, detail, path=str(place), command=command, line=place.line)
        return found if command else found._replace(remedy=reason.remedy.replace("sshd_config", str(place)))


def status(target: Target, path: str) -> os.stat_result | None:
    """The status of the file at `path`, root's links followed; None where it is missing."""
    place, above = target.tree.locate(path)
    with above or nullcontext() as directory:
        return directory.status(os.path.basename(place)) if directory else None


def how_to_reload(target: Target, effective: Effective) -> str:
    """The command that has a running sshd read its configuration again."""
    if target.tree.exists("/run/systemd/system"):
        return f"systemctl try-reload-or-restart {unit(target)}"
    return f"kill -HUP $(cat {shlex.quote(effective.first('pidfile') or '/run/sshd.pid')})"


def unit(target: Target) -> str:
    """The unit that starts sshd, without its suffix."""
    places = ("/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system")
    found = (name for name in UNITS for place in places if target.tree.exists(f"{place}/{name}.service"))
    return next(found, "sshd")
