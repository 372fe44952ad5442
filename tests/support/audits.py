"""Images to audit, a good and a bad one, and `firstkey audit` as people run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import fork_server
from image_builder import Builder

from firstkey.image import rules
from firstkey.image.rules import boot

ENABLED = "/etc/systemd/system/multi-user.target.wants/firstkey.service"


class Run(NamedTuple):
    status: int
    out: bytes
    err: str

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    def rule(self, name: str) -> dict[str, Any]:
        return next(rule for rule in self.report["rules"] if rule["id"] == name)


# Root without the power to read what its mode forbids (capabilities(7)).
POWERLESS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")


def audit(builder: Builder, *options: str, before: Sequence[str] = ()) -> Run:
    """Run the command on the tree, as people do."""
    argv = ("audit", "--root", str(builder.root), *options)
    if not before:
        status, out, err = fork_server.firstkey(*argv, environ=os.environ, timeout=100)
        return Run(status, out, err.decode())
    done = subprocess.run(
        [*before, sys.executable, "-m", "firstkey", *argv],
        capture_output=True,
        check=False,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    return Run(done.returncode, done.stdout, done.stderr.decode())


def grow_clean(tree: Builder) -> None:
    """An image that is fit to share."""
    tree.file("/etc/passwd", "root:x:0:0::/root:/bin/bash\nadmin:x:1000:1000::/home/admin:/bin/sh\n")
    tree.file("/etc/shadow", "root:*:19000:0:99999:7:::\nadmin:!:19000:0:99999:7:::\n", mode=0o640)
    tree.file("/etc/group", "root:x:0:\nadmin:x:1000:\n")
    tree.file("/etc/machine-id", "uninitialized\n", mode=0o444)
    tree.grow(boot.INSTALLED)
    tree.link(ENABLED, "/usr/lib/systemd/system/firstkey.service")
    tree.file("/usr/bin/tool", b"\x7fELF" + bytes(range(256)) * 64, mode=0o755)
    tree.directory("/root")
    tree.directory("/home/admin/.ssh")
    tree.directory("/var/log")


def grow_dirty(tree: Builder) -> None:
    """Every rule's failing example in one tree, as far as they go together."""
    for rule in rules.ALL:
        if rule.id not in ("everything-seen", "publisher", "launch-user-sudo"):
            tree.grow(rule.failing)
