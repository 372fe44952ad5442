"""`firstkey doctor`: whether `ssh NAME@here` would give a shell with the launch key, and if not, why."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from firstkey import login_reasons
from firstkey.cli import common, looking, parsers, screen, streams
from firstkey.display import DECIDE
from firstkey.login import launch_key
from firstkey.login.doctor import BLOCKED, OPEN, OUT_OF_SCOPE, UNSURE, Doctor
from firstkey.login.finding import OBSTACLE, OK, UNKNOWN
from firstkey.reasons import FirstkeyError, UsageError
from firstkey.settings import seconds
from firstkey.ssh.restrictions import Client
from firstkey.system.tree import resolved
from firstkey.text import REMEDY

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from firstkey.boot.site import Site
    from firstkey.login.context import LaunchKey
    from firstkey.login.doctor import Diagnosis
    from firstkey.login.finding import Finding
    from firstkey.model import Answer

KEY_LIMIT = 65536
CHROOT = "chroot "
OWN_PROGRAMS = (
    "chroot runs programs of the tree as root: paste such a command only for a tree that you would boot."
)
EPILOG = """\
examples:
  firstkey doctor                          the configured users, the launch key
  firstkey doctor --user deploy            one user
  firstkey doctor --key ~/.ssh/id.pub      another key than the launch key
  firstkey doctor --from 203.0.113.7       a client at that address

It changes nothing. Without root, it names the checks that only root can make.

