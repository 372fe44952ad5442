"""Whether a unit would run at the next boot: judged as systemd itself does it, and by what is in an image."""

from __future__ import annotations

import os
import subprocess

import pytest
from image_builder import Builder

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
        [f"Description=a \\\n# no part of it\n{GONE}", THERE],
        [f"Description=a\\\\\n{GONE}"],
        [f"Description=a \\\n\n{GONE}"],
        [f"Description=a \\\n[Service]\n{GONE}"],
        [f" [Service]\n{GONE}", THERE],
        [f"\ufeff{GONE}"],
    ],
)
def test_conditions_are_weighed_as_systemd_does(lines: list[str], builder: Builder) -> None:
    """What must hold, one of what may, and what an empty value takes back; drop-ins after the unit."""
    first, *others = (f"[Unit]\n{line}\n" for line in lines)
    builder.file(f"{UNITS}/some.service", f"{first}[Service]\nExecStart=/bin/true\n")
    for number, text in enumerate(others):
        builder.file(f"{UNITS}/some.service.d/{number}.conf", text)
    said = subprocess.run(
        ["systemd-analyze", "condition", "--unit=some.service"],
        env={**os.environ, "SYSTEMD_UNIT_PATH": str(builder.path(UNITS))},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if "unrecognized option" in said.stderr:
        pytest.skip("needs systemd 250, whose systemd-analyze asks about a unit")
    assert "Conditions " in said.stderr, said.stderr
    runs = units.may_run(builder.image(), "some.service", lambda kind, value: value == "/etc")
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
        ("ConditionPathExists=/etc/s*", FINDING),
        ("ConditionPathExistsGlob=/etc/s*", PASS),
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
def test_host_keys_are_promised_where_their_unit_will_run(lines: str, outcome: str, builder: Builder) -> None:
    """On an image that is not at its first boot; the host key that it has will be sealed away."""
    grow(builder, keygen=f"[Unit]\n{lines}\n[Service]\nExecStart=ssh-keygen -A\n")
    builder.file("/etc/empty", "")
    builder.link("/etc/to-ssh", "ssh")
    builder.link("/etc/to-nothing", "nosuch")
    assert judged(builder) == outcome


@pytest.mark.parametrize("machine_id, outcome", [("", FINDING), (SET, FINDING), (FIRST, PASS), (None, PASS)])
def test_a_first_boot_is_what_systemd_calls_one(
    machine_id: str | None, outcome: str, builder: Builder
) -> None:
    """With an empty machine-id it is none (machine-id(5)), and port 22 would never open."""
    grow(builder, keygen="[Unit]\nConditionFirstBoot=yes\n")
    builder.path("/etc/machine-id").unlink()
    if machine_id is not None:
        builder.file("/etc/machine-id", machine_id)
    assert judged(builder) == outcome


def test_a_drop_in_counts(builder: Builder) -> None:
    """It may take back what the unit has, or add to it."""
    grow(builder, keygen="[Unit]\nConditionFirstBoot=yes\n")
    builder.file(f"{UNITS}/sshd-keygen.service.d/a.conf", "[Unit]\nConditionFirstBoot=\n")
    assert judged(builder) == PASS
    builder.file("/etc/systemd/system/sshd-keygen.service.d/b.conf", "[Unit]\nConditionPathExists=/nosuch\n")
    assert judged(builder) == FINDING


def test_a_unit_that_nothing_starts_makes_none(builder: Builder) -> None:
    """Enabled or wanted it does, masked or alone it does not; a first boot enables by preset."""
    grow(builder, keygen="[Install]\nWantedBy=ssh.service\n", ssh="[Unit]\n")
    assert judged(builder) == FINDING
    builder.file("/etc/machine-id", FIRST)
    assert judged(builder) == PASS
    builder.file(f"{UNITS}-preset/90-off.preset", "disable sshd-keygen.service\n")
    assert judged(builder) == FINDING
    builder.link("/etc/systemd/system/ssh.service.wants/sshd-keygen.service", f"{UNITS}/sshd-keygen.service")
    assert judged(builder) == PASS
    builder.link("/etc/systemd/system/sshd-keygen.service", "/dev/null")
    assert judged(builder) == FINDING


def grow(builder: Builder, *, keygen: str, ssh: str = "[Unit]\nWants=sshd-keygen.service\n") -> None:
    """An image whose sshd is started at boot, with a unit for host keys and a host key."""
    builder.file("/usr/sbin/sshd")
    builder.file(f"{UNITS}/ssh.service", f"{ssh}[Service]\nExecStart=/usr/sbin/sshd -D\n")
    builder.link("/etc/systemd/system/multi-user.target.wants/ssh.service", f"{UNITS}/ssh.service")
    builder.file(f"{UNITS}/sshd-keygen.service", keygen)
    builder.file("/etc/machine-id", SET)
    builder.file(KEY, "a key\n")


def judged(builder: Builder) -> str:
    """The outcome of the rule."""
    return verdict_of(rules.by_id("host-key-maker"), builder.image()).outcome
