"""Looking at an image in a box, again and again until all is answered.

Where one file or one rule takes more work than it may, the box is ended; that file or rule is unknown, and
the others are looked at in a new box.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from firstkey import reasons
from firstkey.image import in_use, pipe, seal, sshd_change
from firstkey.image.audit import RULE, Audit, Result, image_of, sealing, verdict_of
from firstkey.image.rules import access_keys
from firstkey.image.scan import FILE, Looking, joined
from firstkey.image.verdict import Doubt, Verdict
from firstkey.image.watches import OTHERS, Scanned, Sighting
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.system import mounts, scanners
from firstkey.system.boxed import Overrun

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from firstkey.boot.site import Site
    from firstkey.image.plan import Plan
    from firstkey.image.rule import Rule
    from firstkey.image.scan import Scan
    from firstkey.image.subject import Image
    from firstkey.system.boxed import Inside

    Heard = Callable[[str, Any], None]
    Look = Callable[[Sequence[Callable[[Site, Inside], Any]], Heard], list[Any]]

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

    def audit(self, wanted: Sequence[Rule]) -> Audit:
        """What each of the rules says; unknown where it came to no end."""
        verdicts: dict[str, Verdict] = {}
        self._scanned = scanned(
            self._secrets if any(rule.check is access_keys.check for rule in wanted) else BUILTIN, self.root
        )
        ids = {rule.id for rule in wanted}

        def judge(image: Image, inside: Inside) -> int | None:
            for rule in wanted:
                if rule.id not in verdicts:
                    inside.at(RULE, rule.id)
                    inside.tell([VERDICT, [rule.id, pipe.VERDICT.write(verdict_of(rule, image))]])
            return image.files_seen

        def heard(kind: str, value: Any) -> None:  # noqa: ANN401 - whatever JSON has
            if kind == VERDICT and value[0] in ids:
                verdicts[value[0]] = pipe.read(pipe.VERDICT, value[1])

        files: int | None = None
        try:
            said = self.do(judge, heard, wanted)
            files = said if isinstance(said, int) else None
        except Overrun as error:
            for name in ids.difference(verdicts):
                verdicts[name] = Verdict(doubts=(Doubt("/", error.refusal),))
        results = tuple(Result(rule, verdicts.get(rule.id, _SILENT), seal=self._seal) for rule in wanted)
        return Audit(self.root, results, files)

    def plan(self, wanted: Sequence[Rule], options: Collection[str]) -> Plan:
        """What seal would do for these rules."""
        planned = self.do(lambda image, _: pipe.PLAN.write(seal.plan(image, wanted, options)), wanted=wanted)
        made: Plan = pipe.read(pipe.PLAN, planned)
        return made

    def holds(self, keyword: str, replaced: Mapping[str, bytes]) -> bool:
        """Whether that setting of sshd's is as it should be, with some files replaced."""
        return self.do(lambda image, _: sshd_change.holds(image.tree, keyword, replaced)) is True

    def do(
        self,
        work: Callable[[Image, Inside], Any],
        heard: Heard = lambda _kind, _value: None,
        wanted: Sequence[Rule] = (),
    ) -> Any:  # noqa: ANN401 - whatever JSON has
        """Do the work on the image, and return what it returns. Raises what it raises, or Overrun.

        What the `wanted` rules ask of a scan is looked for before, by as many boxes as there are processors.
        """
        scan = self._scan() if any(rule.watched for rule in wanted) else None
        return self._boxes([work], heard, scan)[0]

    def _scan(self) -> Scan | None:
        """What a scan of all files sees; None where it fails, which each rule that asks for it then says."""

        def part(number: int, image: Image, _inside: Inside) -> object:
            return pipe.SCAN.write(image.part_of_scan(number, parts))

        parts = min(MOST_PARTS, len(os.sched_getaffinity(0)))
        try:
            done = self._boxes([partial(part, number) for number in range(parts)])
        except Overrun:
            raise
        except FirstkeyError:
            return None
        return joined([pipe.read(pipe.SCAN, each) for each in done])

    def _boxes(
        self,
        works: Sequence[Callable[[Image, Inside], Any]],
        heard: Heard = lambda _kind, _value: None,
        scan: Scan | None = None,
    ) -> list[Any]:
        left_out, used = mounts.foreign(self.root), in_use.paths(self.root)
        files = [0] * len(works)

        def boxed(number: int, site: Site, inside: Inside) -> Any:  # noqa: ANN401 - whatever JSON has
            looking = Looking(
                left_out,
                self._unfinished,
                lambda files, path: inside.tell([PROGRESS, [number, files, path]]),
                inside.at,
                used,
                self._scanned,
                scan,
            )
            return works[number](image_of(site, looking, banner=self._banner), inside)

        def listen(kind: str, value: Any) -> None:  # noqa: ANN401 - as above
            if kind == PROGRESS:
                files[int(value[0])] = int(value[1])
                self._progress(sum(files), str(value[2]))
            else:
                heard(kind, value)

        while True:
            try:
                return self._look([partial(boxed, number) for number in range(len(works))], listen)
            except Overrun as error:  # noqa: PERF203 - a handful
                key = (error.kind, error.name)
                is_known = error.kind not in (FILE, RULE) or key in self._unfinished
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


_SILENT = Verdict(doubts=(Doubt("/", Refusal(reasons.INTERNAL_ERROR, "the rule was not answered")),))
