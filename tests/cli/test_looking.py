"""Commands that look at a tree: in the box, with nothing changed, and with everything that they need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
import treestate

from firstkey.metadata.emulator import Emulator

COMMANDS = (
    "audit", "audit --json", "audit --sarif", "audit --exclude-list", "config", "config --json",
    "config --diff", "doctor", "doctor --json -v", "host-keys --dry-run",
    "host-keys --dry-run --json -v", "keys --imds IMDS", "keys --json -v --imds IMDS",
    "known-hosts --live", "run --dry-run --imds IMDS", "run --dry-run --json -v --imds IMDS",
    "seal --dry-run", "seal --dry-run --json", "status", "status --json", "status --timeline",
)  # fmt: skip

CONFIGURATION = "[Keys]\nUsers=root ann new\n[User new]\nCreate=yes\nSudo=ALL=(ALL) ALL\n"
PHASE = {"phase": "x", "start_ms": 0, "end_ms": 5}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small system with one user, keys, a sudo rule to come, and links of all kinds."""
    root = tmp_path / "tree"
    files = {
        "etc/passwd": "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n",
        "etc/group": "root:x:0:\nann:x:1000:\n",
        "etc/shadow": "root:*:1::::::\nann:$y$x:1::::::\n",
        "etc/ssh/sshd_config": "ListenAddress some.name\nMatch Group ann\nPermitRootLogin yes\n",
        "etc/firstkey/firstkey.conf": CONFIGURATION,
        "root/.ssh/authorized_keys": "# nothing\n",
        "root/.bash_history": "ls\n",
        "home/ann/.profile": "",
        "bin/sh": "",
        "run/firstkey/report.json": json.dumps({"outcome": "ok", "timeline": [PHASE]}),
    }
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / "etc/ssh/ssh_host_ed25519_key"],
        check=True,
    )
    (root / "etc/hostname").symlink_to("/etc/hostname")
    (root / "home/ann/out").symlink_to("../../../../../../../etc/shadow")
    return root


@pytest.fixture
def service() -> Iterator[str]:
    """A metadata service."""
    with Emulator() as server:
        yield server.url


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.sample(7)
def test_looking_changes_nothing_and_lacks_nothing(command: str, tree: Path, service: str) -> None:
    """No module, codec or program is missed in the box: that would be an error of firstkey's own."""
    before = treestate.take(tree)
    argv = [sys.executable, "-m", "firstkey", *command.replace("IMDS", service).split(), "--root", str(tree)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=100)
    assert "internal-error" not in done.stdout + done.stderr
    assert "unforeseen" not in done.stderr
    assert done.returncode in (0, 1)
    assert done.stdout
    assert treestate.take(tree) == before
    if "--json" in command or "--sarif" in command:
        json.loads(done.stdout)


def test_a_picture_of_a_tree_is_written_outside_of_the_box(tree: Path, tmp_path: Path) -> None:
    """The file that --svg names is the host's."""
    report = {"outcome": "ok", "timeline": [PHASE]}
    (tree / "run/firstkey/report.json").write_text(json.dumps(report))
    argv = [sys.executable, "-m", "firstkey", "status", "--svg", str(tmp_path / "x.svg"), "--root", str(tree)]
    subprocess.run(argv, check=True, timeout=100)
    assert (tmp_path / "x.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("command", ["audit", "doctor", "status", "run --dry-run"])
def test_a_root_that_may_not_be_looked_up_is_told(command: str) -> None:
    """Another user's process in /proc: an error with a reason, and no riddle."""
    if missing := processes.missing_for_others():
        pytest.skip(missing)
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") if os.geteuid() == 0 else ()
    argv = [*user, sys.executable, "-m", "firstkey", *command.split(), "--root", "/proc/1/root"]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=100)
    assert done.returncode in (1, 2)
    assert b"/proc/1/root" in done.stderr
    assert b"unforeseen" not in done.stderr
