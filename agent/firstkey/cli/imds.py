"""`firstkey imds`: play the metadata service, for demos, tests and debugging."""

from __future__ import annotations

import argparse
import signal
from contextlib import suppress

from firstkey.cli import screen, streams, usage
from firstkey.metadata.emulator import FAULTS, IMITATIONS, Asked, Emulator, Fault, Kind, Settings
from firstkey.metadata.emulator import usage as written
from firstkey.reasons import FirstkeyError, UsageError
from firstkey.ssh import public_key

INSTANCE = Settings().instance_id
TOKENS = {"both": "both", "v2": "required", "v1": "absent"}
LONGEST_FILE = 1 << 20
"""Bytes of a file of keys that are read."""


def _fault(name: str, kind: Kind) -> str:
    default = "for ever" if kind.default == float("inf") else kind.default
    return f"  {written(name)}{f' [{default}]' if kind.value else ''}\n      {kind.summary}"


USAGE = usage.Usage(
    (
        usage.values("--key", "LINE", "a public key line", []),
        usage.values("--key-file", "FILE", "a file of them", []),
        usage.value("--instance-id", "ID", f"the instance-id to answer ({INSTANCE})", default=INSTANCE),
        usage.choice("--tokens", "the versions that answer", *TOKENS),
        usage.choice("--like", "the service to imitate", *IMITATIONS),
        usage.flag("--off", words="as if switched off: 403 to everything"),
        usage.value("--host", "ADDRESS", "listen there (127.0.0.1), or on ::1", default="127.0.0.1"),
        usage.port("the port; 0 is a free one", 0, least=0),
        usage.values("--fault", "FAULT", "see below", []),
        usage.QUIET,
    ),
    f"""\
The first line on standard output is its URL; each request is logged on standard
error. Ctrl-C or SIGTERM ends it.

A file of keys has one public key a line; blank lines and lines that start with
# are ignored. Keys are numbered in the order of the command line, those of
--key first, and named by their comments. Without a key, the instance was
launched without a key pair. A key of --key is served as it is, good or bad.

faults, each with ,first=N (only the first N matching requests) and
,path=PREFIX (only requests whose path starts with PREFIX); in brackets
the default of the value:
{chr(10).join(_fault(name, kind) for name, kind in FAULTS.items())}

examples:
  firstkey imds --key-file ~/.ssh/id_ed25519.pub --port 1338
  firstkey imds --tokens v2 --fault delay=2 --fault status=503,first=3
  firstkey imds --host ::1 --off
  firstkey keys --imds http://127.0.0.1:1338
  curl http://127.0.0.1:1338/latest/meta-data/public-keys/0/openssh-key

exit status: 0 ended by a signal, 2 usage error
""",
    is_common=False,
)


def main(args: argparse.Namespace) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; the first line on stdout is the URL. Returns the exit status."""
    service = _service(args)
    ends = _ends()
    with service:
        streams.show(service.url)
        signal.sigwait(ends)
    return 0


def _ends() -> set[signal.Signals]:
    """The signals that end it. They are waited for: a handler might strike in the middle of anything.

    They stay blocked to the end: a second one, of an impatient user, has nothing left to end.
    """
    # Who starts it in the background of a script has it ignore Ctrl-C, and nohup a terminal that closes:
    # that is to stay so.
    may_be_ignored = (signal.SIGINT, signal.SIGHUP)
    ends = {number for number in may_be_ignored if signal.getsignal(number) is not signal.SIG_IGN}
    ends.add(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    return ends


def _service(args: argparse.Namespace) -> Emulator:
    host, port, log = args.host.strip("[]"), args.port, None if args.quiet else _show
    settings = _settings(args)
    try:
        faults = [Fault.parse(text) for text in args.fault]
    except ValueError as error:
        raise UsageError(f"--fault: {error}", hint="See: firstkey imds --help") from error
    try:
        return Emulator(settings, faults=faults, host=host, port=port, log=log)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host or repr(host)} port {port}: {str(error.strerror).lower()}",
            hint="Give an IP address of this machine to --host, and a free port to --port, or 0 for any.",
        ) from error


# --- keys -------------------------------------------------------------------------------------


def _settings(args: argparse.Namespace) -> Settings:
    lines = [*args.key, *(line for path in args.key_file for line in _lines(path))]
    for index, flaw in enumerate(map(_flaw, lines)):
        if flaw:  # what firstkey would refuse is served all the same: that is what it may be for
            streams.complain(f"firstkey: key {index} is served, but is none: {flaw}")
    return Settings(
        instance_id=args.instance_id,
        keys=tuple((_key_name(line, index), line) for index, line in enumerate(lines)),
        tokens=TOKENS[args.tokens],
        enabled=not args.off,
        like=args.like,
    )


def _lines(path: str) -> list[str]:
    """The keys in a file, one a line. Raises UsageError where none is one."""
    content = screen.load("--key-file", path, LONGEST_FILE)
    if b"PRIVATE KEY-----" in content:
        raise UsageError(
            f"{path} holds a private key; the metadata service gives only public keys",
            hint=f"Take the public half: {path}.pub, or what ssh-keygen -y -f {path} prints.",
        )
    lines = [line.strip() for line in content.decode("utf-8", "surrogateescape").split("\n")]
    keys = [line for line in lines if line and not line.startswith("#")]
    if all(map(_flaw, keys)):
        raise UsageError(
            f"{path} holds no public key",
            hint="A file of keys has one a line, such as id_ed25519.pub; for anything else there is --key.",
        )
    return keys


def _flaw(line: str) -> str | None:
    """Why firstkey would not install the line, or None."""
    try:
        public_key.parse_launch_key(line.encode("utf-8", "surrogateescape"))
    except FirstkeyError as error:
        return f"{error.message} ({error.reason.code})"
    return None


def _key_name(line: str, index: int) -> str:
    """The key pair's name: the comment as far as it can be one."""
    words = line.split(None, 2)
    name = words[2] if len(words) > 2 else ""
    return "".join(char for char in name if char.isprintable() and char != "=")[:255] or f"key-{index}"


def _show(asked: Asked) -> None:
    token = "with a token" if asked.had_token else "without a token"
    # The reader may be gone; the service goes on.
    with suppress(BrokenPipeError, streams.NotPrinted, ValueError):
        streams.complain(f"{asked.method} {asked.path} {token}: {asked.status or 'no answer'}")
