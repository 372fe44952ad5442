"""Asking OpenSSH's own programs: what sshd's configuration means, whether a key is good, and for new keys."""

from __future__ import annotations

import os
import re
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.reasons import Refusal
from firstkey.ssh import sshd_config
from firstkey.system import command
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.ssh.sshd_config import Effective

CONFIG = "/etc/ssh/sshd_config"
CONFIG_LIMIT = 1024 * 1024
INCLUDE_DEPTH = 16
"""sshd's own limit of nested Include (servconf.c: SERVCONF_MAX_DEPTH)."""
INCLUDE_FILES = 512
ANY_CLIENT = "host=client.invalid,addr=192.0.2.1,laddr=192.0.2.2,lport=22"
"""The client that Match blocks are asked for: some address elsewhere (RFC 5737), which no block names."""

_INCLUDE = re.compile(rb"\s*include(?:\s*=\s*|\s+)(.*)", re.IGNORECASE)
_NO_PRIVSEP_DIRECTORY = re.compile(rb"Missing privilege separation directory: (/\S+)")


class Meaning(NamedTuple):
    """What sshd's configuration means, and why it is only the default if it could not be asked."""

    effective: Effective
    refusal: Refusal | None


class Sshd:
    """The tree's sshd configuration, as the host's sshd understands it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._known: dict[tuple[str, str], Meaning] = {}

    def meaning(self, user: str, client: str = ANY_CLIENT) -> Meaning:
        """The effective configuration when `user` logs in from `client` (sshd -T -C); sshd is asked once."""
        if (user, client) not in self._known:
            self._known[user, client] = self._meaning(user, client)
        return self._known[user, client]

    def _meaning(self, user: str, client: str) -> Meaning:
        program = command.find("sshd")
        if program is None:
            return Meaning(sshd_config.DEFAULTS, Refusal(reasons.SSHD_MISSING, "sshd is not installed"))
        if not self._tree.exists(CONFIG):
            detail = f"{CONFIG} does not exist; OpenSSH's defaults are assumed"
            return Meaning(sshd_config.DEFAULTS, Refusal(reasons.SSHD_MISSING, detail))
        try:
            return Meaning(self._ask(program, user, client), None)
        except FirstkeyError as error:
            return Meaning(sshd_config.DEFAULTS, error.refusal)

    def files(self) -> dict[str, bytes]:
        """Every file that the configuration consists of, Include followed inside the tree, by path."""
        found: dict[str, bytes] = {}
        self._collect(CONFIG, found, 0)
        return found

    def _collect(self, path: str, found: dict[str, bytes], depth: int) -> None:
        if path in found or depth > INCLUDE_DEPTH or len(found) >= INCLUDE_FILES:
            return
        content = self._tree.read(path, limit=CONFIG_LIMIT)
        if content is None:
            return
        found[path] = content
        for line in content.splitlines():
            match = _INCLUDE.fullmatch(line)
            for pattern in _patterns(match.group(1)) if match else ():
                for inner in self._glob(pattern):
                    self._collect(inner, found, depth + 1)

    def _glob(self, pattern: str) -> list[str]:
        """glob(7) inside the tree: the paths that match, sorted, as sshd reads them."""
        import fnmatch

        paths = [""]
        for part in [part for part in pattern.split("/") if part]:
            if any(character in part for character in "*?["):
                paths = [
                    f"{path}/{name}"
                    for path in paths
                    for name in self._tree.names(path or "/")
                    if fnmatch.fnmatchcase(name, part) and (part[0] == "." or name[0] != ".")
                ]
            else:
                paths = [f"{path}/{part}" for path in paths]
        return paths

    def _ask(self, program: str, user: str, client: str) -> Effective:
        with _scratch() as directory:
            host_key = generate("ed25519", f"{directory}/host_key", comment="")
            argv = [program, "-T", "-h", host_key, "-C", f"user={user},{client}"]
            if not self._tree.is_running_system:
                argv += ["-f", self._copy(directory)]
            outcome = command.run(argv)
            missing = _NO_PRIVSEP_DIRECTORY.search(outcome.stderr)
            if outcome.status and missing:
                Tree("/").ensure(missing.group(1).decode(), mode=0o755).__exit__()
                outcome = command.run(argv)
            if outcome.status:
                message = f"sshd rejects {CONFIG}: {outcome.words}"
                raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
            return _without_host_key(sshd_config.parse(outcome.stdout.decode("utf-8", "replace")), host_key)

    def _copy(self, directory: str) -> str:
        """A copy of the tree's configuration whose Include lines lead to copies: none leads to the host."""
        files = self.files()
        names = {path: f"{directory}/{number}.conf" for number, path in enumerate(files)}
        for path, content in files.items():
            lines = [self._redirected(line, names) for line in content.splitlines()]
            with open(names[path], "wb") as copy:
                copy.write(b"\n".join(lines) + b"\n")
        return names[CONFIG]

    def _redirected(self, line: bytes, names: dict[str, str]) -> bytes:
        match = _INCLUDE.fullmatch(line)
        if not match:
            return line
        inner = [path for pattern in _patterns(match.group(1)) for path in self._glob(pattern)]
        copies = [names[path] for path in inner if path in names]
        return f"Include {' '.join(copies)}".encode() if copies else b""


