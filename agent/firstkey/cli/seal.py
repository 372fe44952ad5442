"""`firstkey seal`: make the image fit to share."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from itertools import count
from typing import TYPE_CHECKING

from firstkey import NamedTuple, events
from firstkey.cli import common, parsers, screen, streams
from firstkey.cli.audit import add_choice
from firstkey.cli.looking import Looker
from firstkey.cli.progress import Progress
from firstkey.image import audit, render, render_seal, seal
from firstkey.image.door import Context
from firstkey.image.rule import AMI_TOOLS, CREDENTIALS, HISTORIES
from firstkey.image.rules import publisher
from firstkey.image.survey import Survey
from firstkey.reasons import UsageError
from firstkey.system import mounts, shells

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from firstkey.cli.looking import Say
    from firstkey.image.plan import Plan
    from firstkey.image.rule import Rule
    from firstkey.image.seal import Outcome, Sealing
    from firstkey.system.tree import Tree

LOCK_SECONDS = 30.0

EPILOG = """\
Sealing cleans an image, as virt-sysprep and `cloud-init clean` do. seal makes a
plan (--dry-run shows it with diffs, and changes nothing), does each step, and
audits the image again. It removes private keys and credentials only with
--remove-credentials. On the running system, seal is the last command: it
removes every way to log in.

examples:
  firstkey seal --root /mnt/image --dry-run     the plan, with diffs
  firstkey seal --root /mnt/image               seal a mounted image

exit status: 0 every step was done and the image is fit to share; 1 a step
  failed, or a finding is left.
