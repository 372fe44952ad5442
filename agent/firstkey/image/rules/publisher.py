"""G8: the image says who made it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from firstkey.config import Image as Settings
from firstkey.image.changes import Change, Write
from firstkey.image.rule import Rule
from firstkey.image.subject import Image
from firstkey.image.verdict import NOTE, Finding, Part

FILE = "/etc/image-info"
BANNER = "/etc/motd.d/50-image-info"  # pam_motd(8) shows what is there, the manual's own example aside
OS_RELEASE = "/etc/os-release"
HEADER = "# Who made this image. Written by firstkey seal, from [Image] in its configuration.\n"
NAME = b"PUBLISHER="


def _check(image: Image) -> Iterator[Part]:
    if image.settings.publisher:
        made = tuple(_changes(image))
        if made:
            reason = f"The image does not say that {image.settings.publisher} made it."
            yield Finding(made[0].path, reason, changes=made)
    elif NAME not in (image.read(FILE) or b""):
        reason = "The image does not say who made it; users see an account number only."
        yield Finding(FILE, reason, "Set Publisher= in [Image] of firstkey.conf; seal writes the rest")


def _changes(image: Image) -> Iterator[Change]:
    """The readable file, which shells can source; the banner; fields of os-release(5) for images."""
    settings, before = image.settings, image.read(FILE)
    fields = {
        "PUBLISHER": settings.publisher,
        "CONTACT": settings.contact,
        "DESCRIPTION": settings.description,
    }
    quoted = {key: re.sub(r'(["$`\\])', r"\\\1", value) for key, value in fields.items() if value}
    after = (HEADER + "".join(f'{key}="{value}"\n' for key, value in quoted.items())).encode()
    if before != after:
        yield Write(FILE, "say who made the image", before, after)
    before, after = image.read(BANNER), f"{ami_description(settings)}\n".encode()
    if image.wants_banner and before != after:
        yield Write(BANNER, "say at each login who made the image", before, after)
    before = image.read(OS_RELEASE)
    if before is not None and not re.search(rb"^IMAGE_ID=", before, re.MULTILINE):
        name = re.sub(r"[^a-z0-9._-]+", "-", settings.publisher.lower()).strip("-") or "image"
        gap = "" if before.endswith(b"\n") or not before else "\n"
        lines = f"{gap}IMAGE_ID={name}\nIMAGE_VERSION={time.strftime('%Y.%m.%d', time.gmtime())}\n"
        yield Write(OS_RELEASE, "name the image", before, before + lines.encode())


def ami_description(settings: Settings) -> str:
    """Ready for `aws ec2 create-image --description` (255 characters at most, EC2 API reference)."""
    parts = [settings.description, f"by {settings.publisher}" if settings.publisher else "", settings.contact]
    return ", ".join(part for part in parts if part)[:255]


RULES = (
    Rule(
        id="publisher",
        title="The image says who made it",
        guideline="G8",
        severity=NOTE,
        prose="""Users of an image see an account number, and a name only if its maker gives one. seal writes
        Publisher=, Contact= and Description= in [Image] of firstkey.conf to /etc/image-info, and IMAGE_ID=
        and IMAGE_VERSION= to os-release where it has none; with --banner, to the login message too. It also
        prints a description for the AMI itself, ready to paste.""",
        check=_check,
        failing={
            "/etc/firstkey/firstkey.conf": "[Image]\nPublisher=Example Ltd.\nContact=a@example.com\n",
            "/usr/lib/os-release": "ID=debian\n",
            OS_RELEASE: "->../usr/lib/os-release",
        },
        passing={FILE: 'PUBLISHER="Example Ltd."\n'},
    ),
)
