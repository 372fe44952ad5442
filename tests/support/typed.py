"""Which commands on the pages are typed by which test; and of those that are not, why."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from pages import Block, every_block

FIRST_IMAGE = "docs/first-image.md"
MOVING = "docs/moving.md"

TYPED: dict[str, list[str]] = {
    "first image": [
        f"{FIRST_IMAGE}: ~/firstkey/dev deb",
        f"{FIRST_IMAGE}: mmdebstrap --quiet --variant=minbase \\",
        f"{FIRST_IMAGE}: cat >rootfs/etc/firstkey/firstkey.conf.d/50-imag",
        f'{FIRST_IMAGE}: firstkey audit --root rootfs || echo "not fit to',
        f"{FIRST_IMAGE}: firstkey seal --root rootfs --dry-run",
        f"{FIRST_IMAGE}: firstkey audit --root rootfs",
        f"{FIRST_IMAGE}: ssh-keygen -q -t ed25519 -N '' -C first-image -f",
        f"{FIRST_IMAGE}: systemd-nspawn --quiet --directory=rootfs --boot",
        f"{FIRST_IMAGE}: until firstkey known-hosts --host 127.0.0.1 cons",
        f'{FIRST_IMAGE}: kill "$machine" "$imds"',
    ],
    "moving": [
        f"{MOVING}: touch /etc/cloud/cloud-init.disabled",
        f"{MOVING}: cat >/etc/firstkey/firstkey.conf.d/50-local.conf",
        f"{MOVING}: rm -f /etc/ssh/sshd_config.d/50-cloud-init.conf",
        f"{MOVING}: apt-get purge --simulate cloud-init",
        f"{MOVING}: firstkey seal --yes",
    ],
    "script": [
        f"{MOVING}: chmod a-x /etc/rc.local",
        f"{MOVING}: umask 077",
        f"{MOVING}: firstkey run --dry-run",
        "docs/doctor.md: firstkey doctor",
        "docs/authorized-keys-command.md: cd /usr/share/doc/firstkey/examples/authorized-k",
        "docs/recipes.md: firstkey seal --yes --rule root-password --rule",
    ],
    "first login": ["docs/first-login.md: await-host-keys i-0123456789abcdef0 203.0.113.7"],
    "tree": [
        "docs/guidelines.md: firstkey audit --root /mnt/image              #",
        "docs/recipes.md: firstkey audit --root rootfs --sarif > firstkey.",
        "docs/recipes.md: #!/bin/sh",
    ],
}
"""The stories, each typed by a test in its order."""

NEEDS_AWS = "needs an AWS account"
NOT_TYPED: dict[str, str] = {
    "docs/demo.md: $ ./dev demo": "its output is shortened; tests/cli/test_demo.py runs the demo",
    "README.md: ./dev demo     # see it work in a scratch direct": (
        "tests/cli/test_demo.py runs the demo, tests/packaging builds the deb"
    ),
    "README.md: apt-get install ./dist/firstkey_*_all.deb   # De": (
        "needs an archive to install from; tests/packaging and tests/firstboot install both packages"
    ),
    f"{FIRST_IMAGE}: apt-get install --yes mmdebstrap systemd-contain": (
        "would change the machine that runs the tests; ./dev test has installed them"
    ),
    f"{FIRST_IMAGE}: apt-get install --yes ./firstkey_*_all.deb": "is for an instance: docs/moving.md",
    f'{FIRST_IMAGE}: aws ec2 stop-instances --instance-ids "$instance': NEEDS_AWS,
    f"{FIRST_IMAGE}: mount /dev/nvme1n1p1 /mnt": NEEDS_AWS,
    "docs/recipes.md: mount /dev/nvme1n1p1 /mnt/image": (
        "needs a disk to mount; the same commands are typed from docs/guidelines.md"
    ),
    "docs/platforms.md: #!/sbin/openrc-run": "is a file: tests/firstboot/test_openrc.py has OpenRC start it",
    "docs/guidelines.md: firstkey audit --root /mnt/image --json | jq '{v": (
        "what it writes is filled in by hand; tests/image/test_pipelines.py runs it"
    ),
}
"""Why each is not typed."""


def of_story(story: str) -> list[Block]:
    """The blocks of a story, in its order."""
    found = {block.name: block for block in every_block("sh", "console")}
    return [found[name] for name in TYPED[story]]


SECONDS = 600
"""In which a story is typed, on a busy machine too."""


def type_in(blocks: Sequence[Block], directory: Path, *prefix: str, before: str = "", **environ: str) -> str:
    """Type blocks as root in a directory, with `prefix` before the shell; returns what was said.

    `before` is typed first. The first command that fails is the last, and fails the test.
    """
    script = directory / ".typed"
    script.write_text(f"set -eu\n{before}\n" + "".join(block.text for block in blocks))
    said = directory / ".said"
    with said.open("w") as file:
        done = subprocess.run(
            [*prefix, "bash", "-x", str(script)],
            check=False, cwd=directory, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=SECONDS,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **environ},
        )  # fmt: skip
    out = said.read_text(errors="replace")
    assert done.returncode == 0, out[-6000:]
    return out
