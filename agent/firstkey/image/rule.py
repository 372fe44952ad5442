"""The one shape of all rules: what is looked for, why, and how it is repaired, with an example of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar, Union

from firstkey import NamedTuple, image_reasons, reasons
from firstkey.image import places
from firstkey.image.places import Place
from firstkey.image.scan import Watch
from firstkey.image.subject import Image
from firstkey.image.verdict import LOOK, NOTE, WARNING, Finding, Part, Unknown, Verdict, joined
from firstkey.reasons import FirstkeyError, Refusal

_Value = TypeVar("_Value")

CREDENTIALS = "remove-credentials"
AMI_TOOLS = "update-ami-tools"

FIRST, LOGS, HISTORIES = range(3)
"""When a remedy's turn is: logs record what was done before, and shells write until the very end."""

Example = Mapping[str, Union[str, bytes, None]]
"""A small tree: files with their content, directories (None), and links ("->" and where they lead)."""
Check = Callable[[Image], Iterable[Part]]


class Rule(NamedTuple):
    """One rule. Its check may fail: that is an unknown, beside what it has found before."""

    id: str
    title: str
    prose: str
    """Why it matters, what exactly is checked, and what seal does: a paragraph of the documentation."""
    failing: Example
    passing: Example
    guideline: str = "beyond"
    """G1 to G9, or "beyond" for what the guide does not speak of."""
    severity: str = WARNING
    places: tuple[Place, ...] = ()
    """What is left at one of these is a finding."""
    check: Check | None = None
    """Whatever else is found. A finding brings along what seal does about it."""
    finds_files: bool = False
    """Whether the check finds files to be taken away, as places and watches do."""
    by_hand: bool = False
    """Whether only a person can repair it."""
    advice: str = ""
    """What that person is to do about each finding, where its own remedy does not say it."""
    watches: tuple[Watch, ...] = ()
    stage: int = FIRST
    option: str | None = None
    """The option of seal without which the remedy is not applied."""
    after: str | None = None
    """The rule whose findings what this one removes would heal: it waits until there are none."""

    @property
    def chosen(self) -> str:
        """The options of seal by which it does all that it can about this rule, and nothing else."""
        return f"--rule {self.id}{f' --{self.option}' if self.option else ''}"

    @property
    def watched(self) -> tuple[Watch, ...]:
        """All that the scan is to watch for."""
        return (*self.watches, *places.watches(self.places))

    def verdict(self, image: Image) -> Verdict:
        """What is left at the places, and what the check says."""
        parts: list[Part] = []

        def gather() -> None:
            parts.append(places.look(image, self.places))
            for one in self.check(image) if self.check else ():
                parts.append(one)  # noqa: PERF402 - what was found before an error counts

        failed = attempted(f"the rule {self.id}", gather)
        whole = joined([*parts, Unknown("/", failed)] if failed else parts)
        return whole._replace(findings=tuple(map(self._settled, whole.findings)))

    def _settled(self, finding: Finding) -> Finding:
        """The finding with words for a person wherever seal does nothing about it."""
        if self.by_hand:
            return finding._replace(remedy=self.advice or finding.remedy or LOOK, changes=())
        return finding if finding.remedy or finding.changes else finding._replace(remedy=LOOK)


advisory = partial(Rule, severity=NOTE, by_hand=True)
"""A rule about what may be intended: seal leaves it, and by itself it makes no image unfit."""


def attempted(what: str, work: Callable[..., _Value], *values: object) -> _Value | Refusal:
    """What the work returns, or why it does not: one mistake must not keep the others from their work."""
    try:
        return work(*values)
    except FirstkeyError as error:
        return error.refusal
    except (MemoryError, RecursionError) as error:
        return Refusal(image_reasons.OVER_BUDGET, f"{what} took more memory than it may: {error!r}")
    except Exception as error:  # noqa: BLE001 - as above
        return Refusal(reasons.INTERNAL_ERROR, f"{what} failed: {error!r}")
