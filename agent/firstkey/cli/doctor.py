"""`firstkey doctor`: whether `ssh NAME@here` would give a shell with the launch key, and if not, why."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Iterator, Sequence

from firstkey.boot.target import Target
from firstkey.cli import common, looking, overrides, screen, streams, usage
from firstkey.display import DECIDE, quoted
from firstkey.login import doctor, launch_key
from firstkey.login.doctor import BLOCKED, OPEN, OUT_OF_SCOPE, UNSURE, Diagnosis
from firstkey.login.finding import OBSTACLE, OK, UNKNOWN, Finding
from firstkey.login_reasons import KEY_UNKNOWN
from firstkey.model import Answer
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh.access import Client
from firstkey.system.tree import resolved
from firstkey.text import REMEDY

KEY_LIMIT = 65536
CHROOT = "chroot "
OWN_PROGRAMS = (
    "chroot runs programs of the tree as root: paste such a command only for a tree that you would boot."
)


def _client(address: str) -> Client:
    import ipaddress

    ipaddress.ip_address(address)
    return Client(address, address)


USAGE = usage.Usage(
    (
        usage.JSON,
        usage.USERS,
        usage.value("--key", "FILE", "this public key, instead of the launch key (- for stdin)"),
        usage.value(
            "--from",
            "ADDRESS",
            "the client's IP address",
            dest="client",
            type=usage.judged(_client, "it takes an IP address"),
        ),
        usage.flag("--no-probe", words="do not ask the running sshd, which would log a connection"),
        usage.seconds("--wait", "how long to wait for the metadata service", 3.0),
    ),
    """\
examples:
  firstkey doctor                          the configured users, the launch key
  firstkey doctor --user deploy            one user
  firstkey doctor --key ~/.ssh/id.pub      another key than the launch key
  firstkey doctor --from 203.0.113.7       a client at that address

It changes nothing. Without root, it names the checks that only root can make.

exit status: 0 no obstacle, 1 an obstacle or an unknown, 2 usage error
""",
)
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


def main(args: argparse.Namespace) -> int:
    """Diagnose the users; returns 0 where each of them can log in, else 1."""
    args.named_key = args.key
    if args.key is not None:
        args.named_key = launch_key.named(screen.load("--key", args.key, KEY_LIMIT), args.key)
    return looking.command(args, _show)


def _show(args: argparse.Namespace, log: looking.Log) -> int:
    with common.opened(args, log) as target:
        source = args.named_key or _asked(target, args)
        off = common.switched_off(target)
        names, probing = target.config.keys.users, not args.no_probe
        found = doctor.examine(target, names, source, client=args.client, probing=probing, off=off)
        diagnoses = [_for(diagnosis, args) for diagnosis in found]
    verdicts = {diagnosis.verdict for diagnosis in diagnoses}
    verdict = next((verdict for verdict in (BLOCKED, UNSURE) if verdict in verdicts), OPEN)
    if args.json:
        users = [diagnosis.as_json() for diagnosis in diagnoses]
        streams.show_json({"version": 1, "verdict": verdict, "users": users, "out_of_scope": OUT_OF_SCOPE})
    elif not (args.quiet and verdict == OPEN):
        streams.show(*_lines(diagnoses, args))
    return 0 if verdict == OPEN else 1


def _asked(target: Target, args: argparse.Namespace) -> Answer | Refusal:
    if not target.tree.is_running_system and not args.imds:
        return Refusal(KEY_UNKNOWN, "this machine's metadata service says nothing of another system")
    try:
        return common.client(target).ask(deadline=time.monotonic() + args.wait)
    except FirstkeyError as error:
        return error.refusal


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
                # Several findings may have the same remedy, which is worth one line.
                is_said = finding.remedy in noted and not finding.is_command
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
    place, install = quoted(args.root), f"firstkey run --force --user {shlex.quote(diagnosis.user)}"
    key = diagnosis.key

    def on_tree(finding: Finding) -> Finding:
        command = finding.remedy or ""
        if not finding.is_command:
            return finding._replace(remedy=finding.remedy and overrides.on_tree(command, args))
        if command == install and not args.imds:
            # This machine's metadata service has the launch key of this machine.
            return finding._replace(remedy=f"Install it on the instance: {install}", is_command=False)
        if command == install:
            where = f"run --root {place} --imds {shlex.quote(args.imds)}"
            return finding._replace(remedy=install.replace("run", where, 1))
        command = f"{CHROOT}{place} sh -c {shlex.quote(command)}"
        is_key_read = key and key.file and "(echo; cat)" in command
        return finding._replace(remedy=f"{key.printed} | {command}" if key and is_key_read else command)

    return diagnosis._replace(findings=tuple(map(on_tree, diagnosis.findings)))


def _finding(finding: Finding) -> Iterator[str]:
    mark = "   i" if finding.status == OK and finding.reason else MARKS[finding.status]
    code = f" ({finding.reason.code})" if finding.reason else ""
    where = f"{finding.path}: " if finding.path else ""
    yield f"{mark} {where}{finding.detail}{code}"
    if finding.line:
        yield f"     The line: {finding.line}"
    if finding.remedy:  # behind a note, there is nothing to decide
        is_plain = finding.is_command or finding.status == OK
        yield f"     {REMEDY if is_plain else DECIDE}{finding.remedy}"
