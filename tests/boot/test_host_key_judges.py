"""OpenSSH judges host keys: how large sshd wants them, and types that are not known here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hostkeys import (
    KIND,
    QUICK,
    asides,
    ask_for,
    be_quick,
    generate,
    host_keys,
    matches,
    private,
    public,
    quux,
    refused_by_sshd,
    result,
    results,
)
from machine import Machine

RSA = "/etc/ssh/ssh_host_rsa_key"


def bits(file: Path) -> int:
    """The size of a key, as ssh-keygen tells it."""
    done = subprocess.run(["ssh-keygen", "-l", "-f", file], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


# --- how large ------------------------------------------------------------------------------------


@pytest.mark.parametrize("least, made", [(None, 3072), (2048, 3072), (4096, 4096)])
@pytest.mark.slow
def test_an_rsa_key_is_as_large_as_sshd_wants_it(machine: Machine, least: int | None, made: int) -> None:
    """RequiredRSASize, and at least ssh-keygen's default; sshd would start with it."""
    more = f"RequiredRSASize {least}\n" if least else ""
    ask_for(machine, RSA, more=more)
    done = host_keys(machine)
    assert (done.status, results(done)) == (0, {"rsa": "changed"})
    assert bits(private(machine, "rsa")) == made
    assert refused_by_sshd(machine, [RSA]) == ""
    assert results(host_keys(machine)) == {"rsa": "unchanged"}


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.slow
def test_a_key_that_sshd_would_refuse_is_set_aside(machine: Machine, is_known: bool) -> None:
    """It is whole, and of no use: kept under another name and made anew; also if it was good before."""
    ask_for(machine, RSA)
    before = generate(private(machine, "rsa"), "rsa", "-b", "1024").read_bytes()
    if is_known:
        assert results(host_keys(machine)) == {"rsa": "unchanged"}
    ask_for(machine, RSA, more="RequiredRSASize 3072\n")
    planned = machine.firstkey("host-keys", "--dry-run")
    assert "is too small for sshd" in planned.out
    assert machine.firstkey("status", "--json").out.count('"too small for sshd"') == 1

    done = host_keys(machine)
    assert (done.status, result(done, "rsa")["reason"]) == (0, "host-key-too-small")
    assert bits(private(machine, "rsa")) == 3072
    assert asides(private(machine, "rsa")) == [before]
    assert results(host_keys(machine)) == {"rsa": "unchanged"}


def test_a_large_key_stays(machine: Machine) -> None:
    """What sshd would load is good, however it came."""
    ask_for(machine, RSA, more="RequiredRSASize 2048\n")
    before = generate(private(machine, "rsa"), "rsa", "-b", "2048").read_bytes()
    assert results(host_keys(machine)) == {"rsa": "unchanged"}
    assert private(machine, "rsa").read_bytes() == before


# --- a type that is not known here ----------------------------------------------------------------


def ask_for_quux(machine: Machine) -> Path:
    """Sshd has one of that type too; returns its file."""
    ask_for(machine, *(f"/etc/ssh/ssh_host_{kind}_key" for kind in (*QUICK, KIND)))
    return private(machine, KIND)


@pytest.mark.parametrize("by_type", [True, False])
@pytest.mark.sample(2)
def test_a_type_that_openssh_knows_is_made_as_its_own(
    machine: Machine, tmp_path: Path, by_type: bool
) -> None:
    """By the type that the file's name tells, or as one of the defaults that only `ssh-keygen -A` knows."""
    file = ask_for_quux(machine)
    path = quux(tmp_path, by_type=by_type)
    done = host_keys(machine, path=path)
    assert (done.status, results(done)) == (0, dict.fromkeys((*QUICK, KIND), "changed"))
    assert file.read_text().startswith("QUUX PRIVATE ")
    assert public(file).read_text().startswith("quux-ed25519@example.com ")
    assert result(done, KIND)["fingerprint"].startswith("SHA256:")
    before = file.read_bytes()

    again = host_keys(machine, path=path)
    assert results(again) == dict.fromkeys((*QUICK, KIND), "unchanged")
    assert file.read_bytes() == before
    assert [each.name for each in machine.path("/run/firstkey").iterdir()] == ["lock"]


