"""Holding an image against the rules. Whatever happens in one rule, the others are asked all the same."""

from __future__ import annotations

from collections.abc import Iterable

from firstkey import NamedTuple, image_reasons
from firstkey.boot.target import Target
from firstkey.display import DECIDE, options
from firstkey.image import baseline, rules
from firstkey.image.baseline import Known
from firstkey.image.rule import Rule
from firstkey.image.scan import Looking
from firstkey.image.subject import Image
from firstkey.image.verdict import ERROR, NOTE, WARNING, Finding, Unknown, Verdict
from firstkey.reasons import UsageError
from firstkey.text import REMEDY, visible

RULE = "rule"
KNOWN = "known"
"""In place of its severity: a finding that the baseline accepts."""


class Entry(NamedTuple):
    """One finding as it is reported: with its own severity or the rule's, and the baseline's entry for it."""

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
        """The same, and which of both it is; or why it is accepted, and by whom."""
        if self.known:
            return f"Known: {self.known.reason} ({self.known.owner})"
        return f"{REMEDY if self.command else DECIDE}{self.remedy}"

    @property
    def place(self) -> str:
        """The path, and the line in it."""
        return f"{self.finding.path}:{self.finding.line}" if self.finding.line else self.finding.path

    @property
    def is_harmless(self) -> bool:
        """Whether it leaves the image fit to share."""
        return self.severity == NOTE or self.known is not None


def by_advice(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The findings by what they come to: one command is enough for all that it repairs."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.advice, []).append(entry)
    return groups


class Result(NamedTuple):
    """What one rule says. `baseline`: all of it; `seal`: the command that seals what was looked at."""

    rule: Rule
    verdict: Verdict
    baseline: tuple[Known, ...] = ()
    seal: str = "firstkey seal"

    @property
    def outcome(self) -> str:
        """The verdict's."""
        return self.verdict.outcome

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The findings."""
        rule, findings = self.rule, self.verdict.findings
        known = {(entry.rule, entry.fingerprint, entry.path): entry for entry in self.baseline}
        return tuple(
            Entry(
                finding,
                finding.severity or rule.severity,
                mark,
                known.get((rule.id, mark, visible(finding.path))),
                "" if finding.remedy else f"{self.seal} {rule.chosen}",
            )
            for finding, mark in zip(findings, baseline.fingerprints(rule.id, findings))
        )

    @property
    def kind(self) -> str:
        """The outcome in more detail: of findings, the worst severity outside of the baseline."""
        kinds = [KNOWN if entry.known else entry.severity for entry in self.entries]
        return next((kind for kind in (ERROR, WARNING, NOTE, KNOWN) if kind in kinds), self.outcome)

    @property
    def unmatched(self) -> tuple[Known, ...]:
        """What the baseline has, and is not found any more; an unchecked rule proves nothing."""
        if self.verdict.unknowns:
            return ()
        found = {entry.known for entry in self.entries}
        return tuple(each for each in self.baseline if each.rule == self.rule.id and each not in found)

    @property
    def is_fit(self) -> bool:
        """Whether an image may be shared as far as this rule goes.

        Notes do no harm; but where a rule that matters could not be checked, nothing is proved. Nor is
        anything where something took more work than it may: its author can hide behind it.
        """
        unknowns = [unknown.refusal.reason for unknown in self.verdict.unknowns]
        is_proved = not unknowns or (
            self.rule.severity != ERROR and image_reasons.OVER_BUDGET not in unknowns
        )
        return is_proved and all(entry.is_harmless for entry in self.entries)


class Audit(NamedTuple):
    """What all rules say. `files` is how many the scan looked at, None where no rule needed it."""

    root: str
    results: tuple[Result, ...]
    files: int | None = None
    profile: str = rules.SHARED_AMI

    @property
    def is_fit(self) -> bool:
        """Whether the image is fit to share, as far as the rules say that were asked."""
        return all(result.is_fit for result in self.results)

    @property
    def unmatched(self) -> tuple[Known, ...]:
        """What the baseline has, and no rule finds any more."""
        return tuple(known for result in self.results for known in result.unmatched)


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


def image_of(target: Target, looking: Looking, *, banner: bool = False) -> Image:
    """The image, with every rule's watches: a rule may ask what another's saw."""
    watches = (watch for rule in rules.ALL for watch in rule.watched)
    return Image(target, watches, looking, banner=banner)


def sealing(root: str, configuration: str | None = None) -> str:
    """The command that seals the tree at `root`, as one types it in a shell, wherever one is."""
    return f"firstkey seal{options(root=None if root == '/' else root, config=configuration)}"


def verdict_of(rule: Rule, image: Image) -> Verdict:
    """The rule's verdict; where it came to no end before, unknown with the reason."""
    unfinished = image.looking.unfinished.get((RULE, rule.id))
    if unfinished:
        return Verdict(unknowns=(Unknown("/", unfinished),))
    image.looking.at(RULE, rule.id)
    return rule.verdict(image)
