"""Scanners for secrets that the host may have: they know the tokens of hundreds of makers.

One is run in a box (system/box.py) that shows it the tree and a directory of its own, which is gone
afterwards. It has no network, so it can ask no maker whether a token is good, and none of its words but
the place and the name of its rule comes out: a secret never does.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from firstkey import NamedTuple
from firstkey.image_reasons import NO_SCANNER
from firstkey.reasons import FirstkeyError
from firstkey.system import box, command

SECONDS = 1800.0
"""How long one may take, like all that is in a box."""
LIMIT = 64 * 1024 * 1024
"""Bytes that it may print: some thousand for each secret."""
MOST = 10_000
"""Secrets in one answer; a tree that has more may be one that is made to be long."""
_VERSION = re.compile(rb"\d{1,9}(?:\.\d{1,9}){1,5}")
_SHUT = 126


class Missing(FirstkeyError):  # noqa: N818 - what there is not
    """None is installed, or there is no box to run it in."""


class Match(NamedTuple):
    """A secret: the path in the tree, the line if there is one, and the name of the scanner's rule."""

    path: str
    line: int | None
    rule: str


class Scanner(NamedTuple):
    """A program, the words that ask for its version and for its answer, and how that is read.

    `found`: its exit status where it found secrets.
    """

    name: str
    version: str
    words: str
    found: int
    read: Callable[[str], Iterable[tuple[Any, Any, Any]]]


ALL = (
    Scanner(
        "kingfisher",
        "--version",
        f"scan {box.SHOWN} --no-validate --no-update-check --no-dedup --no-ignore --format json",
        200,
        # One report, and another with nothing but numbers behind it.
        lambda text: [
            (found["finding"]["path"], found["finding"].get("line"), found["rule"]["name"])
            for found in json.JSONDecoder().raw_decode(text)[0]["findings"]
        ],
    ),
    Scanner(
        "gitleaks",
        "version",
        f"detect --no-git --source {box.SHOWN} --no-banner --redact --exit-code 0"
        " --report-format json --report-path /dev/stdout",
        0,
        lambda text: [(found["File"], found.get("StartLine"), found["RuleID"]) for found in json.loads(text)],
    ),
    Scanner(
        "trufflehog",
        "--version",
        f"filesystem {box.SHOWN} --no-verification --json --no-update",
        0,
        # A line for each; its log goes to stderr.
        lambda text: [
            (place["file"], place.get("line"), found["DetectorName"])
            for found in map(json.loads, filter(str.strip, text.split("\n")))
            for place in [found["SourceMetadata"]["Data"]["Filesystem"]]
        ],
    ),
)
NAMES = tuple(scanner.name for scanner in ALL)


def find(name: str | None) -> Scanner:
    """The scanner of that name, or the first that is installed. Raises Missing."""
    found = [scanner for scanner in ALL if name in (None, scanner.name) and command.find(scanner.name)]
    if not found:
        every = f"none of {', '.join(NAMES)} is installed (for the first: pip install kingfisher-bin)"
        raise Missing(f"{name} is not installed" if name else every, reason=NO_SCANNER)
    return found[0]


def scan(scanner: Scanner, root: str, left_out: Iterable[str]) -> tuple[str, list[Match]]:
    """Its version, and what it found in the tree at `root`; what is mounted at `left_out` it did not see.

    Raises Missing where there is no box for it, and FirstkeyError where it gives no answer.
    """
    version = _VERSION.search(b"".join(_run(scanner, scanner.version, root, left_out)))
    stdout, _ = _run(scanner, scanner.words, root, left_out)
    try:
        found = [_match(*each) for each in scanner.read(stdout.decode("utf-8", "surrogateescape"))]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        _fail(scanner, f"printed what cannot be read ({type(error).__name__})")
    if len(found) > MOST:
        _fail(scanner, f"found more than {MOST} secrets")
    return version[0].decode() if version else "of an unknown version", list(dict.fromkeys(found))


def _match(path: str, line: object, rule: str) -> Match:
    """Raises ValueError where the path is not in the tree."""
    if not path.startswith(f"{box.SHOWN}/"):
        raise ValueError(path)
    name = re.sub(r"[^\w .:()-]", "", rule)[:60]
    return Match(path[len(box.SHOWN) :], line if isinstance(line, int) and line > 0 else None, name)


def _run(scanner: Scanner, words: str, root: str, left_out: Iterable[str]) -> tuple[bytes, bytes]:
    """What it printed: stdout, stderr."""
    program = _program(scanner.name)
    kernel = box.Kernel()

    def shut() -> None:
        try:
            kernel.shut_for_scanner(root, left_out, _installation(program))
        except OSError as error:
            os.write(2, os.fsencode(f"a mount namespace, which only root can have: {error.strerror}"))
            os._exit(_SHUT)

    argv = ["/usr/bin/env", f"HOME={box.HOME}", f"TMPDIR={box.HOME}", program, *words.split()]
    try:
        done = command.start(argv, before=shut).finish(seconds=SECONDS, limit=LIMIT)
    except FirstkeyError as error:
        _fail(scanner, f"was ended: {error.message}")
    if done.status == _SHUT:
        raise Missing(f"{scanner.name} is not run without {done.words}", reason=NO_SCANNER)
    if done.status not in (0, scanner.found):
        _fail(scanner, f"failed with status {done.status}: {done.words}")
    return done.stdout, done.stderr


def _program(name: str) -> str:
    """Its full path; where a Python package brings it, not the script that starts it with some Python."""
    path = os.path.realpath(command.find(name) or "/")
    top = glob.escape(os.path.dirname(os.path.dirname(path)))
    brought = glob.glob(f"{top}/lib/python*/*-packages/{name}/bin/{name}")
    return brought[0] if brought else path


def _installation(program: str) -> str:
    """What it may be made of: a program may be a script in a directory `bin` beside its `lib`."""
    directory = os.path.dirname(program)
    above = os.path.dirname(directory)
    return above if os.path.isdir(f"{above}/lib") and above != "/" else directory


def _fail(scanner: Scanner, why: str) -> NoReturn:
    raise FirstkeyError(f"{scanner.name} {why}", reason=NO_SCANNER)
