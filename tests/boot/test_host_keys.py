"""Host keys on real files: each condition that a power cut or a person leaves, and what becomes of it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest
from hostkeys import (
    KINDS,
    QUICK,
    SMALL_RSA,
    asides,
    ask_for,
    be_quick,
    fake_keygen,
    generate,
    host_keys,
    matches,
    private,
    public,
    refused_by_sshd,
    result,
    results,
)
from machine import Machine


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def made(machine: Machine) -> dict[str, bytes]:
    """The private halves, newly made; no RSA key, which takes its time."""
    be_quick(machine)
    assert host_keys(machine).status == 0
    return {kind: private(machine, kind).read_bytes() for kind in QUICK}


# --- a good end -----------------------------------------------------------------------------------


@pytest.mark.sshd
def test_a_fresh_machine_has_what_sshd_wants(machine: Machine, tmp_path: Path) -> None:
    """One key of each type with its modes; sshd takes them without a word, and nothing else is left."""
    machine.ask_for_all_host_keys()
    done = host_keys(machine, path=fake_keygen(tmp_path / "bin", f'{SMALL_RSA}exec "$real" "$@"'))

    assert (done.status, results(done)) == (0, dict.fromkeys(KINDS, "changed"))
    for kind in KINDS:
        assert mode(private(machine, kind)) == 0o600
        assert mode(public(private(machine, kind))) == 0o644
        assert matches(private(machine, kind))
        assert public(private(machine, kind)).read_text().split()[2:] == ["root"]
    assert refused_by_sshd(machine, [f"/etc/ssh/ssh_host_{kind}_key" for kind in KINDS]) == ""
    files = {path.name for path in machine.path("/etc/ssh").iterdir()}
    keys = {f"ssh_host_{kind}_key{suffix}" for kind in KINDS for suffix in ("", ".pub")}
    assert files == {"sshd_config", *keys}
    assert [path.name for path in machine.path("/run/firstkey").iterdir()] == ["lock"]


def test_a_second_run_starts_no_program_and_touches_nothing(machine: Machine, tmp_path: Path) -> None:
    """Promise 5: a ssh-keygen and a sshd that would tell are never started, no file is written."""
    made(machine)
    before = machine.snapshot()
    started = tmp_path / "started"
    fake = fake_keygen(tmp_path / "bin", f'echo "$0 $*" >>{started}; exit 1')
    shutil.copy(tmp_path / "bin" / "ssh-keygen", tmp_path / "bin" / "sshd")

    done = host_keys(machine, path=fake)

    assert (done.status, results(done)) == (0, dict.fromkeys(QUICK, "unchanged"))
    assert not started.exists()
    assert machine.snapshot() == before
    # The bait works: a key that has to be looked at does start it.
    private(machine).write_bytes(b"broken")
    host_keys(machine, path=fake)
    assert started.exists()


def test_a_dry_run_makes_none(machine: Machine) -> None:
    """It says what it would make, and not a file is there afterwards that was not before."""
    machine.ask_for_all_host_keys()
    before = sorted(machine.root.rglob("*"))
    done = machine.firstkey("host-keys", "--dry-run")

    assert done.out.count("would change") == len(KINDS)
    assert sorted(machine.root.rglob("*")) == before


@pytest.mark.parametrize(
    "changes, words",
    [
        (["mode"], "its mode or owner"),
        (["public-half"], "its public half"),
        (["mode", "public-half"], "its mode or owner, its public half"),
        (["key"], "a new key"),
    ],
)
@pytest.mark.sample(4)
def test_a_dry_run_tells_what_would_change_of_a_key(machine: Machine, changes: list[str], words: str) -> None:
    """Also of one from before firstkey, whose remedy is about another key; and the run says what did."""
    made(machine)
    machine.path("/var/lib/firstkey/ledger.json").unlink()
    if "mode" in changes:
        private(machine).chmod(0o644)
    if "public-half" in changes:
        public(private(machine)).unlink()
    if "key" in changes:
        private(machine).write_bytes(b"")

    planned = machine.firstkey("host-keys", "--dry-run")
    assert f"/etc/ssh/ssh_host_ed25519_key  would change ({words})" in planned.out
    if changes != ["key"]:
        assert "/etc/ssh/ssh_host_ed25519_key may be older than this instance; the key stays" in planned.out
    planned = machine.firstkey("host-keys", "--dry-run", "--json")
    assert result(planned)["changes"] == changes

    done = host_keys(machine)
    assert (result(done)["result"], result(done)["changes"]) == ("changed", changes)
    assert result(done, "ecdsa")["changes"] == []
    assert result(host_keys(machine))["changes"] == []


# --- broken ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [b"", b"\0" * 411, b"\n", b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn", b"junk", "half", "public half"],
    ids=["empty", "nul", "newline", "begin", "junk", "half", "public-half"],
)
@pytest.mark.sample(7)
def test_a_broken_key_is_set_aside_and_made_anew(machine: Machine, damage: bytes | str) -> None:
    """A power cut after key generation leaves such files; the good ones are not touched."""
    before = made(machine)
    file = private(machine)
    kept = {"half": before["ed25519"][:200], "public half": public(file).read_bytes()}
    content = kept[damage] if isinstance(damage, str) else damage
    file.write_bytes(content)

    done = host_keys(machine)

    assert (done.status, results(done)) == (0, {"ecdsa": "unchanged", "ed25519": "changed"})
    assert result(done)["reason"] == "host-key-broken"
    assert matches(file)
    assert private(machine, "ecdsa").read_bytes() == before["ecdsa"]
    assert asides(file) == [content]
    assert f"moved to {'/etc/ssh/ssh_host_ed25519_key.broken.'}" in done.err


def test_what_is_set_aside_is_for_root_alone(machine: Machine) -> None:
    """Half a private key is still a secret; and a second one does not overwrite the first."""
    made(machine)
    for damage in (b"one", b"two"):
        private(machine).write_bytes(damage)
        private(machine).chmod(0o644)
        host_keys(machine)

    assert sorted(asides(private(machine))) == [b"one", b"two"]
    kept = machine.path("/etc/ssh").glob("ssh_host_ed25519_key.broken.*")
    assert {mode(path) for path in kept} == {0o600}


def test_mismatched_halves_are_made_anew(machine: Machine) -> None:
    """Two halves of different keys are no host key; both stay to look at."""
    before = made(machine)
    file = private(machine)
    public(file).write_bytes(public(private(machine, "ecdsa")).read_bytes())
    other = public(file).read_bytes()

    done = host_keys(machine)

    assert matches(file)
    assert asides(file) == [before["ed25519"]]
    assert asides(public(file)) == [other]
    assert "HOST KEY REPLACED" in done.err


@pytest.mark.parametrize("damage", [None, b"", b"\0" * 100, b"ssh-ed25519 AAAA", b"# a comment\n"])
@pytest.mark.sample(5)
def test_a_lost_public_half_is_derived(machine: Machine, tmp_path: Path, damage: bytes | None) -> None:
    """The private half is good, so the host stays who it was; and the next run knows the pair again."""
    before = made(machine)
    file = private(machine)
    public(file).unlink()
    if damage is not None:
        public(file).write_bytes(damage)

    done = host_keys(machine)

    assert results(done) == {"ecdsa": "unchanged", "ed25519": "changed"}
    assert file.read_bytes() == before["ed25519"]
    assert matches(file)
    assert mode(public(file)) == 0o644
    assert asides(file) == []
    again = host_keys(machine, path=fake_keygen(tmp_path / "bin", "exit 1"))
    assert results(again) == dict.fromkeys(QUICK, "unchanged")


@pytest.mark.parametrize("form", ["", "PEM", "PKCS8"])
@pytest.mark.sample(3)
def test_a_key_with_a_passphrase_is_left_alone(machine: Machine, form: str) -> None:
    """It is not broken, only of no use to sshd; it is said, and the others are made."""
    be_quick(machine)
    file = private(machine, "ecdsa")
    generate(file, "ecdsa", *(["-m", form] if form else []), passphrase="secret")
    before = file.read_bytes()

    done = host_keys(machine)

    assert file.read_bytes() == before
    assert result(done, "ecdsa")["reason"] == "host-key-encrypted"
    assert (done.status, results(done)) == (0, {"ecdsa": "skipped", "ed25519": "changed"})


def test_a_host_without_any_key_is_a_failure(machine: Machine) -> None:
    """At least one host key must be there, or sshd does not start."""
    ask_for(machine, "/etc/ssh/ssh_host_ed25519_key")
    generate(private(machine), passphrase="secret")

    done = host_keys(machine)

    assert (done.status, done.report["outcome"]) == (1, "failed")


@pytest.mark.parametrize("what", ["directory", "fifo", "endless"])
@pytest.mark.sample(3)
def test_something_else_in_its_place_costs_only_that_key(machine: Machine, what: str) -> None:
    """It is a failure with its reason; the other key is made, and nothing hangs."""
    be_quick(machine)
    file = private(machine)
    if what == "directory":
        file.mkdir()
    elif what == "fifo":
        os.mkfifo(file)
    else:
        file.write_bytes(b"x" * 1_000_000)

    done = host_keys(machine)

    expected = "file-too-large" if what == "endless" else "not-a-regular-file"
    assert result(done)["reason"] == expected
    assert (done.status, results(done)) == (1, {"ecdsa": "changed", "ed25519": "failed"})


def test_a_key_that_does_not_get_its_place_is_not_shown(machine: Machine) -> None:
    """Nobody is told the fingerprint of a key that sshd does not have; the other key is made."""
    be_quick(machine)
    public(private(machine)).mkdir()

    done = host_keys(machine)

    assert (result(done)["result"], result(done)["fingerprint"]) == ("failed", None)
    assert (done.status, results(done)["ecdsa"]) == (1, "changed")


# --- modes and owners -----------------------------------------------------------------------------


@pytest.mark.parametrize("loose", [0o644, 0o640, 0o604, 0o666, 0o601])
@pytest.mark.sample(5)
def test_a_key_that_others_can_read_is_mended(machine: Machine, tmp_path: Path, loose: int) -> None:
    """OpenSSH ignores such a key; it is the same key afterwards, and the next run knows it again."""
    before = made(machine)
    private(machine).chmod(loose)

    done = host_keys(machine)

    assert results(done) == {"ecdsa": "unchanged", "ed25519": "changed"}
    assert mode(private(machine)) == 0o600
    assert private(machine).read_bytes() == before["ed25519"]
    assert "host key may have" in done.err
    again = host_keys(machine, path=fake_keygen(tmp_path / "bin", "exit 1"))
    assert results(again) == dict.fromkeys(QUICK, "unchanged")


@pytest.mark.root
def test_another_user_s_key_is_root_s_again(machine: Machine) -> None:
    """OpenSSH checks no mode where the owner is another, but the owner could exchange the key."""
    before = made(machine)
    os.chown(private(machine), 65534, 65534)
    private(machine).chmod(0o644)

    assert results(host_keys(machine))["ed25519"] == "changed"
    found = private(machine).stat()
    assert (found.st_uid, found.st_gid, mode(private(machine))) == (0, 0, 0o600)
    assert private(machine).read_bytes() == before["ed25519"]


def lend(machine: Machine) -> int:
    """A group ssh_keys in the machine; returns its number, one that the caller may give a file to."""
    number = 4242 if os.geteuid() == 0 else os.getegid()
    machine.write("/etc/group", f"ssh_keys:x:{number}:\n")
    return number


LENDING = """
case "$*" in *"-y"*)
    for file; do :; done
    if [ -f "$file" ] && [ "$(stat -c %a "$file")" = 640 ]; then
        cp "$file" "$0.copy" && chmod 600 "$0.copy" && exec "$real" -y -P "" -f "$0.copy"
    fi;;
