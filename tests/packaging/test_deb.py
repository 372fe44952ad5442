"""The life of the deb in a real Debian: installed, used, upgraded, removed and purged with dpkg."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import bootlab
import pytest
import rootfs
from debian_image import (
    CODE,
    CONFIGURATION,
    LEDGER,
    REPORT,
    SETTINGS,
    STARTING,
    SUITES,
    WANTED,
    Image,
    prepare,
)
from packages import GONE

import firstkey
from firstkey.metadata.emulator import Emulator

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1200)]

NOT_OURS = {f"/etc/{name}-" for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")}
"""useradd keeps the old version of what it changes."""
NOT_OURS |= {"/run/sshd"}
"""sshd's own, made at each boot."""


def test_installing_enables_the_unit_and_starts_nothing(image: Image, deb: Path) -> None:
    """An image that is being built must not get its builder's key, whether its systemd runs or not."""
    image.install(deb)
    assert image.path(WANTED).is_symlink()
    image.run("dpkg", "--purge", "firstkey")
    assert not image.path(WANTED).is_symlink()
    image.pretend_to_run()
    image.install(deb)
    assert str(image.path(WANTED).readlink()).endswith("/lib/systemd/system/firstkey.service")
    assert "daemon-reload" in image.verbs(), "the drop-ins of ssh@.service count from now on"
    assert not image.verbs() & set(STARTING)
    for made_by_a_run in (LEDGER, REPORT, "/root/.ssh/authorized_keys"):
        assert not image.path(made_by_a_run).exists()


def test_the_code_is_compiled_where_it_is_installed(image: Image, deb: Path) -> None:
    """The first boot finds bytecode in the image; for another Python, Debian's hook makes it anew."""
    image.install(deb)
    assert image.uncompiled() == []
    for bytecode in image.path(CODE).rglob("*.pyc"):
        bytecode.unlink()
    assert image.uncompiled() != []
    image.run("/usr/share/python3/runtime.d/firstkey.rtupdate", "rtupdate", "python3.9", "python3")
    assert image.uncompiled() == []


def test_the_unit_is_right_in_its_place(image: Image, deb: Path) -> None:
    """Systemd's own check of the installed unit finds nothing, and no circle around sshd."""
    image.install(deb)
    for units in (["firstkey.service"], ["multi-user.target", "ssh.service", "ssh.socket"]):
        done = image.attempt("systemd-analyze", "verify", "--man=no", *units)
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_the_agent_works_without_what_is_only_recommended(image: Image, deb: Path, service: Emulator) -> None:
    """The whole job, with messages on stderr; only detaching is refused, with the package to install."""
    image.install(deb)
    for name in ("systemd", "daemon"):
        image.run("python3", "-c", f"import {name}", status=1)
    report = image.work(service)
    assert report["outcome"] == "ok"
    key = service.settings.keys[0][1]
    for home in ("/root", "/home/deploy"):
        assert image.path(f"{home}/.ssh/authorized_keys").read_text() == f"{key}\n"
    assert len(list(image.path("/etc/ssh").glob("ssh_host_*_key"))) == 3
    image.run("runuser", "-u", "deploy", "--", "sudo", "-n", "true")
    again = image.attempt("firstkey", "run", "-v", "--imds", service.url)
    assert again.returncode == 0
    refused = image.attempt("firstkey", "daemon", "--detach")
    assert refused.returncode == 1
    assert "python3-daemon" in refused.stderr
    assert "dependency-missing" in refused.stderr


def test_an_upgrade_keeps_configuration_and_ledger(
    image: Image, deb: Path, deb_before: Path, service: Emulator
) -> None:
    """And whether the unit is enabled; a daemon whose work is done is not started again."""
    image.install(deb_before)
    image.work(service)
    ledger, keys = image.path(LEDGER).read_bytes(), image.path("/root/.ssh/authorized_keys").read_bytes()
    image.path(WANTED).unlink()
    image.pretend_to_run()
    image.install(deb)
    assert firstkey.__version__ in image.run("dpkg-query", "--show", "firstkey")
    assert image.path(LEDGER).read_bytes() == ledger
    assert image.path("/root/.ssh/authorized_keys").read_bytes() == keys
    assert image.path(SETTINGS).read_text() == CONFIGURATION
    assert not image.path(WANTED).is_symlink(), "who disabled it finds it disabled"
    assert not image.verbs() & {*STARTING, "stop"}
    assert image.uncompiled() == []
    assert list(image.path(CODE).rglob(f"{Path(GONE).stem}.*")) == []


