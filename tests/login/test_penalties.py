"""OpenSSH that holds it against clients that they do not log in: the doctor asks, and nobody is banned."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import bootlab
import pytest
from machine import AGENT
from rootfs import debian_root, missing_for_debian_root, unpack

pytestmark = [pytest.mark.root, pytest.mark.slow]

SCRIPT = """
set -e
ip link set lo up
mkdir -p /run/sshd /root/.ssh
chmod 0700 /root/.ssh
ssh-keygen -A >/dev/null
ssh-keygen -q -t ed25519 -N '' -f /key
cp /key.pub /root/.ssh/authorized_keys
/usr/sbin/sshd -o 'PerSourcePenalties=noauth:60 authfail:60 min:60'
until ssh-keyscan -t ed25519 -p 22 127.0.0.9 >/dev/null 2>&1; do :; done
for each in 1 2 3 4 5 6; do
    firstkey doctor --json --user root --key /key.pub OPTIONS | tr -d '\\n'
    echo
done
ssh -i /key -o BatchMode=yes -o StrictHostKeyChecking=no root@127.0.0.1 echo works
"""


@pytest.mark.parametrize("options", ["", "--from 127.0.0.1"], ids=["from anywhere", "from here"])
def test_the_doctor_bans_nobody(tmp_path: Path, options: str) -> None:
    """Asked six times in a row, it gets an answer each time, and a client of this machine is let in after."""
    missing = missing_for_debian_root()
    if missing:
        pytest.skip(missing)
    root = tmp_path / "root"
    unpack(debian_root("trixie", bootlab.PACKAGES), root)
    shutil.copytree(AGENT, root / "opt/agent")
    command = root / "usr/local/bin/firstkey"
    command.write_text('#!/bin/sh\nPYTHONPATH=/opt/agent exec /usr/bin/python3 -m firstkey "$@"\n')
    command.chmod(0o755)
    alone = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        f"--root={root}",
        "--mount-proc",
    ]
    done = subprocess.run(
        [*alone, "sh", "-c", SCRIPT.replace("OPTIONS", options)],
        capture_output=True, text=True, check=False, timeout=300, stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
    )  # fmt: skip
    *said, last = done.stdout.splitlines()
    assert last == "works", done.stderr
    assert all(said), done.stderr
    verdicts = [json.loads(line)["users"][0]["verdict"] for line in said]
    assert verdicts == ["open"] * 6, done.stdout
