"""The unit, its preset and its catalogue, held against systemd's own tools and the list of events."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import string
import subprocess
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from firstkey import events, settings
from firstkey.boot.host_key_files import RUN_DIRECTORY

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "firstkey.service"
CATALOG = SYSTEMD / "firstkey.catalog"

SSH_UNITS = {
    "ssh.service": "After=network.target",
    "sshd.service": "After=network.target sshd-keygen.target\nWants=sshd-keygen.target",
    "sshd-keygen.target": "Wants=sshd-keygen@rsa.service sshd-keygen@ed25519.service",
    "sshd-keygen@.service": "Before=sshd-keygen.target",
    "sshd-keygen.service": "Before=ssh.service sshd.service",
    "ssh.socket": "Before=sockets.target ssh.service",
    "cloud-init.service": "Before=network-online.target sshd-keygen.service sshd.service",
    "cloud-init-network.service": "After=basic.target\nBefore=network-online.target sshd.service",
}
"""How the distributions order theirs, as far as it could close a circle."""
ENABLED = [name for name in SSH_UNITS if name.endswith((".service", ".socket")) and "@" not in name]
ENABLED += ["firstkey.service"]

EXPOSURE_LIMIT = 30
"""In tenths. `systemd-analyze security` says 2.9 of 10 (systemd 252); other versions differ a little."""


class Unit:
    """The settings of a unit file, each with all its values."""

    def __init__(self, path: Path) -> None:
        self.settings: dict[str, list[str]] = {}
        for line in path.read_text().splitlines():
            if "=" in line and not line.startswith(("#", ";")):
                name, value = line.split("=", 1)
                self.settings.setdefault(name, []).append(value)

    def words(self, name: str) -> list[str]:
        """All words of all lines of one setting."""
        return " ".join(self.settings.get(name, [])).split()


@pytest.fixture
def unit() -> Unit:
    """The unit as it is shipped."""
    return Unit(UNIT)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A directory with the unit (its program replaced by one that is there), enabled, and SSH units."""
    text = UNIT.read_text().replace("ExecStart=/usr/bin/firstkey daemon", "ExecStart=/bin/true")
    assert "/bin/true" in text
    (tmp_path / "firstkey.service").write_text(text)
    for name, ordering in SSH_UNITS.items():
        (tmp_path / name).write_text(f"[Unit]\nDescription={name}\n{ordering}\n{_body(name)}")
    for name in ENABLED:
        target = "sockets.target.wants" if name.endswith(".socket") else "multi-user.target.wants"
        (tmp_path / target).mkdir(exist_ok=True)
        (tmp_path / target / name).symlink_to(tmp_path / name)
    for drop_in in SYSTEMD.glob("*.d"):
        shutil.copytree(drop_in, tmp_path / drop_in.name)
    (tmp_path / "ssh@.service").write_text(f"[Unit]\nDescription=one connection\n{_body('ssh@.service')}")
    return tmp_path


def _body(name: str) -> str:
    if name.endswith(".target"):
        return ""
    return "[Socket]\nListenStream=2222\n" if name.endswith(".socket") else "[Service]\nExecStart=/bin/true\n"


