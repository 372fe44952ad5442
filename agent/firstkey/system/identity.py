"""Acting as a user: work in a home is done by a child process that has the user's rights and no others.

A child, because the ids of a process are shared by all its threads and by every program it starts,
and because a home may be on a disk or a server that never answers: the parent can leave a child behind.
The real uid stays root's, so that the user cannot send the child signals (kill(2)).
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from firstkey import reasons
from firstkey.errors import FirstkeyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firstkey.model import Account

SECONDS = 20.0
"""How long the work in one home may take."""


def run_as(
    account: Account,
    groups: Sequence[int],
    work: Callable[[], Any],
    *,
    seconds: float = SECONDS,
) -> Any:  # noqa: ANN401 - as json.loads has it
    """Do `work` with the effective ids and groups of `account`, and return what it returns (JSON values).

    Raises what `work` raised if that was a FirstkeyError, and FirstkeyError(timed-out) after `seconds`.
    Where the caller is not root, the work is done with the caller's own rights.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(writer, account, groups, work)
    os.close(writer)
    try:
        answer = _read(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
        _reap(child)
    return _value(answer, account, seconds)


def _child(writer: int, account: Account, groups: Sequence[int], work: Callable[[], Any]) -> None:
    """Never returns: whatever happens here must not run on in the parent's code."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        answer = _attempt(account, groups, work)
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
    finally:
        os._exit(0)


def _become(account: Account, groups: Sequence[int]) -> None:
    os.umask(0o077)
    if os.geteuid() != 0:
        return
    os.setgroups(list(groups))
    os.setegid(account.gid)
    os.seteuid(account.uid)


def _attempt(account: Account, groups: Sequence[int], work: Callable[[], Any]) -> dict[str, Any]:
    try:
        _become(account, groups)
        return {"value": work()}
    except FirstkeyError as error:
        return {"code": error.reason.code, "message": error.message, "hint": error.hint}
    except Exception as error:  # noqa: BLE001 - the parent turns it into one sentence with a reason
        where = sys.exc_info()[2]
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        line = f"{where.tb_frame.f_code.co_name}:{where.tb_lineno}" if where else "?"
        return {"code": "internal-error", "message": f"{error!r} in {line}", "hint": None}


def _read(reader: int, deadline: float) -> bytes | None:
    """Everything the child says, or None where it said nothing by the deadline."""
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        part = os.read(reader, 65536)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _reap(child: int) -> None:
    """End and collect the child; one that hangs in the kernel is left behind, its death already ordered."""
    # Where whoever started this process had it ignore SIGCHLD, the kernel has collected the child itself.
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        for _ in range(100):
            if os.waitpid(child, os.WNOHANG)[0]:
                return
            time.sleep(0.001)


def _value(answer: bytes | None, account: Account, seconds: float) -> Any:  # noqa: ANN401 - as json.loads has it
    if answer is None:
        message = f"the files of {account.name} did not answer within {seconds:g} s"
        raise FirstkeyError(message, reason=reasons.TIMED_OUT)
    if not answer:
        message = f"the process that worked as {account.name} died"
        raise FirstkeyError(message, reason=reasons.INTERNAL_ERROR)
    said = json.loads(answer)
    if "code" in said:
        raise FirstkeyError(said["message"], reason=reasons.ALL[said["code"]], hint=said["hint"])
    return said["value"]
