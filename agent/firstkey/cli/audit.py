"""`firstkey audit`: whether the image is fit to share."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from firstkey.cli import common, parsers, screen, streams
from firstkey.cli.looking import Looker
from firstkey.cli.progress import Progress
from firstkey.image import audit, baseline, formats, render, rules
from firstkey.image.survey import AUTO, BUILTIN, Survey
from firstkey.reasons import UsageError
from firstkey.system import scanners

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from firstkey.image.audit import Audit
    from firstkey.image.baseline import Known
    from firstkey.image.rule import Rule
    from firstkey.image.subject import Image
    from firstkey.system.boxed import Inside

DESCRIPTION = """\
Check an image, or this system, against the guidelines for sharing it. No
program of the image is run, and no file is changed.
"""
EPILOG = """\
examples:
  firstkey audit --root /mnt/image
  firstkey audit --root /mnt/image --sarif > audit.sarif
  firstkey audit --root /mnt/image --junit --baseline known.json > audit.xml
  firstkey audit --root /mnt/image --html audit.html
  tar -c --exclude-from <(firstkey audit --exclude-list) -f image.tar /
  ec2-bundle-vol --exclude "$(firstkey audit --exclude-list | paste -sd,)" ...

exit status: 0 the image is fit to share; 1 it is not: a finding is worse than a
  note, or a needed rule could not be checked. With --exclude-list: 1 the list
  excludes too many or too few files, as the messages say.
"""


def main(argv: Sequence[str]) -> int:
    """Check the rules; returns the exit status."""
    args = _arguments(argv)
    if args.list:
        streams.show(*render.listing())
        return 0
    wanted = audit.chosen(args.rule, args.skip, args.profile)
    known = _baseline(args.baseline)
    if args.html not in (None, "-"):
        # What cannot be written is better known before a large tree is looked at.
        screen.save("--html", args.html, "")
    common.tree_at(args.root).__exit__()
    common.require_root(args, "auditing")
    looker = Looker(args, common.voice(args))
    configuration = args.config and os.path.abspath(args.config)
    is_text = not (args.json or args.sarif or args.junit or args.html == "-" or args.exclude_list)
    if is_text and not args.quiet:
        screen.show(render.heading("Audit", looker.root, wanted, args.profile))
    with Progress(wanted=not args.quiet) as progress:
        survey = Survey(
            looker.root,
            looker.look,
            progress=progress.tell,
            secrets=args.secrets,
            configuration=configuration,
        )
        if args.exclude_list:
            return _exclude_list(survey, wanted)
        done = survey.audit(wanted)._replace(profile=args.profile).with_baseline(known)
    _show(done, args)
    return 0 if done.is_fit else 1


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    made = parsers.command("audit", DESCRIPTION, epilog=EPILOG, without=("--imds",))
    made.usage = "%(prog)s [OPTIONS]"  # the forms, of which there is one, do not fit into a line
    form = parsers.with_forms(made)
    form.add_argument("--sarif", action="store_true", help="print SARIF 2.1.0, for code-scanning tools")
    form.add_argument("--html", metavar="FILE", help="write a page for a browser; - is standard output")
    form.add_argument("--junit", action="store_true", help="print JUnit XML, for CI systems")
    form.add_argument(
        "--exclude-list",
        action="store_true",
        help="print what bundling tools should leave out, a pattern a line",
    )
    made.add_argument(
        "--secrets",
        choices=(AUTO, BUILTIN, *scanners.NAMES),
        default=AUTO,
        help="the scanner for tokens of other services than AWS: the first one that is installed (auto), "
        "none (builtin), or the one that is named",
    )
    form.add_argument("--list", action="store_true", help="print the rules, and check nothing")
    made.add_argument(
        "--profile",
        choices=tuple(rules.PROFILES),
        default=rules.SHARED_AMI,
        help="the readers of the image, which make some rules more severe or less (default: shared-ami)",
    )
    made.add_argument(
        "--baseline", metavar="FILE", help="findings that are known, each with a reason and an owner"
    )
    add_choice(made)
    return made.parse_args(argv)


def add_choice(made: argparse.ArgumentParser) -> None:
    """The options that choose among the rules."""
    made.add_argument("--rule", metavar="ID", action="append", default=[], help="only this rule (repeatable)")
    made.add_argument("--skip", metavar="ID", action="append", default=[], help="not this rule (repeatable)")


def _show(done: Audit, args: argparse.Namespace) -> None:
    if args.json:
        streams.show_json(formats.as_json(done))
        return
    if args.sarif:
        streams.show_json(formats.as_sarif(done))
    elif args.junit:
        streams.put(sys.stdout, formats.as_junit(done))
    elif args.html:
        _html(done, args)
    else:
        screen.show(*render.lines(done, everything=args.verbose, quiet=args.quiet))
        return
    for entry in done.unmatched:
        streams.complain(f"firstkey: {args.baseline}, line {entry.line}: this finding is there no more")


def _html(done: Audit, args: argparse.Namespace) -> None:
    from firstkey.image import page

    verdict = [line if isinstance(line, str) else line.text + line.after for line in render.summary(done)]
    text = page.as_html(done, verdict[0])
    if args.html == "-":
        streams.put(sys.stdout, text)
        return
    screen.save("--html", args.html, text)
    if not args.quiet:
        screen.show(*render.summary(done))


MOST_KNOWN = 16 * 1024 * 1024
"""Bytes of a baseline: what is larger is something else."""


def _baseline(path: str | None) -> tuple[Known, ...]:
    """The known findings of that file of the host's. Raises UsageError."""
    if path is None:
        return ()
    content = screen.load("--baseline", path, MOST_KNOWN + 1)
    if len(content) > MOST_KNOWN:
        raise UsageError(f"--baseline {path}: this has more than {MOST_KNOWN} bytes")
    return baseline.parse(path, content, (rule.id for rule in rules.ALL))


def _exclude_list(survey: Survey, wanted: list[Rule]) -> int:
    """Print the list, byte for byte where a program reads it; returns 1 where it is not exact."""

    def listed(image: Image, _inside: Inside) -> list[list[str]]:
        found = formats.exclude_list(image, wanted)
        return [list(map(os.fsdecode, found.patterns)), list(found.doubts)]

    patterns, doubts = survey.do(listed, wanted=wanted)
    if sys.stdout.isatty():
        streams.show(*patterns)
    else:
        streams.put(sys.stdout.buffer, b"".join(os.fsencode(pattern) + b"\n" for pattern in patterns))
    streams.complain(*(f"firstkey: {doubt}" for doubt in doubts))
    return 1 if doubts else 0
