"""What the rules' examples are made of, put together here: no audit shall take firstkey's code for a leak."""

from __future__ import annotations


def pem(kind: str, *lines: str) -> str:
    """A PEM block of that kind."""
    return "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""])


def access_key(prefix: str, rest: str) -> str:
    """A credential that starts with a word by which it is known."""
    return prefix + rest
