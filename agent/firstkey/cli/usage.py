"""What people type: every command, its options as data, and the help that comes of them.

A command has its own `USAGE` beside what it does; those that a boot runs have theirs here.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any, NoReturn

from firstkey import NamedTuple, __version__, settings
from firstkey.cli import COMMON_FLAGS, COMMON_VALUES, streams
from firstkey.display import width_of
from firstkey.reasons import UsageError
from firstkey.system.detach import PID_FILE

COMMANDS = {
    "run": "do the boot's work once: host keys and launch keys",
    "daemon": "run as the systemd unit does: retry until an answer",
    "host-keys": "check and generate the host keys alone, without the network",
    "keys": "list the keys that the metadata service offers; install none",
    "status": "show the last run, and the present state of the keys",
    "audit": "check an image, or this system, against the guidelines",
    "seal": "make an image fit to share",
    "doctor": "say whether a login with the launch key works, and if not, why",
    "known-hosts": "print known_hosts lines of this host, or of a saved console",
    "authorized-keys": "print launch keys for sshd, at each login",
    "config": "show the effective settings, each with its file and line",
    "imds": "serve as a metadata service, for demos, tests and debugging",
    "demo": "show the boot's work in a scratch directory, without root",
}
OVERVIEW = """\
usage: firstkey [OPTIONS] COMMAND [OPTIONS]

Gives a fresh EC2 instance its first SSH access.

commands:
{commands}

options of most commands, before or after the command:
  --root DIR       work on the tree under DIR, never outside of it
  --config FILE    read this configuration file instead of the system's
  -v, --verbose    show each step
  -q, --quiet      only warnings and errors
  -h, --help       explain the command; -V, --version prints the version

Try: firstkey demo             (safe anywhere, needs no root)
     firstkey help COMMAND"""
UNKNOWN = "unrecognized arguments: "
"""How argparse begins its message about unknown options."""

# --- options ----------------------------------------------------------------------------------------

Option = tuple[tuple[str, ...], dict[str, Any]]
"""The names of an option, or the one word of an argument, and what argparse wants to know of it."""


def flag(*names: str, words: str) -> Option:
    """An option without a value."""
    return names, {"action": "store_true", "help": words}


def value(name: str, metavar: str, words: str, **more: Any) -> Option:  # noqa: ANN401 - argparse's own
    """An option with one; `more` is as add_argument has it."""
    return (name,), {"metavar": metavar, "help": words, **more}


def values(name: str, metavar: str, words: str, default: list[str] | None = None) -> Option:
    """An option that may be given again, each time with one more value."""
    return value(name, metavar, f"{words} (repeatable)", action="append", default=default)


def choice(name: str, words: str, *choices: str) -> Option:
    """An option with one of these values, the first of them by default."""
    return (name,), {"choices": choices, "default": choices[0], "help": f"{words} (default: {choices[0]})"}


def seconds(name: str, words: str, default: float | None = None) -> Option:
    """An option with a time; its default is shown."""
    shown = f" ({default:g})" if default is not None else ""
    how = judged(settings.seconds, "it takes a time such as 5, 0.5s or 2min")
    return value(name, "SECONDS", words + shown, type=how, default=default)


def port(words: str, default: int, *, least: int = 1) -> Option:
    """--port."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 6 and least <= int(text) < 65536):
            raise ValueError(text)
        return int(text)

    how = judged(parse, f"ports are numbers from {least} to 65535")
    return value("--port", "PORT", f"{words} ({default})", type=how, default=default)


def judged(parse: Callable[[str], Any], accepts: str) -> Callable[[str], Any]:
    """What argparse does with a value: `parse` it, and where that raises ValueError, say what it takes."""

    def parsed(text: str) -> Any:  # noqa: ANN401 - whatever `parse` makes of it
        try:
            return parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{accepts}, not {text!a}") from None

    return parsed


QUIET = flag("-q", "--quiet", words="only warnings and errors")
COMMON = (
    value("--root", "DIR", "work on the tree under DIR, never outside of it", default="/"),
    value("--config", "FILE", "read this configuration file instead of the system's"),
    value("--imds", "URL", "ask the metadata service at URL (http://ADDRESS[:PORT])"),
    (flag("-v", "--verbose", words="show each step"), QUIET),
)
DRY_RUN = flag("--dry-run", words="show what would be done, and change nothing")
JSON = flag("--json", words="print the result for programs")
USERS = values("--user", "NAME", "this user, instead of the configured ones")
RULES = (values("--rule", "ID", "only this rule", []), values("--skip", "ID", "not this rule", []))


class Usage(NamedTuple):
    """What a command takes. Of options in a tuple of their own, a call gives one at most."""

    options: tuple[Any, ...]
    text: str
    """What stands behind the options: examples, exit statuses."""
    more: str = ""
    """What there is to say beyond the summary."""
    without: tuple[str, ...] = ()
    """Options of all commands that mean nothing here: they are accepted, and not shown."""
    is_common: bool = True
    """Whether it takes the options of all commands."""


