"""`firstkey keys`: which keys the metadata service offers; installs nothing."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from firstkey.boot import launch_keys
from firstkey.cli import common, looking, render, streams, usage
from firstkey.model import FAILED, NO_KEY, OK, UNREACHABLE, Answer, Report
from firstkey.reasons import NO_KEY_PAIR, FirstkeyError, Refusal, Unreachable

USAGE = usage.Usage(
    (usage.JSON, usage.seconds("--wait", "how long to wait for an answer", 5.0)),
    """\
examples:
  firstkey keys             list the launch keys with their fingerprints
  firstkey keys -v          show each request with its answer or error
  firstkey keys --json      for programs, in the format of a run's report
  firstkey keys --imds http://127.0.0.1:1338
                            ask another service, such as firstkey imds

exit status: 0 no error, also for an instance without a key pair;
  1 a key is refused, or the service gives no usable answer; 2 usage error;
  75 no answer in time
""",
)


def main(args: argparse.Namespace) -> int:
    """Show the offered keys with their fingerprints; returns the exit status."""
    return looking.command(args, _show)


def _show(args: argparse.Namespace, log: looking.Log) -> int:
    with common.opened(args, log) as target:
        try:
            done = _report(common.client(target).ask(deadline=time.monotonic() + args.wait))
        except FirstkeyError as error:
            if not args.json:
                raise
            # Programs get an answer on standard output in any case.
            outcome = UNREACHABLE if isinstance(error, Unreachable) else FAILED
            streams.show_json(Report(outcome, refusal=error.refusal).as_json())
            return error.exit_status
        if args.json:
            streams.show_json(done.as_json())
        else:
            streams.show(*_lines(done, quiet=args.quiet))
        return 0 if done.outcome in (OK, NO_KEY) else 1


def _report(answer: Answer) -> Report:
    none = Refusal(NO_KEY_PAIR, "the instance was launched without a key pair")
    draft = Report(
        OK,
        instance_id=answer.instance_id,
        imds=answer,
        keys=launch_keys.judge(answer.keys)[1],
        refusal=None if answer.keys else none,
    )
    return draft.judged()


def _lines(done: Report, *, quiet: bool) -> Iterator[str]:
    """All, or only what is wrong: an instance without a key pair is in order."""
    if not quiet:
        yield from render.instance(done)
    for key in done.keys:
        if key.refusal or not quiet:
            yield from render.offered_key(key)
    if done.refusal and not quiet:
        yield from render.refusal(done.refusal)
