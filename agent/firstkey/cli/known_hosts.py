"""`firstkey known-hosts`: what a client needs to trust this host, or one whose console output was saved."""

from __future__ import annotations

import argparse
import base64
import json
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from firstkey import login_reasons, reasons
from firstkey.boot import host_key_files, host_keys
from firstkey.boot.target import Target
from firstkey.cli import common, looking, screen, streams, usage
from firstkey.reasons import FirstkeyError, NeedsRoot, UsageError
from firstkey.ssh import console_text, known_hosts, public_key
from firstkey.ssh.public_key import PublicKey
from firstkey.system.sshd import Sshd
from firstkey.system.sshd_tree import sshd_of

LIMIT = 64 * 1024 * 1024
USAGE = usage.Usage(
    (
        usage.value("console", "FILE", "saved console output, text or JSON; - is stdin", nargs="?"),
        usage.values("--host", "NAME", "name or address of the host", []),
        usage.port("the port of its sshd", 22),
        usage.flag("--live", words="read this machine's keys, whatever is on standard input"),
        usage.flag("--sshfp", words="SSHFP records for DNS, as ssh-keygen -r does"),
    ),
    """\
examples:
  firstkey known-hosts --host www.example.com         keys of this machine
  aws ec2 get-console-output --instance-id ID --latest |
    firstkey known-hosts --host 203.0.113.7 - >> ~/.ssh/known_hosts
  firstkey known-hosts --host www.example.com --sshfp         records for DNS

From a console, a key is printed only if it is at the beginning of a line, as
firstkey and cloud-init write it, and if the console shows its fingerprint too.

exit status: 0 no error; 1 there is no key, a key is left out or cannot be
  read, or blocks of keys in the text do not agree with each other;
  2 usage error
""",
    without=("--config", "--imds", "--verbose"),
)


def main(args: argparse.Namespace) -> int:
    """Print lines of known_hosts, or records for DNS; returns the exit status."""
    is_console = args.console is not None
    if is_console and args.live:
        raise UsageError("--live is about this machine, and FILE about a saved console: give one of them")
    for host in args.host:
        if not known_hosts.is_host(host):
            raise UsageError(f"--host {host!a}: that is not the name or address of one host")
    if is_console or (not args.live and _is_piped()):
        if not args.host:
            message = "console output (a FILE, or standard input) does not say which host it is of"
            raise UsageError(message, hint="Give --host NAME; for the keys of this machine, --live.")
        text = screen.load("the console output", args.console if is_console else "-", LIMIT)
        keys, status = _of_console(text)
        _print(args, args.host, keys)
        return status
    return looking.command(args, _show_machine)


def _show_machine(args: argparse.Namespace, log: looking.Log) -> int:
    """The keys that sshd shows, by its own settings; one that cannot be read is named."""
    keys: list[PublicKey] = []
    failures: list[FirstkeyError] = []
    with common.opened(args, log) as target:
        sshd = sshd_of(target.tree)
        for file in sshd.meaning("root").effective.host_keys:
            try:
                keys += filter(None, [seen(target, sshd, file)[1]])
            except FirstkeyError as error:  # noqa: PERF203 - host keys are few
                is_barred = error.reason is reasons.PERMISSION_DENIED and os.geteuid() != 0
                failures.append(NeedsRoot(error.message) if is_barred else error)
        if failures and not keys:
            raise failures[0]
        streams.complain(*(f"firstkey: {each.message} ({each.reason.code})" for each in failures))
        _print(args, args.host or [target.first_line("/etc/hostname") or "localhost"], keys)
    return 1 if failures else 0


def _print(args: argparse.Namespace, hosts: Sequence[str], keys: Sequence[PublicKey]) -> None:
    if not keys:
        raise FirstkeyError("there is no host key to print", reason=login_reasons.NO_HOST_KEY)
    names = [known_hosts.name_of(host, args.port) for host in hosts]
    for key in keys:
        if args.sshfp:
            streams.show(*(line for host in hosts for line in known_hosts.sshfp(host, key)))
        else:
            streams.show(*known_hosts.lines(names, key))


def _is_piped() -> bool:
    """Whether standard input has text: a pipe or a file, but no terminal, no /dev/null, no connection."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


# --- this machine ---------------------------------------------------------------------------------


def seen(target: Target, sshd: Sshd, file: str) -> tuple[str, PublicKey | None]:
    """A host key's state, and the key itself, if there is one that can be read.

    It comes from the private half, which is what counts. Where that is in an agent, or not for the caller to
    read, the public half's word is taken. Raises FirstkeyError where neither can be read.
    """
    found = barred = None
    try:
        found = host_key_files.inspect(target, sshd, file)
    except FirstkeyError as error:
        if error.reason is not reasons.PERMISSION_DENIED:
            raise
        barred = error
    if found and found.condition != host_keys.IN_AGENT:
        return "readable by others" if found.is_loose else found.condition, found.public
    content = target.tree.read(f"{file.removesuffix('.pub')}.pub", limit=host_key_files.LIMIT)
    public = public_key.read_host_key((content or b"").strip())
    if barred and not public:
        raise barred
    return found.condition if found else "there", public


# --- a console ------------------------------------------------------------------------------------


def _of_console(content: bytes) -> tuple[tuple[PublicKey, ...], int]:
    """The keys, and the exit status: 1 where a key was left out, or is not there (yet)."""
    found = console_text.read(_text(content))
    if found is None:
        empty = "the text is empty (give --live for the keys of this machine)"
        message = "the text shows no host keys" if content.strip() else empty
        raise FirstkeyError(message, reason=login_reasons.CONSOLE_WITHOUT_KEYS)
    for block in found.rivals:
        keys = ", ".join(f"{key.fingerprint} ({key.type})" for key in block.keys)
        streams.complain(f"firstkey: lines {block.first} to {block.last} of the text show {keys}")
    if found.rivals:
        message = "the blocks of keys in the text do not agree, so none is printed"
        raise FirstkeyError(message, reason=login_reasons.CONSOLE_DISAGREES)
    for key in found.strangers:
        detail = "is left out: its fingerprint is not shown (console-disagrees)"
        streams.complain(f"firstkey: {key.fingerprint} ({key.type}) {detail}")
    for fingerprint in found.lost:
        streams.complain(f"firstkey: the text has no readable key for {fingerprint} (console-without-keys)")
    if found.keys:
        return found.keys, 1 if found.strangers or found.lost else 0
    reason = login_reasons.CONSOLE_DISAGREES if found.strangers else login_reasons.CONSOLE_WITHOUT_KEYS
    raise FirstkeyError(
        "the text has no key whose fingerprint it shows too, so none is printed", reason=reason
    )


def _text(content: bytes) -> str:
    """The console's own text, out of what the AWS tools print around it."""
    text = content.decode("utf-8", "replace")
    if text.lstrip().startswith(("{", '"')):  # the whole answer, or its text alone (--query Output)
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            if text.lstrip().startswith('"'):
                return text  # a console may as well begin with a quotation mark
            raise UsageError(f"the text looks like JSON, but is not: {error}") from error
        if isinstance(answer, str):
            return answer
        if not answer.get("Output"):
            message = "the JSON has no console output (yet)"
            raise FirstkeyError(message, reason=login_reasons.CONSOLE_WITHOUT_KEYS)
        return _text(str(answer["Output"]).encode("utf-8", "replace"))
    if "SSH HOST KEY" not in text:
        with suppress(ValueError):  # the API itself gives the text in base64
            return base64.b64decode(b"".join(content.split()), validate=True).decode("utf-8", "replace")
    return text
