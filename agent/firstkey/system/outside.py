"""What a process in the box has done for it by the one who watches it: asked for by name, with plain values.

The doors (programs, name services, the metadata service) ask here in a box, and else act themselves.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ask: Callable[..., Any] | None = None
"""Asks a question by its name, and returns the answer or raises FirstkeyError; None where there is no box."""


def run(argv: Sequence[str], files: Mapping[str, bytes], stdin: bytes) -> tuple[int, bytes, bytes]:
    """Have a program run that may look for a boxed process: exit status, standard output, standard error."""
    if ask is None:
        raise RuntimeError("there is no box")
    copies = {name: packed(content) for name, content in files.items()}
    status, stdout, stderr = ask("program", list(argv), copies, packed(stdin))
    return int(status), base64.b64decode(stdout), base64.b64decode(stderr)


def packed(content: bytes) -> str:
    """The bytes as JSON can carry them."""
    return base64.b64encode(content).decode("ascii")
