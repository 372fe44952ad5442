"""Debian root file systems for tests: made by mmdebstrap once a week, kept outside of the checkout.

The cache is $FIRSTKEY_CACHE, or firstkey/ in $XDG_CACHE_HOME or ~/.cache. It may be removed at any time:
./dev test --all says how much it holds, and ./dev clean removes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Read at import, before tests get an environment of their own.
CACHE = Path(
    os.environ.get("FIRSTKEY_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "firstkey"
)


class MissingReleaseError(AssertionError):
    """A release cannot be had: no mirror, or one that does not serve it. tests/conftest.py skips then."""

    def __init__(self, suite: str, words: str) -> None:
        super().__init__(f"no root file system of {suite}: {words}")
        self.suite = suite


MAKING_SECONDS = 900
"""A download over a slow line; a minute is usual."""


def missing_for_debian_root() -> str | None:
    """Why there can be no root file system here, or None."""
    if os.geteuid() != 0:
        return "needs root: run it with sudo ./dev test"
    return None if shutil.which("mmdebstrap") else "needs mmdebstrap, which is not installed"


def debian_root(suite: str, include: tuple[str, ...]) -> Path:
    """A tar of a minimal Debian `suite` (`bookworm`, `trixie`, ...) with these packages and what they need.

    It is this week's, so that security updates come in by themselves. Raises MissingReleaseError with
    mmdebstrap's words where it fails.
    """
    packages = ",".join(sorted(include))
    key = hashlib.sha256(packages.encode()).hexdigest()[:12]
    return kept(f"{suite}-{key}", lambda partial: _make(suite, packages, partial))


def kept(name: str, make: Callable[[Path], object]) -> Path:
    """The tar of that name, as `make` wrote it this week.

    Several callers at once get the same one: the first makes it, the others wait.
    """
    week = time.strftime("%G-%V", time.gmtime())
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    archive = CACHE / f"{name}-{week}.tar"
    with alone(CACHE / f"{name}.lock"):
        if not archive.exists():
            for old in CACHE.glob("*.tar"):
                if not old.stem.endswith(week):  # nobody will ask for it again
                    old.unlink(missing_ok=True)
            # Only what is whole gets the name that the next caller looks for.
            partial = archive.with_suffix(".partial")
            make(partial)
            partial.rename(archive)
    return archive


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Who has this lock is alone until the end of the block; other processes wait for it."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(suite: str, packages: str, archive: Path) -> None:
    argv = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=tar"]
    # A root that a power cut spoils is made anew: nothing needs to be written to the disk at once.
    argv.append("--dpkgopt=force-unsafe-io")
    if suite == "sid":  # a mirror that is some days behind
        argv.append('--aptopt=Acquire::Check-Valid-Until "false"')
    done = subprocess.run(
        [*argv, f"--include={packages}", suite, str(archive)],
        check=False,
        capture_output=True,
        text=True,
        timeout=MAKING_SECONDS,
    )
    if done.returncode:
        raise MissingReleaseError(suite, done.stderr[-2000:])


def unpack(archive: Path, root: Path) -> None:
    """The root file system under `root`, with owners, modes, device nodes and capabilities; needs root."""
    root.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["tar", "--extract", "--file", str(archive), "--directory", str(root), "--numeric-owner",
         "--preserve-permissions", "--xattrs", "--xattrs-include=*"],
        check=True,
        timeout=300,
    )  # fmt: skip


@contextmanager
def copy_of(base: Path, directory: Path) -> Iterator[Path]:
    """A root file system like the one at `base`, to be changed at will and gone afterwards; needs root.

    An overlay where the kernel can (a blink), a copy elsewhere.
    """
    root, upper, work = (directory / name for name in ("root", "upper", "work"))
    for path in (root, upper, work):
        path.mkdir(parents=True)
    options = f"lowerdir={base},upperdir={upper},workdir={work}"
    mounted = _quietly("mount", "-t", "overlay", "overlay", "-o", options, str(root))
    try:
        if not mounted:
            subprocess.run(["cp", "--archive", f"{base}/.", str(root)], check=True, timeout=300)
        yield root
    finally:
        if mounted:
            subprocess.run(["umount", str(root)], check=True, timeout=60)
        shutil.rmtree(directory)


def _quietly(*argv: str) -> bool:
    return subprocess.run(argv, check=False, capture_output=True, timeout=60).returncode == 0


def inside(
    root: Path, *argv: str, timeout: float = 300, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program in the root file system, with /proc, as the only process that it sees; needs root."""
    alone = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", f"--root={root}"]
    return subprocess.run(
        [*alone, "--mount-proc", *argv],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            **(environ or {}),
        },
    )
