"""`firstkey seal` as people use it: plan, steps, and the audit after; and what it must never touch."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import fork_server
import jsonschema
import pytest
from audits import ENABLED
from image_builder import Builder
from machine import new_key

from firstkey.boot import ledger
from firstkey.cli.seal import CUTS_OFF, taken_by
from firstkey.image import rules
from firstkey.image.audit import verdict_of
from firstkey.ssh import public_key
from firstkey.system.tree import Tree

DOCS = Path(__file__).parents[2] / "docs"
POWERLESS = ("setpriv", "--bounding-set=-dac_override,-fowner", "--inh-caps=-all")
pytestmark = pytest.mark.sshd


# The examples of several rules want a file of their own at this one place.
SSHD_CONFIG = """\
HostKey /etc/keys/host
AuthorizedKeysFile /etc/keys/%u .ssh/authorized_keys
UseDNS yes
PermitRootLogin yes
Match User ann
    PermitRootLogin yes
"""


class Run(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def left_over(self) -> set[str]:
        """The rules that still find something worse than a note."""
        return {rule["id"] for rule in self.report["audit"]["rules"] if not rule["fit"]}


def seal(builder: Builder, *options: str, before: Sequence[str] = ()) -> Run:
    """Run the command on the tree, as people do."""
    argv = ("seal", "--root", str(builder.root), *options)
    if not before:
        status, out, err = fork_server.firstkey(*argv, environ=os.environ, timeout=100)
        return Run(status, out.decode(), err.decode())
    done = subprocess.run(
        [*before, sys.executable, "-m", "firstkey", *argv],
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    return Run(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def dirty(builder: Builder) -> Builder:
    """An image that has everything wrong that seal can repair."""
    for rule in rules.ALL:
        if rule.id not in (
            "everything-seen",
            "account-files",
            "ami-tools",
            "self-signed-keys",
            "first-login",
            "launch-user-sudo",
        ):
            builder.grow(rule.failing)
    with builder.path("/etc/passwd").open("a") as file:
        file.write("root:x:0:0::/root:/bin/sh\n")
    names = [line.split(":")[0] for line in builder.path("/etc/passwd").read_text().splitlines()]
    with builder.path("/etc/shadow").open("a") as file:
        known = builder.path("/etc/shadow").read_text().split("\n")
        known_names = {line.split(":")[0] for line in known}
        file.writelines(f"{name}:*:19000::::::\n" for name in names if name not in known_names)
    builder.file("/etc/ssh/sshd_config", SSHD_CONFIG)
    return builder


def test_sealed_image_is_fit(dirty: Builder) -> None:
    """Everything that is found is repaired, credentials too on request, and the exit status says so."""
    done = seal(dirty, "--remove-credentials", "--json")
    assert done.left_over == set()
    assert done.status == 0
    assert {step["result"] for step in done.report["steps"]} == {"done"}
    assert done.report["fit"] is True


@pytest.mark.slow
def test_histories_are_the_last_step(dirty: Builder) -> None:
    """What the other steps leave in logs goes before the end, and histories at the very end."""
    steps = [step["rule"] for step in seal(dirty, "--dry-run", "--json").report["steps"]]
    last = steps.index("histories")
    assert set(steps[last:]) == {"histories"}
    assert steps.index("authorized-keys") < steps.index("firstkey-state")
    assert all(steps.index(name) < steps.index("logs") for name in ("host-keys", "mail", "temporary-files"))


def test_credentials_stay_unless_asked(dirty: Builder) -> None:
    """Without --remove-credentials, nobody loses a key, and the image is not called fit."""
    done = seal(dirty, "--json")
    assert done.status == 1
    assert dirty.path("/srv/deploy/notes.txt").exists()
    assert dirty.path("/srv/svc/.aws/credentials").exists()
    assert done.left_over == {
        "private-keys", "certificates", "access-keys",
        "cloud-credentials", "tool-credentials", "system-credentials", "vendor-credentials",
    }  # fmt: skip
    assert {entry["reason"] for entry in done.report["left"]} == {"not-asked-for"}


@pytest.mark.parametrize(
    "options", [["--dry-run"], [], ["--remove-credentials"]], ids=["dry", "plain", "all"]
)
@pytest.mark.sample(3)
def test_json_is_as_published(dirty: Builder, options: list[str]) -> None:
    """What --json prints is what docs/seal.schema.json says, and the audit in it what audit's own says."""
    schemas = {name: json.loads((DOCS / f"{name}.schema.json").read_text()) for name in ("seal", "audit")}
    report = seal(dirty, "--json", *options).report
    jsonschema.validate(report, schemas["seal"], cls=jsonschema.Draft202012Validator)
    if "audit" in report:
        jsonschema.validate(report["audit"], schemas["audit"], cls=jsonschema.Draft202012Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**report, "dry_run": "no"}, schemas["seal"])


