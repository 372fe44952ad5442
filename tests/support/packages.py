"""The packages of this checkout, built once a session as anybody builds them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from installed import TOP

import firstkey

BEFORE = "0.0.1"
"""The version before, of which there is none yet: this one under a lower number."""
GONE = "firstkey/gone.py"
"""A module of the version before that this one has not."""


def build(
    kind: str, directory: Path, *, top: Path = TOP, prefix: tuple[str, ...] = (), **environ: str
) -> Path:
    """The package (`deb` or `rpm`) of the checkout at `top`, built into the directory."""
    done = subprocess.run(
        [*prefix, str(top / "packaging/build"), kind, str(directory)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd="/",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent", **environ},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Path(done.stdout.strip())


def copy_sources(directory: Path) -> Path:
    """What git does not ignore of the checkout, as it is now."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={TOP}", "-C", str(TOP), "ls-files", "-zco", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / name, directory / name)
    return directory


def build_before(kind: str, directory: Path) -> Path:
    """The package as the version before would have it."""
    top = copy_sources(directory / "before")
    for name in ("agent/firstkey/__init__.py", "packaging/debian/changelog", "packaging/rpm/firstkey.spec"):
        text = (top / name).read_text()
        (top / name).write_text(text.replace(firstkey.__version__, BEFORE))
    (top / "agent" / GONE).write_text('"""Only in the version before."""\n')
    return build(kind, directory, top=top)
