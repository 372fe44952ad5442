"""The metadata service, as the main job asks it: once while host keys are made, then until it answers.

Failures are answers too, those that nobody foresaw included: no question costs a host key.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.boot.report import Timeline
    from firstkey.metadata.client import Answer, Client, Identity

FIRST_ATTEMPT_SECONDS = 10.0
"""How long the attempt may take at most that is made while host keys wait to be put in place."""


class Service:
    """Asks with a client that is made when it is needed. `deadline` is on time.monotonic; None: never."""

    def __init__(
        self,
        connect: Callable[[], Client],
        deadline: float | None,
        *,
        boot_timeout: float,
        timeline: Timeline,
    ) -> None:
        self._connect = connect
        self._deadline = deadline
        self._boot_timeout = boot_timeout
        self._timeline = timeline
        self._client: Client | None = None

    @property
    def identity(self) -> Identity | None:
        """What the service said last of the instance, keys or no keys; None: nothing yet."""
        return self._client.identity if self._client else None

    def ask_once(self) -> Answer | FirstkeyError:
        """One attempt that ends long before the boot does not wait any longer."""
        return self._answer(lambda client: client.ask_once(deadline=self._first_deadline()))

    def ask(self, *, known: str | None, until: float | None = None) -> Answer | FirstkeyError:
        """Until there is an answer, time is over, or this proves not to be the instance `known`.

        `until` is an earlier end than the deadline, on time.monotonic.
        """
        deadline = self._deadline if until is None else until
        return self._answer(lambda client: client.ask(deadline=deadline, known=known))

    def _answer(self, question: Callable[[Client], Answer]) -> Answer | FirstkeyError:
        with self._timeline.phase("metadata"):
            try:
                self._client = self._client or self._connect()
                return question(self._client)
            except FirstkeyError as error:
                return error
            except Exception as error:  # noqa: BLE001 - whatever an answer does to us, it costs no host key
                return FirstkeyError(f"asking failed: {error!r}", reason=reasons.INTERNAL_ERROR)

    def _first_deadline(self) -> float:
        """Long before the boot deadline, at which sshd starts, and fails where there is no host key yet."""
        soon = time.monotonic() + min(FIRST_ATTEMPT_SECONDS, self._boot_timeout / 2)
        return soon if self._deadline is None else min(soon, self._deadline)
