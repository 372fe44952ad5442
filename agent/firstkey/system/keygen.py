"""Asking ssh-keygen: whether a key is good, and for new keys."""

from __future__ import annotations

import os
import re

from firstkey import TYPE_CHECKING, reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import command

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("rsa", "ecdsa", "ed25519")
"""The types of host keys that every OpenSSH of today has; a newer one may have more."""
DEFAULT_RSA_BITS = 3072

_UNSAVED = re.compile(rb"^(Saving key|Unable to save) ", re.MULTILINE)
"""How ssh-keygen says that a key was made, but found no room or a broken disk."""


def start_generating(
    kind: str, path: str, *, comment: str, bits: int = 0, before: Callable[[], None] | None = None
) -> command.Process:
    """Start making a key pair of that type, and do not wait for it.

    It has ssh-keygen's default size, or more where `bits` asks for more. `before`: as in command.start.
    """
    size = ["-b", str(bits)] if bits > DEFAULT_RSA_BITS else []
    argv = [_keygen(), "-q", "-t", kind, *size, "-N", "", "-C", comment, "-f", path]
    return command.start(argv, before=before)


def check_generated(kind: str, outcome: command.Outcome) -> None:
    """Raise FirstkeyError where ssh-keygen did not make the key: it may not, or could not save it."""
    _check_alive(outcome)
    if outcome.status:
        message = f"ssh-keygen makes no {kind} key: {outcome.words}"
        is_unsaved = _UNSAVED.search(outcome.stderr)
        raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED if is_unsaved else reasons.KEYGEN_REFUSED)


def generate_defaults(directory: str) -> None:
    """Make the host keys that this OpenSSH has by default, as far as `directory`/etc/ssh lacks them."""
    _ask("-A", "-f", directory)


def public_half(private: bytes) -> bytes | None:
    """The public key line of an unencrypted private key; None where ssh-keygen cannot load it."""
    outcome = _ask("-y", "-P", "", "-f", "/dev/stdin", stdin=private)
    return outcome.stdout.strip() if outcome.status == 0 else None


def knows(public: bytes) -> bool:
    """Whether ssh-keygen knows the type of that public key."""
    return _ask("-l", "-f", "/dev/stdin", stdin=public).status == 0


def loads(path: str) -> bool:
    """Whether OpenSSH takes the private key file (a host path) as it stands, its mode and owner included."""
    return _ask("-y", "-P", "", "-f", path).status == 0


def is_encrypted(private: bytes) -> bool:
    """Whether the private key wants a passphrase: ssh-keygen then says so, and not that it is invalid."""
    return b"incorrect passphrase" in _ask("-y", "-P", "", "-f", "/dev/stdin", stdin=private).stderr


def is_root() -> bool:
    """Whether this process may give files to others."""
    return os.geteuid() == 0


def _ask(*words: str, stdin: bytes = b"") -> command.Outcome:
    """Raises FirstkeyError where it is missing or killed, which says nothing about a key."""
    outcome = command.run([_keygen(), *words], stdin=stdin)
    _check_alive(outcome)
    return outcome


def _keygen() -> str:
    program = command.find("ssh-keygen")
    if program is None:
        raise FirstkeyError("ssh-keygen is not installed", reason=reasons.KEYGEN_MISSING)
    return program


def _check_alive(outcome: command.Outcome) -> None:
    if outcome.status < 0:
        message = f"ssh-keygen was ended by signal {-outcome.status}"
        raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED)
