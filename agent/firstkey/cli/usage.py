"""The help for people who call firstkey by hand: its commands, and the options of those that a boot runs.

The other commands have their options beside what they do.
"""

from __future__ import annotations

import importlib
from difflib import get_close_matches

from firstkey import __version__
from firstkey.cli import COMMON_FLAGS, COMMON_VALUES, parsers, streams
from firstkey.settings import seconds
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
    "help": "explain a command, or list all of them",
    "version": "print the version",
}
RUN = """\
examples:
  firstkey run                    do the boot's work by hand
  firstkey run --dry-run          show the changes as diffs, and make none
  firstkey run --user ec2-user    install the keys for this user only
  firstkey run --force            add launch keys again that were removed

exit status: 0 done or nothing to do, 1 a step failed, 2 usage error,
  75 no answer from the metadata service in time, 77 needs root
"""
DAEMON = """\
examples:
  firstkey daemon              in the foreground, as the unit starts it
  firstkey daemon --detach     from an init script, on a host without systemd

SIGTERM, SIGINT and SIGHUP end it cleanly. It reads its configuration once;
restart it after a change.
"""
HOST_KEYS = """\
examples:
  firstkey host-keys                     generate missing or broken keys
  firstkey host-keys --dry-run           show the changes, and make none
  firstkey host-keys --root /mnt/image   in an image, whose first boot
                                         generates keys of its own again

exit status: 0 every host key is in place, 1 a step failed, 2 usage error,
  77 needs root
"""
HELP = """\
examples:
  firstkey help              all commands
  firstkey help run          the options of run, as firstkey run --help
"""
VERSION = """\
examples:
  firstkey version           the same as firstkey --version
"""
ALIASES = {"-h": "help", "--help": "help", "-V": "version", "--version": "version"}


def answered(given: list[str]) -> int | None:
    """Answer what is about firstkey itself, or no command; returns the exit status, or None for all else."""
    name, rest = (given[0], given[1:]) if given else (None, [])
    if name in ALIASES:  # beside such an option, the other ones mean nothing
        name = ALIASES[name]
        rest = [word for word in rest[:1] if name == "help" and not word.startswith("-")]
    if name == "version":
        version().parse_args(rest)
        streams.show(f"firstkey {__version__}")
        return 0
    named = help_of().parse_args(rest).command if name == "help" else name
    if named is None:
        streams.show(*overview())
        return 0 if name else 2
    if named not in COMMANDS:
        close = get_close_matches(named, COMMANDS, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        streams.complain(f"firstkey: there is no command {named!r}.{meant} See: firstkey --help")
        return 2
    if name != "help":
        return None
    if named in PARSERS:
        PARSERS[named]().parse_args(["--help"])
    importlib.import_module(f"firstkey.cli.{named.replace('-', '_')}").main(["--help"])
    return 0


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


def overview() -> list[str]:
    """All commands in a line each."""
    width = max(map(len, COMMANDS))
    return [
        "usage: firstkey [OPTIONS] COMMAND [OPTIONS]",
        "",
        "Gives a fresh EC2 instance its first SSH access.",
        "",
        "commands:",
        *(f"  {name:{width}} {summary}" for name, summary in COMMANDS.items()),
        "",
        "options of most commands, before or after the command:",
        "  --root DIR       work on the tree under DIR, never outside of it",
        "  --config FILE    read this configuration file instead of the system's",
        "  -v, --verbose    show each step",
        "  -q, --quiet      only warnings and errors",
        "  -h, --help       explain the command; -V, --version prints the version",
        "",
        "Try: firstkey demo             (safe anywhere, needs no root)",
        "     firstkey help COMMAND",
    ]


def run() -> parsers.Parser:
    """The options of `firstkey run`."""
    made = parsers.command("run", "Install host keys and launch keys, once.", epilog=RUN)
    parsers.with_forms(parsers.with_dry_run(made))
    made.users()
    made.value("--wait", "SECONDS", "how long to wait for an answer (BootTimeoutSec=)", type=seconds)
    made.flag("--force", "add keys again that were installed for this instance before")
    return made


def daemon() -> parsers.Parser:
    """The options of `firstkey daemon`."""
    description = "Run as the systemd unit does; by hand, for hosts without systemd."
    made = parsers.command("daemon", description, epilog=DAEMON)
    made.flag("--detach", "go into the background (needs python-daemon)")
    made.value("--pid-file", "FILE", f"with --detach ({PID_FILE})", default=PID_FILE)
    return made


def host_keys() -> parsers.Parser:
    """The options of `firstkey host-keys`."""
    description = "Check the SSH host keys, and generate missing or broken ones."
    made = parsers.command("host-keys", description, epilog=HOST_KEYS, without=("--imds",))
    parsers.with_forms(parsers.with_dry_run(made))
    return made


def help_of() -> parsers.Parser:
    """The options of `firstkey help`."""
    made = parsers.Parser("help", "Explain a command, or list all commands.", HELP)
    made.value("command", "COMMAND", "the command to explain", nargs="?")
    return made


def version() -> parsers.Parser:
    """The options of `firstkey version`."""
    return parsers.Parser("version", "Print the version.", VERSION)


PARSERS = {"run": run, "daemon": daemon, "host-keys": host_keys, "help": help_of, "version": version}