esac
exec "$real" "$@"
"""  # Fedora's ssh-keygen takes a key that the group ssh_keys can read


@pytest.mark.root
def test_the_group_ssh_keys_is_lent_the_key_where_openssh_takes_it(machine: Machine, tmp_path: Path) -> None:
    """0640 root:ssh_keys, and that is found good on the next run."""
    number = lend(machine)
    be_quick(machine)

    host_keys(machine, path=fake_keygen(tmp_path / "bin", LENDING))

    for kind in QUICK:
        found = private(machine, kind).stat()
        assert (found.st_uid, found.st_gid, mode(private(machine, kind))) == (0, number, 0o640)
    again = host_keys(machine, path=fake_keygen(tmp_path / "bin", "exit 1"))
    assert results(again) == dict.fromkeys(QUICK, "unchanged")


def test_the_group_ssh_keys_gets_nothing_where_openssh_minds(machine: Machine) -> None:
    """OpenSSH as it is published ignores such a key, group or no group: OpenSSH is the judge."""
    number = lend(machine)
    before = made(machine)
    assert mode(private(machine)) == 0o600

    os.chown(private(machine), -1, number)
    private(machine).chmod(0o640)
    assert results(host_keys(machine))["ed25519"] == "changed"
    assert mode(private(machine)) == 0o600
    assert private(machine).read_bytes() == before["ed25519"]


@pytest.mark.slow
def test_a_key_lent_to_the_group_stays_so_where_openssh_takes_it(machine: Machine, tmp_path: Path) -> None:
    """What the distribution's own service made on such a system is good as it is."""
    number = lend(machine)
    be_quick(machine)
    for kind in QUICK:
        os.chown(generate(private(machine, kind), kind), -1, number)
        private(machine, kind).chmod(0o640)

    done = host_keys(machine, path=fake_keygen(tmp_path / "bin", LENDING))

    assert results(done) == dict.fromkeys(QUICK, "unchanged")
    assert mode(private(machine)) == 0o640


