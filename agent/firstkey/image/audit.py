"""Holding an image against the rules. Whatever happens in one rule, the others are asked all the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from firstkey import image_reasons, reasons
from firstkey.errors import FirstkeyError, UsageError
from firstkey.image import rules
from firstkey.image.subject import Image
from firstkey.image.verdict import ERROR, NOTE, Doubt, Verdict
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal

if TYPE_CHECKING:
    from firstkey.boot.site import Site
    from firstkey.image.rule import Rule
    from firstkey.image.scan import Looking
    from firstkey.image.verdict import Finding


RULE = "rule"


class Result(NamedTuple):
    """What one rule says."""

    rule: Rule
    verdict: Verdict

    @property
    def outcome(self) -> str:
        """The verdict's."""
        return self.verdict.outcome

    def severity_of(self, finding: Finding) -> str:
        """The finding's own severity, or the rule's."""
        return finding.severity or self.rule.severity

    @property
    def is_fit(self) -> bool:
        """Whether an image may be shared as far as this rule goes.

        Notes do no harm; but where a rule that matters could not be checked, nothing is proved. Nor is
        anything where something took more work than it may: whoever made it so can hide behind it.
        """
        if any(doubt.refusal.reason is image_reasons.OVER_BUDGET for doubt in self.verdict.doubts):
            return False
        if any(self.severity_of(finding) != NOTE for finding in self.verdict.findings):
            return False
        return not (self.verdict.doubts and self.rule.severity == ERROR)


class Audit(NamedTuple):
    """What all rules say. `files` is how many the scan looked at, None where no rule needed it."""

    root: str
    results: tuple[Result, ...]
    files: int | None = None

    @property
    def is_fit(self) -> bool:
        """Whether the image is fit to share, as far as the rules that were asked can tell."""
        return all(result.is_fit for result in self.results)

    def count(self, outcome: str) -> int:
        """How many rules came to that outcome."""
        return sum(result.outcome == outcome for result in self.results)


def chosen(only: Iterable[str] = (), skipped: Iterable[str] = ()) -> list[Rule]:
    """The rules of these ids (all, if none is named) without those. Raises UsageError for an unknown id."""
    known = {rule.id for rule in rules.ALL}
    only, skipped = list(only), set(skipped)
    for name in (*only, *skipped):
        if name not in known:
            raise UsageError(f"there is no rule {name!r}{_meant(name)}", hint="See: firstkey audit --list")
    left = [rule for rule in rules.ALL if (not only or rule.id in only) and rule.id not in skipped]
    if not left:
        raise UsageError("no rule is left to be asked", hint="Name another --rule, or skip fewer")
    return left


def _meant(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, [rule.id for rule in rules.ALL], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def image_of(site: Site, looking: Looking | None = None, *, banner: bool = False) -> Image:
    """The image, with every rule's watches: a rule may ask what another's saw."""
    return Image(
        site, (watch for rule in rules.ALL for watch in rule.watches), looking=looking, banner=banner
    )


def audit(image: Image, wanted: Sequence[Rule]) -> Audit:
    """Ask each rule."""
    results = tuple(Result(rule, verdict_of(rule, image)) for rule in wanted)
    return Audit(image.tree.root, results, image.files_seen)


def verdict_of(rule: Rule, image: Image) -> Verdict:
    """The rule's verdict; where it fails, unknown with the reason."""
    unfinished = image.unfinished(RULE, rule.id)
    if unfinished:
        return Verdict(doubts=(Doubt("/", unfinished),))
    try:
        return rule.check(image)
    except FirstkeyError as error:
        return Verdict(doubts=(Doubt("/", error.refusal),))
    except (MemoryError, RecursionError) as error:
        detail = f"the rule {rule.id} took more memory than it may: {error!r}"
        return Verdict(doubts=(Doubt("/", Refusal(image_reasons.OVER_BUDGET, detail)),))
    except Exception as error:  # noqa: BLE001 - one rule's mistake must not keep the others from speaking
        detail = f"the rule {rule.id} failed: {error!r}"
        return Verdict(doubts=(Doubt("/", Refusal(reasons.INTERNAL_ERROR, detail)),))
