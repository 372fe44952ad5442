"""Beyond the guide: that everything could be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image.rule import Rule, by_hand
from firstkey.image.verdict import ERROR, Verdict

if TYPE_CHECKING:
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image


def check(image: Image) -> Verdict:
    """What the scan could not see, and the homes that could not be opened."""
    left_out = ", ".join(f"{mount.path} ({mount.kind})" for mount in image.scan.left_out)
    remark = f"Not looked into, since it is mounted from elsewhere: {left_out}." if left_out else ""
    homes = len(image.homes) and tuple(image.home_doubts)
    return Verdict(doubts=(*image.scan.doubts, *(homes or ())), remark=remark)


def _failing(tree: Builder) -> None:
    tree.file("/etc/passwd", "ann:x:1000:1000::/srv/ann:/bin/sh\n")
    tree.link("/srv/ann", "ann")


def _passing(tree: Builder) -> None:
    tree.file("/etc/passwd", "ann:x:1000:1000::/srv/ann:/bin/sh\n")
    tree.directory("/srv/ann")


RULE = Rule(
    id="everything-seen",
    title="Everything could be looked at",
    guideline="beyond",
    severity=ERROR,
    prose=(
        "What could not be read is no proof that nothing is there. A file or directory that may not be "
        "read, a home behind a link that goes round, a file so large that only its ends were looked at, "
        "directories that lie too deep, a packed file that is broken, encrypted or more than is unpacked: "
        "each makes the verdict unknown, with its reason. What is mounted "
        "into the tree from a network, and the kernel's own file systems, are no part of an image, and "
        "neither are the host's own files: a file system that is mounted outside of the tree as well, or a "
        "directory from elsewhere that is bound into it. They are left out, and named; an image's own "
        "partitions and subvolumes belong to it where they are mounted nowhere else."
    ),
    check=check,
    remedy=by_hand,
    failing=_failing,
    passing=_passing,
)