# --- where the keys are ---------------------------------------------------------------------------


def test_only_what_sshd_asks_for_is_made(machine: Machine) -> None:
    """HostKey settings decide, Include among them; a directory that is missing is made."""
    machine.write("/etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\n")
    machine.write("/etc/ssh/sshd_config.d/10-keys.conf", "HostKey /srv/keys/deep/my_ed25519\n")

    assert host_keys(machine).status == 0
    assert matches(machine.path("/srv/keys/deep/my_ed25519"))
    assert not private(machine, "rsa").exists()


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.sample(2)
def test_links_lead_to_the_keys_and_never_out_of_the_tree(machine: Machine, absolute: bool) -> None:
    """/etc/ssh itself is a link, and a HostKey one into a directory of secrets: each half has its own way."""
    be_quick(machine)
    keep = machine.path("/persistent/ssh")
    keep.mkdir(parents=True)
    shutil.move(machine.path("/etc/ssh/sshd_config"), keep)
    machine.path("/etc/ssh").rmdir()
    machine.path("/etc/ssh").symlink_to("/persistent/ssh" if absolute else "../persistent/ssh")
    machine.path("/secrets").mkdir()
    (keep / "ssh_host_ed25519_key").symlink_to("/secrets/key" if absolute else "../../secrets/key")

    assert host_keys(machine).status == 0

    assert (keep / "ssh_host_ed25519_key").is_symlink()
    assert matches(keep / "ssh_host_ecdsa_key")
    # sshd looks for the other half beside the link, not where that leads.
    shutil.copy(machine.path("/secrets/key"), machine.path("/copy"))
    shutil.copy(public(keep / "ssh_host_ed25519_key"), machine.path("/copy.pub"))
    assert matches(machine.path("/copy"))
    assert [path.name for path in machine.path("/secrets").iterdir()] == ["key"]
    assert results(host_keys(machine)) == dict.fromkeys(QUICK, "unchanged")