def test_dry_run_shows_diffs_and_changes_nothing(dirty: Builder) -> None:
    """What would be done is told with what becomes of each file, and no secret is in it."""
    dirty.age()
    before = dirty.snapshot()
    done = seal(dirty, "--dry-run", "--remove-credentials")
    assert done.status == 0
    assert done.out.startswith(f"Seal of {dirty.root}: {len(rules.ALL)} rules\nPlan: ")
    assert dirty.snapshot() == before
    assert "+PermitRootLogin prohibit-password" in done.out
    assert "-ann:(password):" in done.out
    assert "+ann:!(password):" in done.out or "+ann:*(password):" in done.out
    assert "$6$salt" not in done.out
    assert "+uninitialized" in done.out


def test_the_plan_is_shown_once_and_the_audit_after_it_as_a_difference(dirty: Builder) -> None:
    """What went as planned has no second line; what is gone and what is left do, and no rule that passed."""
    done = seal(dirty, "--rule", "histories", "--rule", "private-keys", "--rule", "mail")
    assert done.out.count("/root/.bash_history") == 1
    assert re.search(
        r"\n  gone   There are no shell or program histories \[histories\]: (\d) of \1\n", done.out
    )
    assert "  gone   There is no mail [mail]: 1 of 1\n" in done.out
    assert "  ok " not in done.out
    assert (
        f"What to do: firstkey seal --root {dirty.root} --rule private-keys --remove-credentials" in done.out
    )


@pytest.mark.slow
def test_second_seal_changes_nothing(dirty: Builder) -> None:
    """A sealed image has nothing to repair, and stays as it is."""
    assert seal(dirty, "--remove-credentials").status == 0
    dirty.age()
    before = dirty.snapshot()
    again = seal(dirty, "--remove-credentials", "--json")
    assert again.status == 0
    assert again.report["steps"] == []
    assert dirty.snapshot() == before


@pytest.mark.slow
def test_one_failing_step_does_not_stop_the_others(dirty: Builder) -> None:
    """A file that cannot be removed is reported with its reason; the others are repaired."""
    dirty.path("/root").chmod(0o555)
    done = seal(dirty, "--json", "--remove-credentials", before=POWERLESS if os.geteuid() == 0 else ())
    dirty.path("/root").chmod(0o755)
    failed = [step for step in done.report["steps"] if step["result"] == "failed"]
    assert {step["path"] for step in failed} >= {"/root/.bash_history"}
    assert {step["reason"] for step in failed} == {"permission-denied"}
    assert done.status == 1
    assert {"crash-dumps", "installer-files"} <= done.left_over
    assert dirty.path("/root/.bash_history").read_bytes() == b""
    assert dirty.path("/srv/svc/.ssh/authorized_keys").read_bytes() == b""
    assert dirty.path("/etc/machine-id").read_text() == "uninitialized\n"


