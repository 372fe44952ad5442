"""G1: the AMI tools are found by who looks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image.changes import Write
from firstkey.image.rule import Rule
from firstkey.image.verdict import NOTE, Finding, Verdict, not_applicable

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

DIRECTORY = "/opt/aws/bin"
PROFILE = "/etc/profile.d/aws-ami-tools.sh"
LINE = b"export PATH=$PATH:/opt/aws/bin\n"


def check(image: Image) -> Verdict:
    """Look for /opt/aws/bin in what login shells read."""
    if not image.glob(f"{DIRECTORY}/ec2-*"):
        return not_applicable(f"there are no AMI tools in {DIRECTORY}")
    for path in ("/etc/profile", "/etc/environment", *image.glob("/etc/profile.d/*.sh")):
        if DIRECTORY.encode() in (image.read(path) or b""):
            return Verdict()
    reason = f"{DIRECTORY} has the AMI tools and is on nobody's PATH."
    return Verdict((Finding(PROFILE, reason, f"echo '{LINE.decode().strip()}' > {PROFILE}"),))


def remedy(image: Image) -> list[Change]:
    """A file that every login shell reads."""
    if not check(image).findings:
        return []
    return [Write(PROFILE, f"put {DIRECTORY} on the PATH", image.read(PROFILE), LINE)]


def _failing(tree: Builder) -> None:
    tree.file("/opt/aws/bin/ec2-bundle-vol", "#!/bin/sh\n", mode=0o755)


def _passing(tree: Builder) -> None:
    _failing(tree)
    tree.file("/etc/profile.d/aws.sh", "PATH=$PATH:/opt/aws/bin\n")


RULE = Rule(
    id="ami-tools-path",
    title="The AMI tools are on the PATH",
    guideline="G1",
    severity=NOTE,
    prose=(
        "Amazon Linux keeps the AMI tools in /opt/aws/bin, and the guide has that directory put on the "
        "PATH by a file in /etc/profile.d. Checked where the tools are there; seal writes "
        "/etc/profile.d/aws-ami-tools.sh."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
)
