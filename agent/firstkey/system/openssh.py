"""Asking OpenSSH's own programs: what sshd's configuration means, whether a key is good, and for new keys."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal
from firstkey.ssh import sshd_config
from firstkey.ssh.digest import sha256
from firstkey.system import command, outside, scratch, sshd_files
from firstkey.system.sshd_files import CONFIG
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from firstkey.ssh.sshd_config import Effective

KINDS = ("rsa", "ecdsa", "ed25519")
"""The types of host keys that every OpenSSH of today has; a newer one may have more."""
DEFAULT_RSA_BITS = 3072
SCRATCH_KIND = "ecdsa"
"""The host key without which `sshd -T` says nothing: every sshd takes it, in FIPS mode too."""
SECONDS = 10.0
"""How long sshd may take to tell: it takes milliseconds, unless a name service that Match asks hangs."""
ANY_CLIENT = "host=client.invalid,addr=192.0.2.1,laddr=192.0.2.2,lport=22"
"""The client that Match blocks are asked for: some address elsewhere (RFC 5737), which no block names."""

_NO_PRIVSEP_DIRECTORY = re.compile(
    rb"^Missing privilege separation directory: (/run/[A-Za-z0-9._-]+)\r?$", re.MULTILINE
)
"""Debian's sshd wants its directory to exist even for -T. Only a whole line of sshd's own is believed, and
only one that a boot clears: a configuration can have sshd print any words.
"""

_UNSAVED = re.compile(rb"^(Saving key|Unable to save) ", re.MULTILINE)
"""How ssh-keygen says that a key was made, but found no room or a broken disk."""

_LINE = re.compile(r"/.+? line \d+:? (?!Deprecated option|Unsupported option)")
"""How sshd begins what it says of one line of a file, unless that is a mere warning (servconf.c)."""

_MATCH = rb"""(?im)^[ \t]*["']?match"""
"""A line that may begin a Match block."""


_STAND_IN: list[bytes] = []


class Meaning(NamedTuple):
    """What sshd's configuration means, and why it is only the default if it could not be asked."""

    effective: Effective
    refusal: Refusal | None


class Sshd:
    """The tree's sshd configuration, as the host's sshd understands it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._known: dict[tuple[object, str], Meaning] = {}
        self._matches: bool | None = None
        self._copy: sshd_files.Copy | None = None

    def meaning(self, user: str, client: str = ANY_CLIENT) -> Meaning:
        """The effective configuration when `user` logs in from `client` (sshd -T -C); sshd is asked once.

        Without a Match block it is the same for all, so that then one answer serves them all.
        """
        login = (self._alike(user), client) if self._has_match() else ("", "")
        if login not in self._known:
            self._known[login] = self._meaning(user, client)
        return self._known[login]

    def _alike(self, user: str) -> object:
        """What is the same for users whom no Match block tells apart: a tree may have thousands."""
        from firstkey.ssh import sshd_match  # a boot works on the running system

        if self._tree.is_running_system:
            return user  # whose groups only sshd knows for sure
        try:
            contents = self._copied().contents
        except FirstkeyError:
            return user
        return sshd_match.alike(contents.values(), user)

    def _copied(self) -> sshd_files.Copy:
        from firstkey.system import inspector  # as above

        self._copy = self._copy or sshd_files.copy(self._tree, inspector.HERE)
        return self._copy

    def _has_match(self) -> bool:
        if self._matches is None:
            try:
                texts = self.files().values()
                self._matches = any(re.search(_MATCH, text) for text in texts)
            except FirstkeyError:
                self._matches = True
        return self._matches

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
        return sshd_files.collect(self._tree)

    def digest(self) -> str | None:
        """One of the whole configuration, byte for byte; None where it cannot be read."""
        try:
            files = self.files()
        except FirstkeyError:
            return None
        whole = sha256()
        for path, content in files.items():
            whole.update(f"{path}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
            whole.update(content)
        digest: str = whole.hexdigest()
        return digest

    def _ask(self, program: str, user: str, client: str) -> Effective:
        if not self._tree.is_running_system:
            return self._ask_about_copies(program, user, client)
        with scratch.directory() as directory:
            host_key = generate(SCRATCH_KIND, f"{directory.on_host}/host_key", comment="")
            outcome = _asked([program, "-T", "-h", host_key, "-C", f"user={user},{client}"])
            return _understood(outcome, {host_key: None}, {f"{directory.on_host}/": ""})

    def _ask_about_copies(self, program: str, user: str, client: str) -> Effective:
        """Ask about a tree: this machine's sshd gets copies, and a box around it."""
        from firstkey.system import inspector  # as above

        copy = self._copied()
        files = {**copy.contents, "host_key": stand_in_key()}
        host_key = f"{inspector.HERE}/host_key"
        argv = [program, "-T", "-h", host_key, "-C", f"user={user},{client}", "-f", copy.main]
        outcome = inspector.run(argv, files=files)
        names = {**copy.files, f"{inspector.HERE}/": ""}
        return _understood(outcome, {host_key: None, **copy.host_keys}, names)


def _understood(
    outcome: command.Outcome, stand_ins: Mapping[str, str | None], files: Mapping[str, str]
) -> Effective:
    """What sshd says. Raises FirstkeyError where it says that the configuration is wrong."""
    if outcome.status:
        raise FirstkeyError(_complaint(outcome, files), reason=reasons.SSHD_CONFIG_INVALID)
    effective = sshd_config.parse(outcome.stdout.decode("utf-8", "surrogateescape"))
    return _with_own_host_keys(effective, stand_ins)


def stand_in_key() -> bytes:
    """A private key of SCRATCH_KIND that nobody uses, made once in a process: sshd -T wants to see one."""
    if not _STAND_IN:
        if outside.ask:
            _STAND_IN.append(str(outside.ask("stand-in-key")).encode("ascii"))
        else:
            with scratch.directory() as directory:
                generate(SCRATCH_KIND, f"{directory.on_host}/key", comment="")
                file = directory.read("key", limit=65536)
                _STAND_IN.append(file.content if file else b"")
    return _STAND_IN[0]


def _complaint(outcome: command.Outcome, files: Mapping[str, str]) -> str:
    """What is wrong with the configuration: the first thing that sshd says of a line of it, for its last
    words only count such lines. `files`: the copies that it was given, and what they are copies of.
    """
    said = (line.strip() for line in outcome.stderr.decode("utf-8", "replace").split("\n"))
    words = next(filter(_LINE.match, said), outcome.words)[:300]
    for copy, path in files.items():
        words = words.replace(copy, path)
    return f"sshd rejects its configuration: {words}"


def _asked(argv: list[str]) -> command.Outcome:
    outcome = command.run(argv, seconds=SECONDS)
    missing = _NO_PRIVSEP_DIRECTORY.search(outcome.stderr)
    if outcome.status and missing:
        with Tree("/") as host:
            host.ensure(missing.group(1).decode(), mode=0o755).__exit__()
        outcome = command.run(argv, seconds=SECONDS)
    return outcome


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


def start_generating(
    kind: str, path: str, *, comment: str, bits: int = 0, before: Callable[[], None] | None = None
) -> command.Process:
    """Start making a key pair of that type, and do not wait for it.

    It has ssh-keygen's default size, or more where `bits` asks for more. `before`: as in command.start.
    """
    size = ["-b", str(bits)] if bits > DEFAULT_RSA_BITS else []
    argv = [_keygen(), "-q", "-t", kind, *size, "-N", "", "-C", comment, "-f", path]
    return command.start(argv, before=before)


def generate_defaults(directory: str) -> None:
    """Make the host keys that this OpenSSH has by default, as far as `directory`/etc/ssh lacks them."""
    _check_alive(command.run([_keygen(), "-A", "-f", directory]))


def _keygen() -> str:
    program = command.find("ssh-keygen")
    if program is None:
        raise FirstkeyError("ssh-keygen is not installed", reason=reasons.KEYGEN_MISSING)
    return program


def check_generated(kind: str, outcome: command.Outcome) -> None:
    """Raise FirstkeyError where ssh-keygen did not make the key: it may not, or could not save it."""
    _check_alive(outcome)
    if outcome.status:
        message = f"ssh-keygen makes no {kind} key: {outcome.words}"
        is_unsaved = _UNSAVED.search(outcome.stderr)
        raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED if is_unsaved else reasons.KEYGEN_REFUSED)