exit status: 0 no obstacle, 1 an obstacle or an unknown
"""
VERDICTS = {
    OPEN: "ssh{port} {user}@HERE works",
    BLOCKED: "ssh{port} {user}@HERE does NOT work",
    UNSURE: "ssh{port} {user}@HERE: nothing is known to be in the way, but not everything could be seen",
}
VERDICTS_ON_A_TREE = {
    OPEN: "ssh{port} {user}@HERE: nothing in this tree is in the way; what only a boot shows is left out",
    BLOCKED: "ssh{port} {user}@HERE will NOT work",
    UNSURE: VERDICTS[UNSURE],
}
MARKS = {OK: "  ok", OBSTACLE: "  !!", UNKNOWN: "  ??"}


def main(argv: Sequence[str]) -> int:
    """Diagnose the users; returns 0 where each of them can log in, else 1."""
    args = _parser().parse_args(argv)
    args.client = _client(args.come_from)
    args.named_key = _named(args.key) if args.key else None
    return looking.command(args, _show)


def _show(args: argparse.Namespace, say: looking.Say) -> int:
    with common.opened(args, say) as site:
        sources = launch_key.Sources(site, named=args.named_key, ask=lambda: _ask(site, args))
        off = common.switched_off(site)
        doctor = Doctor(site, sources, client=args.client, probing=not args.no_probe, off=off)
        diagnoses = [_for(doctor.examine(name), args) for name in site.config.keys.users]
    verdict = _verdict(diagnoses)
    if args.json:
        streams.show_json(_as_json(diagnoses, verdict))
    elif not (args.quiet and verdict == OPEN):
        streams.show(*_lines(diagnoses, args))
    return 0 if verdict == OPEN else 1


def _parser() -> argparse.ArgumentParser:
    made = parsers.command(
        "doctor",
        "Say whether the launch key gives a shell here, and if not, name the obstacles.",
        epilog=EPILOG,
    )
    parsers.with_forms(made)
    made.add_argument(
        "--user",
        metavar="NAME",
        action="append",
        help="this user, instead of the configured ones (repeatable)",
    )
    made.add_argument(
        "--key", metavar="FILE", help="this public key, instead of the launch key (- for stdin)"
    )
    made.add_argument("--from", metavar="ADDRESS", dest="come_from", help="the client's IP address")
    made.add_argument(
        "--no-probe", action="store_true", help="do not ask the running sshd, which would log a connection"
    )
    made.add_argument(
        "--wait",
        metavar="SECONDS",
        type=seconds,
        default=3.0,
        help="how long to wait for the metadata service (3)",
    )
    return made


def _client(address: str | None) -> Client | None:
    if address is None:
        return None
    import ipaddress

    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise UsageError(f"--from {address}: {error}") from error
    return Client(address, address)


def _named(path: str) -> LaunchKey:
    return launch_key.named(screen.load("--key", path, KEY_LIMIT), path)


def _ask(site: Site, args: argparse.Namespace) -> Answer:
    if not site.tree.is_running_system and not args.imds:
        message = "this machine's metadata service says nothing of another system"
        raise FirstkeyError(message, reason=login_reasons.KEY_UNKNOWN)
    return common.client(site).ask(deadline=time.monotonic() + args.wait)


def _verdict(diagnoses: Sequence[Diagnosis]) -> str:
    verdicts = {diagnosis.verdict for diagnosis in diagnoses}
    return next((verdict for verdict in (BLOCKED, UNSURE) if verdict in verdicts), OPEN)


def _as_json(diagnoses: Sequence[Diagnosis], verdict: str) -> dict[str, object]:
    return {
        "version": 1,
        "verdict": verdict,
        "users": [diagnosis.as_json() for diagnosis in diagnoses],
        "out_of_scope": OUT_OF_SCOPE,
    }


def _lines(diagnoses: Sequence[Diagnosis], args: argparse.Namespace) -> Iterator[str]:
    for diagnosis in diagnoses:
        if args.quiet and diagnosis.verdict == OPEN:
            continue
        port = f" -p {diagnosis.port}" if diagnosis.port != 22 else ""
        verdicts = VERDICTS if resolved(args.root) == "/" else VERDICTS_ON_A_TREE
        yield verdicts[diagnosis.verdict].format(port=port, user=diagnosis.user)
        if diagnosis.key:
            yield f"  Key: {diagnosis.key}"
        noted: set[str | None] = set()
        for finding in diagnosis.findings:
            if finding.status != OK or args.verbose or (finding.reason and not args.quiet):
                # Several notes may have the same remedy, which is worth one line.
                is_said = finding.status == OK and finding.remedy in noted
                yield from _finding(finding._replace(remedy=None) if is_said else finding)
                noted.add(finding.remedy)
        yield ""
    commands = (
        each.remedy or "" for diagnosis in diagnoses for each in diagnosis.findings if each.is_command
    )
    if resolved(args.root) != "/" and any(CHROOT in command for command in commands):
        yield OWN_PROGRAMS
    yield OUT_OF_SCOPE


def _for(diagnosis: Diagnosis, args: argparse.Namespace) -> Diagnosis:
    """Its commands, so that they work on the tree that was looked at, and through no link out of it.

    What the tree's author wrote stays one word of the shell: a command is never taken apart at what it holds.
    """
    if resolved(args.root) == "/":
        return diagnosis
    place, install = shlex.quote(args.root), f"firstkey run --force --user {shlex.quote(diagnosis.user)}"
    key = diagnosis.key

    def on_tree(finding: Finding) -> Finding:
        command = finding.remedy or ""
        if command == install and not args.imds:
            # This machine's metadata service has the launch key of this machine.
            return finding._replace(remedy=f"Install it on the instance: {install}", is_command=False)
        if command == install:
            where = f"run --root {place} --imds {shlex.quote(args.imds)}"
            return finding._replace(remedy=install.replace("run", where, 1))
        command = f"{CHROOT}{place} sh -c {shlex.quote(command)}"
        is_key_read = key and key.file and "(echo; cat)" in command
        return finding._replace(remedy=f"{key.printed} | {command}" if key and is_key_read else command)

    findings = (on_tree(each) if each.is_command else each for each in diagnosis.findings)
    return diagnosis._replace(findings=tuple(findings))


def _finding(finding: Finding) -> Iterator[str]:
    mark = "   i" if finding.status == OK and finding.reason else MARKS[finding.status]
    code = f" ({finding.reason.code})" if finding.reason else ""
    where = f"{finding.path}: " if finding.path else ""
    yield f"{mark} {where}{finding.detail}{code}"
    if finding.line:
        yield f"     The line: {finding.line}"
    if finding.remedy:
        yield f"     {REMEDY if finding.is_command else DECIDE}{finding.remedy}"
