"""Real boots of systems with directories elsewhere: as ostree has them, or on file systems of their own."""

from __future__ import annotations

import pytest
from netlab import run, wait_until
from scenario import PROMPT, Scenario

pytestmark = [pytest.mark.root, pytest.mark.boot, pytest.mark.timeout(900)]


def test_homes_that_tmpfiles_makes_beside_a_read_only_usr(scenario: Scenario) -> None:
    """/root and /home lead into an empty /var: root has the key all the same, and a created user too."""
    disk = scenario.disk
    for name, place in (("root", "roothome"), ("home", "home")):
        run("rm", "-r", disk.path(f"/{name}"))
        disk.path(f"/{name}").symlink_to(f"var/{place}")
    disk.write(
        "/usr/lib/tmpfiles.d/homes.conf", "d /var/roothome 0700 root root -\nd /var/home 0755 root root -\n"
    )
    # It comes after firstkey has looked for the first time, in whatever order the two are started.
    disk.write(
        "/etc/systemd/system/systemd-tmpfiles-setup.service.d/late.conf",
        "[Unit]\nAfter=firstkey.service\n[Service]\nExecStartPre=/bin/sleep 1\n",
    )
    disk.write(
        "/etc/systemd/system/usr-read-only.service",
        "[Unit]\nDefaultDependencies=no\nBefore=firstkey.service\n[Service]\nType=oneshot\n"
        "ExecStart=/bin/sh -c 'mount --bind /usr /usr && mount -o remount,bind,ro /usr'\n"
        "[Install]\nWantedBy=sysinit.target\n",
    )
    run("systemctl", f"--root={disk.root}", "--quiet", "enable", "usr-read-only.service")
    scenario.configure("[Keys]\nUsers=root admin\n[User admin]\nCreate=yes\n")
    scenario.cloud.offer(scenario.line)
    with scenario.boot() as machine:
        machine.wait_for_ssh(seconds=120)
        wait_until(lambda: scenario.login().status == 0, seconds=6 * PROMPT, what="root's login")
        wait_until(lambda: scenario.login(user="admin").status == 0, seconds=6 * PROMPT, what="admin's login")
        assert "ro" in machine.inside("findmnt", "--noheadings", "--output=OPTIONS", "/usr").split(",")
        logged = [entry for entry in machine.journal if entry.get("FIRSTKEY_REASON") == "home-missing"]
        assert logged, "root's home was there too early for this test"
        machine.shut_down()
    assert disk.path("/var/roothome/.ssh/authorized_keys").read_text() == f"{scenario.line}\n"
    assert disk.path("/var/home/admin/.ssh/authorized_keys").read_text() == f"{scenario.line}\n"


@pytest.mark.parametrize("volume", ["/bin/false", "/bin/sleep 4"], ids=["missing", "late"])
def test_a_var_of_its_own_that_the_boot_does_not_wait_for(scenario: Scenario, volume: str) -> None:
    """`nofail`: without it the owner gets in all the same, and once it is mounted the ledger is on it."""
    scenario.disk.write("/etc/fstab", "tmpfs /var tmpfs nofail,x-systemd.requires=volume.service 0 0\n")
    scenario.disk.write(
        "/etc/systemd/system/volume.service",
        f"[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart={volume}\n",
    )
    scenario.cloud.offer(scenario.line)
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login().status == 0
        is_there = machine.show("var.mount", "ActiveState") == "active"
        assert is_there is (volume != "/bin/false")
        listed = machine.inside(
            "stat", "--format=%a %u %m", "/var/lib/firstkey", "/var/lib/firstkey/ledger.json"
        )
        mounted_at = "/var" if is_there else "/"
        assert listed == f"700 0 {mounted_at}\n600 0 {mounted_at}\n"
