"""Asking this machine's sshd what it would do, without leaving a trace: no file, no directory, no key.

Where an old sshd answers only with a host key and a directory that are not there, it gets both in mounts of
its own, which end with it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.ssh import sshd_config
from firstkey.system import command
from firstkey.system.openssh import ANY_CLIENT, Meaning, Sshd
from firstkey.system.sshd_files import CONFIG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.ssh.patterns import Client
    from firstkey.system.tree import Tree

_NOT_THE_CONFIGURATION = re.compile(rb"no hostkeys available|Missing privilege separation directory")
_ELSEWHERE = re.compile(r"(?i)\s*match\s.*\b(?:address|host|localaddress|localport|rdomain)\b")
_LINE = re.compile(r"(?<!\S)(/\S+?):? line (\d+)")
_STAND_IN = r"""
set -e
run=/tmp/run
mount --make-rprivate /
mount -t tmpfs -o mode=0700 firstkey /tmp
ssh-keygen -q -t ed25519 -N '' -f /tmp/firstkey-stand-in
if [ ! -d /run/sshd ]; then
    mkdir "$run"
    mount --bind /run "$run"
    mount -t tmpfs -o mode=0755 firstkey /run
    for place in "$run"/*/; do
        place=${place%/}
        [ -d "$place" ] || continue
        mkdir -p "/run/${place##*/}"
        mount --bind "$place" "/run/${place##*/}"
    done
    mkdir -p -m 0755 /run/sshd
fi
exec "$@" -h /tmp/firstkey-stand-in
"""
STAND_IN_KEY = "/tmp/firstkey-stand-in"  # noqa: S108 - in mounts that nobody else sees


class Trial(NamedTuple):
    """Whether sshd would start with its files as they are (sshd -t), and what it says about them."""

    starts: bool
    words: tuple[str, ...]

    def says(self, text: str) -> bool:
        """Whether it says anything with that text in it."""
        return any(text in line for line in self.words)

    @property
    def place(self) -> str | None:
        """The file and line that it names, as FILE:LINE."""
        found = next(filter(None, map(_LINE.search, self.words)), None)
        return f"{found[1]}:{found[2]}" if found else None


def trial(program: str) -> Trial:
    """Ask sshd whether it would start."""
    outcome = command.run([program, "-t"])
    said = (outcome.stderr + outcome.stdout).decode("utf-8", "replace").split("\n")
    return Trial(outcome.status == 0, tuple(line.strip() for line in said if line.strip()))


def meaning(tree: Tree, user: str, client: Client | None) -> Meaning:
    """What the configuration means for a login of `user` from there, and why only the default where so."""
    program = command.find("sshd")
    connection = (
        f"host={client.name},addr={client.address},laddr=192.0.2.2,lport=22" if client else ANY_CLIENT
    )
    if program is None or not tree.is_running_system or not tree.exists(CONFIG):
        return Sshd(tree).meaning(user, connection)
    try:
        outcome = _asked(program, ["-C", f"user={user},{connection}"])
    except FirstkeyError as error:
        return Meaning(sshd_config.DEFAULTS, error.refusal)
    if outcome is None:
        return Sshd(tree).meaning(user, connection)
    if outcome.status:
        refusal = reasons.Refusal(reasons.SSHD_CONFIG_INVALID, f"sshd rejects {CONFIG}: {outcome.words}")
        return Meaning(sshd_config.DEFAULTS, refusal)
    return Meaning(_without_stand_in(outcome.stdout.decode("utf-8", "replace")), None)


def _asked(program: str, what: Sequence[str]) -> command.Outcome | None:
    """The first useful answer: to -T, to -G (OpenSSH 9.3: needs no host key), to -T with a stand-in."""
    outcome = command.run([program, "-T", *what])
    if outcome.status == 0 or not _NOT_THE_CONFIGURATION.search(outcome.stderr):
        return outcome
    outcome = command.run([program, "-G", *what])
    if outcome.status == 0:
        return outcome
    if os.geteuid() != 0:
        return None
    unshare = command.find("unshare")
    if unshare is None:
        raise FirstkeyError("sshd cannot be asked without unshare", reason=reasons.DEPENDENCY_MISSING)
    return command.run([unshare, "--mount", "sh", "-c", _STAND_IN, "sh", program, "-T", *what])


def _without_stand_in(text: str) -> sshd_config.Effective:
    effective = sshd_config.parse(text)
    own = tuple(path for path in effective.host_keys if path != STAND_IN_KEY)
    return effective._replace(
        settings={**effective.settings, "hostkey": own or sshd_config.DEFAULTS.host_keys}
    )


def depends_on_client(tree: Tree) -> bool:
    """Whether a Match block asks where the client comes from."""
    lines = [line for content in Sshd(tree).files().values() for line in _text(content).split("\n")]
    return any(map(_ELSEWHERE.match, lines))


def where(tree: Tree, keyword: str, word: str = "") -> str | None:
    """FILE:LINE of the first line with that keyword (and that word in it): for people, to go and mend it."""
    for path, content in Sshd(tree).files().items():
        for number, line in enumerate(_text(content).split("\n"), start=1):
            parts = line.replace("=", " ", 1).split()
            if parts and parts[0].lower() == keyword.lower() and (not word or word in parts[1:]):
                return f"{path}:{number}"
    return None


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")
