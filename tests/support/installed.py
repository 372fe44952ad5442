"""firstkey as packaging/install puts it into a tree, run from there as a program."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).resolve().parents[2]


class Installed(NamedTuple):
    """A tree with firstkey in it."""

    root: Path

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def files(self) -> dict[str, Path]:
        """What is there by its path in the tree, directories not counted."""
        found = (path for path in self.root.rglob("*") if not path.is_dir())
        return {f"/{path.relative_to(self.root)}": path for path in sorted(found)}

    def firstkey(self, *argv: str, cwd: str = "/", **environ: str) -> subprocess.CompletedProcess[str]:
        """The command, run where it lies."""
        return subprocess.run(
            [str(self.path("/usr/bin/firstkey")), *argv],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=cwd,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **environ},
        )


def install(root: Path, *options: str, **environ: str) -> Installed:
    """Install the checkout under `root`."""
    subprocess.run(
        [str(TOP / "packaging/install"), *options, str(root)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", **environ},
    )
    return Installed(root)


ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "shadow": "root:*:19000:0:99999:7:::\n",
    "group": "root:x:0:\n",
    "ssh/sshd_config": "# defaults\n",
}


def image_at(root: Path) -> None:
    """A small image with firstkey in it, enabled, and somebody's history."""
    install(root)
    for name, content in ACCOUNTS.items():
        (root / "etc" / name).parent.mkdir(exist_ok=True)
        (root / "etc" / name).write_text(content)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "firstkey.service").symlink_to("/usr/lib/systemd/system/firstkey.service")
    (root / "root").mkdir(mode=0o700)
    (root / "root/.bash_history").write_text("secret\n")
