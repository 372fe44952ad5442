"""Acting as a user: work in a home is done by a child process that has the user's rights and no others.

A child, because the ids of a process are shared by all its threads and by every program it starts,
and because a home may be on a disk or a server that never answers: the parent can leave a child behind.
Only the effective ids are the user's, and with them every capability is gone (capabilities(7)). The real
ones stay root's, so that the user can neither send the child signals (kill(2)) nor trace it or look into
it (ptrace(2)), nor change its limits (prlimit(2)); and no core file of it is written (prctl(2),
PR_SET_DUMPABLE).
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.system import outside, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firstkey.model import Account

SECONDS = 8.0
"""How long the work in one home may take: two homes that hang may not use up the time that the boot waits."""
PATIENCE_SECONDS = 0.5
"""How long a child that has to end may take to remove its temporary file; one that hangs takes all of it."""


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
    if outside.ask:  # a boxed process cannot do harm, and cannot become another
        return json.loads(json.dumps(work()))
    answer = worker.ask(
        lambda: json.dumps(_attempt(account, groups, work)).encode(),
        seconds=seconds,
        patience=PATIENCE_SECONDS,
    )
    return _value(answer, account, seconds)


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
