"""Real Debian root file systems, made dirty in many ways, sealed, and looked at with other eyes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machine import new_key
from rootfs import debian_root, inside, missing_for_debian_root, unpack

from firstkey.image.examples import access_key, pem

AGENT = Path(__file__).parents[2] / "agent"
pytestmark = [
    pytest.mark.root,
    pytest.mark.sshd,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(missing_for_debian_root() is not None, reason=str(missing_for_debian_root())),
]

PACKAGES = ("cloud-init", "openssh-server", "python3-requests", "ssl-cert", "sudo", "libnet-ssleay-perl")
MARK = "LEAKED-BY-THE-BUILDER"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system as mmdebstrap leaves it."""
    root = tmp_path_factory.mktemp("debian") / "root"
    unpack(debian_root("bookworm", PACKAGES), root)
    return root


@pytest.fixture
def root(fresh: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it to spoil."""
    copy = tmp_path / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", str(fresh), str(copy)], check=True)
    yield copy
    shutil.rmtree(copy)


def firstkey(root: Path, command: str, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status and report of a command on the root."""
    done = subprocess.run(
        [sys.executable, "-m", "firstkey", command, "--root", str(root), "--json", *options],
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def unfit(report: dict[str, Any]) -> set[str]:
    """The rules that find something worse than a note."""
    return {rule["id"] for rule in report["rules"] if not rule["fit"]}


def put(root: Path, path: str, content: str | bytes, mode: int = 0o600) -> None:
    """Write a file into the root."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    file.chmod(mode)


def spoil(root: Path, keys: Path) -> None:
    """What a builder leaves: each thing carries a mark that nothing may be left of."""
    key = new_key(keys, MARK)
    inside(root, "useradd", "--create-home", "--home-dir", "/srv/app", "--shell", "/bin/bash", "app")
    inside(root, "sh", "-c", f"echo 'root:{MARK}' | chpasswd; echo 'app:{MARK}' | chpasswd; passwd -d games")
    inside(root, "ssh-keygen", "-A")
    inside(root, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/other_key", "-C", MARK)
    inside(root, "useradd", "--no-create-home", "gone")
    for home in ("root", "srv/app", "home/gone"):
        put(root, f"{home}/.ssh/authorized_keys", f"{key}\n")
        put(root, f"{home}/.bash_history", f"export TOKEN={MARK}\n")
        put(root, f"{home}/.ssh/known_hosts", f"{MARK} {key}\n")
    put(root, "etc/ssh/keys/gone", f"{key}\n")
    put(root, "srv/app/.local/share/fish/fish_history", MARK)
    put(root, "root/.mysql_history", MARK)
    put(root, "etc/ssh/sshd_config.d/50-build.conf", "PermitRootLogin yes\nUseDNS yes\n")
    main = root / "etc/ssh/sshd_config"
    text = main.read_text() + "\nHostKey /etc/ssh/other_key\nHostKey /etc/ssh/ssh_host_rsa_key\n"
    text += "AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/keys/%u\n"
    text += "Match Address 10.0.0.0/8\n  PermitRootLogin yes\n"
    main.write_text(text)
    put(root, "opt/deploy/id", (keys / MARK).read_bytes())
    put(root, "opt/deploy/id.pub", f"{key}\n")
    put(root, "usr/share/doc/openssh-server/id_rsa", (keys / MARK).read_bytes())
    put(root, "root/.aws/credentials", f"[default]\naws_secret_access_key = {MARK}\n")
    put(root, "srv/app/.env", f"# {MARK}\nAWS_ACCESS_KEY_ID={access_key('AKIA', 'Z7QK3WJT5NP2XR6M')}\n")
    put(root, "srv/app/.docker/config.json", json.dumps({"auths": {"r": {"auth": MARK}}}))
    put(root, "etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444)
    put(root, "var/lib/systemd/random-seed", os.urandom(512))
    put(root, "var/lib/cloud/instances/i-1/user-data.txt", MARK)
    (root / "var/lib/cloud/instance").symlink_to("/var/lib/cloud/instances/i-1")
    put(root, "var/lib/firstkey/ledger.json", MARK)
    put(root, "var/lib/dhcp/dhclient.eth0.leases", MARK)
    put(root, "etc/udev/rules.d/70-persistent-net.rules", MARK)
    for log in ("syslog", "syslog.1", "auth.log.2.gz", "cloud-init-output.log", "wtmp", "private/x/y.log"):
        put(root, f"var/log/{log}", MARK)
    put(root, "var/log/journal/0123/system.journal", MARK)
    put(root, "var/crash/app.crash", MARK)
    put(root, "var/mail/root", MARK)
    put(root, "tmp/build/script.sh", MARK)
    put(root, "var/tmp/x", MARK)
    put(root, "var/backups/shadow.bak", MARK)
    put(root, "etc/shadow-", MARK)
    put(root, "var/lib/sudo/lectured/1000", MARK)
    put(root, "root/anaconda-ks.cfg", MARK)


def marked(root: Path) -> list[str]:
    """Files with the mark, as grep sees them."""
    done = subprocess.run(["grep", "-rlaF", MARK, "."], cwd=root, capture_output=True, check=False, text=True)
    return done.stdout.splitlines()


EXPECTED = {
    "root-password-login", "root-password", "other-passwords", "host-keys", "authorized-keys", "histories",
    "private-keys", "cloud-credentials", "tool-credentials", "access-keys", "known-hosts", "machine-id",
    "random-seeds", "cloud-init-data", "firstkey-state", "dhcp-leases", "network-names", "logs",
    "login-records", "crash-dumps", "mail", "temporary-files", "account-backups", "sudo-timestamps",
    "installer-files",
}  # fmt: skip


def test_a_spoiled_image_is_sealed(root: Path, tmp_path: Path) -> None:
    """Every kind of leftover is found, and gone afterwards; what the packages brought is as it was."""
    keys = tmp_path / "keys"
    keys.mkdir()
    before = files_of_packages(root)
    spoil(root, keys)
    assert len(marked(root)) > 30
    status, report = firstkey(root, "audit")
    assert status == 1
    assert unfit(report) >= EXPECTED
    status, report = firstkey(root, "seal", "--remove-credentials")
    assert [step for step in report["steps"] if step["result"] != "done"] == []
    assert unfit(report["audit"]) == set()
    assert status == 0
    assert marked(root) == []
    assert not list((root / "etc/ssh").glob("*key"))
    fields = {
        line.split(":")[0]: line.split(":")[1] for line in (root / "etc/shadow").read_text().splitlines()
    }
    assert all(field.startswith(("!", "*")) for field in fields.values())
    assert files_of_packages(root) == before
    status, report = firstkey(root, "seal", "--remove-credentials")
    assert (status, report["steps"]) == (0, [])
    assert inside(root, "passwd", "-u", "root").returncode == 0


def files_of_packages(root: Path) -> str:
    """What dpkg finds changed of what the packages brought, apart from configuration."""
    done = inside(root, "dpkg", "--verify")
    return "\n".join(line for line in done.stdout.splitlines() if " c " not in line)


def test_a_fresh_image_is_left_alone(root: Path) -> None:
    """What mmdebstrap makes has host keys and little else; audit touches nothing of it."""
    listing = ["find", ".", "-xdev", "-type", "f", "-printf", "%p %m %U %G %s %A@ %T@ %C@\n"]
    before = subprocess.run(listing, cwd=root, capture_output=True, check=True).stdout
    status, report = firstkey(root, "audit")
    assert subprocess.run(listing, cwd=root, capture_output=True, check=True).stdout == before
    assert status == 1
    assert unfit(report) <= {"host-keys", "account-backups", "temporary-files", "logs"}
    remarks = {rule["id"]: rule["remark"] for rule in report["rules"]}
    assert "libnet-ssleay-perl" in remarks["private-keys"]
    notes = next(rule for rule in report["rules"] if rule["id"] == "self-signed-keys")["findings"]
    assert [found["path"] for found in notes] == ["/etc/ssl/private/ssl-cert-snakeoil.key"]


def test_a_real_key_in_a_packages_place_is_found(root: Path, tmp_path: Path) -> None:
    """Neither the path of a package's test key nor that of the snake-oil key hides another key."""
    real = pem("PRIVATE KEY", "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g")
    (packaged,) = root.glob("usr/share/doc/libnet-ssleay-perl/examples/server_key.pem")
    packaged.write_text(real)
    put(root, "etc/ssl/private/ssl-cert-snakeoil.key", real)
    _, report = firstkey(root, "audit", "--rule", "private-keys")
    paths = {found["path"] for found in report["rules"][0]["findings"]}
    assert paths == {f"/{packaged.relative_to(root)}", "/etc/ssl/private/ssl-cert-snakeoil.key"}


# A person at a shell, beside a program that seals the running system and one that runs a script.
LIVE = r"""
import os, pty, subprocess, sys, time

def shell(*argv):
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(HISTFILE="/root/.bash_history", HISTSIZE="100")
        os.execvp(argv[0], argv)
    return pid, terminal

def alive(pid):
    return os.waitpid(pid, os.WNOHANG)[0] == 0

person, terminal = shell("bash", "-i")
script, _ = shell("bash", "/opt/script.sh")
os.write(terminal, b"echo LEAKED-BY-THE-BUILDER\n")
time.sleep(1)
seal = [sys.executable, "-m", "firstkey", "seal"]
refused = subprocess.run(seal, stdin=subprocess.DEVNULL, capture_output=True)
assert refused.returncode == 2, refused
assert b"--yes" in refused.stderr
assert alive(person)
done = subprocess.run([*seal, "--yes", "--json"], capture_output=True, text=True)
time.sleep(0.5)
assert not alive(person), "the shell would write its history"
assert alive(script), "a shell that runs a script has no history"
assert not os.path.exists("/root/.bash_history")
print(done.stdout)
sys.stderr.write(done.stderr)
sys.exit(done.returncode)
"""


# A person who seals the running system from their own shell, and is asked.
ASKED = r"""
import os, pty

person, terminal = pty.fork()
if person == 0:
    os.environ.update(HISTFILE="/root/.bash_history", HISTSIZE="100")
    os.execvp("bash", ["bash", "--norc", "-i"])

def read_until(words):
    shown = b""
    while words not in shown:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # nobody is at the other end any more
            part = b""
        if not part:
            break
        shown += part
    return shown

os.write(terminal, b"echo LEAKED-BY-THE-BUILDER\nPYTHONPATH=/opt/agent python3 -B -m firstkey seal\n")
print(read_until(b"Type yes to go on: ").decode())
os.write(terminal, b"no\n")
print(read_until(b"nothing was changed").decode())
assert os.path.exists("/root/.zsh_history")
os.write(terminal, b"PYTHONPATH=/opt/agent python3 -B -m firstkey seal\n")
read_until(b"Type yes to go on: ")
os.write(terminal, b"yes\n")
print(read_until(b"no such words").decode())
assert os.WTERMSIG(os.waitpid(person, 0)[1]) == 9
assert not os.path.exists("/root/.zsh_history")
assert not os.path.exists("/root/.bash_history")
"""


def run_live(root: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program of a test in the running system, with terminals and this checkout's firstkey."""
    shutil.copytree(AGENT, root / "opt/agent")
    put(root, "opt/live.py", program)
    terminals = "mkdir -p /dev/pts && mount -t devpts devpts /dev/pts"
    run = "PYTHONPATH=/opt/agent exec python3 -B /opt/live.py"
    done = inside(root, "sh", "-c", f"{terminals} && {run}")
    (root / "opt/live.py").unlink()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def test_a_person_is_asked_and_cut_off_last(root: Path) -> None:
    """What will be lost is said before; no means no; after yes, the report comes before the shell's end."""
    put(root, "root/.zsh_history", f"{MARK}\n")
    done = run_live(root, ASKED)
    assert "every interactive shell (1 now)" in done.stdout
    assert "authorized keys of every account, yours too" in done.stdout
    assert done.stdout.rstrip().endswith(
        "No list of guidelines is complete: think of what only you know is in the image."
    )
    assert marked(root) == []


def test_the_running_system_is_sealed(root: Path) -> None:
    """Seal asks first; the person's shell is ended before it can write its history, scripts run on."""
    put(root, "opt/script.sh", "sleep 1000\nexit 0\n")
    put(root, "root/.bash_history", f"{MARK}\n")
    done = run_live(root, LIVE)
    report = json.loads(done.stdout)
    assert report["fit"] is True
    assert "/proc (proc)" in str(
        next(rule for rule in report["audit"]["rules"] if rule["id"] == "everything-seen")
    )
    assert marked(root) == []
