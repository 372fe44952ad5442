"""`firstkey seal`: make the image fit to share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from firstkey import events
from firstkey.cli import common, screen, streams, usage
from firstkey.cli.audit import surveyed
from firstkey.image import audit, door, render, seal
from firstkey.image.door import Context
from firstkey.image.rule import AMI_TOOLS, CREDENTIALS, HISTORIES, Rule
from firstkey.image.rules import publisher
from firstkey.image.seal import Outcome, Plan, Sealing
from firstkey.image.survey import Survey
from firstkey.reasons import UsageError
from firstkey.system import mounts, shells
from firstkey.system.tree import Tree

Surveyed = tuple[Survey, screen.Progress]

LOCK_SECONDS = 30.0

USAGE = usage.Usage(
    (
        usage.DRY_RUN,
        usage.JSON,
        *usage.RULES,
        usage.flag(f"--{CREDENTIALS}", words="also remove private keys, credentials and access keys"),
        usage.flag(f"--{AMI_TOOLS}", words="also update the AMI tools"),
        usage.flag("--banner", words="also show the publisher of the image at each login"),
        usage.flag("-y", "--yes", words="seal the running system without asking"),
    ),
    """\
Sealing cleans an image, as virt-sysprep and `cloud-init clean` do. seal makes a
plan (--dry-run shows it with diffs, and changes nothing), does each step, and
audits the image again. It removes private keys and credentials only with
--remove-credentials. On the running system, seal is the last command: it
removes every way to log in.

examples:
  firstkey seal --root /mnt/image --dry-run     the plan, with diffs
  firstkey seal --root /mnt/image               seal a mounted image

exit status: 0 every step was done and the image is fit to share; 1 a step
  failed, or a finding is left; 2 usage error; 77 needs root
""",
    without=("--imds",),
)

CUTS_OFF = {
    "authorized-keys": "the authorized keys of every account, yours too",
    "host-keys": "the SSH host keys, without which sshd accepts no new connection until the next boot",
    "root-password-login": "root's login with a password",
    "root-password": "every password, which is locked",
    "other-passwords": "every password, which is locked",
    "histories": "every interactive shell ({number} now), ended before it can write its history",
}
"""By rule, the ways to log in that a running system loses."""


def main(args: argparse.Namespace) -> int:
    """Plan, apply, audit again; returns the exit status."""
    wanted = audit.chosen(args.rule, args.skip)
    options = [name for name in (CREDENTIALS, AMI_TOOLS) if getattr(args, name.replace("-", "_"))]
    with common.tree_at(args.root) as tree:
        is_asked = tree.is_running_system and not (args.yes or args.dry_run)
        taken = taken_by(wanted) if is_asked else []
        common.require_root(args, "sealing")
        if taken and not sys.stdin.isatty():  # said before the disk is searched
            message = "sealing the running system removes ways to log in, and there is no terminal to ask on"
            raise UsageError(message, hint="Give --yes to seal it all the same; --dry-run shows the plan")
        with surveyed(args, wanted, "Seal", is_text=not args.json) as look:
            survey, progress = look
            planned = survey.plan(wanted, options)
            progress.clear()
            if args.json and args.dry_run:
                streams.show_json(render.plan_json(planned))
            elif not args.json and not args.quiet:
                streams.show(*render.plan(planned, diffs=args.dry_run))
            if args.dry_run:
                return 0
            if taken:
                _confirm(taken)
            return _seal(args, tree, wanted, look, planned)


def taken_by(wanted: Sequence[Rule]) -> list[str]:
    """The ways to log in that a running system loses by these rules."""
    return list(dict.fromkeys(CUTS_OFF[rule.id] for rule in wanted if rule.id in CUTS_OFF))


def _seal(args: argparse.Namespace, tree: Tree, wanted: Sequence[Rule], look: Surveyed, planned: Plan) -> int:
    """Carry out the plan, audit again, and say how it went; returns the exit status."""
    survey, progress = look
    log, is_live = common.logger(args), tree.is_running_system
    # Shells must be kept from writing their histories back.
    ends_shells = is_live and any(rule.stage == HISTORIES for rule in wanted)

    def end_other_shells() -> None:
        if ends_shells:
            shells.end(shells.interactive().others)

    outcomes: list[Outcome] = []
    with common.locked(tree, LOCK_SECONDS, log) if is_live else nullcontext():
        instance = survey.do(lambda image, _: image.target.firmware_instance()) if is_live else None
        foreign = mounts.foreign(tree.root)
        context = Context(tree, survey.holds, instance, foreign, door.needed(tree, foreign))
        for outcome in seal.carry_out(planned, context, before_histories=end_other_shells):
            outcomes.append(outcome)
            progress.report(len(outcomes), outcome.step.change.path)
            went_well = outcome.result == seal.DONE and "not overwritten" not in outcome.detail
            if not args.json and (args.verbose or not went_well):  # the plan was shown
                progress.clear()
                screen.show(*render.outcome(outcome))
        done = Sealing(planned, tuple(outcomes), survey.audit(wanted))
    progress.clear()
    log(events.SEALED(root=tree.root, summary=render.one_line(done)))
    if args.json:
        streams.show_json(render.sealing_json(done))
    elif not (args.quiet and done.is_fit):
        screen.show(*render.sealing(done, everything=args.verbose, quiet=args.quiet))
        description = survey.do(lambda image, _: publisher.ami_description(image.settings))
        streams.show(*("", f"For the AMI's description: {description}") if description else ())
    if ends_shells:  # the last act: those that this was started from would write their histories
        sys.stdout.flush()
        shells.outlive_terminal()
        shells.end(shells.interactive().own)
    return 0 if done.is_fit else 1


def _confirm(taken: list[str]) -> None:
    """Say which ways to log in to the running system are removed, and ask."""
    found = shells.interactive()
    number = len(found.others) + len(found.own)
    streams.complain(
        "This is the running system. Sealing it removes these ways to log in:",
        *(f"  - {way.format(number=number)}" for way in taken),
        "Afterwards, stop the instance or make the image, and do nothing else.",
    )
    if screen.ask("Type yes to go on: ") != "yes":
        raise UsageError("nothing was changed", hint="Type yes, in full, to seal")
