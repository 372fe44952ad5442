"""Looking at an image in a box, again and again until all is answered.

Where one file, directory or rule takes more work than it may, the box is ended; that one is unknown, and the
others are looked at in a new box.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from firstkey import image_reasons, reasons
from firstkey.boot.target import Target
from firstkey.image import in_use, pipe, seal, sshd
from firstkey.image.audit import RULE, Audit, Result, image_of, sealing, verdict_of
from firstkey.image.baseline import Known
from firstkey.image.rule import Rule
from firstkey.image.rules import credentials
from firstkey.image.scan import DIRECTORY, FILE, OTHERS, Looking, Scan, Scanned, Sighting, joined
from firstkey.image.seal import Plan
from firstkey.image.subject import Image
from firstkey.image.verdict import Unknown, Verdict
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.system import mounts, scanners
from firstkey.system.boxed import Inside, Overrun

OnReport = Callable[[str, Any], None]
Look = Callable[[Sequence[Callable[[Target, Inside], Any]], OnReport], list[Any]]

MOST_OVERRUNS = 8
"""After so many files and rules that took too much, no more is looked at: the tree is made to be slow."""
MOST_PARTS = 4
"""How many boxes look into the files at once, each into a part of them, and each with memory of its own."""
PROGRESS, VERDICT = "progress", "verdict"
AUTO, BUILTIN = "auto", "builtin"


class Survey:
    """The image at `root` (a resolved host path), looked at in boxes: `look` does work in one."""

    def __init__(
        self,
        root: str,
        look: Look,
        *,
        progress: Callable[[int, str], None],
        banner: bool = False,
        secrets: str = BUILTIN,
        configuration: str | None = None,
    ) -> None:
        self.root = root
        self._look = look
        self._progress = progress
        self._banner = banner
        self._secrets = secrets
        self._seal = sealing(root, configuration)
        self._scanned = Scanned()
        self._unfinished: dict[tuple[str, str], Refusal] = {}

    def audit(self, wanted: Sequence[Rule], known: tuple[Known, ...] = ()) -> Audit:
        """What each of the rules says; unknown where it came to no end. `known`: the whole baseline."""
        verdicts: dict[str, Verdict] = {}
        has_tokens = any(rule.check is credentials.check_access_keys for rule in wanted)
        self._scanned = scanned(self._secrets if has_tokens else BUILTIN, self.root)
        ids = {rule.id for rule in wanted}

        def judge(image: Image, inside: Inside) -> None:
            for rule in wanted:
                if rule.id not in verdicts:
                    inside.report([VERDICT, [rule.id, pipe.write(verdict_of(rule, image))]])

        def on_report(kind: str, value: Any) -> None:  # noqa: ANN401 - whatever JSON has
            if kind == VERDICT and value[0] in ids:
                verdicts[value[0]] = pipe.read(pipe.VERDICT, value[1])

        scan, failed = self._scan(wanted), Refusal(reasons.INTERNAL_ERROR, "the rule was not answered")
        try:
            self._boxes([judge], on_report, scan)
        except Overrun as error:
            failed = error.refusal
        unknown = Verdict(unknowns=(Unknown("/", failed),))
        # The rule that reports what was not seen may not be among these: then each of the others does.
        left = scan.unknowns if isinstance(scan, Scan) and "everything-seen" not in ids else ()
        unseen = tuple(unknown for unknown in left if unknown.refusal.reason is image_reasons.OVER_BUDGET)
        results = []
        for rule in wanted:
            verdict = verdicts.get(rule.id, unknown)
            unknowns = (*verdict.unknowns, *unseen) if rule.watched else verdict.unknowns
            results.append(Result(rule, verdict._replace(unknowns=unknowns), known, self._seal))
        return Audit(self.root, tuple(results), scan.files if isinstance(scan, Scan) else None)

    def plan(self, wanted: Sequence[Rule], options: Collection[str]) -> Plan:
        """What seal would do for these rules."""
        plain = self.do(lambda image, _: pipe.write(seal.plan(image, wanted, options)), wanted=wanted)
        planned: Plan = pipe.read(pipe.PLAN, plain)
        return planned

    def holds(self, keyword: str, replaced: Mapping[str, bytes]) -> bool:
        """Whether that setting of sshd's is as it should be, with some files replaced."""
        return self.do(lambda image, _: sshd.holds(image.tree, keyword, replaced)) is True

    def do(self, work: Callable[[Image, Inside], Any], wanted: Sequence[Rule] = ()) -> Any:  # noqa: ANN401 - whatever JSON has
        """Do the work on the image, and return what it returns. Raises what it raises, or Overrun.

        What the `wanted` rules ask of a scan is looked for before.
        """
        return self._boxes([work], scan=self._scan(wanted))[0]

    def _scan(self, wanted: Sequence[Rule]) -> Scan | Refusal | None:
        """What a scan of all files sees, by as many boxes as there are processors; why it fails, if it does.

        None: no rule asks for one.
        """

        def part(number: int, image: Image, _inside: Inside) -> object:
            return pipe.write(image.part_of_scan(number, parts))

        if not any(rule.watched for rule in wanted):
            return None
        parts = min(MOST_PARTS, len(os.sched_getaffinity(0)))
        try:
            done = self._boxes([partial(part, number) for number in range(parts)])
            return joined([pipe.read(pipe.SCAN, each) for each in done])
        except FirstkeyError as error:
            return error.refusal

    def _boxes(
        self,
        works: Sequence[Callable[[Image, Inside], Any]],
        on_report: OnReport = lambda _kind, _value: None,
        scan: Scan | Refusal | None = None,
    ) -> list[Any]:
        left_out, used = mounts.foreign(self.root), in_use.paths(self.root)
        files = [0] * len(works)

        def boxed(number: int, target: Target, inside: Inside) -> Any:  # noqa: ANN401 - whatever JSON has
            def progress(files: int, path: str) -> None:
                inside.report([PROGRESS, [number, files, path]])

            looking = Looking(left_out, self._unfinished, progress, inside.at, used, self._scanned, scan)
            return works[number](image_of(target, looking, banner=self._banner), inside)

        def listen(kind: str, value: Any) -> None:  # noqa: ANN401 - as above
            if kind == PROGRESS:
                files[int(value[0])] = int(value[1])
                self._progress(sum(files), str(value[2]))
            else:
                on_report(kind, value)

        while True:
            try:
                return self._look([partial(boxed, number) for number in range(len(works))], listen)
            except Overrun as error:  # noqa: PERF203 - a handful
                key = (error.kind, error.name)
                is_known = error.kind not in (FILE, DIRECTORY, RULE) or key in self._unfinished
                if is_known or len(self._unfinished) >= MOST_OVERRUNS:
                    raise
                self._unfinished[key] = error.refusal


def scanned(choice: str, root: str) -> Scanned:
    """What the chosen scanner for secrets (or the first that is there: AUTO) sees in the tree."""
    if choice == BUILTIN:
        return Scanned()
    try:
        scanner = scanners.find(None if choice == AUTO else choice)
        version, matches = scanners.scan(scanner, root, [mount.path for mount in mounts.foreign(root)])
    except FirstkeyError as error:
        if choice == AUTO and isinstance(error, scanners.Missing):
            return Scanned(remark=f"{OTHERS} not looked for: {error.message}.")
        return Scanned(refusal=error.refusal, remark="")
    name = scanner.name
    seen = (Sighting(match.path, f"a secret ({name}: {match.rule})", match.line) for match in matches)
    return Scanned(tuple(seen), remark=f"{OTHERS} looked for with {name} {version}.")
