"""`firstkey known-hosts`: what a client needs to trust this host, or one whose console output was saved."""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from firstkey import login_reasons
from firstkey.boot import host_key_files
from firstkey.cli import common, looking, parsers, screen, streams
from firstkey.reasons import FirstkeyError, UsageError
from firstkey.ssh import console_text, known_hosts, public_key
from firstkey.system.sshd_tree import sshd_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from firstkey.boot.site import Site
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.sshd import Sshd

LIMIT = 64 * 1024 * 1024
EPILOG = """\
examples:
  firstkey known-hosts --host www.example.com         keys of this machine
  aws ec2 get-console-output --instance-id ID --latest |
    firstkey known-hosts --host 203.0.113.7 - >> ~/.ssh/known_hosts
  firstkey known-hosts --host www.example.com --sshfp         records for DNS

From a console, a key is printed only if it is at the beginning of a line, as
firstkey and cloud-init write it, and if the console shows its fingerprint too.

exit status: 0 no error; 1 a key is left out, or blocks of keys in the text
  do not agree with each other
"""


def main(argv: Sequence[str]) -> int:
    """Print lines of known_hosts, or records for DNS; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.console and args.live:
        parser.error("argument --live: not allowed with argument FILE")
    for host in args.host:
        if not known_hosts.is_host(host):
            raise UsageError(f"--host {host!a}: that is not the name or address of one host")
    if args.console or (not args.live and _is_piped()):
        if not args.host:
            raise UsageError("whose console output it is must be said: --host NAME")
        keys, status = _of_console(
            screen.load("the console output", args.console or "-", LIMIT), quiet=args.quiet
        )
        _print(args, args.host, keys)
        return status
    return looking.command(args, _show_machine)


def _show_machine(args: argparse.Namespace, say: looking.Say) -> int:
    with common.opened(args, say) as site:
        _print(args, args.host or [site.hostname() or "localhost"], tuple(_of_machine(site)))
    return 0


def _print(args: argparse.Namespace, names: Sequence[str], keys: Sequence[PublicKey]) -> None:
    if not keys:
        raise FirstkeyError("there is no host key to print", reason=login_reasons.NO_HOST_KEY)
    streams.show(*(line for key in keys for line in _lines(args, names, key)))


def _parser() -> argparse.ArgumentParser:
    made = parsers.command(
        "known-hosts",
        "Print known_hosts lines of this host, or of a saved console.",
        epilog=EPILOG,
        without=("--config", "--imds", "--verbose"),
    )
    made.add_argument(
        "console", nargs="?", metavar="FILE", help="saved console output, text or JSON; - is stdin"
    )
    made.add_argument(
        "--host", metavar="NAME", action="append", default=[], help="name or address of the host (repeatable)"
    )
    made.add_argument("--port", metavar="N", type=_port, default=22, help="the port of its sshd (22)")
    made.add_argument(
        "--live", action="store_true", help="read this machine's keys, even with a pipe on standard input"
    )
    form = made.add_mutually_exclusive_group()
    form.add_argument("--hash", action="store_true", help="hide the names, as ssh-keygen -H does")
    form.add_argument(
        "--sshfp", action="store_true", help="SSHFP records for DNS, as ssh-keygen -r prints them"
    )
    return made


def _port(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    if not 0 < number < 65536:
        raise UsageError(f"--port {text!a}: ports are numbers from 1 to 65535")
    return number


def _is_piped() -> bool:
    """Whether standard input has text: a pipe or a file, but no terminal, no /dev/null, no connection."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _lines(args: argparse.Namespace, hosts: Sequence[str], key: PublicKey) -> list[str]:
    if args.sshfp:
        return [line for host in hosts for line in known_hosts.sshfp(host, key)]
    names = [known_hosts.name_of(host, args.port) for host in hosts]
    if args.hash:
        return known_hosts.hashed_lines(names, key, [os.urandom(known_hosts.SALT_BYTES) for _ in names])
    return known_hosts.lines(names, key)


