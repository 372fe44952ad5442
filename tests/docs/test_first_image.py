"""What docs/first-image.md tells a newcomer to type gives what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import bootlab
import pytest
import rootfs
from installed import TOP
from machine import fingerprint
from typed import of_story, type_in

pytestmark = [pytest.mark.root, pytest.mark.boot, pytest.mark.slow, pytest.mark.timeout(900)]

MMDEBSTRAP = """\
#!/bin/sh
# What mmdebstrap makes with these options, made this week.
set -eu
[ "$*" = "{options}" ] || {{ echo "mmdebstrap: options that no test has made: $*" >&2; exit 1; }}
mkdir rootfs
exec tar --extract --file "{archive}" --directory rootfs \\
    --numeric-owner --preserve-permissions --xattrs --xattrs-include="*"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the clone in it: what git has, as somebody who clones it gets it."""
    clone = tmp_path / "home/firstkey"
    clone.mkdir(parents=True)
    git = ["git", "-c", f"safe.directory={TOP}", "ls-files", "-z"]
    argv = [*git, "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, check=True, capture_output=True, cwd=TOP).stdout
    for name in filter(None, listed.decode().split("\0")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / name, clone / name)
    return clone.parent


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A mmdebstrap that need not fetch everything again: it unpacks what the real one has made."""
    (block,) = [block for block in of_story("first image") if "mmdebstrap" in block.text]
    options, rest = re.sub(r"\\\n\s*", "", block.text).removeprefix("mmdebstrap ").split("\n", 1)
    (include,) = re.findall(r"--include=(\S+)", options)
    suite, directory = options.split()[-2:]
    assert (directory, rest.split()[0]) == ("rootfs", "dpkg")
    archive = rootfs.debian_root(suite, tuple(include.split(",")))
    program = tmp_path / "programs/mmdebstrap"
    program.parent.mkdir()
    program.write_text(MMDEBSTRAP.format(options=options, archive=archive))
    program.chmod(0o755)
    return program.parent


def test_from_an_empty_directory_to_a_login(home: Path, programs: Path, tmp_path: Path) -> None:
    """The image is fit to share, boots, shows its host keys, and lets the launch key in as the user."""
    with bootlab.workshop(tmp_path / "shelf") as shelf:
        directory = shelf / "empty"
        directory.mkdir()
        # Names of networks are a namespace's own there, and nothing outlives the script.
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
        private = 'mkdir -p /run/netns && mount -t tmpfs none /run/netns && exec "$@"'
        path = f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"
        said = type_in(of_story("first image"), directory, *alone, private, "sh", HOME=str(home), PATH=path)
        line = (directory / "launch-key.pub").read_text()
        assert "NOT fit to share" in said
        assert f"admin: {fingerprint(line)} in place, /home/admin/.ssh/authorized_keys" in said
        assert "ssh admin@HERE works" in said
        assert "Finished with outcome ok" in said
        assert "PUT /latest/api/token" in (directory / "requests.txt").read_text()
        assert not (directory / "rootfs/home/admin/.ssh").exists()
        assert not list((directory / "rootfs/etc/ssh").glob("ssh_host_*"))