class Parser(argparse.ArgumentParser):
    """As argparse has it, with a suggestion for each mistyped option."""

    def __init__(self, name: str, usage: Usage) -> None:
        summary = COMMANDS[name]
        super().__init__(
            prog=f"firstkey {name}",
            description=f"{summary[0].upper()}{summary[1:]}.{usage.more and ' '}{usage.more}",
            epilog=usage.text,
            allow_abbrev=False,
            # Without a width it would import shutil, and with it the compressors, for each option again.
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=(width_of(1) or 80) - 2),
        )
        self.color = False  # Python 3.14 would colour what it prints, past our own streams
        if any(isinstance(option[0][0], tuple) and len(option) > 3 for option in usage.options):
            self.usage = "%(prog)s [OPTIONS]"  # so many forms, of which there is one, do not fit into a line
        version = f"firstkey {__version__}"
        self.add_argument("-V", "--version", action="version", version=version, help=argparse.SUPPRESS)
        for option in (*(COMMON if usage.is_common else ()), *usage.options):
            is_choice = isinstance(option[0][0], tuple)
            group = self.add_mutually_exclusive_group() if is_choice else self
            for names, how in option if is_choice else (option,):
                hidden = {"help": argparse.SUPPRESS} if {*names} & {*usage.without} else {}
                group.add_argument(*names, **{**how, **hidden})

    def error(self, message: str) -> NoReturn:
        """Raise UsageError: a mistake is one sentence with its remedy, as all others are."""
        raise UsageError(f"{message}{self._suggestion(message)}")

    def _print_message(self, message: str, file: Any = None) -> None:  # noqa: ANN401 - any stream
        streams.put(file or sys.stderr, message)  # as all else that is printed: a full disk is reported

    def _suggestion(self, message: str) -> str:
        if not message.startswith(UNKNOWN):
            return ""
        known = {name.strip("-"): name for name in self._option_string_actions if name.startswith("--")}
        given = message[len(UNKNOWN) :].split()
        options = [word.partition("=")[0].strip("-") for word in given if word.startswith("--")]
        meant = [known[match] for word in options for match in get_close_matches(word, known, n=1)]
        if not options and given and not given[0].startswith("-"):  # a value without its option
            option = "--root" if "/" in given[0] else "--user"
            meant = [option, given[0]] if option in known.values() else []
        return f" (did you mean {' '.join(dict.fromkeys(meant))}?)" if meant else ""


def parser(name: str) -> Parser:
    """The parser of a command."""
    return Parser(name, AT_BOOT.get(name) or _module(name).USAGE)


def _module(name: str) -> Any:  # noqa: ANN401 - a module
    return importlib.import_module(f"firstkey.cli.{name.replace('-', '_')}")


def run(given: list[str]) -> int:
    """Run a command that no boot runs, or answer what is about firstkey itself; returns the exit status."""
    name, rest = (given[0], given[1:]) if given else (None, [])
    if name in ("version", "-V", "--version"):  # beside it, the other options mean nothing
        streams.show(f"firstkey {__version__}")
        return 0
    if is_help := name in ("help", "-h", "--help"):
        name, rest = next((word for word in rest[:1] if word[:1] != "-" and word != name), None), ["--help"]
    if name is None:
        width = max(map(len, COMMANDS))
        commands = "\n".join(f"  {each:{width}} {summary}" for each, summary in COMMANDS.items())
        streams.show(*OVERVIEW.format(commands=commands).split("\n"))
        return 0 if is_help else 2
    if name not in COMMANDS:
        close = get_close_matches(name.strip("-"), [*COMMANDS, "help", "version"], n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise UsageError(f"there is no command {name!a}{meant}", hint="See: firstkey --help")
    status: int = _module(name).main(parser(name).parse_args(rest))
    return status


def with_command_first(given: list[str]) -> list[str]:
    """The words with the options that all commands take behind the command: they may stand before it too."""
    count = 0
    while count < len(given) and given[count] not in COMMANDS:
        name, equals, _ = given[count].partition("=")
        if name in COMMON_VALUES:
            count += 1 if equals else 2
        elif given[count] in COMMON_FLAGS:
            count += 1
        else:
            return given[count:]  # no command, or what stands in the place of one
    return [*given[count : count + 1], *given[:count], *given[count + 1 :]] if count < len(given) else []


# --- the commands that a boot runs ------------------------------------------------------------------

AT_BOOT = {
    "run": Usage(
        (
            DRY_RUN,
            JSON,
            USERS,
            seconds("--wait", "how long to wait for an answer (BootTimeoutSec=)"),
            flag("--force", words="add keys again that were installed for this instance before"),
        ),
        """\
examples:
  firstkey run                    do the boot's work by hand
  firstkey run --dry-run          show the changes as diffs, and make none
  firstkey run --user ec2-user    install the keys for this user only
  firstkey run --force            add launch keys again that were removed

exit status: 0 done or nothing to do, 1 a step failed, 2 usage error,
  75 no answer from the metadata service in time, 77 needs root
""",
    ),
    "daemon": Usage(
        (
            flag("--detach", words="go into the background (needs python-daemon)"),
            value("--pid-file", "FILE", f"with --detach ({PID_FILE})", default=PID_FILE),
        ),
        """\
examples:
  firstkey daemon              in the foreground, as the unit starts it
  firstkey daemon --detach     from an init script, on a host without systemd

SIGTERM, SIGINT and SIGHUP end it cleanly. It reads its configuration once;
restart it after a change.

exit status: 0 done, nothing to do, or ended by a signal; 1 a step failed, or
  another daemon is detached; 2 usage error; 77 needs root
""",
    ),
    "host-keys": Usage(
        (DRY_RUN, JSON),
        """\
examples:
  firstkey host-keys                     generate missing or broken keys
  firstkey host-keys --dry-run           show the changes, and make none
  firstkey host-keys --root /mnt/image   in an image, whose first boot
                                         generates keys of its own again

exit status: 0 every host key is in place, 1 a step failed, 2 usage error,
  77 needs root
""",
        without=("--imds",),
    ),
}
