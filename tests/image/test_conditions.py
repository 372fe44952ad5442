"""Whether a unit would run at the next boot: judged as systemd itself does it, and by what is in an image."""

from __future__ import annotations

import os
import subprocess

import pytest
from sapling import Sapling

from firstkey.image import rules, units
from firstkey.image.audit import verdict_of
from firstkey.image.verdict import FINDING, PASS, UNKNOWN

UNITS = "/usr/lib/systemd/system"
THERE, GONE = "ConditionPathExists=/etc", "ConditionPathExists=/nosuch"


@pytest.mark.systemd
@pytest.mark.parametrize(
    "lines",
    [
        [THERE],
        [GONE],
        [THERE, GONE],
        ["ConditionPathExists=!/nosuch", "ConditionPathExists=!/etc"],
        ["ConditionPathExists=|/nosuch", "ConditionPathExists=|/etc"],
        ["ConditionPathExists=|/nosuch", "ConditionPathExists=|!/etc"],
        ["ConditionPathExists=|!/nosuch", "ConditionPathExistsGlob=/nosuch*"],
        [GONE, "ConditionPathExistsGlob=", THERE],
        [GONE, "ConditionFileNotEmpty=", "ConditionPathExists=|/nosuch"],
    ],
)
def test_conditions_are_weighed_as_systemd_does(lines: list[str], sapling: Sapling) -> None:
    """What must hold, one of what may, and what an empty value takes back; drop-ins after the unit."""
    first, *others = (f"[Unit]\n{line}\n" for line in lines)
    sapling.file(f"{UNITS}/some.service", f"{first}[Service]\nExecStart=/bin/true\n")
    for number, text in enumerate(others):
        sapling.file(f"{UNITS}/some.service.d/{number}.conf", text)
    said = subprocess.run(
        ["systemd-analyze", "condition", "--unit=some.service"],
        env={**os.environ, "SYSTEMD_UNIT_PATH": str(sapling.path(UNITS))},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if "unrecognized option" in said.stderr:
        pytest.skip("needs systemd 250, whose systemd-analyze asks about a unit")
    assert "Conditions " in said.stderr, said.stderr
    runs = units.may_run(sapling.site().tree, "some.service", lambda kind, value: value == "/etc")
    assert runs is (said.returncode == 0), said.stderr


KEY = "/etc/ssh/ssh_host_ed25519_key"
SET, FIRST = "0123456789abcdef0123456789abcdef\n", "uninitialized\n"


@pytest.mark.parametrize(
    "lines, outcome",
    [
        ("", PASS),
        ("ConditionFirstBoot=yes", FINDING),
        ("ConditionFirstBoot=no", PASS),
        ("ConditionFirstBoot=|yes\nConditionPathExists=|!/etc/ssh/ssh_host_rsa_key", PASS),
        (f"ConditionPathExists=!{KEY}", PASS),
        ("ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key", PASS),
        (f"ConditionFileNotEmpty=|!{KEY}", PASS),
        ("ConditionPathExists=/etc/make-host-keys", FINDING),
        ("ConditionPathExists=!/etc/ssh", FINDING),
        ("ConditionPathExistsGlob=!/run/firstkey/.firstkey-hostkeys.*", PASS),
        ("ConditionPathIsReadWrite=/etc/ssh\nConditionPathIsSymbolicLink=!/etc/ssh", PASS),
        ("ConditionPathIsSymbolicLink=/etc/ssh", FINDING),
        ("ConditionPathIsDirectory=/etc/ssh", PASS),
        ("ConditionPathIsDirectory=/etc/machine-id", FINDING),
        ("ConditionFirstBoot=No", PASS),
        ("ConditionFirstBoot=Yes", FINDING),
        ("ConditionFileNotEmpty=/etc/machine-id", PASS),
        ("ConditionFileNotEmpty=/etc/empty", FINDING),
        ("ConditionFileNotEmpty=!/etc/empty", PASS),
        ("ConditionPathIsDirectory=/etc/to-ssh", PASS),
        ("ConditionPathIsDirectory=!/etc/to-ssh", FINDING),
        ("ConditionPathExists=/etc/to-nothing", UNKNOWN),
        ("ConditionPathExistsGlob=/etc/to-noth*", PASS),
        ("ConditionPathExists=!%t/nosuch", UNKNOWN),
        ("[Service]\nConditionPathExists=/nosuch", PASS),
        ("ConditionPathExists=!/run/cloud", UNKNOWN),
        ("ConditionVirtualization=!container", UNKNOWN),
        ("ConditionVirtualization=!container\nConditionFirstBoot=yes", FINDING),
        ("ConditionVirtualization=|!container\nConditionFirstBoot=|no", PASS),
    ],
)
def test_host_keys_are_promised_where_their_unit_will_run(lines: str, outcome: str, sapling: Sapling) -> None:
    """On an image that is not at its first boot; the host key that it has will be sealed away."""
    grow(sapling, keygen=f"[Unit]\n{lines}\n[Service]\nExecStart=ssh-keygen -A\n")
    sapling.file("/etc/empty", "")
    sapling.link("/etc/to-ssh", "ssh")
    sapling.link("/etc/to-nothing", "nosuch")
    assert judged(sapling) == outcome


@pytest.mark.parametrize("machine_id, outcome", [("", FINDING), (SET, FINDING), (FIRST, PASS), (None, PASS)])
def test_a_first_boot_is_what_systemd_calls_one(
    machine_id: str | None, outcome: str, sapling: Sapling
) -> None:
    """With an empty machine-id it is none (machine-id(5)), and port 22 would never open."""
    grow(sapling, keygen="[Unit]\nConditionFirstBoot=yes\n")
    sapling.path("/etc/machine-id").unlink()
    if machine_id is not None:
        sapling.file("/etc/machine-id", machine_id)
    assert judged(sapling) == outcome


def test_a_drop_in_counts(sapling: Sapling) -> None:
    """It may take back what the unit has, or add to it."""
    grow(sapling, keygen="[Unit]\nConditionFirstBoot=yes\n")
    sapling.file(f"{UNITS}/sshd-keygen.service.d/a.conf", "[Unit]\nConditionFirstBoot=\n")
    assert judged(sapling) == PASS
    sapling.file("/etc/systemd/system/sshd-keygen.service.d/b.conf", "[Unit]\nConditionPathExists=/nosuch\n")
    assert judged(sapling) == FINDING


def test_a_unit_that_nothing_starts_makes_none(sapling: Sapling) -> None:
    """Enabled or wanted it does, masked or alone it does not; a first boot enables by preset."""
    grow(sapling, keygen="[Install]\nWantedBy=ssh.service\n", ssh="[Unit]\n")
    assert judged(sapling) == FINDING
    sapling.file("/etc/machine-id", FIRST)
    assert judged(sapling) == PASS
    sapling.file(f"{UNITS}-preset/90-off.preset", "disable sshd-keygen.service\n")
    assert judged(sapling) == FINDING
    sapling.link("/etc/systemd/system/ssh.service.wants/sshd-keygen.service", f"{UNITS}/sshd-keygen.service")
    assert judged(sapling) == PASS
    sapling.link("/etc/systemd/system/sshd-keygen.service", "/dev/null")
    assert judged(sapling) == FINDING


def grow(sapling: Sapling, *, keygen: str, ssh: str = "[Unit]\nWants=sshd-keygen.service\n") -> None:
    """An image whose sshd is started at boot, with a unit for host keys and a host key."""
    sapling.file("/usr/sbin/sshd")
    sapling.file(f"{UNITS}/ssh.service", f"{ssh}[Service]\nExecStart=/usr/sbin/sshd -D\n")
    sapling.link("/etc/systemd/system/multi-user.target.wants/ssh.service", f"{UNITS}/ssh.service")
    sapling.file(f"{UNITS}/sshd-keygen.service", keygen)
    sapling.file("/etc/machine-id", SET)
    sapling.file(KEY, "a key\n")


def judged(sapling: Sapling) -> str:
    """The outcome of the rule."""
    return verdict_of(rules.by_id("host-key-maker"), sapling.image()).outcome