def test_a_link_to_nowhere_gets_its_key(machine: Machine) -> None:
    """The directory that it leads to is made, inside the tree."""
    ask_for(machine, "/etc/ssh/ssh_host_ed25519_key")
    private(machine).symlink_to("/persistent/keys/host_ed25519")

    assert host_keys(machine).status == 0
    assert machine.path("/persistent/keys/host_ed25519").is_file()
    assert not Path("/persistent").exists()


@pytest.mark.root
def test_another_user_s_link_is_not_followed(machine: Machine) -> None:
    """Promise 4: a link that a user placed could aim root's writing at any file."""
    be_quick(machine)
    target = machine.write("/etc/target", "precious", mode=0o644)
    private(machine).symlink_to("/etc/target")
    os.chown(private(machine), 65534, 65534, follow_symlinks=False)

    done = host_keys(machine)

    assert result(done)["reason"] == "symlink-refused"
    assert (done.status, results(done)["ecdsa"]) == (1, "changed")
    assert (target.read_text(), mode(target)) == ("precious", 0o644)


@pytest.mark.parametrize("way", ["twice", "link"])
@pytest.mark.sample(2)
def test_two_lines_for_one_file_are_one_key(machine: Machine, way: str) -> None:
    """Sshd takes the same file twice; it is made once, and is good on the next run."""
    other = "/etc/ssh/ssh_host_ed25519_key"
    if way == "link":
        other = "/etc/ssh/also_ed25519"
        machine.path(other).symlink_to("ssh_host_ed25519_key")
    ask_for(machine, "/etc/ssh/ssh_host_ed25519_key", other)

    assert len(host_keys(machine).report["host_keys"]) == 1
    assert matches(private(machine))
    assert results(host_keys(machine)) == {"ed25519": "unchanged"}


