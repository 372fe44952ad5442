"""G1: the AMI tools are current, and found by who looks for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

from firstkey import image_reasons
from firstkey.image import changes, packed
from firstkey.image.changes import Update, Write
from firstkey.image.rule import AMI_TOOLS, Rule
from firstkey.image.verdict import NOTE, Doubt, Finding, Verdict, not_applicable
from firstkey.reasons import Refusal

if TYPE_CHECKING:
    from firstkey.image.subject import Image

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


def check(image: Image) -> Verdict:
    """Hold the installed version against the newest that the package manager has heard of."""
    versions = {package: image.packages.version(package) for package in changes.AMI_TOOLS}
    package, version = next(((name, found) for name, found in versions.items() if found), ("", ""))
    place = next((path for path in PROGRAMS if image.tree.exists(path)), None)
    if not (version or place):
        return not_applicable("no AMI tools are installed; only instance-store images need them")
    doubts: list[Doubt] = []
    known = list(_known_versions(image, package, doubts)) if version else []
    if not known:
        said = f"the package lists in the image do not know {package}"
        if not version:
            said = "the AMI tools belong to no package, so which version they are is unknown"
        unknown = Doubt(place or PROGRAMS[1], Refusal(image_reasons.PACKAGES_UNKNOWN, said))
        return Verdict(doubts=tuple(doubts or [unknown]))
    newest = max(known, key=ordered)
    if ordered(newest) <= ordered(version):
        return Verdict(doubts=tuple(doubts), remark=f"{package} {version} is the newest that is known.")
    reason = f"{package} {version} is installed, and {newest} is there."
    update = Update("apt" if image.tree.exists("/var/lib/dpkg/status") else "yum", package)
    words = f"Run in the image, or on an instance of it: {' '.join(update.argv)}"
    finding = Finding(
        place or PROGRAMS[1], reason, "" if image.tree.is_running_system else words, changes=(update,)
    )
    return Verdict((finding,), tuple(doubts))


def ordered(version: str) -> str:
    """The version as a text that sorts as package managers have it: numbers by value, ~ before the end."""
    return re.sub("[0-9]+", _number, version).replace("~", "\0") + "\1"


def _number(found: re.Match[str]) -> str:
    digits = found[0].lstrip("0")
    return f"{len(digits):09d}{digits}"


def _known_versions(image: Image, package: str, doubts: list[Doubt]) -> Iterator[str]:
    for places, pattern in LISTS.items():
        for path in image.glob(places):
            for name, *version in pattern.findall(_text(image, path, doubts)):
                if name == package.encode():
                    yield b"-".join(version).decode("utf-8", "replace")


def _text(image: Image, path: str, doubts: list[Doubt]) -> bytes | bytearray:
    content = image.read(path, limit=LIMIT) or b""
    if not path.endswith(".gz"):
        return content
    text = bytearray()
    try:
        for part in packed.unpacked(BytesIO(content), content[:8], plenty=LIMIT):
            text += part
    except packed.Unfinished as error:
        doubts.append(Doubt(path, Refusal(error.reason, f"{path} {error}")))
    return text


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


def check_path(image: Image) -> Verdict:
    """Look for /opt/aws/bin in what login shells read."""
    if not image.glob(f"{DIRECTORY}/ec2-*"):
        return not_applicable(f"there are no AMI tools in {DIRECTORY}")
    for path in ("/etc/profile", "/etc/environment", *image.glob("/etc/profile.d/*.sh")):
        if DIRECTORY.encode() in (image.read(path) or b""):
            return Verdict()
    reason = f"{DIRECTORY} has the AMI tools and is on no user's PATH."
    write = Write(PROFILE, f"put {DIRECTORY} on the PATH", image.read(PROFILE), LINE)
    return Verdict((Finding(PROFILE, reason, changes=(write,)),))


RULES = (
    Rule(
        id="ami-tools",
        title="The AMI tools are current",
        guideline="G1",
        prose=(
            "Images that are backed by an instance store are bundled with the AMI tools, and a person "
            "who makes an image of such an instance uses the tools in it. Their version is compared "
            "with the newest in the package lists of the image; without lists, the verdict is "
            "unknown. An image without the tools needs none. seal updates them only with "
            "--update-ami-tools, and only on the running system, since no program of an image is run."
        ),
        check=check,
        failing=_example("1.5.7-1"),
        passing=_example("1.5.19-1"),
        option=AMI_TOOLS,
    ),
    Rule(
        id="ami-tools-path",
        title="The AMI tools are on the PATH",
        guideline="G1",
        severity=NOTE,
        prose=(
            "Amazon Linux keeps the AMI tools in /opt/aws/bin, and the guide adds that directory to "
            "the PATH by a file in /etc/profile.d. The rule applies only where the tools are "
            "installed; seal writes /etc/profile.d/aws-ami-tools.sh."
        ),
        check=check_path,
        failing={f"{DIRECTORY}/ec2-bundle-vol": "#!/bin/sh\n"},
        passing={
            f"{DIRECTORY}/ec2-bundle-vol": "#!/bin/sh\n",
            "/etc/profile.d/aws.sh": "PATH=$PATH:/opt/aws/bin\n",
        },
    ),
)
