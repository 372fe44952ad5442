"""Beyond the guide: nothing that cloud-init keeps of one instance."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.image import changes, credential_files, leftovers
from firstkey.image.leftovers import EMPTY, Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, Finding, Verdict

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

KIND = "cloud-init-data"
DATA = "/var/lib/cloud"
LINK = f"{DATA}/instance"
WHAT = "what cloud-init keeps of one instance"
PLACES = (
    *(
        Place(
            f"{DATA}/{directory}/*",
            f"{WHAT}, user-data and credentials included",
            whole=True,
            empty_counts=True,
        )
        for directory in ("data", "handlers", "instances", "sem")
    ),
    Place(f"{DATA}/seed", "what cloud-init is given instead of an instance's own user-data"),
    Place("/var/log/cloud-init*.log*", "cloud-init's log, user-data included", EMPTY),
)
# Where it makes, at every boot, what seal takes out of the files of accounts and keys.
_VALUE = rb"[ \t]*(?:\[\s*|(?:\n[ \t]*(?:#[^\n]*)?)*\n[ \t]*-[ \t]+)?[\"']?[^\s\"'#\]{}]{3}"
# So far and no further: each `chpasswd` of a hostile file would else be followed to the file's end.
_INSIDE = rb"(?:[ \t]*\{[^}]{0,500}|(?:\n[ \t][^\n]*){0,50}?\n[ \t]+)"
LOGIN = re.compile(
    rb"^[^#\n]*\b(?:ssh[_-]authorized[_-]keys|(?:hashed[_-]|plain_text_)?passw(?:or)?d)[\"']?[ \t]*:" + _VALUE
    + rb"|^[ \t]*[\"']?chpasswd[\"']?[ \t]*:" + _INSIDE + rb"[\"']?(?:list|users)[\"']?[ \t]*:",
    re.MULTILINE,
)  # fmt: skip
LOGINS = (
    ("/etc/cloud/cloud.cfg", "a login", LOGIN),
    ("/etc/cloud/cloud.cfg.d/*.cfg", "a login", LOGIN),
)


def check(image: Image) -> Verdict:
    """The data of instances, the link that says which one this is, and logins in the configuration."""
    data = leftovers.checker(*PLACES)(image)
    logins = credential_files.checker(KIND, (), (), LOGINS)(image)
    reason = "cloud-init takes every instance for the builder's."
    link = [Finding(LINK, reason, f"rm -rf {changes.quoted(LINK)}")] if image.status(LINK) else []
    return Verdict((*link, *data.findings, *map(_login, logins.findings)), (*data.doubts, *logins.doubts))


def _login(found: Finding) -> Finding:
    reason = "cloud-init gives an account a key or password from here at every boot."
    return Finding(found.path, reason, "Take it out, if it is not meant")


def remedy(image: Image) -> list[Change]:
    """As `cloud-init clean --logs --seed` does, by name."""
    link: list[Change] = [changes.Remove(LINK, WHAT)] if image.status(LINK) else []
    return [*link, *leftovers.remover(*PLACES)(image)]


def _failing(tree: Builder) -> None:
    tree.file("/var/lib/cloud/instances/i-0123456789/user-data.txt", "#!/bin/sh\nTOKEN=...\n", mode=0o600)
    tree.link("/var/lib/cloud/instance", "/var/lib/cloud/instances/i-0123456789")
    tree.file("/var/log/cloud-init.log", "ran\n")


def _passing(tree: Builder) -> None:
    tree.directory("/var/lib/cloud/instances")
    tree.file("/var/lib/cloud/scripts/per-boot/mine.sh", "#!/bin/sh\n", mode=0o755)


RULE = Rule(
    id="cloud-init-data",
    title="cloud-init has kept nothing of an instance",
    guideline="beyond",
    severity=ERROR,
    prose=(
        "cloud-init keeps the user-data of the builder, with whatever secrets are in it, and remembers what "
        "it has done; an image with that gives them away, and may not be set up anew. Checked are "
        "instances, data, semaphores, handlers and seed in /var/lib/cloud, and the logs. seal removes them "
        "as cloud-init clean does; scripts that an administrator put there stay. Keys and passwords in "
        "/etc/cloud/cloud.cfg and cloud.cfg.d, which cloud-init gives to an account at every boot, are only "
        "reported, since somebody may mean them."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
)
