"""G9: no access keys in what people write."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.image import examples, key_formats, secrets
from firstkey.image.rule import CREDENTIALS, Rule
from firstkey.image.verdict import ERROR, Doubt, Verdict
from firstkey.image.watches import Needle

if TYPE_CHECKING:
    from firstkey.image.subject import Image
    from firstkey.image.watches import Sighting

KIND = "access-key"

# What stands between a name and its value in INI, shell, JSON, YAML, XML, Terraform and programs.
_BETWEEN = rb"\W{1,24}(?:(?i:default|key|name|string|value)\W{1,24}){0,3}"
_SECRET_NAME = rb"(?i:ecret(?:[ _.-]?(?:access)?[ _.-]?key|(?<=aws.secret)))"
# AWS documents neither alphabet; these are what all keys that were ever seen are made of.
IDENTIFIER = re.compile(rb"(?<![A-Za-z0-9])A[KS]IA([A-Z2-7]{16})(?![A-Za-z0-9/+=])")
SECRET = re.compile(_SECRET_NAME + _BETWEEN + rb"([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])")


def is_random(text: bytes) -> bool:
    """Whether it was drawn by lot: examples say so, repeat themselves, or go through the alphabet."""
    steps = sum(after - before == 1 for before, after in zip(text, text[1:]))
    return b"EXAMPLE" not in text.upper() and len(set(text)) >= 8 and steps * 4 < len(text)


def identifier(content: bytes, place: int) -> str | None:
    """Judge `AKIA` and `ASIA`."""
    found = IDENTIFIER.match(content, place)
    what = "an AWS access key" if content.startswith(b"AKIA", place) else "an AWS session key"
    return what if found and is_random(found[1]) else None


def secret(content: bytes, place: int) -> str | None:
    """Judge the middle of `secret`: forty letters of all kinds behind a name that ends in `secret key`."""
    found = SECRET.match(content, place)
    if not found or found[1].islower() or found[1].isupper() or not re.search(rb"[0-9]", found[1]):
        return None
    return "an AWS secret key" if is_random(found[1]) else None


WATCHES = (
    Needle(KIND, b"AKIA", identifier),
    Needle(KIND, b"ASIA", identifier),
    Needle(KIND, b"ecret", secret),
    Needle(KIND, b"ECRET", secret),
)


def check(image: Image) -> Verdict:
    """A finding for each file, and for each place where a scanner saw what no rule here did."""
    other = image.scanned
    known = {(seen.path, seen.line) for kind in (KIND, *key_formats.KINDS) for seen in image.sightings(kind)}
    more = {_outermost(image, seen) for seen in other.sightings if (seen.path, seen.line) not in known}
    every = sorted((*image.sightings(KIND), *more), key=lambda seen: (seen.path, seen.line or 0, seen.detail))
    found = secrets.sorted_out(image, every)
    verdict = secrets.verdict(image, found, "access key")
    # What a scanner saw is for a person to judge.
    own = {seen.path for seen in image.sightings(KIND)}
    findings = (each if each.path in own else each._replace(changes=()) for each in verdict.findings)
    doubts = (Doubt("/", other.refusal),) if other.refusal else ()
    remark = " ".join(filter(None, (verdict.remark, other.remark)))
    return Verdict(tuple(findings), (*verdict.doubts, *doubts), remark=remark)


def _outermost(image: Image, seen: Sighting) -> Sighting:
    """Scanners name what is in an archive as ARCHIVE!MEMBER: the file that there is, and no line."""
    archive = seen.path.partition("!")[0]
    if archive == seen.path or image.is_file(seen.path) or not image.is_file(archive):
        return seen
    return seen._replace(path=archive, line=None)


RULES = (
    Rule(
        id="access-keys",
        title="There are no access keys in files",
        guideline="G9",
        severity=ERROR,
        option=CREDENTIALS,
        prose=(
            "AWS's access keys are searched for in every text file that no package brought, in each "
            "spelling that programs read: histories, dot files, scripts, configuration, logs. "
            "Examples (those of AWS's documentation, and keys that are not random) are left out. "
            "Tokens of other services are for scanners that know them all: audit runs kingfisher, "
            "gitleaks or trufflehog, the first that is installed (--secrets), in a box without a "
            "network, and names it. seal overwrites and removes the files with AWS keys; to keep a "
            "file, remove the key from it first. Revoke every key that is found as well: it may have "
            "been copied."
        ),
        check=check,
        failing={
            "/srv/app/.env": f"AWS_ACCESS_KEY_ID={examples.access_key('AKIA', 'Z7QK3WJT5NP2XR6M')}\n",
            "/root/.profile": (
                "export AWS_SECRET_ACCESS_KEY="
                f"{examples.access_key('q7Rz/W2xT9', '+bN4mK8vY3hL6pD1sG5jF0cAeUiOuX')}\n"
            ),
        },
        passing={
            "/srv/app/README": "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE (of AWS's own documentation)\n",
            "/root/.profile": "export AWS_SECRET_ACCESS_KEY=$(cat key)\n",
        },
        watches=WATCHES,
    ),
)
