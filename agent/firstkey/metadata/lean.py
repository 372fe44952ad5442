"""Loading `requests` without what it brings along for work that nobody here gives it.

It guesses character sets, encodes international names, speaks TLS and inflates: that is a third of its
modules and of the time that loading it takes, at every boot. The metadata service is at a literal address,
speaks plain HTTP, and its answers are taken as bytes. So while `requests` is loaded, those modules are
absent, or where it insists on one, a stand-in has the name; afterwards whoever imports them gets the real
ones.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ABSENT = (
    "ssl", "_hashlib", "OpenSSL", "cryptography", "charset_normalizer", "simplejson",
    "bz2", "lzma", "brotli", "brotlicffi", "zstandard",
)  # fmt: skip
"""Python itself can be built without the standard ones, so `requests` and what it uses do without them; the
others are optional for it. `_hashlib` is OpenSSL's part of hashlib, which has its own digests without it.
"""
STAND_INS = ("idna", "chardet", "certifi")
"""Those that must be there. `requests` looks at a version, and asks certifi where the certificates are."""


@contextmanager
def lean() -> Iterator[None]:
    """Hide them, unless `requests` is loaded already; what is loaded stays as it is."""
    if "requests" in sys.modules:
        yield
        return
    hidden = {name: _stand_in(name) if name in STAND_INS else None for name in (*ABSENT, *STAND_INS)}
    hidden = {name: module for name, module in hidden.items() if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type] # None: it cannot be imported (reference, 5.3.1)
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def _stand_in(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(__version__="4.0.0", where=str)
    return module
