"""Secrets that the scan saw: told apart from what packages brought, and taken out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from firstkey import NamedTuple
from firstkey.image import changes, key_formats
from firstkey.image.verdict import Doubt, Finding, Verdict
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.subject import Image
    from firstkey.image.watches import Sighting

LIMIT = 64 * 1024 * 1024
_COMPILED = re.compile(r"(.*)/__pycache__/([^/.]+)\.[^/]*\.pyc", re.DOTALL)  # PEP 3147


class Sorted(NamedTuple):
    """Sightings that are somebody's, how many are a package's own, and what could not be known."""

    secrets: tuple[Sighting, ...]
    of_packages: tuple[str, ...]
    doubts: tuple[Doubt, ...]


def sorted_out(image: Image, sightings: Iterable[Sighting], *, claimed: Collection[str] = ()) -> Sorted:
    """Leave out what another rule claims, and what is as a package brought it."""
    secrets: list[Sighting] = []
    packages: list[str] = []
    doubts: list[Doubt] = []
    for sighting in sightings:
        if sighting.path in claimed:
            continue
        try:
            package = package_of(image, sighting.path)
        except FirstkeyError as error:
            package = None
            doubts.append(Doubt("/var/lib/rpm", error.refusal))
        if package:
            packages.append(package)
        else:
            secrets.append(sighting)
    return Sorted(tuple(secrets), tuple(packages), tuple(dict.fromkeys(doubts)))


@lru_cache(maxsize=4096)
def package_of(image: Image, path: str) -> str | None:
    """The package that brought exactly this file. Raises FirstkeyError where its records cannot be read."""
    content = content_of(image, path)
    if content is None:
        return None
    return image.packages.owner(path, content) or _package_of_source(image, path, content)


def _package_of_source(image: Image, path: str, compiled: bytes) -> str | None:
    """Python's compiled files are made on the machine: they count as their source if their keys are its."""
    match = _COMPILED.fullmatch(path)
    source = f"{match[1]}/{match[2]}.py" if match else path
    content = content_of(image, source) if match else None
    if content is None or not all(body in content for body in key_formats.pem_bodies(compiled)):
        return None
    return image.packages.owner(source, content)


def content_of(image: Image, path: str) -> bytes | None:
    """What is in a file; None where there is none, or none that can be read whole (told elsewhere)."""
    try:
        return image.read(path, limit=LIMIT)
    except FirstkeyError:
        return None


def verdict(image: Image, found: Sorted, what: str | None) -> Verdict:
    """A finding for each, and a remark about what packages brought. `what`: as which seal removes it."""
    findings = tuple(finding(image, sighting, what) for sighting in found.secrets)
    return Verdict(findings, found.doubts if findings else (), remark=_remark(found.of_packages))


def finding(image: Image, sighting: Sighting, what: str | None) -> Finding:
    """What was seen where. Never what it says."""
    made = (removal(image, sighting.path, what),) if what else ()
    return Finding(sighting.path, f"There is {sighting.detail} in it.", line=sighting.line, changes=made)


def removal(image: Image, path: str, what: str) -> Change:
    """Overwrite and remove it, and the links that led to it."""
    return changes.Remove(path, what, wiping=True, links=image.links_to(path))


def _remark(packages: Collection[str]) -> str:
    """How many files were left out, and whose they are."""
    if not packages:
        return ""
    names = sorted(set(packages))
    some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    files = "1 file is" if len(packages) == 1 else f"{len(packages)} files are"
    return f"{files} left out: as the package brought it ({some})."
