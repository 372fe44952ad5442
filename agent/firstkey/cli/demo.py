"""`firstkey demo`: the main job on real files in a scratch root, shown step by step, without root."""

from __future__ import annotations

import stat
import textwrap
from contextlib import ExitStack
from typing import TYPE_CHECKING

from firstkey import events
from firstkey.cli import demo_machine, run, screen, streams
from firstkey.cli.parsers import Parser
from firstkey.colours import GREEN, RED, Coloured
from firstkey.metadata.emulator import Emulator, Settings
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from firstkey.cli.demo_machine import Machine

FIRST = "i-0aaaaaaaaaaaaaaa1"
SECOND = "i-0bbbbbbbbbbbbbbb2"
WIDTH = 100
DESCRIPTION = """\
Show the boot's work, step by step, on a machine that is a scratch directory.
Its metadata service is this command itself, on a loopback port. Nothing outside
the directory is changed, root is not needed, and the directory is removed at
the end.
"""
EPILOG = """\
examples:
  firstkey demo             takes some seconds
  firstkey demo --keep      keep the files

exit status: 0 every check passed, else 1
"""


def main(argv: Sequence[str]) -> int:
    """Show the job; returns 0 where every step did what it says, else 1."""
    made = Parser(prog="firstkey demo", description=DESCRIPTION, epilog=EPILOG)
    made.add_argument("--keep", action="store_true", help="keep the scratch directory")
    args = made.parse_args(argv)
    with ExitStack() as stack:
        machine = stack.enter_context(demo_machine.scratch(keep=args.keep))
        service = stack.enter_context(Emulator(Settings(instance_id=FIRST)))
        return _Show(machine, service).run()


class _Show:
    """The steps. Each says what it is about to show, does it, and checks that it came out so."""

    def __init__(self, machine: Machine, service: Emulator) -> None:
        self._machine = machine
        self._service = service
        self._step = 0
        self._failures: list[str] = []
        self._remedies: set[str] = set()
        self._has_told_of_modes = machine.is_strict

    def run(self) -> int:
        self._first_boot()
        self._second_boot()
        self._key_removed_by_hand()
        self._rebundled_image()
        return self._verdict()

    def _first_boot(self) -> None:
        machine = self._machine
        self._title("A fresh machine boots for the first time")
        _say(
            f"The machine is a directory, {machine.root}. It has an sshd configuration and one user, "
            f"{machine.user}. It has no host keys, and no key lets anyone log in yet. A metadata service of "
            f"the demo's own, at {self._service.url}, offers the launch key `first-key`. The boot:"
        )
        self._service.change(keys=(("first-key", machine.new_key("first-key")),))
        self._firstkey()
        self._files()
        self._keys()
        self._login("first-key", expected=True)

    def _second_boot(self) -> None:
        self._title("It boots again: nothing changes")
        before = self._machine.snapshot()
        self._firstkey()
        self._check("No file was written.", self._machine.snapshot() == before)

    def _key_removed_by_hand(self) -> None:
        machine = self._machine
        self._title("A person removes the launch key, and adds a key of their own")
        _say("Launch keys are installed once for each instance. A later change by a person stays:")
        machine.write_authorized_keys(machine.new_key("own-key"))
        self._firstkey()
        self._check("The launch key stays removed.", not machine.has_key("first-key"))
        self._check("The person's key stays.", machine.has_key("own-key"))
        self._login("first-key", expected=False)
        self._login("own-key", expected=True)
        _say("`--force` adds it again:")
        self._firstkey("--force")
        self._check("The launch key is back.", machine.has_key("first-key"))

    def _rebundled_image(self) -> None:
        machine = self._machine
        self._title("The disk becomes an AMI, and a new instance is launched from it with another key pair")
        _say(
            "A new instance trusts only its own launch key, and shows only its own host keys. "
            "Lines that firstkey did not write stay:"
        )
        before = machine.host_key_fingerprints()
        self._service.change(instance_id=SECOND, keys=(("second-key", machine.new_key("second-key")),))
        self._firstkey()
        self._keys()
        self._check("The new launch key is installed.", machine.has_key("second-key"))
        self._check("The launch key of the other instance is revoked.", not machine.has_key("first-key"))
        self._check("The person's own key is still there.", machine.has_key("own-key"))
        self._check("No host key is the image's.", not before & machine.host_key_fingerprints())
        self._login("second-key", expected=True)
        self._login("first-key", expected=False)

    def _verdict(self) -> int:
        if self._machine.without_login:
            streams.show("")
            _say(f"Not shown: a real SSH login, because {self._machine.without_login}.")
        if self._failures:
            streams.show("", "These checks failed:", *(f"  {failure}" for failure in self._failures))
            return 1
        streams.show("", "Every check passed.")
        return 0

    # --- how it is shown ----------------------------------------------------------------------

    def _title(self, text: str) -> None:
        self._step += 1
        streams.show("", f"=== {self._step}. {text} ===", "")

    def _firstkey(self, *options: str) -> None:
        machine = self._machine
        argv = ["--root", machine.root, "--imds", self._service.url, "--user", machine.user, *options]
        streams.show(f"$ firstkey run {' '.join(argv)}")
        try:
            status = run.main([*argv, "--quiet"], say=self._tell)
        except FirstkeyError as error:
            self._check(f"firstkey run: {error.message}", good=False)
            return
        self._check("Exit status 0.", status == 0)

    def _tell(self, entry: events.Entry) -> None:
        """What the journal would get; the same remedy once."""
        if entry.event.priority > events.INFO:
            return
        _say(entry.sentence, indent=2)
        if entry.remedy and entry.remedy not in self._remedies:
            self._remedies.add(entry.remedy)
            _say(f"What to do: {entry.remedy}", indent=4)

    def _files(self) -> None:
        streams.show("", "The files, with their modes and owners:")
        for path, found in self._machine.files():
            streams.show(f"  {stat.filemode(found.st_mode)} {_owner(found):10} {path}")

    def _keys(self) -> None:
        path, lines = self._machine.authorized_keys()
        streams.show("", f"The lines of {path}:")
        for line in lines:
            kind, blob, *comment = line.split(" ")
            streams.show(f"  {kind} {blob[:12]}...{blob[-8:]} {' '.join(comment)}")
        streams.show("")

    def _login(self, key: str, *, expected: bool) -> None:
        if self._machine.without_login:
            return
        if not self._has_told_of_modes:
            self._has_told_of_modes = True
            _say(
                "(Other users can write above this directory, so this sshd runs with StrictModes no. "
                "On a real machine StrictModes stays on.)"
            )
        try:
            worked = self._machine.login(key)
        except FirstkeyError as error:
            self._check(f"ssh with {key}: {error.message}.", good=False)
            return
        words = f"ssh with {key}: {'logged in' if worked else 'refused'}."
        self._check(words, worked is expected)

    def _check(self, words: str, good: bool) -> None:  # noqa: FBT001 - the condition is the point of the call
        mark, colour = ("[ ok ]", GREEN) if good else ("[FAIL]", RED)
        screen.show(Coloured(colour, mark, after=f" {words}"))
        if not good:
            self._failures.append(words)


def _say(text: str, *, indent: int = 0) -> None:
    """Print a sentence in lines that a terminal shows whole, without breaking a path or a fingerprint."""
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2 if indent else 0),
        break_long_words=False,
        break_on_hyphens=False,
    )
    streams.show(*lines)


def _owner(found: os.stat_result) -> str:
    import pwd

    try:
        return pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        return str(found.st_uid)
