"""Holding an image against the rules. Whatever happens in one rule, the others are asked all the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from firstkey import NamedTuple, image_reasons, reasons
from firstkey.display import DECIDE
from firstkey.image import baseline, rules
from firstkey.image.changes import quoted
from firstkey.image.subject import Image
from firstkey.image.verdict import ERROR, NOTE, WARNING, Doubt, Verdict
from firstkey.reasons import FirstkeyError, Refusal, UsageError
from firstkey.text import REMEDY, visible

if TYPE_CHECKING:
    from firstkey.boot.site import Site
    from firstkey.image.baseline import Known
    from firstkey.image.rule import Rule
    from firstkey.image.scan import Looking
    from firstkey.image.verdict import Finding


RULE = "rule"
KNOWN = "known"
"""What a finding is that somebody accepts, in place of its severity."""


class Entry(NamedTuple):
    """One finding as it is reported: with its own severity or the rule's, and who accepts it, if anybody."""

    finding: Finding
    severity: str
    fingerprint: str
    known: Known | None
    command: str = ""
    """What repairs it when it is pasted, on what was looked at; empty where a person has to decide."""

    @property
    def remedy(self) -> str:
        """The command, or the words for a person."""
        return self.command or self.finding.remedy

    @property
    def advice(self) -> str:
        """The same, and which of both it is."""
        return f"{REMEDY if self.command else DECIDE}{self.remedy}"

    @property
    def is_harmless(self) -> bool:
        """Whether it leaves the image fit to share."""
        return self.severity == NOTE or self.known is not None


class Result(NamedTuple):
    """What one rule says, and what is in the baseline about the rule."""

    rule: Rule
    verdict: Verdict
    baseline: tuple[Known, ...] = ()
    seal: str = "firstkey seal"
    """The command that seals what was looked at."""

    @property
    def outcome(self) -> str:
        """The verdict's."""
        return self.verdict.outcome

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The findings."""
        known = {(entry.fingerprint, entry.path): entry for entry in self.baseline}
        marks = baseline.fingerprints(self.rule.id, self.verdict.findings)
        return tuple(
            Entry(
                finding,
                finding.severity or self.rule.severity,
                mark,
                known.get((mark, visible(finding.path))),
                "" if finding.remedy else f"{self.seal} {self.rule.chosen}",
            )
            for finding, mark in zip(self.verdict.findings, marks)
        )

    @property
    def kind(self) -> str:
        """The outcome in more detail: of findings, the severity of the worst that nobody accepts."""
        kinds = [KNOWN if entry.known else entry.severity for entry in self.entries]
        return next((kind for kind in (ERROR, WARNING, NOTE, KNOWN) if kind in kinds), self.outcome)

    @property
    def unmatched(self) -> tuple[Known, ...]:
        """What the baseline has, and is not found any more; an unchecked rule proves nothing."""
        if self.verdict.doubts:
            return ()
        found = {entry.known for entry in self.entries}
        return tuple(entry for entry in self.baseline if entry not in found)

    @property
    def is_fit(self) -> bool:
        """Whether an image may be shared as far as this rule goes.

        Notes do no harm; but where a rule that matters could not be checked, nothing is proved. Nor is
        anything where something took more work than it may: whoever made it so can hide behind it.
        """
        if any(doubt.refusal.reason is image_reasons.OVER_BUDGET for doubt in self.verdict.doubts):
            return False
        if not all(entry.is_harmless for entry in self.entries):
            return False
        return not (self.verdict.doubts and self.rule.severity == ERROR)


class Audit(NamedTuple):
    """What all rules say. `files` is how many the scan looked at, None where no rule needed it."""

    root: str
    results: tuple[Result, ...]
    files: int | None = None
    profile: str = rules.SHARED_AMI

    @property
    def is_fit(self) -> bool:
        """Whether the image is fit to share, as far as the rules that were asked can tell."""
        return all(result.is_fit for result in self.results)

    def with_baseline(self, known: Iterable[Known]) -> Audit:
        """The same with the findings marked that somebody accepts."""
        known = tuple(known)
        return self._replace(
            results=tuple(
                result._replace(baseline=tuple(entry for entry in known if entry.rule == result.rule.id))
                for result in self.results
            )
        )

    @property
    def unmatched(self) -> tuple[Known, ...]:
        """What the baseline has, and no rule finds any more."""
        return tuple(known for result in self.results for known in result.unmatched)

    def count(self, outcome: str) -> int:
        """How many rules came to that outcome."""
        return sum(result.outcome == outcome for result in self.results)


def chosen(
    only: Iterable[str] = (), skipped: Iterable[str] = (), profile: str = rules.SHARED_AMI
) -> list[Rule]:
    """The rules of these ids (all, if none is named) without those, as severe as the profile has them.

    Raises UsageError for an unknown id.
    """
    known = {rule.id for rule in rules.ALL}
    only, skipped = list(only), set(skipped)
    for name in (*only, *skipped):
        if name not in known:
            import difflib

            close = difflib.get_close_matches(name, sorted(known), n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"there is no rule {name!r}{meant}", hint="See: firstkey audit --list")
    left = [rule for rule in rules.of(profile) if (not only or rule.id in only) and rule.id not in skipped]
    if not left:
        raise UsageError("no rule is left to be asked", hint="Name another --rule, or skip fewer")
    return left


def image_of(site: Site, looking: Looking, *, banner: bool = False) -> Image:
    """The image, with every rule's watches: a rule may ask what another's saw."""
    watches = (watch for rule in rules.ALL for watch in rule.watched)
    return Image(site, watches, looking, banner=banner)


def sealing(root: str, configuration: str | None = None) -> str:
    """The command that seals the tree at `root`, as one types it in a shell, wherever one is."""
    options = {"--root": None if root == "/" else root, "--config": configuration}
    words = (f" {option} {quoted(path)}" for option, path in options.items() if path)
    return f"firstkey seal{''.join(words)}"


def verdict_of(rule: Rule, image: Image) -> Verdict:
    """The rule's verdict; where it fails, unknown with the reason."""
    unfinished = image.looking.unfinished.get((RULE, rule.id))
    if unfinished:
        return Verdict(doubts=(Doubt("/", unfinished),))
    try:
        return rule.verdict(image)
    except FirstkeyError as error:
        return Verdict(doubts=(Doubt("/", error.refusal),))
    except (MemoryError, RecursionError) as error:
        detail = f"the rule {rule.id} took more memory than it may: {error!r}"
        return Verdict(doubts=(Doubt("/", Refusal(image_reasons.OVER_BUDGET, detail)),))
    except Exception as error:  # noqa: BLE001 - one rule's mistake must not keep the others from speaking
        detail = f"the rule {rule.id} failed: {error!r}"
        return Verdict(doubts=(Doubt("/", Refusal(reasons.INTERNAL_ERROR, detail)),))