@pytest.mark.slow
def test_rule_and_skip_choose(dirty: Builder) -> None:
    """--rule mends that alone, --skip everything else."""
    assert seal(dirty, "--rule", "machine-id").status == 0
    assert dirty.path("/etc/machine-id").read_text() == "uninitialized\n"
    assert dirty.path("/root/.bash_history").exists()
    done = seal(dirty, "--skip", "histories", "--remove-credentials", "--json")
    assert done.status == 0
    assert dirty.path("/root/.bash_history").exists()


@pytest.mark.slow
def test_ledger_stays_while_it_is_needed(dirty: Builder) -> None:
    """The ledger revokes launch keys at boot: while authorized keys stay in the image, it stays too."""
    done = seal(dirty, "--skip", "authorized-keys", "--remove-credentials", "--json")
    (step,) = [step for step in done.report["steps"] if step["rule"] == "firstkey-state"]
    assert (step["result"], step["reason"]) == ("left", "still-needed")
    assert dirty.path("/var/lib/firstkey/ledger.json").exists()
    assert seal(dirty, "--remove-credentials").status == 0
    assert not dirty.path("/var/lib/firstkey/ledger.json").exists()


def test_removed_host_keys_are_remembered_by_salted_hashes(builder: Builder, tmp_path: Path) -> None:
    """A key that comes back can be told, with its public half or without; the file names no key."""
    builder.file("/etc/ssh/sshd_config", "HostKey /etc/keys/host\n")
    builder.directory("/etc/keys")
    places = (("/etc/ssh", "ssh_host_ed25519_key"), ("/etc/keys", "host"))
    lines = [new_key(builder.path(directory), name) for directory, name in places]
    builder.path("/etc/keys/host.pub").unlink()
    assert seal(builder, "--rule", "host-keys").status == 0
    assert not list(builder.path("/etc/keys").iterdir())
    text = builder.path(ledger.SEALED).read_text()
    assert builder.path(ledger.SEALED).stat().st_mode & 0o777 == 0o600
    with Tree(str(builder.root)) as tree:
        known = ledger.load_sealed(tree)
    stranger = new_key(tmp_path, "stranger")
    blobs = [public_key.parse_launch_key(line.encode()).blob for line in (*lines, stranger)]
    assert [known.knows(blob, "i-1") for blob in blobs] == [True, True, False]
    assert not any(line.split()[1] in text for line in lines)


