"""G1: the AMI tools are current, and found by who looks for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO

from firstkey import image_reasons
from firstkey.image import changes, packed
from firstkey.image.changes import Update, Write
from firstkey.image.rule import AMI_TOOLS, Rule
from firstkey.image.subject import Image
from firstkey.image.verdict import NOTE, Finding, Part, Unknown, Verdict, not_applicable
from firstkey.reasons import Refusal

PROGRAMS = ("/opt/aws/bin/ec2-bundle-vol", "/usr/bin/ec2-bundle-vol", "/usr/local/bin/ec2-bundle-vol")
_NAMES = "|".join(changes.AMI_TOOLS).encode()
_PRIMARY = re.compile(
    rb"<name>(" + _NAMES + rb")</name>(?:[^<]|<(?!name>|version )){0,4096}"
    rb'<version [^>]{0,200}?ver="([^"]{1,99})" rel="([^"]{1,99})"'
)
LISTS = {
    "/var/lib/apt/lists/*_Packages": re.compile(
        rb"^Package: (" + _NAMES + rb")\n(?:(?!Package: ).+\n)*?Version: (.+)$", re.MULTILINE
    ),
    "/var/cache/yum/*/*/*/*-primary.xml.gz": _PRIMARY,
    "/var/cache/dnf/*/repodata/*-primary.xml.gz": _PRIMARY,
}
"""Where package managers keep what their archives have, and how a version stands there behind a name."""
LIMIT = 256 * 1024 * 1024


def _check(image: Image) -> Iterator[Part]:
    versions = {package: image.packages.version(package) for package in changes.AMI_TOOLS}
    package, version = next(((name, found) for name, found in versions.items() if found), ("", ""))
    place = next((path for path in PROGRAMS if image.tree.exists(path)), None)
    if not (version or place):
        yield not_applicable("no AMI tools are installed; only instance-store images need them")
        return
    unknowns: list[Unknown] = []
    known = list(_known_versions(image, package, unknowns)) if version else []
    newest = max(known, key=ordered, default="")
    if newest and ordered(newest) <= ordered(version):
        yield Verdict(remark=f"{package} {version} is the newest that is known.")
    elif newest:
        update = Update("apt" if image.tree.exists("/var/lib/dpkg/status") else "yum", package)
        words = f"Run in the image, or on an instance of it: {' '.join(update.argv)}"
        remedy = "" if image.tree.is_running_system else words
        reason = f"{package} {version} is installed, and {newest} is there."
        yield Finding(place or PROGRAMS[1], reason, remedy, changes=(update,))
    elif not unknowns:
        why = f"the package lists in the image do not know {package}"
        if not version:
            why = "the AMI tools belong to no package, so which version they are is unknown"
        yield Unknown(place or PROGRAMS[1], Refusal(image_reasons.PACKAGES_UNKNOWN, why))
    yield from unknowns


def ordered(version: str) -> str:
    """The version as a text that sorts as package managers have it: numbers by value, ~ before the end."""
    plain = re.sub("(?<![0-9])0+(?=[0-9])", "", version)
    return re.sub("[0-9]+", lambda found: f"{len(found[0]):09d}{found[0]}", plain).replace("~", "\0") + "\1"


def _known_versions(image: Image, package: str, unknowns: list[Unknown]) -> Iterator[str]:
    for path, pattern in ((path, pattern) for place, pattern in LISTS.items() for path in image.glob(place)):
        content = image.read(path, limit=LIMIT) or b""
        text: bytes | bytearray = content
        if path.endswith(".gz"):
            text = bytearray()
            try:
                for part in packed.unpacked(BytesIO(content), content[:8], plenty=LIMIT):
                    text += part
            except packed.Unfinished as error:
                unknowns.append(Unknown(path, Refusal(error.reason, f"{path} {error}")))
        for name, *version in pattern.findall(text):
            if name == package.encode():
                yield b"-".join(version).decode("utf-8", "replace")


def _example(version: str) -> dict[str, str]:
    return {
        "/var/lib/dpkg/status": f"Package: ec2-ami-tools\nStatus: install ok installed\nVersion: {version}\n",
        "/var/lib/dpkg/info/ec2-ami-tools.list": "/usr/bin/ec2-bundle-vol\n",
        "/var/lib/apt/lists/example_Packages": "Package: ec2-ami-tools\nVersion: 1.5.19-1\n",
    }


# --- where they are found -------------------------------------------------------------------------

DIRECTORY = "/opt/aws/bin"
PROFILE = "/etc/profile.d/aws-ami-tools.sh"
LINE = b"export PATH=$PATH:/opt/aws/bin\n"


def _check_path(image: Image) -> Iterator[Part]:
    read = ("/etc/profile", "/etc/environment", *image.glob("/etc/profile.d/*.sh"))
    if not image.glob(f"{DIRECTORY}/ec2-*"):
        yield not_applicable(f"there are no AMI tools in {DIRECTORY}")
    elif not any(DIRECTORY.encode() in (image.read(path) or b"") for path in read):
        reason = f"{DIRECTORY} has the AMI tools and is on no user's PATH."
        write = Write(PROFILE, f"put {DIRECTORY} on the PATH", image.read(PROFILE), LINE)
        yield Finding(PROFILE, reason, changes=(write,))


RULES = (
    Rule(
        id="ami-tools",
        title="The AMI tools are current",
        guideline="G1",
        prose="""An image of an instance with an instance store is made with the AMI tools in that image.
        Their version is compared with the newest in the image's package lists; without lists, the verdict is
        unknown. seal updates them with --update-ami-tools, and only on the running system, since no program
        of an image is run.""",
        check=_check,
        failing=_example("1.5.7-1"),
        passing=_example("1.5.19-1"),
        option=AMI_TOOLS,
    ),
    Rule(
        id="ami-tools-path",
        title="The AMI tools are on the PATH",
        guideline="G1",
        severity=NOTE,
        prose="""The guide puts /opt/aws/bin, where Amazon Linux keeps the AMI tools, on the PATH by a file in
        /etc/profile.d. Where the tools are installed and no such file names it, seal writes
        /etc/profile.d/aws-ami-tools.sh.""",
        check=_check_path,
        failing={f"{DIRECTORY}/ec2-bundle-vol": "#!/bin/sh\n"},
        passing={
            f"{DIRECTORY}/ec2-bundle-vol": "#!/bin/sh\n",
            "/etc/profile.d/aws.sh": "PATH=$PATH:/opt/aws/bin\n",
        },
    ),
)
