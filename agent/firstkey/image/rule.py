"""The one shape of all rules: what is looked for, why, and how it is repaired, with an example of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Union

from firstkey import NamedTuple
from firstkey.image import places
from firstkey.image.places import Place
from firstkey.image.verdict import LOOK, WARNING, Doubt, Verdict
from firstkey.image.watches import Watch
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.subject import Image
    from firstkey.image.verdict import Finding

CREDENTIALS = "remove-credentials"
AMI_TOOLS = "update-ami-tools"

FIRST, LOGS, HISTORIES = range(3)
"""When a remedy's turn is: logs tell of what was done before, and shells write until the very end."""

Example = Mapping[str, Union[str, bytes, None]]
"""A small tree: files with their content, directories (None), and links ("->" and where they lead)."""
Check = Callable[["Image"], Verdict]
Remedy = Callable[["Image", Verdict], "list[Change]"]


class Rule(NamedTuple):
    """One rule. Its check may raise FirstkeyError: that makes the verdict unknown, with its reason."""

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
    """Whatever else is found."""
    remedy: Remedy | None = None
    """What else seal does than the changes that the findings bring along."""
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
        left = places.look(image, self.places) if self.places else Verdict()
        try:
            said = self.check(image) if self.check else Verdict()
        except FirstkeyError as error:  # what is left at the places is found all the same
            said = Verdict(doubts=(Doubt("/", error.refusal),))
        return Verdict(
            tuple(map(self._settled, (*left.findings, *said.findings))),
            tuple(dict.fromkeys((*left.doubts, *said.doubts))),
            said.not_applicable,
            " ".join(filter(None, (left.remark, said.remark))),
        )

    def _settled(self, finding: Finding) -> Finding:
        """The finding with words for a person wherever seal does nothing about it."""
        if self.by_hand:
            return finding._replace(remedy=self.advice or finding.remedy or LOOK, changes=())
        is_repaired = finding.changes or self.remedy
        return finding if finding.remedy or is_repaired else finding._replace(remedy=LOOK)

    def changes(self, image: Image, verdict: Verdict) -> list[Change]:
        """What seal does about the findings of that verdict."""
        brought = [change for finding in verdict.findings for change in finding.changes]
        more = self.remedy(image, verdict) if self.remedy and verdict.findings else []
        return [*brought, *more]