def verify(units: Path, *names: str) -> str:
    """What `systemd-analyze verify` has to say, with the distribution's other units around."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:", "SYSTEMD_LOG_LEVEL": "info"},
    )
    return done.stdout + done.stderr


def security(unit_file: Path) -> subprocess.CompletedProcess[str]:
    """What `systemd-analyze security` thinks of the unit: status 0 up to the limit."""
    argv = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_LIMIT}", str(unit_file)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze security --offline= needs systemd 250")
    assert "Overall exposure level" in done.stdout, done.stderr
    return done


needs_analyze = [
    pytest.mark.systemd,
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"),
]


class TestVerify:
    """By systemd-analyze."""

    pytestmark = needs_analyze

    def test_nothing_is_found(self, units: Path) -> None:
        """The unit has no unknown setting and no mistake."""
        assert verify(units, str(units / "firstkey.service")) == ""

    @pytest.mark.parametrize("start", ["multi-user.target", "ssh.service", "sshd.service", "ssh@1.service"])
    def test_no_circle(self, units: Path, start: str) -> None:
        """With the SSH units of the distributions no ordering closes a circle that drops a unit."""
        said = verify(units, start)
        assert "cycle" not in said
        assert "firstkey" not in said

    def test_a_circle_would_be_found(self, units: Path) -> None:
        """The test above sees circles: one that is put in on purpose is reported."""
        dropin = units / "firstkey.service.d"
        dropin.mkdir()
        (dropin / "circle.conf").write_text("[Unit]\nAfter=ssh.service\n")
        assert "cycle" in verify(units, "multi-user.target")

    def test_exposure(self, units: Path) -> None:
        """The sandbox leaves at most this much to whoever takes over the process."""
        done = security(units / "firstkey.service")
        assert done.returncode == 0, done.stdout[-200:]

    def test_a_hole_in_the_sandbox_would_be_found(self, units: Path) -> None:
        """The test above sees what is missing: without these two settings the exposure is too high."""
        text = UNIT.read_text().replace("\nPrivateMounts=yes\n", "\n").replace("\nIPAddressDeny=any\n", "\n")
        assert len(text) < len(UNIT.read_text()) - 30
        (units / "firstkey.service").write_text(text)
        assert security(units / "firstkey.service").returncode != 0


def test_order(unit: Unit) -> None:
    """Before sshd and the makers of host keys, after local file systems, and never behind the network."""
    before, after = unit.words("Before"), unit.words("After")
    assert {"ssh.service", "sshd.service", "sshd-keygen.target", "sshd-keygen.service"} <= set(before)
    assert {f"sshd-keygen@{kind}.service" for kind in ("rsa", "ecdsa", "ed25519")} <= set(before)
    assert "local-fs.target" in after
    # Cloud-init's is a stage, and is there only where somebody else wants it.
    assert {"cloud-init.service", "cloud-init-network.service"} <= set(after)
    after = [word for word in after if not word.startswith("cloud-init")]
    pulled = [*after, *unit.words("Wants"), *unit.words("Requires"), *unit.words("RequiresMountsFor")]
    assert not [word for word in pulled if "network" in word or "remote" in word or "basic" in word]
    assert not [word for word in before if word.endswith(".socket") or word.startswith("sockets")]
    assert unit.words("DefaultDependencies") == ["no"]
    assert unit.words("Conflicts") == ["shutdown.target"]
    assert "shutdown.target" in before


def test_readiness_and_net(unit: Unit) -> None:
    """The boot waits for READY=1, but not for ever, and never for a restart."""
    assert unit.words("Type") == ["notify"]
    assert unit.words("RemainAfterExit") == ["yes"]
    assert 30 < int(unit.words("TimeoutStartSec")[0]) <= 120
    assert not unit.words("Restart")


def test_switches(unit: Unit) -> None:
    """The kernel command line and a file switch it off; the first-boot condition is not trusted."""
    assert unit.words("ConditionKernelCommandLine") == ["!firstkey=off"]
    assert unit.words("ConditionPathExists") == ["!/etc/firstkey/disabled"]
    assert not unit.words("ConditionFirstBoot")


def test_directories(unit: Unit) -> None:
    """The report can be read by all and outlives the process."""
    assert "firstkey" in unit.words("RuntimeDirectory")
    assert unit.words("RuntimeDirectoryMode") == ["0755"]
    assert unit.words("RuntimeDirectoryPreserve") == ["yes"]


def test_sandbox_leaves_the_work(unit: Unit) -> None:
    """What the job writes and calls stays allowed."""
    assert unit.words("ProtectSystem") == ["yes"]
    assert not unit.words("ProtectHome")
    assert not unit.words("PrivateDevices")
    assert not unit.words("PrivateTmp")
    assert not unit.words("NoNewPrivileges")
    assert unit.settings["DeviceAllow"] == ["/dev/console w"]
    assert {"AF_INET", "AF_INET6", "AF_UNIX"} <= set(unit.words("RestrictAddressFamilies"))
    assert {"CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"} <= set(unit.words("CapabilityBoundingSet"))
    assert not {"@chown", "@setuid", "@privileged", "@process"} & removed_calls(unit)


def removed_calls(unit: Unit) -> set[str]:
    """The groups of system calls that a later line takes out of those that are let through."""
    first, removed, given_back = unit.settings["SystemCallFilter"]
    assert (first, removed[0]) == ("@system-service", "~")
    # A background key steps back by it; what would let a process go before others stays shut.
    assert given_back == "sched_setscheduler"
    assert unit.words("RestrictRealtime") == ["yes"]
    return set(removed[1:].split())


def test_only_the_metadata_service_can_be_spoken_to(unit: Unit) -> None:
    """IP traffic goes to its addresses and to this host; the code knows the same ones."""
    assert unit.words("IPAddressDeny") == ["any"]
    allowed = set(unit.words("IPAddressAllow"))
    hosts = {urlsplit(str(endpoint)).hostname for endpoint in settings.SECTIONS["IMDS"]["Endpoints"].default}
    assert allowed == hosts | {"localhost"}


def test_no_core_file_and_no_file_for_others(unit: Unit) -> None:
    """A core file would hold the token; what is made without a mode is for root alone."""
    assert (unit.words("LimitCORE"), unit.words("UMask")) == (["0"], ["0077"])


def test_every_setting_has_its_why() -> None:
    """Each group of settings of the service stands under a comment."""
    groups = UNIT.read_text().split("[Service]")[1].split("[Install]")[0].strip().split("\n\n")
    assert [group for group in groups if not group.startswith("#")] == []


@pytest.mark.parametrize("template", ["ssh@.service.d", "sshd@.service.d"])
def test_instances_wait(template: str) -> None:
    """An sshd by the connection waits too; templates cannot be named in Before=."""
    assert Unit(SYSTEMD / template / "firstkey.conf").settings == {"After": ["firstkey.service"]}


@pytest.mark.parametrize("maker", ["sshd-keygen", "sshd-keygen@", "sshdgenkeys"])
def test_makers_of_host_keys_stay_away_while_firstkey_makes_some(maker: str) -> None:
    """By the workshop, which is there for as long as a key is made in it."""
    found = Unit(SYSTEMD / f"{maker}.service.d/firstkey.conf").settings
    assert found == {"ConditionPathExistsGlob": [f"!{RUN_DIRECTORY}/.firstkey-hostkeys.*"]}


def test_preset(unit: Unit) -> None:
    """The package is enabled where presets are followed."""
    lines = (SYSTEMD / "90-firstkey.preset").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["enable firstkey.service"]
    assert unit.words("WantedBy") == ["multi-user.target"]


# --- the catalogue --------------------------------------------------------------------------------


@cache
def catalog() -> dict[str, tuple[configparser.SectionProxy, str]]:
    """The entries by MESSAGE_ID: headers, and the text beneath."""
    found = {}
    for entry in re.split(r"^-- ", CATALOG.read_text(), flags=re.MULTILINE)[1:]:
        message_id, rest = entry.split("\n", 1)
        headers, body = rest.split("\n\n", 1)
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(f"[entry]\n{headers}")
        assert message_id not in found
        found[message_id] = (parser["entry"], body.strip())
    return found


def test_catalog_explains_every_event() -> None:
    """Each event has its entry, in the order of the list, and there is none for an event that is gone."""
    assert list(catalog()) == [event.message_id for event in events.ALL.values()]


@pytest.mark.parametrize("event", events.ALL.values(), ids=events.ALL)
def test_catalog_entry(event: events.Event) -> None:
    """A subject, a cause and a remedy, which use only fields that the event always has."""
    headers, body = catalog()[event.message_id]
    assert headers["Subject"]
    assert headers["Defined-By"] == "firstkey"
    cause, remedy = body.split("\n\n")
    assert len(cause) > 20
    assert remedy.startswith("What to do: ")
    needed = {name for _, name, _, _ in string.Formatter().parse(event.template) if name}
    known = {f"FIRSTKEY_{name.upper()}" for name in needed}
    if "reason" in needed:
        known.add("FIRSTKEY_REMEDY")
    assert set(re.findall(r"@(\w+)@", headers["Subject"] + body)) <= known
    assert body.count("@") % 2 == 0


@pytest.mark.systemd
@pytest.mark.skipif(shutil.which("journalctl") is None, reason="needs journalctl")
def test_journalctl_takes_the_catalog(tmp_path: Path) -> None:
    """The catalogue compiles, and journalctl shows each entry."""
    place = tmp_path / "usr/lib/systemd/catalog"
    place.mkdir(parents=True)
    shutil.copy(CATALOG, place)
    journalctl = ["journalctl", f"--root={tmp_path}"]
    made = subprocess.run([*journalctl, "--update-catalog"], check=True, capture_output=True, timeout=60)
    assert (made.stdout, made.stderr) == (b"", b"")
    listed = subprocess.run(
        [*journalctl, "--list-catalog"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert sorted(line.split()[0] for line in listed.splitlines()) == sorted(catalog())
