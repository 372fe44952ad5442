"""The help for people who call firstkey by hand: its commands, and the options of those that a boot runs.

The other commands have their options beside what they do.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from firstkey import __version__
from firstkey.cli import COMMON_FLAGS, COMMON_VALUES, parsers, streams
from firstkey.settings import seconds
from firstkey.system.detach import PID_FILE

if TYPE_CHECKING:
    import argparse

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

SIGTERM ends it cleanly. It reads the configuration once: restart it after a
change.
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


def answered(name: str) -> int:
    """Answer what stands in the place of a command and is none; returns the exit status."""
    if name in ("", "-h", "--help"):
        streams.show(*overview())
        return 0 if name else 2
    if name in ("-V", "--version"):
        streams.show(f"firstkey {__version__}")
        return 0
    streams.complain(f"firstkey: {no_command(name)} See: firstkey --help")
    return 2


def no_command(name: str) -> str:
    """The sentence that there is none of that name, with the one that was probably meant."""
    close = get_close_matches(name, COMMANDS, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"there is no command {name!r}.{meant}"


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


def run() -> argparse.ArgumentParser:
    """The options of `firstkey run`."""
    made = parsers.command("run", "Install host keys and launch keys, once.", epilog=RUN)
    parsers.with_forms(parsers.with_dry_run(made))
    made.add_argument(
        "--user",
        metavar="NAME",
        action="append",
        help="this user, instead of the configured ones (repeatable)",
    )
    made.add_argument(
        "--wait", metavar="SECONDS", type=seconds, help="how long to wait for an answer (BootTimeoutSec=)"
    )
    made.add_argument(
        "--force", action="store_true", help="add keys again that were installed for this instance before"
    )
    return made


def daemon() -> argparse.ArgumentParser:
    """The options of `firstkey daemon`."""
    made = parsers.command(
        "daemon", "Run as the systemd unit does; by hand, for hosts without systemd.", epilog=DAEMON
    )
    made.add_argument("--detach", action="store_true", help="go into the background (needs python-daemon)")
    made.add_argument("--pid-file", metavar="FILE", default=PID_FILE, help=f"with --detach ({PID_FILE})")
    return made


def host_keys() -> argparse.ArgumentParser:
    """The options of `firstkey host-keys`."""
    made = parsers.command(
        "host-keys",
        "Check the SSH host keys, and generate missing or broken ones.",
        epilog=HOST_KEYS,
        without=("--imds",),
    )
    parsers.with_forms(parsers.with_dry_run(made))
    return made


PARSERS = {"run": run, "daemon": daemon, "host-keys": host_keys}
