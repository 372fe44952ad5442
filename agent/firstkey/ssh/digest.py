"""SHA-256, as fingerprints have it."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any


def sha256(data: bytes = b"") -> Any:  # noqa: ANN401 - the hash object has no public type
    """As hashlib.sha256, without loading OpenSSL, which takes longer than all there is to hash.

    These are CPython's own modules beneath hashlib, which not every distribution has.
    """
    for name in ("_sha2", "_sha256"):  # since Python 3.12, and before
        with suppress(ImportError):
            return import_module(name).sha256(data)
    from hashlib import sha256 as by_openssl

    return by_openssl(data)