# --- this machine ---------------------------------------------------------------------------------


def _of_machine(site: Site) -> list[PublicKey]:
    """The keys that sshd shows, by its own settings."""
    sshd = sshd_of(site.tree)
    files = sshd.meaning("root").effective.host_keys
    return [key for file in files for key in [_host_key(site, sshd, file)] if key]


def _host_key(site: Site, sshd: Sshd, file: str) -> PublicKey | None:
    """Root derives it from the private half, which is what counts; others take the public one's word."""
    try:
        if not file.endswith(".pub") and (os.geteuid() == 0 or not site.tree.is_running_system):
            return host_key_files.inspect(site, sshd, file).public
        content = site.tree.read(f"{file.removesuffix('.pub')}.pub", limit=host_key_files.LIMIT)
        return public_key.parse_launch_key(content) if content else None
    except FirstkeyError:
        return None


# --- a console ------------------------------------------------------------------------------------


def _of_console(content: bytes, *, quiet: bool) -> tuple[tuple[PublicKey, ...], int]:
    """The keys, and the exit status: 1 where a key was left out."""
    found = console_text.read(_text(content))
    if found is None:
        raise FirstkeyError("the text shows no host keys", reason=login_reasons.CONSOLE_WITHOUT_KEYS)
    if found.rivals:
        streams.complain(*(f"firstkey: {_block(block)}" for block in found.rivals))
        message = "the blocks of keys in the text do not agree, so none is printed"
        raise FirstkeyError(message, reason=login_reasons.CONSOLE_DISAGREES)
    for complaint in _complaints(found):
        if not quiet or found.strangers:
            streams.complain(f"firstkey: {complaint}")
    if found.keys:
        return found.keys, 1 if found.strangers else 0
    if found.strangers:
        message = "no key in the text has its fingerprint there, so none is printed"
        raise FirstkeyError(message, reason=login_reasons.CONSOLE_DISAGREES)
    message = "the text shows fingerprints of host keys, and no key that can be read"
    raise FirstkeyError(message, reason=login_reasons.CONSOLE_WITHOUT_KEYS)


def _block(block: console_text.Block) -> str:
    keys = ", ".join(f"{key.fingerprint} ({key.type})" for key in block.keys)
    return f"lines {block.first} to {block.last} of the text show {keys}"


def _complaints(found: console_text.HostKeys) -> Iterator[str]:
    for key in found.strangers:
        yield f"{key.fingerprint} ({key.type}) is left out: its fingerprint is not shown (console-disagrees)"
    for fingerprint in found.lost:
        yield f"warning: the text has no readable key for {fingerprint}"


def _text(content: bytes) -> str:
    """The console's own text, out of what the AWS tools print around it."""
    text = content.decode("utf-8", "replace")
    if text.lstrip().startswith('"'):  # --query Output
        return _of_string(text)
    if text.lstrip().startswith("{"):
        try:
            return _of_json(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the text looks like JSON, but is not: {error}") from error
    if "SSH HOST KEY" not in text:
        return _decoded(content) or text
    return text


def _of_json(answer: Any) -> str:  # noqa: ANN401 - as json.loads has it
    output = answer.get("Output") if isinstance(answer, dict) else None
    if not output:
        message = "the JSON has no console output (yet)"
        raise FirstkeyError(message, reason=login_reasons.CONSOLE_WITHOUT_KEYS)
    return _text(str(output).encode("utf-8", "replace"))


def _of_string(text: str) -> str:
    """What a string of JSON says; a console may as well begin with a quotation mark."""
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def _decoded(content: bytes) -> str | None:
    """The API itself gives the text in base64."""
    try:
        return base64.b64decode(b"".join(content.split()), validate=True).decode("utf-8", "replace")
    except (ValueError, binascii.Error):
        return None
