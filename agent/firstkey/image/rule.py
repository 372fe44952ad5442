"""The one shape of all rules: what is checked, why, and how it is repaired, with an example of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from firstkey import NamedTuple
from firstkey.image.changes import Change
from firstkey.image.verdict import Verdict
from firstkey.image.watches import Watch

if TYPE_CHECKING:
    from firstkey.image.subject import Image

CREDENTIALS = "remove-credentials"
AMI_TOOLS = "update-ami-tools"

FIRST, LOGS, HISTORIES = range(3)
"""When a remedy's turn is: logs tell of what was done before, and shells write until the very end."""


class Builder(Protocol):
    """What an example builds its small tree with."""

    def file(self, path: str, content: str | bytes = "", *, mode: int = 0o644) -> None:
        """Write a file; its directories are made."""

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""

    def directory(self, path: str) -> None:
        """Make a directory."""


Example = Callable[[Builder], None]


class Rule(NamedTuple):
    """One rule. `check` may raise FirstkeyError: that makes the verdict unknown, with the error's reason."""

    id: str
    title: str
    guideline: str
    """G1 to G9, or "beyond" for what the guide does not speak of."""
    severity: str
    prose: str
    """Why it matters, what exactly is checked, and what seal does: a paragraph of the documentation."""
    check: Callable[[Image], Verdict]
    remedy: Callable[[Image], list[Change]]
    failing: Example
    passing: Example
    watches: tuple[Watch, ...] = ()
    stage: int = FIRST
    option: str | None = None
    """The option of seal without which the remedy is not applied."""
    after: str | None = None
    """The rule whose findings what this one removes would heal: it waits until there are none."""


def by_hand(_image: Image) -> list[Change]:
    """The remedy of a rule whose findings only a person can repair."""
    return []
