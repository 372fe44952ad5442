"""The packages of this checkout, built once a session as anybody builds them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from installed import TOP


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