def generate(kind: str, path: str, *, comment: str) -> str:
    """Make a key pair of that type at `path` (a host path in a private directory); returns the path."""
    with starting_to_generate(kind, path, comment=comment) as process:
        check_generated(kind, process.finish())
    return path


@contextmanager
def starting_to_generate(kind: str, path: str, *, comment: str) -> Iterator[command.Process]:
    """Start making a key pair, and end the program on the way out if it still runs."""
    process = start_generating(kind, path, comment=comment)
    try:
        yield process
    finally:
        process.kill()


def start_generating(kind: str, path: str, *, comment: str) -> command.Process:
    """Start making a key pair of that type, in ssh-keygen's default size, and do not wait for it."""
    program = command.find("ssh-keygen")
    if program is None:
        raise FirstkeyError("ssh-keygen is not installed", reason=reasons.KEYGEN_MISSING)
    return command.start([program, "-q", "-t", kind, "-N", "", "-C", comment, "-f", path])


def check_generated(kind: str, outcome: command.Outcome) -> None:
    """Raise FirstkeyError where ssh-keygen did not make the key."""
    _check_alive(outcome)
    if outcome.status:
        message = f"ssh-keygen makes no {kind} key: {outcome.words}"
        raise FirstkeyError(message, reason=reasons.KEYGEN_REFUSED)


def public_half(private: bytes) -> bytes | None:
    """The public key line of an unencrypted private key, by ssh-keygen; None where it cannot load it.

    A ssh-keygen that is killed says nothing about the key: that is an error.
    """
    program = command.find("ssh-keygen")
    if program is None:
        raise FirstkeyError("ssh-keygen is not installed", reason=reasons.KEYGEN_MISSING)
    outcome = command.run([program, "-y", "-P", "", "-f", "/dev/stdin"], stdin=private)
    _check_alive(outcome)
    return outcome.stdout.strip() if outcome.status == 0 else None


def _check_alive(outcome: command.Outcome) -> None:
    if outcome.status < 0:
        message = f"ssh-keygen was ended by signal {-outcome.status}"
        raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED)


def loads(path: str) -> bool:
    """Whether OpenSSH takes the private key file (a host path) as it stands, its mode and owner included."""
    program = command.find("ssh-keygen")
    return program is not None and command.run([program, "-y", "-P", "", "-f", path]).status == 0


def is_root() -> bool:
    """Whether this process may give files to others."""
    return os.geteuid() == 0


def is_encrypted(private: bytes) -> bool:
    """Whether the private key wants a passphrase: ssh-keygen then says so, and not that it is invalid."""
    program = command.find("ssh-keygen")
    if program is None:
        return False
    outcome = command.run([program, "-y", "-P", "", "-f", "/dev/stdin"], stdin=private)
    return b"incorrect passphrase" in outcome.stderr


def _patterns(words: bytes) -> list[str]:
    """The patterns of an Include line: quoted or bare, relative ones below /etc/ssh (sshd_config(5))."""
    bare = re.findall(r'"([^"]*)"|([^\s"#]+)', words.decode("utf-8", "surrogateescape"))
    found = [quoted or plain for quoted, plain in bare]
    return [word if word.startswith("/") else f"/etc/ssh/{word}" for word in found if word]


def _without_host_key(effective: Effective, added: str) -> Effective:
    """What sshd would say without -h: the key named there comes first, and keeps the defaults away."""
    own = tuple(path for path in effective.settings.get("hostkey", ()) if path != added)
    settings = dict(effective.settings)
    settings["hostkey"] = own or sshd_config.DEFAULTS.host_keys
    return effective._replace(settings=settings)


@contextmanager
def _scratch() -> Iterator[str]:
    """A private directory of the host for one question, gone afterwards."""
    base = next(
        (path for path in ("/run/firstkey", "/run", "/tmp") if os.access(path, os.W_OK) and _safe(path)),  # noqa: S108
        "/tmp",  # noqa: S108 - mkdir with a random name and 0700 is safe there
    )
    path = f"{base}/firstkey-{os.urandom(8).hex()}"
    os.mkdir(path, 0o700)
    try:
        yield path
    finally:
        for name in os.listdir(path):
            os.unlink(f"{path}/{name}")
        os.rmdir(path)


def _safe(path: str) -> bool:
    found = os.stat(path)
    return found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode)
