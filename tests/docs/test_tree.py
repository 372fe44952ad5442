"""The commands on the pages that work on an image's tree, typed on one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from installed import TOP, image_at
from typed import of_story, type_in

pytestmark = [pytest.mark.root, pytest.mark.sshd]

PLACE = "mkdir /mnt/image && mount --bind rootfs /mnt/image"
"""In a namespace of the test's own."""

PROGRAM = """\
#!/bin/sh
# An image that nobody has sealed has findings, and with them the exit status 1.
status=0
PYTHONPATH="{agent}" "{python}" -m firstkey "$@" || status=$?
[ "$1" = audit ] && [ -e rootfs/root/.bash_history ] || exit $status
"""


@pytest.mark.slow
def test_commands_on_a_mounted_tree(tmp_path: Path) -> None:
    """As on the pages: looked at, sealed, audited again, for a pipeline and by a finalize script."""
    image_at(tmp_path / "rootfs")
    program = tmp_path / "bin/firstkey"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(agent=TOP / "agent", python=sys.executable))
    program.chmod(0o755)
    said = type_in(
        of_story("tree"),
        tmp_path,
        "unshare",
        "--mount",
        before=f"mount -t tmpfs none /mnt; {PLACE}; BUILDROOT=$PWD/rootfs",
        PATH=f"{program.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
    )
    assert "NOT fit to share" in said
    assert said.index("NOT fit to share") < said.rindex("\nFit to share")
    assert not (tmp_path / "rootfs/root/.bash_history").exists()
    assert json.loads((tmp_path / "firstkey.sarif").read_text())["version"] == "2.1.0"
