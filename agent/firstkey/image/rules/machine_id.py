"""Beyond the guide: the image has no machine-id of its own."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.image import units
from firstkey.image.changes import Link, Write
from firstkey.image.door import seen
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, NOTE, Finding, Verdict
from firstkey.reasons import FirstkeyError
from firstkey.system import walk
from firstkey.text import visible

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

FILE = "/etc/machine-id"
DBUS = "/var/lib/dbus/machine-id"
UNSET = b"uninitialized\n"  # machine-id(5), FIRST BOOT SEMANTICS
MODE = 0o444
ID = re.compile(rb"(?:[0-9a-f]{32}|uninitialized)?\s*")
"""What the file holds that a link may lead to: nothing else is written to."""


def check(image: Image) -> Verdict:
    """Look at both places."""
    content = _content(image)
    findings = []
    if content is not None and content.strip() != UNSET.strip():
        findings.append(_finding(content))
    if _has_dbus_id(image):
        reason = "This is another copy of the machine-id: all instances would have it."
        findings.append(Finding(DBUS, reason, f"ln -sf {FILE} {DBUS}"))
    return Verdict(tuple(findings))


def _content(image: Image) -> bytes | None:
    """What it says; of links that go round, nothing, which no system boots with."""
    try:
        return image.read(FILE)
    except FirstkeyError as error:
        if error.reason is not reasons.SYMLINK_REFUSED or not _is_link(image):
            raise
        return b""


def _is_link(image: Image) -> bool:
    status = image.status(FILE)
    return status is not None and stat.S_ISLNK(status.st_mode)


def _leads_to_dbus(image: Image) -> bool:
    """Whether it is a link to D-Bus's copy, which becomes a link to it; or the two already go round."""
    if not _is_link(image):
        return False
    try:
        found, dbus = walk.follow(image.tree, FILE), walk.follow(image.tree, DBUS)
    except FirstkeyError:
        return True
    return found is not None and dbus is not None and found.path == dbus.path and not dbus.links


def _finding(content: bytes) -> Finding:
    remedy = f"echo uninitialized > {FILE}"
    if content.strip():
        return Finding(FILE, "All instances of the image would have this machine-id.", remedy)
    reason = "An empty machine-id is filled at boot, but is no first boot for services that wait for one."
    return Finding(FILE, reason, remedy, severity=NOTE)


def _has_dbus_id(image: Image) -> bool:
    copy, own = image.file(DBUS, []), image.file(FILE, [])
    if copy is None or not copy.status.st_size:
        return False
    if own is None or own.path != copy.path:
        return True
    return bool(own.links) and not copy.links


def remedy(image: Image) -> list[Change]:
    """What machine-id(5) has for images: a first boot to come."""
    made: list[Change] = []
    content = _content(image)
    is_id = content is not None and (not _is_link(image) or ID.fullmatch(content))
    if content is not None and is_id and content.strip() != UNSET.strip():
        what = f"unset the machine-id{_first_boot(image)}"
        link = image.status(FILE) if _leads_to_dbus(image) else None
        made.append(Write(FILE, what, content, UNSET, MODE, link=seen(link) if link else None))
    if _has_dbus_id(image):
        made.append(Link(DBUS, FILE, "the machine-id of D-Bus"))
    return made


def _first_boot(image: Image) -> str:
    """What else comes of it, in words: a unit that cannot be read must not keep the step from being done."""
    try:
        started = units.newly_enabled(image)
    except FirstkeyError:
        return ", whose first boot enables units by preset,"
    return f", whose first boot enables by preset: {visible(', '.join(started))}," if started else ""


def _failing(tree: Builder) -> None:
    tree.file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    tree.file("/var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n")


def _passing(tree: Builder) -> None:
    tree.file("/etc/machine-id", "uninitialized\n")
    tree.link("/var/lib/dbus/machine-id", "/etc/machine-id")


RULE = Rule(
    id="machine-id",
    title="The machine-id is not set",
    guideline="beyond",
    severity=ERROR,
    prose=(
        "Instances with the same machine-id get the same address from some DHCP servers, mix their "
        "journals and look like one machine to much else. /etc/machine-id must say uninitialized, or not "
        "be there; an empty one is a note only, since systemd then sees no first boot. D-Bus's own copy "
        "must be a link. seal writes uninitialized, and makes the copy a link, also where it was the other "
        "way round. At such a first boot "
        "systemd also applies its presets, by which what no preset names is enabled: seal names, with that "
        "step, the units that are off now and would be on. What an image shall not start is better masked, "
        "or given a preset, than disabled."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
)