def test_a_good_key_of_such_a_type_stays(machine: Machine, tmp_path: Path) -> None:
    """Also where it was somebody else who made it; a public half that is lost is derived."""
    file = ask_for_quux(machine)
    path = quux(tmp_path)
    subprocess.run(["ssh-keygen", "-t", "quux-ed25519", "-f", file], check=True, env={"PATH": path})
    before, line = file.read_bytes(), public(file).read_text()
    assert results(host_keys(machine, path=path))[KIND] == "unchanged"
    public(file).unlink()
    assert results(host_keys(machine, path=path))[KIND] == "changed"
    assert file.read_bytes() == before
    assert public(file).read_text().split()[:2] == line.split()[:2]


def test_a_torn_key_of_such_a_type_is_made_anew(machine: Machine, tmp_path: Path) -> None:
    """By the same type: an OpenSSH that makes it can tell that it is broken."""
    file = ask_for_quux(machine)
    path = quux(tmp_path)
    host_keys(machine, path=path)
    file.write_bytes(b"QUUX")
    done = host_keys(machine, path=path)
    assert result(done, KIND)["reason"] == "host-key-broken"
    assert file.read_text().startswith("QUUX PRIVATE ")
    assert asides(file) == [b"QUUX"]


@pytest.mark.parametrize("has_public", [True, False])
@pytest.mark.sample(2)
def test_what_openssh_does_not_know_is_left_alone(machine: Machine, tmp_path: Path, has_public: bool) -> None:
    """A key of a newer OpenSSH's: never called broken, and never replaced by one of another type."""
    file = ask_for_quux(machine)
    newer = quux(tmp_path)
    subprocess.run(["ssh-keygen", "-t", "quux-ed25519", "-f", file], check=True, env={"PATH": newer})
    if not has_public:
        public(file).unlink()
    certificate = machine.write(f"/etc/ssh/{file.name}-cert.pub", "a certificate\n")
    before = sorted((path, path.read_bytes()) for path in file.parent.glob(f"{file.name}*"))

    done = host_keys(machine)  # by the OpenSSH that is here
    assert done.status == 0
    assert result(done, KIND)["result"] == "skipped"
    reason = "host-key-type-unknown" if has_public else "keygen-refused"
    assert result(done, KIND)["reason"] == reason
    assert sorted((path, path.read_bytes()) for path in file.parent.glob(f"{file.name}*")) == before
    assert certificate.exists()
    assert all(matches(private(machine, kind)) for kind in QUICK)


def test_what_openssh_cannot_make_is_skipped(machine: Machine) -> None:
    """The others are there, so sshd starts; and no key of another type is put in its place."""
    file = ask_for_quux(machine)
    done = host_keys(machine)
    assert (done.status, result(done, KIND)["reason"]) == (0, "keygen-refused")
    assert not file.exists()


def test_a_certificate_stays_beside_its_key(machine: Machine) -> None:
    """Whatever is repaired of the key."""
    be_quick(machine)
    host_keys(machine)
    certificate = machine.write("/etc/ssh/ssh_host_ed25519_key-cert.pub", "a certificate\n")
    public(private(machine)).unlink()
    private(machine).chmod(0o644)
    assert results(host_keys(machine))["ed25519"] == "changed"
    assert certificate.read_text() == "a certificate\n"


def test_a_newer_sshd_is_asked_again_for_its_host_keys(machine: Machine, tmp_path: Path) -> None:
    """It may have one more by default, while not a byte of its configuration is another one."""
    machine.write("/etc/ssh/sshd_config", "# defaults\n")
    for kinds in (["ed25519"], ["ed25519", "ecdsa"]):
        said = [f"echo hostkey /etc/ssh/ssh_host_{kind}_key" for kind in kinds]
        sshd = tmp_path / "bin" / "sshd"
        sshd.parent.mkdir(exist_ok=True)
        sshd.write_text("\n".join(["#!/bin/sh", "echo authorizedkeysfile .ssh/authorized_keys", *said, ""]))
        sshd.chmod(0o755)
        machine.write("/usr/sbin/sshd", sshd.read_bytes())
        done = host_keys(machine, path=f"{sshd.parent}:/usr/sbin:/usr/bin:/sbin:/bin")

    assert results(done) == {"ed25519": "unchanged", "ecdsa": "changed"}