def test_a_name_that_tells_no_type_is_not_guessed(machine: Machine) -> None:
    """It is skipped with its reason; a key that is there and good is welcome under any name."""
    ask_for(machine, "/etc/ssh/universal", "/etc/ssh/ssh_host_ed25519_key")
    done = host_keys(machine)

    assert result(done, "unknown")["reason"] == "host-key-type-unknown"
    assert (done.status, result(done)["result"]) == (0, "changed")
    generate(machine.path("/etc/ssh/universal"), "ecdsa")
    assert results(host_keys(machine)) == {"ecdsa": "unchanged", "ed25519": "unchanged"}


@pytest.mark.slow
def test_a_broken_pair_under_any_name_is_of_the_type_that_it_was(machine: Machine) -> None:
    """The private half tells what the name does not."""
    ask_for(machine, "/etc/ssh/universal")
    generate(machine.path("/etc/ssh/universal"), "ecdsa")
    generate(machine.path("/etc/ssh/other"))
    shutil.copy(machine.path("/etc/ssh/other.pub"), machine.path("/etc/ssh/universal.pub"))

    assert results(host_keys(machine)) == {"ecdsa": "changed"}
    assert matches(machine.path("/etc/ssh/universal"))


def test_dsa_is_left_alone(machine: Machine) -> None:
    """None is made, with the reason; one that is there is not called broken."""
    ask_for(machine, "/etc/ssh/ssh_host_dsa_key", "/etc/ssh/ssh_host_ed25519_key")
    done = host_keys(machine)
    assert result(done, "dsa")["reason"] == "host-key-type-obsolete"
    assert done.status == 0

    try:
        file = generate(private(machine, "dsa"), "dsa")
    except subprocess.CalledProcessError:
        return  # OpenSSH 10 makes none, so there is none to be found
    before = file.read_bytes()
    assert results(host_keys(machine)) == {"dsa": "unchanged", "ed25519": "unchanged"}
    assert file.read_bytes() == before


def test_a_key_in_an_agent_is_not_made(machine: Machine) -> None:
    """HostKey with a public key, and any missing one where HostKeyAgent is set, are the agent's."""
    generate(machine.path("/etc/ssh/a"))
    machine.path("/etc/ssh/a").unlink()
    ask_for(machine, "/etc/ssh/a.pub", "/etc/ssh/ssh_host_ed25519_key", more="HostKeyAgent /run/agent\n")

    done = host_keys(machine)

    assert [key["reason"] for key in done.report["host_keys"]] == ["host-key-in-agent"] * 2
    assert (done.status, done.report["outcome"]) == (0, "ok")
    assert not private(machine).exists()
    assert done.status == host_keys(machine).status
    ask_for(machine, "/etc/ssh/a.pub", "/etc/ssh/ssh_host_ed25519_key")
    assert result(host_keys(machine))["result"] == "changed"


@pytest.mark.sshd
def test_a_host_certificate_is_left_to_its_owner(machine: Machine) -> None:
    """HostCertificate lines are no host keys; the certificate is not touched, and sshd still starts."""
    made(machine)
    generate(machine.path("/etc/ssh/ca"))
    sign = ["ssh-keygen", "-q", "-s", str(machine.path("/etc/ssh/ca")), "-I", "host", "-h"]
    subprocess.run([*sign, str(public(private(machine)))], check=True)
    certificate = machine.path("/etc/ssh/ssh_host_ed25519_key-cert.pub")
    before = certificate.read_bytes()
    files = [f"/etc/ssh/ssh_host_{kind}_key" for kind in QUICK]
    ask_for(machine, *files, more="HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub\n")

    done = host_keys(machine)

    assert results(done) == dict.fromkeys(QUICK, "unchanged")
    assert certificate.read_bytes() == before
    assert refused_by_sshd(machine, files) == ""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["PEM", "PKCS8"])
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_key_in_an_older_form_is_good(machine: Machine, form: str, kind: str) -> None:
    """OpenSSL's own forms of a private key, and whatever comment, are as good as OpenSSH's."""
    ask_for(machine, f"/etc/ssh/ssh_host_{kind}_key")
    file = generate(private(machine, kind), kind, "-m", form, "-C", "made by hand, ssh-rsa AAAA")
    before = (file.read_bytes(), public(file).read_bytes())

    assert results(host_keys(machine)) == {kind: "unchanged"}
    assert (file.read_bytes(), public(file).read_bytes()) == before
    public(file).unlink()
    assert results(host_keys(machine)) == {kind: "changed"}
    assert matches(file)
    assert file.read_bytes() == before[0]


