"""`firstkey`: finds the command, runs it, and reports an error in one sentence with its remedy."""

from __future__ import annotations

import atexit
import importlib
import io
import os
import resource
import sys
from contextlib import suppress

from firstkey import TYPE_CHECKING
from firstkey.cli import streams
from firstkey.cli.streams import NotPrinted
from firstkey.reasons import FirstkeyError
from firstkey.system import child, files
from firstkey.text import REMEDY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

AT_BOOT = ("daemon", "run", "host-keys")
INTERRUPTED = 130  # what a shell reports of a program that SIGINT ended: 128 + 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (0, 1, 2, 75, 77, 78: see firstkey(8)).

    Without `argv` this is the whole program, and does not return.
    """
    if argv is None:
        _leave(_main(sys.argv[1:]))
    return _main(argv)


def keep_private() -> None:
    """No core file, and nothing for others, from this process and all that it starts.

    A core file would hold the session token, and ssh-keygen's a private key. The unit says the same; this is
    for who starts firstkey by hand. (Where cores go to a program, systemd-coredump heeds the limit, core(5).)
    """
    os.umask(0o077)
    with suppress(OSError, ValueError):  # a sandbox that forbids it has a limit of its own
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def make_ready() -> None:
    """Let every text be printed: to nowhere where the caller closed a stream, and with escapes where need be.

    A closed descriptor is the next one that a file gets, and whatever is printed then goes into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # noqa: PERF203 - three times
            files.send_nowhere(number)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name with letters that the terminal does not have is shown with escapes, not a riddle.
            stream.reconfigure(errors="backslashreplace")
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # For as long as this process runs.
            setattr(sys, name, open(fd, "w" if fd else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def _leave(status: int) -> NoReturn:
    """End the program here: to take Python down piece by piece would cost a boot more than the job does."""
    atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter itself would do first
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream:
                stream.flush()
    finally:
        os._exit(status)


def _main(argv: Sequence[str]) -> int:
    given = list(argv)
    if given and given[0].startswith("-"):
        from firstkey.cli import usage

        given = usage.with_command_first(given)
    keep_private()
    make_ready()
    # A daemon that is asked to end has done what it should; any other command has not.
    child.own_signals(0 if given[:1] == ["daemon"] else child.TERMINATED)
    try:
        return _printed(given)
    except FirstkeyError as error:
        remedy = error.hint.replace("COMMAND", given[0])  # "See: firstkey COMMAND --help"
        _complain(f"{error.message} ({error.reason.code})", f"  {REMEDY}{remedy}")
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        streams.abandon()
        return 1
    except NotPrinted as error:
        streams.abandon()
        _complain(f"the result could not be printed: {error}")
        return 1
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user unless asked for
        story: list[str] = []
        if "-v" in given or "--verbose" in given:
            import traceback

            story = "".join(traceback.format_exception(None, error, error.__traceback__)).split("\n")
        remedy = f"  {REMEDY}please report it, with what the command says with -v"
        _complain(f"something unforeseen happened: {error!r} (internal-error)", remedy, *story)
        return 1


def _printed(given: list[str]) -> int:
    """Run the command that is named; its exit status, once all that it says is printed."""
    name = given[0] if given else ""
    try:
        if name not in AT_BOOT:
            from firstkey.cli import usage  # the other commands, and help for a word that is none

            return usage.run(given)
        command = importlib.import_module(f"firstkey.cli.{name.replace('-', '_')}")
        status: int = command.main(given[1:])
    except SystemExit as end:  # argparse, and a signal
        status = end.code if isinstance(end.code, int) else 1
    return status


def _complain(message: str, *more: str) -> None:
    """Report an error on standard error; where that is closed, the exit status has to do."""
    with suppress(BrokenPipeError, NotPrinted):
        streams.complain(f"firstkey: {message}", *more)
