"""docs/first-login.md, as it is pasted: from an instance's console to a login that trusts no key on sight."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from installed import TOP
from machine import AGENT, new_key
from pages import blocks
from pipe_sshd import Sshd
from typed import of_story

from firstkey.ssh.public_key import read_key
from firstkey.system import console

pytestmark = pytest.mark.skipif(not shutil.which("sshd"), reason="needs sshd, which is not installed")

AWS = """\
#!/bin/sh
# Answers each call with the next of the files 1, 2, ...; the last one again and again.
cd {answers}
case "$*" in *--latest*) ;; *) exit 254 ;; esac
echo "$*" >>calls
this=$(ls [0-9] | head -n 1)
cat "$this"
[ "$(ls [0-9] | wc -l)" -eq 1 ] || rm "$this"
[ -s "$this" ] || [ "$(ls [0-9] | wc -l)" -gt 0 ]
"""


class Desk:
    """The machine of somebody who logs in: programs in a directory of its own, and a home."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.answers = directory / "answers"
        self.home = directory / "home"
        self.programs = directory / "programs"
        for path in (self.answers, self.home, self.home / ".ssh", self.programs):
            path.mkdir(mode=0o700)
        self.program("aws", AWS.format(answers=self.answers))
        self.program("sleep", "#!/bin/sh\n")
        self.program("firstkey", f'#!/bin/sh\nPYTHONPATH={AGENT} exec {sys.executable} -m firstkey "$@"\n')
        shutil.copy2(TOP / "packaging/examples/await-host-keys", self.programs)

    def program(self, name: str, text: str) -> None:
        """Put a program where the shell looks first."""
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def console(self, *texts: str) -> None:
        """What `aws` answers, one after the other."""
        for number, text in enumerate(texts):
            (self.answers / str(number)).write_text(text)

    def paste(self, text: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Type it into a shell."""
        path = f"{self.programs}:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = {"PATH": path, "HOME": str(self.home), "AWAIT_SECONDS": "90", **environ}
        # fmt: off
        return subprocess.run(
            ["bash", "-c", text], check=False, capture_output=True, text=True, timeout=300,
            cwd=self.directory, stdin=subprocess.DEVNULL, env=environment,
        )
        # fmt: on


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """With nothing known yet."""
    return Desk(tmp_path)


@pytest.fixture
def ready(tmp_path: Path) -> Sshd:
    """An instance that lets in whoever has the launch key."""
    for name in ("host", "login"):
        new_key(tmp_path, name)
    made = Sshd(tmp_path, tmp_path / "host")
    let_in, log = made.login(tmp_path / "login", patterns=str(tmp_path / "login.pub"))
    assert let_in, log  # its configuration is there from now on
    return made


def shown(key: Path) -> str:
    """What firstkey writes to the console of an instance with this host key."""
    line = key.with_suffix(".pub").read_text().strip()
    public = read_key(line.encode())
    assert public
    pairs = [(f"256 {public.fingerprint} root@host (ED25519)", line)]
    return console.fingerprint_block(pairs, prefix="Nov 30 00:00:00 host firstkey: ").decode()


def line(instance: Sshd) -> str:
    """The page's line, for a host that is reached through a pipe, by the account that runs the tests."""
    (block,) = of_story("first login")
    name = instance.account.pw_name
    config = instance.directory / "sshd_config"
    options = (
        f"-F none -i {instance.directory}/login -o UserKnownHostsFile=~/.ssh/known_hosts -o BatchMode=yes "
        f"-o IdentityAgent=none -o 'ProxyCommand={instance.program} -i -f {config}'"
    )
    return block.text.replace("ssh -o", f"ssh {options} -o").replace(
        "admin@203.0.113.7", f"{name}@203.0.113.7 id -un"
    )


def test_the_line_waits_for_the_keys_and_logs_in(desk: Desk, ready: Sshd) -> None:
    """Through a console that is empty, cut off in either block, and whole at last."""
    whole = shown(ready.host_key)
    cut = whole[: whole.index("-----END SSH HOST KEY FINGERPRINTS")]
    half = whole[: whole.index("-----BEGIN SSH HOST KEY KEYS") + 60]
    desk.console("None\n", cut, half, f"[ 0.1 ] kernel\n{whole}login: ")
    done = desk.paste(line(ready))
    assert (done.returncode, done.stdout) == (0, f"{ready.account.pw_name}\n"), done.stderr
    assert "i-0123456789abcdef0" in (desk.answers / "calls").read_text()
    assert len((desk.answers / "calls").read_text().splitlines()) == 4


@pytest.mark.parametrize("flaw", ["another key", "forged", "never"])
@pytest.mark.sample(3)
def test_the_line_does_not_log_in_where_the_key_is_not_the_console_s(
    desk: Desk, ready: Sshd, tmp_path: Path, flaw: str
) -> None:
    """Another host at that address; a second block that somebody wrote; no block at all within the time."""
    new_key(tmp_path, "other")
    whole, other = shown(ready.host_key), shown(tmp_path / "other")
    desk.console({"another key": other, "forged": whole + other, "never": "login: "}[flaw])
    done = desk.paste(line(ready), AWAIT_SECONDS="0")
    assert (done.returncode != 0, done.stdout) == (True, "")
    known = (desk.home / ".ssh/known_hosts").read_text()
    assert bool(known) is (flaw == "another key")
    expected = {
        "another key": "Host key verification failed",
        "forged": "console-disagrees",
        "never": "showed no usable host keys in time",
    }
    assert expected[flaw] in done.stderr


def test_a_clone_is_enough(desk: Desk, tmp_path: Path) -> None:
    """Where no firstkey is installed, the program uses the one of the clone that it is in."""
    (desk.programs / "firstkey").unlink()
    new_key(tmp_path, "host")
    desk.console("login: ", shown(tmp_path / "host"))
    done = desk.paste(f"{TOP}/packaging/examples/await-host-keys i-1 203.0.113.7")
    key = " ".join((tmp_path / "host.pub").read_text().split()[:2])
    assert (done.returncode, done.stdout) == (0, f"203.0.113.7 {key}\n"), done.stderr


def test_the_others_use_the_same_program() -> None:
    """Ansible's task and Packer's provisioner."""
    page = {block.language: block.text for block in blocks(TOP / "docs/first-login.md")}
    assert "await-host-keys {{ instance_id }} {{ ansible_host }}" in page["yaml"]
    assert "await-host-keys ${build.ID} ${build.Host} > known_hosts" in page["hcl"]


@pytest.mark.parametrize("is_genuine", [True, False])
@pytest.mark.sample(2)
def test_the_provisioner_of_packer_ends_the_build_of_another_machine(
    desk: Desk, tmp_path: Path, is_genuine: bool
) -> None:
    """Its lines, run as Packer does, against a host that shows the console's key, or another one."""
    for name in ("host", "other"):
        new_key(tmp_path, name)
    text = next(block.text for block in blocks(TOP / "docs/first-login.md") if block.language == "hcl")
    lines = [each.strip().strip('",') for each in text.splitlines() if each.startswith("    ")]
    key = " ".join((tmp_path / ("host.pub" if is_genuine else "other.pub")).read_text().split()[:2])
    desk.program("ssh-keyscan", f"#!/bin/sh\necho '# 203.0.113.7:22 SSH-2.0'\necho '203.0.113.7 {key}'\n")
    desk.console(shown(tmp_path / "host"))
    script = "\n".join(lines).replace("${build.ID}", "i-1").replace("${build.Host}", "203.0.113.7")
    done = desk.paste(f"set -e\n{script}")
    assert (done.returncode == 0) is is_genuine, done.stderr