def public_half(private: bytes) -> bytes | None:
    """The public key line of an unencrypted private key, by ssh-keygen; None where it cannot load it.

    A ssh-keygen that is killed says nothing about the key: that is an error.
    """
    outcome = command.run([_keygen(), "-y", "-P", "", "-f", "/dev/stdin"], stdin=private)
    _check_alive(outcome)
    return outcome.stdout.strip() if outcome.status == 0 else None


def knows(public: bytes) -> bool:
    """Whether ssh-keygen knows the type of that public key."""
    outcome = command.run([_keygen(), "-l", "-f", "/dev/stdin"], stdin=public)
    _check_alive(outcome)
    return outcome.status == 0


def _check_alive(outcome: command.Outcome) -> None:
    if outcome.status < 0:
        message = f"ssh-keygen was ended by signal {-outcome.status}"
        raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED)


def loads(path: str) -> bool:
    """Whether OpenSSH takes the private key file (a host path) as it stands, its mode and owner included."""
    return command.run([_keygen(), "-y", "-P", "", "-f", path]).status == 0


def is_root() -> bool:
    """Whether this process may give files to others."""
    return os.geteuid() == 0


def is_encrypted(private: bytes) -> bool:
    """Whether the private key wants a passphrase: ssh-keygen then says so, and not that it is invalid."""
    outcome = command.run([_keygen(), "-y", "-P", "", "-f", "/dev/stdin"], stdin=private)
    return b"incorrect passphrase" in outcome.stderr


def _with_own_host_keys(effective: Effective, stand_ins: Mapping[str, str | None]) -> Effective:
    """What sshd would say without -h and in the tree: the key named there comes first, and keeps the
    defaults away; None stands for it.
    """
    said = [stand_ins.get(path, path) for path in effective.host_keys]
    settings = dict(effective.settings)
    settings["hostkey"] = tuple(path for path in said if path) or sshd_config.DEFAULTS.host_keys
    return effective._replace(settings=settings)
