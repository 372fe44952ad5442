"""The systems that firstkey is tried on: Debian's releases, with their own OpenSSH, systemd, sudo and Python.

tests/matrix tries the same on each of them, `--suite NAME` keeps a run to one. Which test holds what of the
table of platforms is in HELD, by names that pytest knows.
"""

from __future__ import annotations

import os
import warnings
from typing import NamedTuple, NoReturn

import pytest


class Suite(NamedTuple):
    """A release: its name in sentences, and the versions that it has at least."""

    title: str
    openssh: str
    systemd: str
    python: str


SUITES = {
    "bullseye": Suite("Debian 11", "8.4", "247", "3.9"),
    "bookworm": Suite("Debian 12", "9.2", "252", "3.11"),
    "trixie": Suite("Debian 13", "10.0", "257", "3.13"),
    "sid": Suite("Debian sid", "10.6", "262", "3.14"),
}
"""Oldest first. sid moves: its versions are lower bounds, the others' are exact."""

OLDEST = "bullseye"
"""The nearest to Amazon Linux 2023 and RHEL 9 that Debian has."""
USUAL = "bookworm"
"""What is tried on one system only is tried on this one."""
MOVING = "sid"

SUDO_RS = ("trixie", "sid")
"""Those that have sudo-rs too."""

VERSIONS = {
    "openssh": "/usr/sbin/sshd -V || true",
    "systemd": "systemctl --version",
    "python": "python3 --version",
}
"""How each says its version, on standard output or error."""

HELD = {
    "first boot": "tests/matrix/test_lifetime.py::test_the_first_boot",
    "second boot": "tests/matrix/test_lifetime.py::test_the_second_boot_changes_nothing",
    "damaged host keys": "tests/matrix/test_lifetime.py::test_damaged_host_keys_are_made_again",
    "re-bundled image": "tests/matrix/test_lifetime.py::test_a_rebundled_image_trusts_only_its_new_owner",
    "created user with sudo": "tests/matrix/test_lifetime.py::test_a_created_user_has_sudo",
    "ssh.socket": "tests/matrix/test_lifetime.py::test_a_connection_to_the_socket_waits_for_the_keys",
    "doctor": "tests/matrix/test_lifetime.py::test_the_doctor_says_that_it_works",
    "audit and the box": "tests/matrix/test_lifetime.py::test_audit_looks_at_everything_from_a_box",
    "seal": "tests/matrix/test_lifetime.py::test_a_sealed_image_is_fit_and_boots_as_somebody_elses",
    "unit tests": "tests/matrix/test_rooms.py::test_a_room_on_its_own_system",
}
"""What is held on every suite, and by which test: its parameter (or a part of it) is the suite's name."""


def without(suite: str, why: object) -> NoReturn:
    """Skip what needs a release that cannot be had, with a warning in the summary.

    A mirror that does not serve one is no fault of firstkey's; but where even the usual one cannot be had,
    CI has tried nothing, which is a failure.
    """
    if suite == USUAL and "CI" in os.environ:
        raise AssertionError(why)
    warnings.warn(f"WITHOUT {SUITES[suite].title}: nothing was tried on it: {why}", stacklevel=1)
    pytest.skip(f"WITHOUT {SUITES[suite].title}: {why}")
