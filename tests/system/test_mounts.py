"""What of a mount table is part of a tree, and what is the host's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from firstkey.system import mounts

ROOT = "/mnt/image"
HOST = (
    "27 1 254:0 / / rw - ext4 /dev/vda rw",
    "28 27 0:21 / /proc rw - proc proc rw",
    "29 27 8:1 / /data rw shared:1 master:2 - xfs /dev/sda1 rw",
)
OWN_DISK = (*HOST, "40 27 7:2 / /mnt/image rw - ext4 /dev/loop0p2 rw")
OWN_SUBVOLUME = (*HOST, "40 27 0:44 /@ /mnt/image rw - btrfs /dev/loop0p2 rw")

CASES = {
    "a directory of the host's": (HOST, "254:0 /root/src {}/src rw - ext4", True),
    "a directory of the host's, beside a disk of the image's own":
        (OWN_DISK, "254:0 /root/src {}/src rw - ext4", True),
    "a disk that the host has mounted too": (OWN_DISK, "8:1 / {}/srv rw - xfs", True),
    "a directory of a disk that is seen nowhere else": (OWN_DISK, "8:9 /home/me {}/src rw - ext4", True),
    "a subvolume of the host's":
        ((*HOST, "30 27 0:50 /@home /home rw - btrfs /dev/sdb rw"), "0:50 /@ann {}/src rw - btrfs", True),
    "what lies beside the tree on its own disk":
        ((*HOST, "40 27 7:2 / /mnt rw - ext4 /dev/loop0p2 rw"), "7:2 /other {}/src rw - ext4", True),
    "memory": (OWN_DISK, "0:70 / {}/tmp rw - tmpfs", True),
    "the boot partition": (OWN_DISK, "7:1 / {}/boot/efi rw - vfat", False),
    "a partition of an image that is unpacked on the host's disk": (HOST, "7:1 / {}/boot rw - ext4", False),
    "a subvolume": (OWN_SUBVOLUME, "0:44 /@home {}/home rw - btrfs", False),
    "a subvolume of another partition": (OWN_DISK, "0:45 /@log {}/var/log rw - btrfs", False),
    "a directory of the tree's own": (HOST, "254:0 /mnt/image/srv/www {}/var/www rw - ext4", False),
    "a directory of the disk's own": (OWN_DISK, "7:2 /srv/www {}/var/www rw - ext4", False),
    "a directory of another partition":
        ((*OWN_DISK, "41 40 7:3 / /mnt/image/srv rw - ext4 /dev/loop0p3 rw"), "7:3 /w {}/w rw - ext4", False),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_whose_a_mount_is(name: str) -> None:
    """By what it shows, and where else that is seen."""
    table, line, is_hosts = CASES[name]
    found = mounts.parse([*table, f"99 40 {line.format(ROOT)} /dev/x rw"])
    assert len(mounts.foreign_of(found, ROOT)) == is_hosts


def test_the_running_systems_own_mounts() -> None:
    """Nothing is outside of it; but what is bound into a container from its host is not its own."""
    found = mounts.parse([
        *HOST,
        "31 27 254:0 /var/www /srv/www rw - ext4 /dev/vda rw",
        "32 27 8:1 /me /home/me rw - xfs /dev/sda1 rw",
        "33 27 9:0 /home/me/.ssh /root/.ssh rw - ext4 /dev/md0 rw",
    ])  # fmt: skip
    assert [mount.path for mount in mounts.foreign_of(found, "/")] == ["/proc", "/root/.ssh"]


@pytest.fixture
def on_a_disk() -> Iterator[Path]:
    """A directory there, wherever other tests have theirs: of what is in memory each mount is foreign."""
    with TemporaryDirectory(dir="/var/tmp") as directory:
        yield Path(directory)


@pytest.mark.root
@pytest.mark.skipif(not os.path.exists("/usr/sbin/mkfs.ext4"), reason="needs mkfs.ext4 of e2fsprogs")
@pytest.mark.skipif(not os.path.exists("/dev/loop-control"), reason="needs loop devices")
def test_the_kernel_tells_it_so(on_a_disk: Path) -> None:
    """Bind mounts and a disk of the tree's own, as they really are mounted."""
    root = on_a_disk / "root"
    for place in ("src", "own", "disk", "var"):
        (root / place).mkdir(parents=True)
    (on_a_disk / "host").mkdir()
    image = on_a_disk / "image"
    with image.open("wb") as file:
        os.truncate(file.fileno(), 4 * 1024 * 1024)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", image], check=True)
    script = f"""
mount --bind {on_a_disk}/host {root}/src && mount --bind {root}/var {root}/own || exit
mount -o loop {image} {root}/disk && exec "$@"
"""
    program = f"from firstkey.system import mounts; print([m.path for m in mounts.foreign({str(root)!r})])"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", "python3", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"['{root}/src']\n"