"""

CUTS_OFF = {
    "authorized-keys": "the authorized keys of every account, yours too",
    "host-keys": "the SSH host keys, without which sshd accepts no new connection until the next boot",
    "root-password-login": "root's login with a password",
    "root-password": "every password, which is locked",
    "other-passwords": "every password, which is locked",
    "histories": "every interactive shell ({number} now), ended before it can write its history",
}
"""By rule, the ways to log in that a running system loses."""


class Task(NamedTuple):
    """One call of the command: what looks at the image is in a box, what changes it goes through the tree."""

    tree: Tree
    survey: Survey
    wanted: Sequence[Rule]
    args: argparse.Namespace
    progress: Progress

    @property
    def is_live(self) -> bool:
        """Whether there are people and services at work on it."""
        return self.tree.is_running_system

    @property
    def takes(self) -> list[str]:
        """The ways to log in that a running system loses."""
        taken = (CUTS_OFF[rule.id] for rule in self.wanted if rule.id in CUTS_OFF)
        return list(dict.fromkeys(taken)) if self.is_live else []

    @property
    def ends_shells(self) -> bool:
        """Whether shells must be kept from writing their histories back."""
        return self.is_live and any(rule.stage == HISTORIES for rule in self.wanted)


def main(argv: Sequence[str]) -> int:
    """Plan, apply, audit again; returns the exit status."""
    args = _arguments(argv)
    wanted = audit.chosen(args.rule, args.skip)
    with common.tree_at(args.root) as tree:
        common.require_root(args, "sealing")
        say = common.voice(args)
        looker = Looker(args, say)
        with Progress(wanted=not (args.quiet or args.json)) as progress:
            configuration = args.config and os.path.abspath(args.config)
            survey = Survey(
                looker.root,
                looker.look,
                progress=progress.tell,
                banner=args.banner,
                configuration=configuration,
            )
            task = Task(tree, survey, wanted, args, progress)
            _refuse_unasked(task)
            return _run(task, say)


def _refuse_unasked(task: Task) -> None:
    """Where the question has no terminal to be answered at, say so before the disk is searched."""
    if task.takes and not (task.args.yes or task.args.dry_run or sys.stdin.isatty()):
        message = "sealing the running system removes ways to log in, and there is no terminal to ask on"
        raise UsageError(message, hint="Give --yes to seal it all the same; --dry-run shows the plan")


def _run(task: Task, say: Say) -> int:
    if not task.args.json and not task.args.quiet:
        screen.show(render.heading("Seal", task.tree.root, task.wanted))
    planned = task.survey.plan(task.wanted, _options(task.args))
    task.progress.clear()
    if task.args.json and task.args.dry_run:
        streams.show_json(render_seal.plan_json(planned))
    elif not task.args.json and not task.args.quiet:
        streams.show(*render_seal.plan(planned, diffs=task.args.dry_run))
    if task.args.dry_run:
        return 0
    _confirm(task)
    alone = common.locked(task.tree, LOCK_SECONDS, say) if task.is_live else nullcontext()
    with alone:
        done = _carry_out(task, planned)
    say(events.SEALED(root=task.tree.root, summary=render_seal.one_line(done)))
    _tell(task, planned, done)
    if task.ends_shells:
        _end_own_shells()
    return 0 if done.is_fit else 1


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    made = parsers.command("seal", "Make an image fit to share.", epilog=EPILOG, without=("--imds",))
    parsers.with_forms(parsers.with_dry_run(made))
    add_choice(made)
    made.add_argument(
        f"--{CREDENTIALS}", action="store_true", help="also remove private keys, credentials and access keys"
    )
    made.add_argument(f"--{AMI_TOOLS}", action="store_true", help="also update the AMI tools")
    made.add_argument(
        "--banner", action="store_true", help="also show the publisher of the image at each login"
    )
    made.add_argument("-y", "--yes", action="store_true", help="seal the running system without asking")
    return made.parse_args(argv)


def _options(args: argparse.Namespace) -> list[str]:
    return [name for name in (CREDENTIALS, AMI_TOOLS) if getattr(args, name.replace("-", "_"))]


def _confirm(task: Task) -> None:
    """On the running system, say what will cut the operator off, and ask."""
    if not task.takes or task.args.yes:
        return
    found = shells.interactive()
    number = len(found.others) + len(found.own)
    streams.complain(
        "This is the running system. Sealing it removes these ways to log in:",
        *(f"  - {taken.format(number=number)}" for taken in task.takes),
        "Afterwards, stop the instance or make the image, and do nothing else.",
    )
    if screen.ask("Type yes to go on: ") != "yes":
        raise UsageError("nothing was changed", hint="Type yes, in full, to seal")


def _carry_out(task: Task, planned: Plan) -> Sealing:
    steps = count(1)

    def tell(outcome: Outcome) -> None:
        """The plan was shown: only what went otherwise is worth a line."""
        task.progress.tell(next(steps), outcome.step.change.path)
        went_well = outcome.result == seal.DONE and "not overwritten" not in outcome.detail
        if not task.args.json and (task.args.verbose or not went_well):
            task.progress.clear()
            screen.show(*render_seal.outcome(outcome))

    def quiet() -> None:
        if task.ends_shells:
            shells.end(shells.interactive().others)

    instance = task.survey.do(lambda image, _: image.site.firmware_instance()) if task.is_live else None
    context = Context(task.tree, task.survey.holds, instance, mounts.foreign(task.tree.root))
    return seal.carry_out(planned, task.wanted, context, task.survey.audit, tell, before_histories=quiet)


def _tell(task: Task, planned: Plan, done: Sealing) -> None:
    task.progress.clear()
    if task.args.json:
        streams.show_json(render_seal.sealing_json(done))
        return
    if task.args.quiet and done.is_fit:
        return
    streams.show("", *render_seal.summary(done))
    screen.show(*render_seal.difference(planned, done.after))
    screen.show(*render.lines(done.after, everything=task.args.verbose, quiet=task.args.quiet, passing=False))
    description = task.survey.do(lambda image, _: publisher.ami_description(image.settings))
    if description:
        streams.show("", f"For the AMI's description: {description}")


def _end_own_shells() -> None:
    """The last act: the shells that this was started from would write their histories when they end."""
    sys.stdout.flush()
    shells.outlive_terminal()
    shells.end(shells.interactive().own)
