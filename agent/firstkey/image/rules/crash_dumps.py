"""Beyond the guide: no crash dumps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import leftovers
from firstkey.image.leftovers import Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import WARNING
from firstkey.image.watches import Headed

if TYPE_CHECKING:
    from firstkey.image.rule import Builder

KIND = "core-dump"
# elf(5): the class, the byte order, the version and the operating system, then the type: ET_CORE is 4.
STARTS = tuple(
    b"\x7fELF" + bytes((bits, order, 1, system)) + bytes(8) + kind
    for bits in (1, 2)
    for order, kind in ((1, b"\4\0"), (2, b"\0\4"))
    for system in (0, 3)  # ELFOSABI_NONE, ELFOSABI_LINUX
)
WATCH = Headed(KIND, STARTS, lambda _: "the memory of a program")

PLACES = (
    Place("/var/crash/*", "a crash dump", whole=True),
    Place("/var/lib/systemd/coredump/*", "a crash dump"),
    Place("/var/lib/systemd/pstore/*", "what the kernel said when it crashed"),
    Place("/var/spool/abrt/*", "a crash dump", whole=True),
    Place("/var/tmp/abrt/*", "a crash dump", whole=True),  # noqa: S108 - looked at, never written
    Place("/var/lib/apport/coredump/*", "a crash dump"),
    Place("/var/lib/kdump/*.dmp", "a crash dump"),
    Place("~/core", "a crash dump", seen=KIND),
    Place("~/core.[0-9]*", "a crash dump", seen=KIND),
    Place("/var/log/dump/*", "a crash dump"),
)


def _failing(tree: Builder) -> None:
    tree.file("/var/crash/_usr_bin_app.0.crash", "ProblemType: Crash\n")
    tree.file("/root/core.4711", STARTS[0] + b"a password")


def _passing(tree: Builder) -> None:
    tree.directory("/var/crash")
    tree.file("/root/core", "a text\n")


RULE = Rule(
    id="crash-dumps",
    title="There are no crash dumps",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "A dump holds the memory of a program: whatever it knew, keys and passwords among it. Checked are "
        "the places of apport, abrt, kdump and systemd-coredump, and files named core in homes and at the "
        "root which are the kernel's. seal removes them."
    ),
    check=leftovers.checker(*PLACES),
    remedy=leftovers.remover(*PLACES),
    failing=_failing,
    passing=_passing,
    watches=(WATCH,),
)
