"""Host keys on real files: each condition that a power cut or a person leaves, and what becomes of it."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from machine import Machine

KINDS = ("rsa", "ecdsa", "ed25519")


def private(machine: Machine, kind: str) -> Path:
    """The private half's file."""
    return machine.path(f"/etc/ssh/ssh_host_{kind}_key")


def matches(file: Path) -> bool:
    """Whether the two halves belong together, by ssh-keygen's own judgement."""
    derived = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True)
    return derived.stdout.split()[:2] == file.with_name(f"{file.name}.pub").read_text().split()[:2]


def made(machine: Machine) -> dict[str, bytes]:
    """The private halves, newly made."""
    machine.firstkey("host-keys")
    return {kind: private(machine, kind).read_bytes() for kind in KINDS}


def test_they_have_the_modes_that_sshd_wants(machine: Machine) -> None:
    """0600 and 0644, and no private directory is left behind."""
    made(machine)

    for kind in KINDS:
        assert stat.S_IMODE(private(machine, kind).stat().st_mode) == 0o600
        public = private(machine, kind).with_name(f"ssh_host_{kind}_key.pub")
        assert stat.S_IMODE(public.stat().st_mode) == 0o644
        assert matches(private(machine, kind))
    assert not [path for path in machine.path("/etc/ssh").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "damage", [b"", b"\0" * 411, b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn", b"junk"]
)
def test_a_broken_key_is_set_aside_and_made_anew(machine: Machine, damage: bytes) -> None:
    """A power cut after key generation leaves such files; the good ones are not touched."""
    before = made(machine)
    private(machine, "ed25519").write_bytes(damage)

    done = machine.firstkey("host-keys", "--json")

    assert done.status == 0
    assert matches(private(machine, "ed25519"))
    assert private(machine, "rsa").read_bytes() == before["rsa"]
    aside = machine.path("/etc/ssh").glob("ssh_host_ed25519_key.broken.*")
    assert [file.read_bytes() for file in aside] == [damage]


def test_a_lost_public_half_is_derived(machine: Machine) -> None:
    """The private half is good, so the host stays who it was."""
    before = made(machine)
    private(machine, "ecdsa").with_name("ssh_host_ecdsa_key.pub").unlink()
    machine.firstkey("host-keys")

    assert private(machine, "ecdsa").read_bytes() == before["ecdsa"]
    assert matches(private(machine, "ecdsa"))


def test_mismatched_halves_are_made_anew(machine: Machine) -> None:
    """Two halves of different keys are no host key."""
    made(machine)
    other = private(machine, "rsa").with_name("ssh_host_rsa_key.pub").read_text()
    private(machine, "ed25519").with_name("ssh_host_ed25519_key.pub").write_text(other)
    machine.firstkey("host-keys")

    assert matches(private(machine, "ed25519"))


def test_a_key_that_others_can_read_is_mended(machine: Machine) -> None:
    """OpenSSH ignores such a key; it is the same key afterwards."""
    before = made(machine)
    private(machine, "rsa").chmod(0o644)
    machine.firstkey("host-keys")

    assert stat.S_IMODE(private(machine, "rsa").stat().st_mode) == 0o600
    assert private(machine, "rsa").read_bytes() == before["rsa"]


def test_an_image_s_own_key_stays_with_a_warning(machine: Machine) -> None:
    """What firstkey did not make it does not replace by default."""
    file = private(machine, "ed25519")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    before = file.read_bytes()
    done = machine.firstkey("host-keys", "--json")

    assert file.read_bytes() == before
    assert "host-key-foreign" in {key["reason"] for key in done.report["host_keys"]}


def test_a_key_with_a_passphrase_is_left_alone(machine: Machine) -> None:
    """It is not broken, only of no use to sshd; it is said, and the others are made."""
    file = private(machine, "ed25519")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", file], check=True)
    before = file.read_bytes()
    done = machine.firstkey("host-keys", "--json")

    assert file.read_bytes() == before
    assert done.report["host_keys"][2]["reason"] == "host-key-encrypted"
    assert private(machine, "rsa").exists()


def test_only_what_sshd_asks_for_is_made(machine: Machine) -> None:
    """HostKey settings decide, Include among them; paths stay inside the tree."""
    machine.write("/etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\n")
    machine.write("/etc/ssh/sshd_config.d/10-keys.conf", "HostKey /etc/ssh/keys/my_ed25519\n")
    machine.path("/etc/ssh/keys").mkdir()
    machine.firstkey("host-keys")

    assert matches(machine.path("/etc/ssh/keys/my_ed25519"))
    assert not private(machine, "rsa").exists()


def test_configured_types_are_what_is_made(machine: Machine) -> None:
    """Types= in place of sshd's settings."""
    machine.configure("[HostKeys]\nTypes=ed25519\n")
    machine.firstkey("host-keys")

    assert [kind for kind in KINDS if private(machine, kind).exists()] == ["ed25519"]


def test_regenerate_never_makes_none(machine: Machine) -> None:
    """The missing ones are skipped with their reason."""
    machine.configure("[HostKeys]\nRegenerate=never\n")
    done = machine.firstkey("host-keys", "--json")

    assert not private(machine, "rsa").exists()
    assert {key["reason"] for key in done.report["host_keys"]} == {"regeneration-off"}


def test_a_type_that_ssh_keygen_refuses_is_skipped(machine: Machine, tmp_path: Path) -> None:
    """FIPS refuses ed25519: the others are made, and the run is a success."""
    fake = tmp_path / "bin" / "ssh-keygen"
    fake.parent.mkdir()
    fake.write_text(
        '#!/bin/sh\ncase "$*" in *"-t ed25519"*) echo "not allowed" >&2; exit 1;; esac\n'
        'exec /usr/bin/ssh-keygen "$@"\n'
    )
    fake.chmod(0o755)
    done = machine.firstkey("host-keys", "--json", PATH=f"{fake.parent}:/usr/sbin:/usr/bin:/bin")

    assert done.status == 0
    assert {key["type"]: key["result"] for key in done.report["host_keys"]} == {
        "rsa": "changed",
        "ecdsa": "changed",
        "ed25519": "skipped",
    }


def test_a_dry_run_makes_none(machine: Machine) -> None:
    """It says what it would make."""
    done = machine.firstkey("host-keys", "--dry-run")

    assert "would change" in done.out
    assert not private(machine, "rsa").exists()
