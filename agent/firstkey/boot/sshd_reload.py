"""An sshd that is older than a new host key: its own unit is asked to reload, or its operator is told.

firstkey signals no sshd: what a reload means, and that it ends no session, is the unit's to know. Whether it
comes back is systemd's to report.
"""

from __future__ import annotations

import os
from contextlib import suppress

from firstkey import TYPE_CHECKING, events, reasons
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.system import command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from firstkey.boot.site import Site

BY_HAND = "A run by hand asks no unit to reload."
BY_SOCKET = "A reload would end it: systemd has the port that it listens on."
"""OpenSSH 9.2 of Debian 12 cannot bind the port again. A restart gets it from there, and ends no session."""
SOCKETS = ("ssh.socket", "sshd.socket")
UNITS = ("ssh.service", "sshd.service")
"""As firstkey.service is ordered before them. An ssh@.service reads its keys for each connection."""


def let_load(site: Site, options: Sequence[str], changed: Mapping[str, float], *, may_reload: bool) -> None:
    """Have host keys loaded that are in place since then (time.monotonic); by a reload, if that may be.

    `options`: those with which sshd is started.
    """
    units = _running_units()
    for unit, _, started in units:
        shown = " ".join(file for file, moment in changed.items() if started < moment)
        if not shown:
            continue
        refusal = _reloaded(unit, options) if may_reload else Refusal(reasons.HOST_KEY_NOT_LOADED, BY_HAND)
        if refusal is None:
            site.say(events.SSHD_RELOADED(unit=unit, files=shown))
        else:
            first = f"{refusal.reason.remedy} Then: " if refusal.reason is reasons.SSHD_CONFIG_INVALID else ""
            verb = "restart" if refusal.detail == BY_SOCKET else "reload"
            site.say(_not_loaded(unit, shown, refusal, f"{first}systemctl {verb} {unit}"))
    for pid in _listeners(besides={pid for _, pid, _ in units}):
        refusal = Refusal(reasons.HOST_KEY_NOT_LOADED, "It was not started by its unit.")
        remedy = f"Let it read its configuration again: kill -HUP {pid}"
        site.say(_not_loaded(f"sshd (process {pid})", " ".join(changed), refusal, remedy))


def _not_loaded(sshd: str, files: str, refusal: Refusal, remedy: str) -> events.Entry:
    why = {"detail": refusal.detail, "reason": refusal.reason.code, "remedy": remedy}
    return events.HOST_KEY_NOT_LOADED(sshd=sshd, files=files, **why)


def _running_units() -> set[tuple[str, int, float]]:
    """Each unit whose sshd runs or is just starting, its process, and when it started (time.monotonic).

    The two names may be one unit's. Where systemctl is missing or fails, there is no unit to ask.
    """
    wanted = "--property=Id,MainPID,ExecMainStartTimestampMonotonic"
    try:
        said = command.run([str(command.find("systemctl")), "show", wanted, *UNITS]).stdout
    except FirstkeyError:
        return set()
    blocks = said.decode("utf-8", "replace").split("\n\n")
    shown = [dict(line.split("=", 1) for line in block.split("\n") if "=" in line) for block in blocks]
    return {
        (unit["Id"], int(unit["MainPID"]), int(unit["ExecMainStartTimestampMonotonic"]) / 1e6)
        for unit in shown
        if unit.get("MainPID", "0") != "0"
    }


def _reloaded(unit: str, options: Sequence[str]) -> Refusal | None:
    """Ask the unit to reload; the reason where that was not done, and the sshd that runs goes on as it is."""
    try:
        # Not every distribution's unit looks before it lets sshd start again, which a mistake would end.
        tested = command.run([str(command.find("sshd")), "-t", *options])
        if tested.status:
            detail = f"sshd rejects its configuration: {tested.words}."
            return Refusal(reasons.SSHD_CONFIG_INVALID, detail)
        systemctl = str(command.find("systemctl"))
        if command.run([systemctl, "is-active", "--quiet", *SOCKETS]).status == 0:
            return Refusal(reasons.HOST_KEY_NOT_LOADED, BY_SOCKET)
        asked = command.run([systemctl, "reload", unit])
    except FirstkeyError as error:
        return error.refusal
    return Refusal(reasons.HOST_KEY_NOT_LOADED, f"systemctl says: {asked.words}") if asked.status else None


def _listeners(*, besides: set[int]) -> Iterator[int]:
    """The numbers of root's other sshd processes that wait for connections.

    They are known by the title that sshd gives itself then (sshd.c: server_accept_loop), which a child that
    one has made for a connection has at first too.
    """
    found: dict[int, int] = {}
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as source:
            title = source.read()
            if (
                title.startswith(b"sshd: /")
                and b" [listener] " in title
                and not os.fstat(source.fileno()).st_uid
            ):
                with open(f"/proc/{pid}/stat", "rb") as stat:
                    found[pid] = int(stat.read().rpartition(b")")[2].split()[1])  # proc(5): its parent
    return (pid for pid, parent in found.items() if not {pid, parent} & besides and parent not in found)
