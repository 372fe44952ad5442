"""`firstkey demo`: the main job on real files in a scratch root, told step by step, without root."""

from __future__ import annotations

import argparse
import os
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING

from firstkey import events
from firstkey.cli import demo_machine, run
from firstkey.errors import FirstkeyError
from firstkey.metadata.emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.cli.demo_machine import Machine

FIRST = "i-0aaaaaaaaaaaaaaa1"
SECOND = "i-0bbbbbbbbbbbbbbb2"


def main(argv: Sequence[str]) -> int:
    """Show the job; returns 0 where every step did what it says, else 1."""
    made = argparse.ArgumentParser(
        prog="firstkey demo",
        description="Show the main job on a scratch root and an embedded metadata service. Safe anywhere.",
        allow_abbrev=False,
    )
    made.add_argument("--keep", action="store_true", help="leave the scratch root behind, to look at")
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

    def run(self) -> int:
        self._first_boot()
        self._second_boot()
        self._key_removed_by_hand()
        self._rebundled_image()
        return self._verdict()

    def _first_boot(self) -> None:
        machine = self._machine
        self._title("A fresh machine boots for the first time")
        print(f"The machine is a directory, {machine.root}.")
        print("It has an sshd configuration and one user, no host keys and no authorized_keys.")
        print(f"The metadata service plays at {self._service.url}; it offers the launch key `first-key`.")
        self._service.change(keys=(("first-key", machine.new_key("first-key")),))
        self._firstkey()
        self._files()
        self._login("first-key", expected=True)

    def _second_boot(self) -> None:
        self._title("It boots again: nothing changes")
        before = self._machine.snapshot()
        self._firstkey()
        self._check("No file was written.", self._machine.snapshot() == before)

    def _key_removed_by_hand(self) -> None:
        machine = self._machine
        self._title("A person takes the launch key out, and puts an own key in")
        machine.write_authorized_keys(machine.new_key("own-key"))
        self._firstkey()
        self._check("The launch key stays out.", not machine.has_key("first-key"))
        self._check("The person's key stays in.", machine.has_key("own-key"))
        self._login("first-key", expected=False)
        print("`firstkey run --force` would put it back:")
        self._firstkey("--force")
        self._check("The launch key is back.", machine.has_key("first-key"))

    def _rebundled_image(self) -> None:
        machine = self._machine
        self._title("The disk becomes an image, and another instance boots from it with another launch key")
        before = machine.host_key_fingerprints()
        self._service.change(instance_id=SECOND, keys=(("second-key", machine.new_key("second-key")),))
        self._firstkey()
        self._check("The new launch key is in.", machine.has_key("second-key"))
        self._check("The launch key of the other instance is gone.", not machine.has_key("first-key"))
        self._check("The person's own key is still there.", machine.has_key("own-key"))
        self._check("No host key is the image's.", not before & machine.host_key_fingerprints())
        self._login("second-key", expected=True)
        self._login("first-key", expected=False)

    def _verdict(self) -> int:
        if self._machine.without_login:
            print(f"\nNot shown: a real SSH login, because {self._machine.without_login}.")
        if self._failures:
            print("\nThis is not as it should be:", *(f"  {failure}" for failure in self._failures), sep="\n")
            return 1
        print("\nEverything came out as it should. The scratch root is removed again.")
        return 0

    # --- how it is shown ----------------------------------------------------------------------

    def _title(self, text: str) -> None:
        self._step += 1
        print(f"\n=== {self._step}. {text} ===\n")

    def _firstkey(self, *options: str) -> None:
        argv = ["--root", self._machine.root, "--imds", self._service.url, *options]
        print(f"$ firstkey run {' '.join(argv)}")
        try:
            status = run.main([*argv, "--user", self._machine.user, "--quiet"], say=_tell)
        except FirstkeyError as error:
            self._check(f"firstkey run: {error.message}", good=False)
            return
        self._check("Exit status 0.", status == 0)

    def _files(self) -> None:
        print("\nThe files, with their modes and owners:")
        for path, found in self._machine.files():
            print(f"  {stat.filemode(found.st_mode)} {_owner(found):10} {path}")

    def _login(self, key: str, *, expected: bool) -> None:
        if self._machine.without_login:
            return
        worked = self._machine.login(key)
        words = f"ssh with {key}: {'logged in' if worked else 'refused'}."
        self._check(words, worked is expected)

    def _check(self, words: str, good: bool) -> None:  # noqa: FBT001 - the condition is the point of the call
        print(f"{'[ ok ]' if good else '[FAIL]'} {words}")
        if not good:
            self._failures.append(words)


def _tell(entry: events.Entry) -> None:
    """What the journal would get."""
    if entry.event.priority <= events.INFO:
        print(f"  {entry.message}")


def _owner(found: os.stat_result) -> str:
    import pwd

    try:
        return pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        return str(found.st_uid)
