"""An sshd that is older than a new host key: its own unit is asked to reload, or the journal has the remedy.

firstkey signals no sshd: what a reload means, and that it ends no session, is the unit's to know.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from firstkey import TYPE_CHECKING, events, reasons
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.system import command
from firstkey.system.sshd import LISTENING, SOCKETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from firstkey.boot.target import Target

AWAY_SECONDS = 0.5
"""How long it is watched whether sshd, which was asked to reload, has begun to."""
BACK_SECONDS = 10.0
BY_HAND = "A run by hand asks no unit to reload."
BY_SOCKET = "A reload would end it: systemd has the port that it listens on."
"""OpenSSH 9.2 of Debian 12 cannot bind the port again. A restart gets it from there, and ends no session."""
PROPERTIES = "--property=Id,ActiveState,MainPID,ExecMainStartTimestampMonotonic"


def let_load(
    target: Target, options: Sequence[str], changed: Mapping[str, float], *, may_reload: bool
) -> None:
    """Have host keys loaded that are in place since then (time.monotonic); by a reload, if that may be.

    `options`: those with which sshd is started.
    """
    units, has_socket = _running()
    for unit, pid, started in units:
        shown = " ".join(file for file, moment in changed.items() if started < moment)
        if not shown:
            continue
        refusal: Refusal | None = Refusal(reasons.HOST_KEY_NOT_LOADED, BY_HAND)
        if may_reload:
            refusal = _reloaded(unit, pid, options, has_socket=has_socket)
        if refusal is None:
            target.log(events.SSHD_RELOADED(unit=unit, files=shown))
        else:
            first = f"{refusal.reason.remedy} Then: " if refusal.reason is reasons.SSHD_CONFIG_INVALID else ""
            verb = "restart" if refusal.detail == BY_SOCKET else "reload"
            target.log(_not_loaded(unit, shown, refusal, f"{first}systemctl {verb} {unit}"))
    for pid in _listeners(besides={pid for _, pid, _ in units}):
        refusal = Refusal(reasons.HOST_KEY_NOT_LOADED, "It was not started by its unit.")
        remedy = f"Let it read its configuration again: kill -HUP {pid}"
        target.log(_not_loaded(f"sshd (process {pid})", " ".join(changed), refusal, remedy))


def _not_loaded(sshd: str, files: str, refusal: Refusal, remedy: str) -> events.Entry:
    why = {"detail": refusal.detail, "reason": refusal.reason.code, "remedy": remedy}
    return events.HOST_KEY_NOT_LOADED(sshd=sshd, files=files, **why)


def _running() -> tuple[set[tuple[str, int, float]], bool]:
    """Each unit whose sshd runs or is just starting, its process, and when it started (time.monotonic); and
    whether systemd has the port.

    The two names may be one unit's. Where systemctl is missing or fails, there is no unit to ask.
    """
    try:
        said = command.run([str(command.find("systemctl")), "show", PROPERTIES, *LISTENING, *SOCKETS]).stdout
    except FirstkeyError:
        return set(), False
    blocks = said.decode("utf-8", "replace").split("\n\n")
    shown = [dict(line.split("=", 1) for line in block.split("\n") if "=" in line) for block in blocks]
    units = {
        (unit["Id"], int(unit["MainPID"]), int(unit["ExecMainStartTimestampMonotonic"]) / 1e6)
        for unit in shown
        if unit.get("MainPID", "0") != "0"
    }
    return units, any(unit.get("Id") in SOCKETS and unit["ActiveState"] == "active" for unit in shown)


def _reloaded(unit: str, pid: int, options: Sequence[str], *, has_socket: bool) -> Refusal | None:
    """Ask the unit to reload; the reason where that was not done, and the sshd that runs goes on as it is."""
    try:
        # Not every distribution's unit looks before it lets sshd start again, which a mistake would end.
        tested = command.run([str(command.find("sshd")), "-t", *options])
        if tested.status:
            return Refusal(reasons.SSHD_CONFIG_INVALID, f"sshd rejects its configuration: {tested.words}.")
        if has_socket:
            return Refusal(reasons.HOST_KEY_NOT_LOADED, BY_SOCKET)
        was_there = _is_listener(pid)
        asked = command.run([str(command.find("systemctl")), "reload", unit])
    except FirstkeyError as error:
        return error.refusal
    if asked.status:
        return Refusal(reasons.HOST_KEY_NOT_LOADED, f"systemctl says: {asked.words}")
    if was_there and not _is_back(pid):
        return Refusal(reasons.HOST_KEY_NOT_LOADED, "It does not listen any more.")
    return None


def _is_back(pid: int) -> bool:
    """Wait until it listens again: a reader of the report may connect at once."""
    began, was_away = time.monotonic(), False
    while time.monotonic() - began < (BACK_SECONDS if was_away else AWAY_SECONDS):
        is_there = _is_listener(pid)
        if is_there and was_away:
            return True
        was_away = was_away or not is_there
        time.sleep(0.001)
    return not was_away


def _listeners(*, besides: set[int]) -> Iterator[int]:
    """The numbers of root's other sshd processes that wait for connections.

    A child that one of them has made for a connection has its title at first.
    """
    found: dict[int, int] = {}
    for pid in filter(_is_listener, map(int, filter(str.isdecimal, os.listdir("/proc")))):
        with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as source:
            found[pid] = int(source.read().rpartition(b")")[2].split()[1])  # proc(5): its parent
    return (pid for pid, parent in found.items() if not {pid, parent} & besides and parent not in found)


def _is_listener(pid: int) -> bool:
    """By the title that sshd gives itself once it listens (sshd.c: server_accept_loop)."""
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as source:
        title = source.read()
        is_roots = os.fstat(source.fileno()).st_uid == 0
        return is_roots and title.startswith(b"sshd: /") and b" [listener] " in title
    return False
