"""The metadata client of a boxed process, which has no network: it asks outside, where the real one is.

Used by a dry run on a tree alone: no boot comes here.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from typing import Any

from firstkey import image_reasons, reasons
from firstkey.config import Imds
from firstkey.events import Entry
from firstkey.metadata.client import Client as RealClient
from firstkey.model import Answer, OfferedKey
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.settings import endpoint

MOST_SECONDS = 180.0
"""How long a boxed process may have the service asked: less than boxed.SECONDS, which would end it."""


class Client:
    """Asks as metadata.client.Client does, by a question to the outside."""

    identity: Answer | None = None

    def __init__(self, settings: Imds, ask: Callable[..., Any]) -> None:
        self._settings = settings
        self._ask = ask

    def ask(self, *, deadline: float | None) -> Answer:
        """The answer. Raises what the real client raised."""
        seconds = max(0.0, (deadline or 0.0) - time.monotonic())
        instance_id, url, version, fallback, keys = self._ask("imds", list(self._settings), seconds)
        reason = reasons.ALL.get(str(fallback))
        return Answer(str(instance_id), str(url), int(version), reason, tuple(_key(*key) for key in keys))


def answer(
    settings: list[Any], seconds: float, log: Callable[[Entry], None], named: Sequence[str]
) -> list[Any]:
    """The question `imds` of a boxed process: what the metadata service at these endpoints says.

    Only those are asked that this machine itself `named`: a tree may name any that root here can reach.
    """
    endpoints, version, ttl, timeout, boot = settings
    urls = tuple(endpoint(str(url)) for url in endpoints)
    for url in urls:
        if url not in named:
            message = f"the tree's configuration names {url}, which was not asked"
            raise FirstkeyError(message, reason=image_reasons.ENDPOINT_OF_TREE)
    wanted = Imds(urls, str(version), int(ttl), float(timeout), float(boot))
    said = RealClient(wanted, log=log).ask(deadline=time.monotonic() + min(float(seconds), MOST_SECONDS))
    keys = [
        (number, name, base64.b64encode(text).decode("ascii"), [why.reason.code, why.detail] if why else None)
        for number, name, text, why, *_ in said.keys
    ]
    return [*said[:3], said.fallback_reason.code if said.fallback_reason else None, keys]


def _key(number: object, name: object, text: str, why: list[str] | None) -> OfferedKey:
    refusal = Refusal(reasons.ALL.get(why[0], reasons.INTERNAL_ERROR), str(why[1])) if why else None
    return OfferedKey(str(number), str(name), base64.b64decode(text), refusal)
