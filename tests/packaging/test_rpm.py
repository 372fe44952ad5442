"""The life of the rpm: installed, used, upgraded and erased by rpm itself, in a tree that has another Python.

There is no Fedora to try it in, so the tree is a Debian: what it depends on is there under other names.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from debian_image import CODE, LEDGER, REPORT, SETTINGS, STARTING, WANTED, Image
from packages import GONE

import firstkey
from firstkey.metadata.emulator import Emulator

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1200)]


HELPER, HELPED = "/usr/lib/systemd/systemd-update-helper", "/helper-calls"
"""What the macros of systemd's package call, and what it is asked."""


def rpm_in(image: Image, *argv: str) -> str:
    """Run rpm on the image, whose scriptlets run inside of it."""
    nodeps = [] if argv[0] == "--query" else ["--nodeps"]
    done = subprocess.run(
        ["rpm", "--root", str(image.root), *nodeps, "--force-debian", *argv],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def pythons_package(directory: Path) -> Path:
    """A package with a new Python, which is called otherwise than Fedora's, RHEL's and Amazon Linux's."""
    spec = directory / "python.spec"
    spec.write_text(
        "Name: python-of-tomorrow\nVersion: 3.99\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n"
        "%description\nx\n%install\nmkdir -p %{buildroot}/usr/bin\ntouch %{buildroot}/usr/bin/python3.99\n"
        "%files\n/usr/bin/python3.99\n"
    )
    argv = ["rpmbuild", "-bb", "--define", f"_topdir {directory}", str(spec)]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return directory / "RPMS/noarch/python-of-tomorrow-3.99-1.noarch.rpm"


def remove_bytecode(image: Image) -> None:
    """As if none had ever been made."""
    for bytecode in image.path(CODE).rglob("*.pyc"):
        bytecode.unlink()


def test_installing_enables_the_unit_and_starts_nothing(image: Image, rpm: Path) -> None:
    """The preset in the package enables it; an image that is being built must not get its builder's key."""
    rpm_in(image, "--install", str(rpm))
    assert image.path(WANTED).is_symlink()
    rpm_in(image, "--erase", "firstkey")
    assert not image.path(WANTED).is_symlink()
    image.pretend_to_run()
    rpm_in(image, "--install", str(rpm))
    assert image.calls == ["--no-reload preset firstkey.service"]
    for made_by_a_run in (LEDGER, REPORT, "/root/.ssh/authorized_keys"):
        assert not image.path(made_by_a_run).exists()


def test_the_code_is_compiled_for_the_python_that_is_there(image: Image, rpm: Path, tmp_path: Path) -> None:
    """At installation, whichever Python built the package, and whenever the system's Python is replaced."""
    rpm_in(image, "--install", str(rpm))
    assert image.uncompiled() == []
    changed = rpm_in(image, "--verify", "firstkey")
    assert changed == "", "nothing that the package brought was changed by it"
    remove_bytecode(image)
    assert image.uncompiled() != []
    rpm_in(image, "--install", str(pythons_package(tmp_path)))
    assert image.uncompiled() == []


def test_the_payload_works_as_it_is_unpacked(image: Image, rpm: Path, service: Emulator) -> None:
    """Without a scriptlet having run, for the whole job."""
    unpack = 'rpm2cpio "$1" | cpio --directory "$2" --extract --make-directories --quiet'
    subprocess.run(["sh", "-ec", unpack, "sh", str(rpm), str(image.root)], check=True)
    assert image.work(service)["outcome"] == "ok"
    assert image.path("/home/deploy/.ssh/authorized_keys").exists()
    checked = image.attempt("systemd-analyze", "verify", "--man=no", "firstkey.service", "multi-user.target")
    assert (checked.stdout, checked.stderr, checked.returncode) == ("", "", 0)


def test_an_upgrade_keeps_configuration_and_ledger(
    image: Image, rpm: Path, rpm_before: Path, service: Emulator
) -> None:
    """And whether the unit is enabled; a daemon whose work is done is not started again."""
    rpm_in(image, "--install", str(rpm_before))
    image.work(service)
    ledger, settings = image.path(LEDGER).read_bytes(), image.path(SETTINGS).read_bytes()
    image.path(WANTED).unlink()
    image.pretend_to_run()
    rpm_in(image, "--upgrade", str(rpm))
    assert firstkey.__version__ in rpm_in(image, "--query", "firstkey")
    assert image.path(LEDGER).read_bytes() == ledger
    assert image.path(SETTINGS).read_bytes() == settings
    assert not image.path(WANTED).is_symlink(), "who disabled it finds it disabled"
    assert not image.verbs() & {*STARTING, "preset", "disable", "stop"}
    assert "daemon-reload" in image.verbs()
    assert image.uncompiled() == []
    assert list(image.path(CODE).rglob(f"{Path(GONE).stem}.*")) == []


def test_an_upgrade_restarts_only_a_daemon_that_is_at_work(image: Image, rpm: Path, rpm_before: Path) -> None:
    """One that still asks would go on with modules of two versions."""
    rpm_in(image, "--install", str(rpm_before))
    image.pretend_to_run(main_pid=4711)
    rpm_in(image, "--upgrade", str(rpm))
    assert [call for call in image.calls if set(call.split()) & STARTING] == ["try-restart firstkey.service"]


def test_with_fedoras_macros_units_are_left_to_systemds_helper(
    image: Image, rpm: Path, rpm_of_fedora: Path
) -> None:
    """The files are the same; presets, stops and reloads are the helper's and its file triggers' work."""
    listed = [rpm_in(image, "--query", "--list", "--package", str(each)) for each in (rpm, rpm_of_fedora)]
    assert listed[0] == listed[1]
    image.write(HELPER, f"#!/bin/sh\necho $* >>{HELPED}\n", mode=0o755)
    image.pretend_to_run()
    for step in ("--install", "--upgrade --force"):
        rpm_in(image, *step.split(), str(rpm_of_fedora))
        assert image.path(HELPED).read_text() == "install-system-units firstkey.service\n"
        assert image.uncompiled() == []
    rpm_in(image, "--erase", "firstkey")
    assert image.path(HELPED).read_text().endswith("\nremove-system-units firstkey.service\n")
    assert image.verbs() <= {"show", "firstkey.service"}


def test_erasing_takes_only_the_program(image: Image, rpm: Path, service: Emulator) -> None:
    """Keys, ledger and configuration stay; the only unit that is stopped is firstkey's own."""
    before = image.files()
    rpm_in(image, "--install", str(rpm))
    image.work(service)
    image.pretend_to_run()
    rpm_in(image, "--erase", "firstkey")
    assert image.calls[0] == "--no-reload disable --now firstkey.service"
    assert set(image.calls[1:]) == {"daemon-reload"}
    left = {path for path in image.files() - before if path.startswith(("/usr/", "/lib/"))}
    assert left - {"/usr/share/licenses"} == {"/usr/bin/systemctl.real"}, "what the test itself put there"
    for kept in (LEDGER, SETTINGS, "/root/.ssh/authorized_keys", "/etc/ssh/ssh_host_ed25519_key"):
        assert image.path(kept).exists()
