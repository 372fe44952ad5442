"""`firstkey audit`: whether the image is fit to share."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from firstkey.cli import common, screen, streams
from firstkey.cli.looking import Looker
from firstkey.cli.progress import Progress
from firstkey.image import audit, formats, render
from firstkey.image.survey import AUTO, BUILTIN, Survey
from firstkey.system import scanners

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from firstkey.image.audit import Audit
    from firstkey.image.rule import Rule
    from firstkey.image.subject import Image
    from firstkey.system.boxed import Inside

DESCRIPTION = """\
Check an image, or this system, against the guidelines for sharing it. Nothing
in it is run or changed.
"""
EPILOG = """\
exit status: 0 the image is fit to share; 1 it is not: something was found that
  is worse than a note, or a rule that matters could not be checked. With
  --exclude-list: 1 the list leaves out too much or too little, as is said.

examples:
  firstkey audit --root /mnt/image
  firstkey audit --root /mnt/image --sarif > audit.sarif
  tar -c --exclude-from <(firstkey audit --exclude-list) -f image.tar /
  ec2-bundle-vol --exclude "$(firstkey audit --exclude-list | paste -sd,)" ...
"""


def main(argv: Sequence[str]) -> int:
    """Check the rules; returns the exit status."""
    args = _arguments(argv)
    if args.list:
        streams.show(*render.listing())
        return 0
    wanted = audit.chosen(args.rule, args.skip)
    common.tree_at(args.root).__exit__()
    common.require_root(args, "auditing")
    looker = Looker(args, common.voice(args))
    with Progress(wanted=not args.quiet) as progress:
        survey = Survey(looker.root, looker.look, progress=progress.tell, secrets=args.secrets)
        if args.exclude_list:
            return _exclude_list(survey, wanted)
        done = survey.audit(wanted)
    _show(done, args)
    return 0 if done.is_fit else 1


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    made = common.parser("audit", DESCRIPTION, epilog=EPILOG)
    form = common.with_forms(made)
    form.add_argument("--sarif", action="store_true", help="print SARIF 2.1.0, for code-scanning tools")
    form.add_argument(
        "--exclude-list",
        action="store_true",
        help="print what bundling tools should leave out, a pattern a line",
    )
    made.add_argument(
        "--secrets",
        choices=(AUTO, BUILTIN, *scanners.NAMES),
        default=AUTO,
        help="who looks for tokens of other makers than AWS: the first of these scanners that is installed "
        "(auto), nobody (builtin), or the one that is named",
    )
    form.add_argument("--list", action="store_true", help="print the rules, and check nothing")
    add_choice(made)
    return made.parse_args(argv)


def add_choice(made: argparse.ArgumentParser) -> None:
    """The options that choose among the rules."""
    made.add_argument("--rule", metavar="ID", action="append", default=[], help="only this rule (repeatable)")
    made.add_argument("--skip", metavar="ID", action="append", default=[], help="not this rule (repeatable)")


def _show(done: Audit, args: argparse.Namespace) -> None:
    if args.json:
        streams.show_json(formats.as_json(done))
    elif args.sarif:
        streams.show_json(formats.as_sarif(done))
    else:
        screen.show(*render.lines(done, everything=args.verbose, quiet=args.quiet))


def _exclude_list(survey: Survey, wanted: list[Rule]) -> int:
    """Print the list, byte for byte where a program reads it; returns 1 where it is not exact."""

    def listed(image: Image, _inside: Inside) -> list[list[str]]:
        found = formats.exclude_list(image, wanted)
        return [list(map(os.fsdecode, found.patterns)), list(found.doubts)]

    patterns, doubts = survey.do(listed)
    if sys.stdout.isatty():
        streams.show(*patterns)
    else:
        streams.put(sys.stdout.buffer, b"".join(os.fsencode(pattern) + b"\n" for pattern in patterns))
    streams.complain(*(f"firstkey: {doubt}" for doubt in doubts))
    return 1 if doubts else 0