# --- which types ----------------------------------------------------------------------------------


def test_configured_types_are_what_is_made(machine: Machine) -> None:
    """Types= in place of sshd's settings, in its order, each once."""
    machine.configure("[HostKeys]\nTypes=ed25519 ecdsa\nTypes=ed25519\n")
    done = host_keys(machine)

    assert [key["type"] for key in done.report["host_keys"]] == ["ed25519", "ecdsa"]
    assert [kind for kind in KINDS if private(machine, kind).exists()] == ["ecdsa", "ed25519"]


def test_configured_types_go_where_sshd_looks(machine: Machine) -> None:
    """The file of that type that a HostKey line names, if there is one."""
    ask_for(machine, "/srv/host_ed25519", "/srv/host_rsa")
    machine.configure("[HostKeys]\nTypes=ed25519 ecdsa\n")
    files = [key["file"] for key in host_keys(machine).report["host_keys"]]

    assert files == ["/srv/host_ed25519", "/etc/ssh/ssh_host_ecdsa_key"]
    assert not machine.path("/srv/host_rsa").exists()


def test_regenerate_never_makes_none(machine: Machine) -> None:
    """The missing ones are skipped with their reason, which is no failure: somebody else makes them."""
    machine.configure("[HostKeys]\nRegenerate=never\n")
    done = host_keys(machine)

    assert not private(machine, "rsa").exists()
    assert {key["reason"] for key in done.report["host_keys"]} == {"regeneration-off"}
    assert (done.status, done.report["outcome"]) == (0, "ok")


def test_regenerate_never_leaves_a_broken_key(machine: Machine) -> None:
    """It is not even set aside; a mode is repaired all the same, for that makes no key."""
    before = made(machine)
    private(machine).write_bytes(b"")
    private(machine, "ecdsa").chmod(0o644)
    machine.configure("[HostKeys]\nRegenerate=never\n")

    assert results(host_keys(machine)) == {"ecdsa": "changed", "ed25519": "skipped"}
    assert private(machine).read_bytes() == b""
    assert asides(private(machine)) == []
    assert private(machine, "ecdsa").read_bytes() == before["ecdsa"]
    assert mode(private(machine, "ecdsa")) == 0o600


# --- ssh-keygen in its moods ----------------------------------------------------------------------

REFUSING = 'case "$*" in *"-t ed25519"*) echo "ed25519 keys are not allowed in FIPS mode" >&2; exit 1;; esac'


def test_a_type_that_ssh_keygen_refuses_is_skipped(machine: Machine, tmp_path: Path) -> None:
    """FIPS refuses ed25519: the others are made, and the run is a success."""
    be_quick(machine)
    done = host_keys(machine, path=fake_keygen(tmp_path / "bin", f'{REFUSING}\nexec $real "$@"'))

    assert (done.status, results(done)) == (0, {"ecdsa": "changed", "ed25519": "skipped"})
    assert result(done)["reason"] == "keygen-refused"
    assert "not allowed in FIPS mode" in str(result(done)["detail"])


@pytest.mark.slow
def test_a_good_key_of_a_refused_type_stays(machine: Machine, tmp_path: Path) -> None:
    """A ssh-keygen that cannot even load it says nothing against the key: it is not set aside."""
    before = made(machine)
    file = private(machine)
    machine.path("/var/lib/firstkey/ledger.json").unlink()
    judge = 'case "$*" in *-y*) grep -q AAAAC3NzaC1lZDI1NTE5 /dev/stdin; echo refused >&2; exit 1;; esac'
    done = host_keys(machine, path=fake_keygen(tmp_path / "bin", f'{REFUSING}\n{judge}\nexec $real "$@"'))

    assert file.read_bytes() == before["ed25519"]
    assert private(machine, "ecdsa").read_bytes() == before["ecdsa"]
    assert asides(file) == []
    assert done.status == 1
    assert "left alone" in str(result(done, "ecdsa")["detail"])


