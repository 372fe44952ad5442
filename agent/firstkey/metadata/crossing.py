"""The metadata client of a boxed process, which has no network: it asks outside, where the real one is.

Used by a dry run on a tree alone: no boot comes here.
"""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any

from firstkey import reasons
from firstkey.metadata.answers import Answer, Identity, Settings
from firstkey.metadata.client import Client as RealClient
from firstkey.model import OfferedKey
from firstkey.reasons import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.metadata.answers import Tell


MOST_SECONDS = 600.0
"""How long a boxed process may have the service asked."""


class Client:
    """Asks as metadata.client.Client does, by a question to the outside."""

    identity: Identity | None = None

    def __init__(self, settings: Settings, ask: Callable[..., Any]) -> None:
        self._settings = settings
        self._ask = ask

    def ask(self, *, deadline: float | None, known: str | None = None) -> Answer:
        """The answer. Raises what the real client raised. A boxed process looks once, whatever is `known`."""
        del known
        seconds = max(0.0, (deadline or 0.0) - time.monotonic())
        said = self._ask("imds", self._settings._asdict(), seconds)
        return Answer(
            str(said["instance_id"]),
            str(said["endpoint"]),
            int(said["version"]),
            reasons.ALL.get(str(said["fallback_reason"])),
            tuple(_key(each) for each in said["keys"]),
        )

    def ask_once(self, *, deadline: float) -> Answer:
        """The same."""
        return self.ask(deadline=deadline)

    def close(self) -> None:
        """Nothing is open."""


def answer(settings: dict[str, Any], seconds: float, tell: Tell) -> dict[str, Any]:
    """The question `imds` of a boxed process: what the metadata service at these endpoints says."""
    from firstkey.settings import endpoint

    wanted = Settings(
        tuple(endpoint(str(url)) for url in settings["endpoints"]),
        str(settings["version"]),
        int(settings["token_ttl"]),
        float(settings["request_timeout"]),
    )
    client = RealClient(wanted, tell=tell)
    try:
        said = client.ask(deadline=time.monotonic() + min(float(seconds), MOST_SECONDS))
    finally:
        client.close()
    keys = [
        {
            "number": key.number,
            "name": key.name,
            "text": base64.b64encode(key.text).decode("ascii"),
            "refusal": [key.refusal.reason.code, key.refusal.detail] if key.refusal else None,
        }
        for key in said.keys
    ]
    why = said.fallback_reason
    return {**said._asdict(), "fallback_reason": why.code if why else None, "keys": keys}


def _key(said: dict[str, Any]) -> OfferedKey:
    refusal = said["refusal"]
    why = (
        Refusal(reasons.ALL.get(str(refusal[0]), reasons.INTERNAL_ERROR), str(refusal[1]))
        if refusal
        else None
    )
    return OfferedKey(str(said["number"]), str(said["name"]), base64.b64decode(said["text"]), why)
