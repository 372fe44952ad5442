"""Tests of this checkout, run on another system: its own Python, OpenSSH, sudo, PAM and shadow.

pytest itself comes from PyPI, one copy that the oldest Python takes; all else is the system's.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from installed import TOP
from rootfs import kept

OLDEST_PYTHON = "3.9"
PACKAGES = (
    "exceptiongroup", "hypothesis", "iniconfig<2.2", "jsonschema<4.18", "pytest<9", "pytest-timeout", "tomli",
    "typing-extensions",
)  # fmt: skip
"""The last of each that runs on the oldest Python, and what they need there; none has compiled parts."""
PLACE = "opt/pytest"
REPORT = "/var/tmp/report.xml"
OUTCOMES = ("failure", "error", "skipped")
SECONDS = 1200
ENTER = """
set -eu
root=$1 top=$2
shift 2
mount --bind "$root" "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# At the place where it is here, which may be below /tmp.
mkdir -p "$root$top"
mount --bind "$top" "$root$top"
mount -o remount,bind,ro "$root$top"
mkdir -p "$root/dev/pts" "$root/run/sshd"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t sysfs -o ro sysfs "$root/sys"
ip link set lo up
cd "$root"
# Whoever enters a namespace of mounts is at its root: a chroot would lead back to the host there.
pivot_root . mnt
exec chroot . sh -euc '
mount -t proc proc /proc
umount -l /mnt
cd "$1"
shift
exec "$@"
' sh "$top" "$@"
"""


class Room(NamedTuple):
    """How the tests of a directory came out."""

    counts: Counter[str]
    failures: str


def packages() -> Path:
    """A tar with pytest and what it needs, of this week. Raises AssertionError where there is no index."""

    def make(archive: Path) -> None:
        with tempfile.TemporaryDirectory() as place:
            argv = [sys.executable, "-m", "pip", "install", "--quiet", "--target", place, "--no-compile"]
            argv += ["--python-version", OLDEST_PYTHON, "--only-binary=:all:", *PACKAGES]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
            assert done.returncode == 0, f"no pytest for Python {OLDEST_PYTHON}: {done.stderr[-1000:]}"
            subprocess.run(["tar", "--create", "--file", archive, "--directory", place, "."], check=True)

    # Another choice is another tar.
    return kept(f"pytest-{hashlib.sha256(' '.join(PACKAGES).encode()).hexdigest()[:12]}", make)


def run_tests(root: Path, report: Path, *options: str) -> str:
    """Run pytest with these options on the system at `root`, as its root; returns what it printed.

    `root` is changed. The report (JUnit's XML) is written to a file of the host's.
    """
    alone = ["setpriv", "--pdeathsig=KILL"]  # nothing stays behind, not even of a test run that is killed
    alone += ["unshare", "--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child"]
    pytest = ["python3", "-B", "-m", "pytest", "-p", "no:cacheprovider", f"--junit-xml={REPORT}"]
    pytest += ["-o", "junit_logging=system-out"]
    done = subprocess.run(
        [*alone, "sh", "-c", ENTER, "sh", str(root), str(TOP), *pytest, *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
        env={
            "PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": f"/{PLACE}",
        },
    )
    said = done.stdout + done.stderr
    found = root / REPORT.lstrip("/")
    assert done.returncode in (0, 1), said[-8000:]
    assert found.exists(), said[-8000:]
    report.write_bytes(found.read_bytes())
    return said


def read(report: Path) -> Room:
    """What a report has."""
    counts: Counter[str] = Counter()
    failures = []
    for case in ET.parse(report).getroot().iter("testcase"):
        outcome = next((child for child in case if child.tag in OUTCOMES), None)
        counts["passed" if outcome is None else outcome.tag] += 1
        if outcome is not None and outcome.tag != "skipped":
            said = case.findtext("system-out") or ""
            failures.append(f"{case.attrib['classname']}::{case.attrib['name']}\n{outcome.text}\n{said}")
    return Room(counts, "\n\n".join(failures))
