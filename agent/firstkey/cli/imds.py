"""`firstkey imds`: play the metadata service, for demos, tests and debugging."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from firstkey.errors import UsageError
from firstkey.metadata.emulator import FAULTS, Asked, Emulator, Fault, Settings, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKENS = {"both": "both", "v2": "required", "v1": "absent"}


def main(argv: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM; the first line on stdout is the URL. Returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        faults = [Fault.parse(text) for text in args.fault]
        settings = _settings(args)
        service = Emulator(
            settings, faults=faults, host=args.host, port=args.port, tell=None if args.quiet else _tell
        )
    except ValueError as error:
        raise UsageError(str(error), hint="See: firstkey imds --help") from error
    except OSError as error:
        raise UsageError(f"cannot listen on {args.host} port {args.port}: {error.strerror}") from error
    with service:
        print(service.url, flush=True)
        service.serve_forever()
    return 0


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {usage(name):24} {kind.summary}" for name, kind in FAULTS.items()]
    made = argparse.ArgumentParser(
        prog="firstkey imds",
        description="Play the EC2 metadata service on an address of this machine, IMDSv1 and IMDSv2.",
        epilog="\n".join(
            [
                "faults, each with ,first=N (only the first N requests) and ,path=PREFIX (only such paths):",
                *lines,
                "",
                "examples:",
                "  firstkey imds --key-file ~/.ssh/id_ed25519.pub --port 1338",
                "  firstkey imds --tokens v2 --fault delay=2 --fault status=503,first=3",
                "  firstkey keys --imds http://127.0.0.1:1338",
            ]
        ),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--key", metavar="LINE", action="append", default=[], help="a public key line; repeatable"
    )
    made.add_argument(
        "--key-file", metavar="FILE", action="append", default=[], help="a file of one; repeatable"
    )
    made.add_argument("--instance-id", metavar="ID", default=Settings().instance_id)
    made.add_argument("--tokens", choices=sorted(TOKENS), default="both", help="which versions answer (both)")
    made.add_argument("--off", action="store_true", help="as if switched off: 403 to everything")
    made.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="::1 for IPv6 (127.0.0.1)")
    made.add_argument("--port", type=int, default=0, help="0 takes a free one (0)")
    made.add_argument("--fault", metavar="FAULT", action="append", default=[], help="see below; repeatable")
    made.add_argument("-q", "--quiet", action="store_true", help="do not print each request")
    return made


def _settings(args: argparse.Namespace) -> Settings:
    lines = [*args.key, *(_content(path) for path in args.key_file)]
    keys = tuple((_key_name(line, index), line) for index, line in enumerate(lines))
    return Settings(
        instance_id=args.instance_id,
        keys=keys,
        tokens=TOKENS[args.tokens],
        enabled=not args.off,
    )


def _content(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _key_name(line: str, index: int) -> str:
    """The key pair's name: the comment as far as it can be one."""
    words = line.split(None, 2)
    name = words[2] if len(words) > 2 else ""
    return "".join(char for char in name if char.isprintable() and char not in "=\n") or f"key-{index}"


def _tell(asked: Asked) -> None:
    token = "with a token" if asked.had_token else "without a token"
    print(f"{asked.method} {asked.path} {token}: {asked.status or 'no answer'}", file=sys.stderr, flush=True)