@pytest.mark.parametrize("how", ["exit 1", "exit 255", "kill -9 $$", "exit 0"])
@pytest.mark.sample(4)
def test_a_ssh_keygen_that_always_fails_costs_no_key(machine: Machine, tmp_path: Path, how: str) -> None:
    """No good key is set aside for it; with no key at all that is a failure, and says so."""
    be_quick(machine)
    fake = fake_keygen(tmp_path / "bin", f"echo boom >&2; {how}")
    done = host_keys(machine, path=fake)
    assert (done.status, done.report["outcome"]) == (1, "failed")
    assert set(results(done).values()) == {"failed"}

    before = made(machine)
    machine.path("/var/lib/firstkey/ledger.json").unlink()
    done = host_keys(machine, path=fake)
    assert {kind: private(machine, kind).read_bytes() for kind in QUICK} == before
    assert done.status == 1


def test_a_ssh_keygen_that_dies_once_costs_no_key(machine: Machine, tmp_path: Path) -> None:
    """Killed while it looked (out of memory, say), it has said nothing about the key."""
    before = made(machine)
    machine.path("/var/lib/firstkey/ledger.json").unlink()
    once = 'case "$*" in *-y*) [ -e "$0.died" ] || { touch "$0.died"; kill -9 $$; };; esac'
    done = host_keys(machine, path=fake_keygen(tmp_path / "bin", f'{once}\nexec $real "$@"'))

    assert {kind: private(machine, kind).read_bytes() for kind in QUICK} == before
    assert result(done, "ecdsa")["reason"] == "keygen-failed"
    assert (done.status, result(done)["result"]) == (1, "unchanged")


@pytest.mark.slow
def test_a_ssh_keygen_that_hangs_is_given_up(machine: Machine, tmp_path: Path) -> None:
    """All of them together take no longer than one may, and what is made stays; no process is left."""
    machine.path("/etc/ssh/sshd_config").unlink()  # so that sshd is not asked, with a key of its own
    script = 'case "$*" in *"-t ecdsa"*|*"-t ed25519"*) echo $$ >>"$0.hung"; sleep 600;; esac'
    begin = time.monotonic()
    done = host_keys(machine, path=fake_keygen(tmp_path / "bin", f'{script}\nexec $real "$@"'))

    assert time.monotonic() - begin < 45
    assert results(done) == {"rsa": "changed", "ecdsa": "failed", "ed25519": "failed"}
    assert result(done)["reason"] == "timed-out"
    hung = (tmp_path / "bin" / "ssh-keygen.hung").read_text().split()
    assert len(hung) >= 2
    assert not [number for number in hung if Path(f"/proc/{number}").exists()]


@pytest.mark.root
def test_without_ssh_keygen_it_says_what_to_install(machine: Machine) -> None:
    """No traceback: the reason, and exit status 1."""
    hide = 'mount --bind /dev/null /usr/bin/ssh-keygen && exec "$@"'
    done = host_keys(machine, prefix=("unshare", "-m", "sh", "-c", hide, "sh"))

    assert {key["reason"] for key in done.report["host_keys"]} == {"keygen-missing"}
    assert (done.status, done.report["outcome"]) == (1, "failed")


def test_a_directory_that_cannot_be_written_is_told(machine: Machine) -> None:
    """In the kernel's own words, and nothing is left in /run."""
    be_quick(machine)
    directory = machine.path("/etc/ssh")
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        bind = (
            f'mount --bind "{directory}" "{directory}" && mount -o remount,ro,bind "{directory}" && exec "$@"'
        )
        prefix = ("unshare", "-m", "sh", "-c", bind, "sh")
    else:
        directory.chmod(0o555)
    done = host_keys(machine, prefix=prefix)
    directory.chmod(0o755)

    expected = "read-only" if prefix else "permission-denied"
    assert {key["reason"] for key in done.report["host_keys"]} == {expected}
    assert {key["fingerprint"] for key in done.report["host_keys"]} == {None}
    assert (done.status, done.report["outcome"]) == (1, "failed")
    assert [path.name for path in machine.path("/run/firstkey").iterdir()] == ["lock"]
