"""`firstkey audit`: whether the image is fit to share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from firstkey.cli import common, screen, streams, usage
from firstkey.cli.looking import Looker
from firstkey.image import audit, baseline, formats, render, rules
from firstkey.image.audit import Audit
from firstkey.image.baseline import Known
from firstkey.image.rule import Rule
from firstkey.image.subject import Image
from firstkey.image.survey import AUTO, BUILTIN, Survey
from firstkey.system import scanners
from firstkey.system.boxed import Inside

USAGE = usage.Usage(
    (
        (
            usage.JSON,
            usage.flag("--sarif", words="print SARIF 2.1.0, for code-scanning tools"),
            usage.value("--html", "FILE", "write a page for a browser; - is standard output"),
            usage.flag("--junit", words="print JUnit XML, for CI systems"),
            usage.flag("--exclude-list", words="print patterns of files that bundling tools should exclude"),
            usage.flag("--list", words="print the rules, and check nothing"),
        ),
        usage.choice(
            "--secrets",
            "the scanner for tokens of other services than AWS: the first one that is installed, none "
            "(builtin), or the one that is named",
            *(AUTO, BUILTIN, *scanners.NAMES),
        ),
        usage.choice("--profile", "who gets the image: changes the severity of some rules", *rules.PROFILES),
        usage.value("--baseline", "FILE", "a file of known findings, each with a reason and an owner"),
        *usage.RULES,
    ),
    """\
examples:
  firstkey audit --root /mnt/image
  firstkey audit --root /mnt/image --sarif > audit.sarif
  firstkey audit --root /mnt/image --junit --baseline known.json > audit.xml
  firstkey audit --root /mnt/image --html audit.html
  tar -c --exclude-from <(firstkey audit --exclude-list) -f image.tar /
  ec2-bundle-vol --exclude "$(firstkey audit --exclude-list | paste -sd,)" ...

exit status: 0 the image is fit to share; 1 it is not: a finding is worse than a
  note, or a needed rule could not be checked. With --exclude-list: 1 the list
  excludes too many or too few files, as the messages say. 2 usage error
""",
    more="No program\nof the image is run, and no file is changed.",
    without=("--imds",),
)


def main(args: argparse.Namespace) -> int:
    """Check the rules; returns the exit status."""
    if args.list:
        streams.show(
            *(f"{each.guideline:7} {each.severity:8} {each.id:22} {each.title}" for each in rules.ALL)
        )
        return 0
    wanted = audit.chosen(args.rule, args.skip, args.profile)
    known: tuple[Known, ...] = ()
    if args.baseline is not None:
        content = screen.load("--baseline", args.baseline, baseline.LIMIT + 1)
        known = baseline.parse(args.baseline, content, (rule.id for rule in rules.ALL))
    if args.html not in (None, "-"):
        # What cannot be written is better known before a large tree is looked at.
        screen.save("--html", args.html, "")
    common.tree_at(args.root).__exit__()
    common.require_root(args, "auditing")
    is_text = not (args.json or args.sarif or args.junit or args.html == "-" or args.exclude_list)
    with surveyed(args, wanted, "Audit", is_text=is_text) as (survey, _):
        if args.exclude_list:
            return _exclude_list(survey, wanted)
        done = survey.audit(wanted, known)._replace(profile=args.profile)
    _show(done, args)
    return 0 if done.is_fit else 1


@contextmanager
def surveyed(
    args: argparse.Namespace, wanted: Sequence[Rule], title: str, *, is_text: bool
) -> Iterator[tuple[Survey, screen.Progress]]:
    """The image, ready to be looked at, and the line that shows how far that is."""
    looker = Looker(args, common.logger(args))
    if is_text and not args.quiet:
        screen.show(render.heading(title, looker.root, wanted, getattr(args, "profile", None)))
    progress = screen.Progress(wanted=not args.quiet)
    survey = Survey(
        looker.root,
        looker.look,
        progress=progress.report,
        banner=getattr(args, "banner", False),
        secrets=getattr(args, "secrets", BUILTIN),
        configuration=args.config and os.path.abspath(args.config),
    )
    try:
        yield survey, progress
    finally:
        progress.clear()


def _show(done: Audit, args: argparse.Namespace) -> None:
    if args.json:
        streams.show_json(formats.as_json(done))
        return
    if args.sarif:
        streams.show_json(formats.as_sarif(done))
    elif args.junit:
        streams.put(sys.stdout, formats.as_junit(done))
    elif args.html:
        if args.html == "-":
            streams.put(sys.stdout, render.as_html(done))
        else:
            screen.save("--html", args.html, render.as_html(done))
            screen.show(*(() if args.quiet else render.summary(done)))
    else:
        screen.show(*render.lines(done, everything=args.verbose, quiet=args.quiet))
        return
    for entry in done.unmatched:
        streams.complain(f"firstkey: {args.baseline}, line {entry.line}: this finding is there no more")


def _exclude_list(survey: Survey, wanted: list[Rule]) -> int:
    """Print the list, byte for byte where a program reads it; returns 1 where it is not exact."""

    def listed(image: Image, _inside: Inside) -> list[list[str]]:
        patterns, unknowns = formats.exclude_list(image, wanted)
        return [list(map(os.fsdecode, patterns)), unknowns]

    patterns, unknowns = survey.do(listed, wanted=wanted)
    if sys.stdout.isatty():
        streams.show(*patterns)
    else:
        streams.put(sys.stdout.buffer, b"".join(os.fsencode(pattern) + b"\n" for pattern in patterns))
    streams.complain(*(f"firstkey: {unknown}" for unknown in unknowns))
    return 1 if unknowns else 0
