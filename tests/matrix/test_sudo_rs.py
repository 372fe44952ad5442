"""sudo-rs in the place of sudo, as Ubuntu has it from 25.10 on: a rule is done when it lets the user."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import bootlab
import pytest
import rootfs
from debian_image import SETTINGS, Image, prepare
from machine import new_key
from suites import SUDO_RS

from firstkey.metadata.emulator import Emulator
from firstkey.metadata.emulator import Settings as Service

pytestmark = [pytest.mark.root, pytest.mark.boot, pytest.mark.timeout(1500)]

RULE = "ALL=(ALL) NOPASSWD: ALL"
CONFIGURATION = "[Keys]\nUsers=deploy\n[User deploy]\nCreate=yes\nSudo={}\n[HostKeys]\nTypes=ed25519\n"
INCLUDES = "@includedir /etc/sudoers.d"


@pytest.fixture
def image(suite: str, archive: Path, deb: Path, tmp_path: Path) -> Iterator[Image]:
    """The release with sudo-rs under sudo's names."""
    if suite not in SUDO_RS:
        pytest.skip(f"{suite} has no sudo-rs")
    with bootlab.workshop(tmp_path / "image") as root:
        rootfs.unpack(archive, root)
        found = prepare(root)
        found.install(deb)
        for name in ("usr/bin/sudo", "usr/sbin/visudo"):
            program = found.path(name)
            program.unlink()
            program.symlink_to(f"/usr/lib/cargo/bin/{name.rpartition('/')[2]}")
        yield found


def run(image: Image, service: Emulator, rule: str = RULE) -> list[tuple[str, str | None]]:
    """What a run makes of the rule: the result of the last change to the account."""
    image.write(SETTINGS, CONFIGURATION.format(rule))
    said = image.attempt("firstkey", "run", "--json", "--imds", service.url)
    report = json.loads(said.stdout)
    return [(each["result"], each["reason"]) for each in report["accounts"]]


def test_a_rule_that_sudo_rs_reads_is_done(image: Image, tmp_path: Path) -> None:
    """It is checked by its visudo, and lets the user; what it does not read, or does not take, is told."""
    version = image.attempt("sudo", "--version")
    assert "sudo-rs" in version.stdout + version.stderr
    with Emulator(Service(keys=(("laptop", new_key(tmp_path, "laptop")),))) as service:
        assert ("refused", "sudoers-invalid") in run(image, service, "ALL=(ALL")
        assert run(image, service)[-1] == ("changed", None)
        assert image.run("runuser", "-u", "deploy", "--", "sudo", "-n", "id", "-un") == "root\n"
        assert run(image, service) == []
        sudoers = image.path("/etc/sudoers")
        sudoers.write_text(sudoers.read_text().replace(INCLUDES, ""))
        assert run(image, service) == [("failed", "sudo-not-effective")]
