"""The life of the rpm: installed, used, upgraded and erased by rpm itself, in a tree that has another Python.

There is no Fedora to try it in, so the tree is a Debian: what it depends on is there under other names.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from debian_image import CODE, LEDGER, REPORT, SETTINGS, STARTING, WANTED, Image

from firstkey.metadata.emulator import Emulator

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1200)]


def rpm_in(image: Image, *argv: str) -> str:
    """Run rpm on the image, whose scriptlets run inside of it."""
    done = subprocess.run(
        ["rpm", "--root", str(image.root), "--nodeps", "--force-debian", *argv],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def pythons_package(directory: Path) -> Path:
    """An empty package with the name of the one that has Python on Fedora, RHEL and Amazon Linux."""
    spec = directory / "python3.spec"
    spec.write_text(
        "Name: python3\nVersion: 3.99\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n"
        "%description\nx\n%files\n"
    )
    argv = ["rpmbuild", "-bb", "--define", f"_topdir {directory}", str(spec)]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return directory / "RPMS/noarch/python3-3.99-1.noarch.rpm"


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


def test_an_upgrade_keeps_configuration_and_ledger(image: Image, rpm: Path, service: Emulator) -> None:
    """And whether the unit is enabled; a daemon whose work is done is not started again."""
    rpm_in(image, "--install", str(rpm))
    image.work(service)
    ledger, settings = image.path(LEDGER).read_bytes(), image.path(SETTINGS).read_bytes()
    image.path(WANTED).unlink()
    image.pretend_to_run()
    rpm_in(image, "--upgrade", "--force", str(rpm))
    assert image.path(LEDGER).read_bytes() == ledger
    assert image.path(SETTINGS).read_bytes() == settings
    assert not image.path(WANTED).is_symlink(), "who disabled it finds it disabled"
    assert not image.verbs() & {*STARTING, "preset", "disable", "stop"}
    assert "daemon-reload" in image.verbs()
    assert image.uncompiled() == []


def test_an_upgrade_restarts_only_a_daemon_that_is_at_work(image: Image, rpm: Path) -> None:
    """One that still asks would go on with modules of two versions."""
    rpm_in(image, "--install", str(rpm))
    image.pretend_to_run(main_pid=4711)
    rpm_in(image, "--upgrade", "--force", str(rpm))
    assert [call for call in image.calls if set(call.split()) & STARTING] == ["try-restart firstkey.service"]


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