def test_host_keys_are_found_without_ssh_keygen(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be remembered is for a person, and the others go."""
    builder.directory("/etc/ssh")
    for name in ("ssh_host_a_key", "ssh_host_b_key"):
        new_key(builder.path("/etc/ssh"), name)
    builder.path("/etc/ssh/ssh_host_a_key.pub").unlink()
    monkeypatch.setattr("firstkey.system.command.SYSTEM_PATH", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    findings = verdict_of(rules.by_id("host-keys"), builder.image()).findings
    names = [(finding.path.rpartition("/")[2], bool(finding.changes)) for finding in findings]
    assert names == [("ssh_host_a_key", False), ("ssh_host_b_key", True), ("ssh_host_b_key.pub", True)]


def test_nothing_is_predicted_of_what_a_step_brings_into_question(builder: Builder) -> None:
    """Who becomes root, and whom sshd takes, counts once firstkey is enabled: seal itself enables it."""
    builder.grow(rules.by_id("launch-user-sudo").failing)
    builder.file("/usr/sbin/sshd")
    builder.path(ENABLED).unlink()
    names = ("host-key-maker", "first-login", "launch-user-sudo")
    report = seal(builder, "--json", *(f"--rule={name}" for name in names)).report
    assert os.path.lexists(builder.path(ENABLED))
    by_id = {rule["id"]: rule for rule in report["audit"]["rules"]}
    assert by_id["launch-user-sudo"]["outcome"] == "finding"
    assert report["unpredicted"] == []


def test_overwriting_spares_other_names(builder: Builder, tmp_path: Path) -> None:
    """A file with another name elsewhere is not overwritten: its owner may not mean it to be."""
    precious = tmp_path / "precious"
    precious.write_text("mine\n")
    builder.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    builder.directory("/root")
    os.link(precious, builder.path("/root/.bash_history"))
    done = seal(builder, "--rule", "histories", "--json")
    assert done.status == 0
    assert precious.read_text() == "mine\n"
    assert not builder.path("/root/.bash_history").exists()
    assert "not overwritten" in done.report["steps"][0]["detail"]


def test_secrets_are_overwritten_on_the_disk(builder: Builder, tmp_path: Path) -> None:
    """A reader that has the file open sees that its old content is gone."""
    secret = b"export TOKEN=secret\n" * 10
    builder.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    builder.file("/root/.bash_history", secret)
    with open(builder.path("/root/.bash_history"), "rb") as reader:
        done = seal(builder, "--rule", "histories")
        assert reader.read() == b""
    assert "no promise" in done.out


@pytest.mark.slow
def test_keys_behind_a_link_go_and_the_link_with_them(dirty: Builder, tmp_path: Path) -> None:
    """Sshd would follow it, and what is installed at boot must not go through it."""
    dirty.file("/etc/keys/root", new_key(tmp_path, "builder"), mode=0o600)
    dirty.directory("/root/.ssh")
    dirty.link("/root/.ssh/authorized_keys", "/etc/keys/root")
    dirty.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    dirty.link("/home/ann/.ssh/authorized_keys", "/etc/keys/none")
    done = seal(dirty, "--json", "--rule", "authorized-keys")
    assert done.status == 0
    assert dirty.path("/etc/keys/root").read_bytes() == b""
    assert not dirty.path("/root/.ssh/authorized_keys").is_symlink()
    assert not dirty.path("/home/ann/.ssh/authorized_keys").is_symlink()


@pytest.mark.root
@pytest.mark.slow
def test_nothing_of_the_host_is_touched_through_mounts(dirty: Builder, tmp_path: Path) -> None:
    """Directories and files of the host's that are bound into the tree stay, and are named."""
    host, again = tmp_path / "host", tmp_path / "again"
    (host / ".ssh").mkdir(parents=True)
    (host / ".ssh" / "authorized_keys").write_text(new_key(host, "id_ed25519"))
    (host / ".bash_history").write_text("ls")
    again.mkdir()
    (again / "10-site.conf").write_text("PermitRootLogin yes\n")
    (host / "ann").write_text("mail")
    (host / ".firstkey-x.00000000").write_text("the host's own")
    before = {path: path.read_bytes() for path in tmp_path.glob("[ha]*/**/*") if path.is_file()}
    binds = {
        host: ("/root/src", "/tmp", "/var/log", "/srv/deep/host"),
        again: ("/etc/ssh/sshd_config.d",),
        host / "id_ed25519": ("/root/.ssh/id_ed25519",),
    }
    script = "".join(
        f"mount --bind {source} {dirty.path(place)} && " for source in binds for place in binds[source]
    )
    dirty.file("/root/.ssh/id_ed25519")
    dirty.file("/etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\n")
    dirty.link("/var/spool/mail", "/root/src")
    shutil.rmtree(dirty.path("/var/lib/firstkey"))
    dirty.link("/var/lib/firstkey", "/root/src")
    for place in ("/srv/deep/host", "/etc/ssh/sshd_config.d", "/root/src", "/var/log", "/tmp"):
        dirty.directory(place)
    done = seal(
        dirty,
        "--json",
        "--remove-credentials",
        before=("unshare", "--mount", "sh", "-c", f'{script} exec "$@"', "sh"),
    )
    assert {path: path.read_bytes() for path in tmp_path.glob("[ha]*/**/*") if path.is_file()} == before
    (seen,) = [rule for rule in done.report["audit"]["rules"] if rule["id"] == "everything-seen"]
    for place in (place for places in binds.values() for place in places):
        assert f"{place} (" in seen["remark"]


def test_what_links_lead_to_goes_with_them(dirty: Builder, tmp_path: Path) -> None:
    """A host key, a history and an old log; where a service logs through a link, it goes on."""
    new_key(tmp_path, "host")
    key = (tmp_path / "host").read_text()
    dirty.file("/etc/ssh/sshd_config", "HostKey /etc/ssh/hk\n")
    for link, target, content in (
        ("/etc/ssh/hk", "/srv/k/host", key),
        ("/home/ann/.bash_history", "/data/h", "x"),
        ("/var/log/old.1", "/data/old.1", "x"),
        ("/var/log/now.log", "/data/now.log", "x"),
    ):
        dirty.file(target, content, mode=0o600)
        dirty.link(link, target)
    rules_asked = [f"--rule={name}" for name in ("host-keys", "histories", "logs")]
    assert seal(dirty, "--json", *rules_asked).left_over == set()
    for gone in ("/etc/ssh/hk", "/srv/k/host", "/home/ann/.bash_history", "/data/h", "/var/log/old.1"):
        assert not os.path.lexists(dirty.path(gone))
    assert not dirty.path("/data/old.1").exists()
    assert dirty.path("/var/log/now.log").is_symlink()
    assert dirty.path("/data/now.log").read_bytes() == b""


def test_nothing_outside_the_root_is_touched(builder: Builder, tmp_path: Path) -> None:
    """Links that a user placed lead seal nowhere; what they hide is told."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("authorized_keys", ".bash_history", "log"):
        (outside / name).write_text("ssh-ed25519 AAAA precious\n")
    builder.file("/etc/passwd", "ann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n")
    builder.directory("/home/ann")
    builder.link("/home/ann/.ssh", str(outside))
    builder.link("/home/ann/.bash_history", str(outside / ".bash_history"))
    builder.link("/home/bob", str(outside))
    builder.link("/var/log/audit", str(outside))
    builder.link("/tmp/escape", str(outside))
    done = seal(builder, "--remove-credentials", "--json")
    assert "Traceback" not in done.err
    for name in ("authorized_keys", ".bash_history", "log"):
        assert (outside / name).read_text() == "ssh-ed25519 AAAA precious\n"
    assert not os.path.lexists(builder.path("/tmp/escape"))


def test_looks_stay(dirty: Builder) -> None:
    """A file that is rewritten keeps its mode, and everything in it that was not meant."""
    dirty.file("/etc/shadow", "root:$6$salt$hash:1:::::\r\nbroken\nann:*:1:::::", mode=0o604)
    assert seal(dirty, "--rule", "root-password").status == 0
    found = dirty.path("/etc/shadow")
    assert found.stat().st_mode & 0o7777 == 0o604
    assert found.read_bytes() in (
        b"root:!$6$salt$hash:1:::::\r\nbroken\nann:*:1:::::",
        b"root:*$6$salt$hash:1:::::\r\nbroken\nann:*:1:::::",
    )


def test_lock_follows_what_sshd_makes_of_it(builder: Builder) -> None:
    """Without PAM, ! would keep root's keys out too (sshd(8)), so * is put there; else passwd's own mark."""
    shadow = "root:$6$salt$hash:1::::::\n"
    for pam, mark in (("yes", "!"), ("no", "*")):
        builder.file("/etc/ssh/sshd_config", f"UsePAM {pam}\n")
        builder.file("/etc/shadow", shadow)
        assert seal(builder, "--rule", "root-password").status == 0
        assert builder.path("/etc/shadow").read_text() == shadow.replace("root:", f"root:{mark}")


def test_publisher_is_written_where_people_and_programs_look(builder: Builder) -> None:
    """A readable file, os-release through its link, the login message if asked, and a line for the AMI."""
    conf = "[Image]\nPublisher=Example Ltd.\nContact=a@example.com\nDescription=Debian for builds\n"
    builder.file("/etc/firstkey/firstkey.conf", conf)
    builder.file("/usr/lib/os-release", "ID=debian\n")
    builder.link("/etc/os-release", "../usr/lib/os-release")
    done = seal(builder, "--rule", "publisher", "--banner")
    assert done.status == 0
    assert done.out.endswith("For the AMI's description: Debian for builds, by Example Ltd., a@example.com\n")
    shown = subprocess.run(
        ["sh", "-c", '. "$1"; echo "$PUBLISHER|$CONTACT"', "sh", builder.path("/etc/image-info")],
        capture_output=True,
        check=True,
        text=True,
    )
    assert shown.stdout == "Example Ltd.|a@example.com\n"
    assert os.readlink(builder.path("/etc/os-release")) == "../usr/lib/os-release"
    assert "\nIMAGE_ID=example-ltd.\nIMAGE_VERSION=" in builder.path("/usr/lib/os-release").read_text()
    assert "Example Ltd." in builder.path("/etc/motd.d/50-image-info").read_text()


@pytest.mark.root
def test_selinux_labels_stay(builder: Builder) -> None:
    """A rewritten file keeps its label, a new one has that of its neighbours: SELinux stays at peace."""

    def label(path: str) -> bytes:
        return os.getxattr(builder.path(path), "security.selinux")

    builder.file("/etc/shadow", "root:$6$salt$hash:1::::::\n", mode=0o640)
    builder.file("/etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin yes\n")
    builder.file("/etc/ssh/sshd_config.d/50-a.conf", "X11Forwarding no\n")
    os.setxattr(builder.path("/etc/shadow"), "security.selinux", b"system_u:object_r:shadow_t:s0\0")
    for path in ("/etc/ssh/sshd_config.d", "/etc/ssh/sshd_config.d/50-a.conf"):
        os.setxattr(builder.path(path), "security.selinux", b"system_u:object_r:etc_t:s0\0")
    assert seal(builder, "--rule", "root-password", "--rule", "root-password-login").status == 0
    assert label("/etc/shadow") == b"system_u:object_r:shadow_t:s0\0"
    assert label("/etc/ssh/sshd_config.d/00-firstkey.conf") == b"system_u:object_r:etc_t:s0\0"


def test_quiet_says_nothing_about_what_went_well(builder: Builder) -> None:
    """-q is for scripts: silence and exit status 0, or what is wrong."""
    builder.file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    done = seal(builder, "-q", "--rule", "machine-id")
    assert (done.status, done.out, done.err) == (0, "", "")
    builder.file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    done = seal(builder, "-q", "--rule", "machine-id", "--rule", "key-installer")
    assert done.status == 1
    assert "NOT fit to share" in done.out


def test_each_line_is_whole_on_a_terminal(dirty: Builder) -> None:
    """The line that shows how far seal is goes before another one is printed."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "firstkey", "seal", "--root", str(dirty.root), "--rule", "logs"]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=theirs, env=environment):
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # EIO: the program has ended
            while piece := os.read(ours, 65536):
                shown += piece
    os.close(ours)
    assert b" files  " in shown
    assert re.search(rb"\r\x1b\[Kfirstkey: [^\r\x1b]* was sealed: ", shown)


def test_only_what_takes_a_way_in_away_is_asked_about() -> None:
    """A remedy that is pasted on the running system asks no question that does not concern it."""

    def taken(*names: str) -> list[str]:
        return taken_by([rules.by_id(name) for name in names])

    assert taken("mail", "machine-id", "logs") == []
    assert taken("root-password", "other-passwords") == ["every password, which is locked"]
    assert len(taken(*(rule.id for rule in rules.ALL))) == len(set(CUTS_OFF.values()))