def test_an_upgrade_restarts_only_a_daemon_that_is_at_work(image: Image, deb: Path, deb_before: Path) -> None:
    """One that still asks would go on with modules of two versions."""
    image.install(deb_before)
    image.pretend_to_run(main_pid=4711)
    image.install(deb)
    assert [call for call in image.calls if "restart" in call.split() or "try-restart" in call.split()] == [
        "try-restart firstkey.service"
    ]
    assert "stop" not in image.verbs()


def test_removing_takes_only_the_program(image: Image, deb: Path, service: Emulator) -> None:
    """Keys, ledger and configuration stay; the only unit that is stopped is firstkey's own."""
    before = image.files()
    image.install(deb)
    image.work(service)
    image.pretend_to_run()
    image.run("dpkg", "--remove", "firstkey")
    assert [call for call in image.calls if "stop" in call.split()] == ["stop firstkey.service"]
    assert not image.path("/usr/lib/firstkey").exists()
    for kept in (LEDGER, SETTINGS, "/root/.ssh/authorized_keys", "/etc/ssh/ssh_host_ed25519_key"):
        assert image.path(kept).exists()
    left = {path for path in image.files() - before if path.startswith(("/usr/", "/lib/"))}
    assert left == {"/usr/bin/systemctl.real"}, "what the test itself put there"


def test_purging_leaves_only_keys_and_accounts(image: Image, deb: Path, service: Emulator) -> None:
    """No ledger, report, configuration, sudo rule or link of firstkey is left; what people log in with is."""
    host_keys = {path for path in image.files() if path.startswith("/etc/ssh/ssh_host_")}
    before = image.files() - host_keys
    image.install(deb)
    image.work(service)
    assert image.path("/etc/sudoers.d/firstkey-deploy").exists()
    image.run("dpkg", "--purge", "firstkey")
    left = image.files() - before - NOT_OURS
    keys = {path for path in left if path.startswith(("/etc/ssh/ssh_host_", "/root/.ssh", "/home/deploy"))}
    assert left - keys == set()
    assert {"/root/.ssh/authorized_keys", "/home/deploy/.ssh/authorized_keys"} <= keys
    assert len([path for path in keys if path.startswith("/etc/ssh/ssh_host_")]) == 6
    assert before - image.files() == set()


def test_purging_leaves_what_is_others(image: Image, deb: Path, tmp_path: Path) -> None:
    """A drop-in of another package, and a sudo rule that firstkey did not write."""
    image.install(deb)
    theirs = "/etc/firstkey/firstkey.conf.d/10-site.conf"
    package = tmp_path / "site"
    (package / theirs.lstrip("/")).parent.mkdir(parents=True)
    (package / theirs.lstrip("/")).write_text("[Keys]\nUsers=root\n")
    (package / "DEBIAN").mkdir()
    (package / "DEBIAN/control").write_text(
        "Package: site\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.example>\nDescription: a site's\n"
    )
    subprocess.run(["dpkg-deb", "--build", str(package)], check=True, capture_output=True)
    image.install(tmp_path / "site.deb")
    image.write("/etc/sudoers.d/firstkey-by-hand", "# ours\n", mode=0o440)
    image.write("/etc/firstkey/disabled", "")
    image.run("dpkg", "--purge", "firstkey")
    assert image.path(theirs).exists()
    assert image.path("/etc/sudoers.d/firstkey-by-hand").exists()
    assert not image.path("/etc/firstkey/disabled").exists()


@pytest.mark.parametrize("suite", SUITES)
def test_no_circle_beside_cloud_init(suite: str, deb: Path, tmp_path: Path) -> None:
    """Behind the distribution's enabled cloud-init, with its own units, no unit is lost to a circle."""
    if reason := rootfs.missing_for_debian_root():
        pytest.skip(reason)
    base = tmp_path / "base"
    rootfs.unpack(bootlab.archive(suite, "cloud-init"), base)
    image = prepare(base)
    image.install(deb)
    # What cloud-init's generator does at boot.
    image.run("systemctl", "add-wants", "multi-user.target", "cloud-init.target")
    done = image.attempt("systemd-analyze", "verify", "--man=no", "multi-user.target", "ssh.socket")
    assert "cycle" not in done.stdout + done.stderr
    assert "firstkey" not in done.stdout + done.stderr
    stages = {"cloud-init.service", "cloud-init-network.service"}
    units = {path.name for path in image.path("/usr/lib/systemd/system").glob("cloud-init*.service")}
    assert stages & units, "the stage has another name now: firstkey.service must know it"
    shutil.rmtree(base)
