"""Launch keys: which the metadata service offers, and the lines that they become."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.errors import FirstkeyError
from firstkey.model import KeyResult
from firstkey.named_tuple import NamedTuple
from firstkey.ssh import public_key
from firstkey.ssh.authorized_keys import Line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.metadata.client import OfferedKey
    from firstkey.reasons import Refusal
    from firstkey.ssh.public_key import PublicKey


class Offer(NamedTuple):
    """The keys that the service offers, good and bad."""

    keys: tuple[PublicKey, ...]
    results: tuple[KeyResult, ...]


def judge(offered: Sequence[OfferedKey]) -> Offer:
    """Take each offered key that OpenSSH would take; the others are results with their reason."""
    keys: list[PublicKey] = []
    results = []
    for offer in offered:
        key, refusal = _parsed(offer)
        if key:
            keys.append(key)
        results.append(
            KeyResult(
                offer.number, offer.name, key.type if key else None, key.fingerprint if key else None, refusal
            )
        )
    return Offer(tuple(keys), tuple(results))


def _parsed(offer: OfferedKey) -> tuple[PublicKey | None, Refusal | None]:
    if offer.refusal:
        return None, offer.refusal
    try:
        return public_key.parse_launch_key(offer.text), None
    except FirstkeyError as error:
        return None, error.refusal


def lines(keys: Sequence[PublicKey], *, redirect_to: str | None = None) -> tuple[Line, ...]:
    """The lines for a user: the keys as they are, or for a redirected root ones that tell where to go."""
    options = redirection(redirect_to) if redirect_to else ""
    return tuple(Line(key, options) for key in keys)


def redirection(user: str) -> str:
    """Options that let root's login say which user to take instead, and nothing else (sshd(8))."""
    words = f'Please login as the user \\"{user}\\" rather than the user \\"root\\".'
    shell = f"echo '{words}';echo;sleep 10;exit 142"
    return f'no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="{shell}"'
