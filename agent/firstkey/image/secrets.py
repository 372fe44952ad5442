"""Secrets that the scan saw: without those that packages brought, and their removal."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache

from firstkey.image import changes, key_formats
from firstkey.image.changes import Change
from firstkey.image.scan import Sighting
from firstkey.image.subject import Image
from firstkey.image.verdict import Finding, Unknown, Verdict
from firstkey.reasons import FirstkeyError

LIMIT = 64 * 1024 * 1024
_COMPILED = re.compile(r"(.*)/__pycache__/([^/.]+)\.[^/]*\.pyc", re.DOTALL)  # PEP 3147


def verdict(
    image: Image, sightings: Iterable[Sighting], what: str | None, *, claimed: Collection[str] = ()
) -> Verdict:
    """What was seen where, never what it says; a remark on what is as a package brought it, and no finding.

    `what`: as which seal removes the file; None: a person does. `claimed`: what another rule reports.
    """
    findings: list[Finding] = []
    unknowns: list[Unknown] = []
    packages: list[str] = []
    for sighting in sightings:
        path, package = sighting.path, None
        if path in claimed:
            continue
        try:
            package = package_of(image, path)
        except FirstkeyError as error:
            unknowns.append(Unknown("/var/lib/rpm", error.refusal))
        if package:
            packages.append(package)
        else:
            made = (removal(image, path, what),) if what else ()
            reason = f"There is {sighting.detail} in it."
            findings.append(Finding(path, reason, line=sighting.line, changes=made))
    names = sorted(set(packages))
    some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    files = "1 file is" if len(packages) == 1 else f"{len(packages)} files are"
    remark = f"{files} left out: as the package brought it ({some})." if packages else ""
    return Verdict(tuple(findings), tuple(unknowns), remark=remark)


@lru_cache(maxsize=4096)
def package_of(image: Image, path: str) -> str | None:
    """The package that brought exactly this file. Raises FirstkeyError where its records cannot be read.

    Python's compiled files are made on the machine: they count as their source if their keys are its.
    """
    content = content_of(image, path)
    if content is None:
        return None
    package, compiled = image.packages.owner(path, content), _COMPILED.fullmatch(path)
    if package or not compiled:
        return package
    path = f"{compiled[1]}/{compiled[2]}.py"
    source = content_of(image, path)
    if source is None or not all(body in source for body in key_formats.pem_bodies(content)):
        return None
    return image.packages.owner(path, source)


def content_of(image: Image, path: str, *, limit: int = LIMIT) -> bytes | None:
    """What is in a file; None where there is none, or none that can be read whole (an unknown elsewhere)."""
    try:
        return image.read(path, limit=limit)
    except FirstkeyError:
        return None


def removal(image: Image, path: str, what: str) -> Change:
    """Overwrite and remove it, and the links that led to it."""
    return changes.Remove(path, what, wiping=True, links=image.links_to(path))
