"""Acting as a user: work in a home is done by a child process that has the user's rights and no others.

A child, because the ids of a process are shared by all its threads and by every program it starts,
and because a home may be on a disk or a server that never answers: the parent can leave a child behind.
Only the effective ids are the user's, and with them every capability is gone (capabilities(7)). The real
ones stay root's, so that the user can neither send the child signals (kill(2)) nor trace it or look into
it (ptrace(2)), nor change its limits (prlimit(2)); and no core file of it is written (prctl(2),
PR_SET_DUMPABLE). So the child itself, which runs firstkey's code alone, can become root again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.system import command, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firstkey.model import Account
    from firstkey.system.worker import Tell

    Note = Callable[[Any], None]

SECONDS = 8.0
"""How long the work in one home may take: homes that hang may not use up the time that the boot waits."""
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
    if command.ask_watcher:  # a boxed process cannot do harm, and cannot become another
        return json.loads(json.dumps(work()))

    def become_and_work() -> Any:  # noqa: ANN401 - as above
        become(account, groups)
        return work()

    answer = worker.ask(
        lambda: json.dumps(_attempt(become_and_work)).encode(), seconds=seconds, patience=PATIENCE_SECONDS
    )
    return _value(answer, account, seconds)


def become(account: Account, groups: Sequence[int]) -> None:
    """Take these effective ids and groups in a child of root's; any other caller keeps its own."""
    os.umask(0o077)
    if 0 not in (os.getuid(), os.geteuid()):
        return
    os.seteuid(0)
    os.setgroups(list(groups))
    os.setegid(account.gid)
    os.seteuid(account.uid)


class Visit:
    """Work in one home that goes on beside the caller's, in a child that becomes whom it has to by itself.

    `work(note)` returns JSON values (not None); in `note(value)` it waits until the caller has heeded that.
    With `here` it is done at once, by this process, and note is None: where there are no rights to give up.
    """

    def __init__(
        self, account: Account, work: Callable[[Note | None], Any], *, seconds: float, here: bool = False
    ) -> None:
        self._answer = json.loads(json.dumps(work(None))) if here or command.ask_watcher else None
        if self._answer is not None:
            return
        self._account = account
        self._seconds = seconds
        self.deadline = time.monotonic() + seconds
        waits, self._resume = os.pipe()
        try:
            self._worker = worker.start(lambda tell: _visit(tell, waits, work), quiet=True)
        except BaseException:
            os.close(self._resume)
            raise
        finally:
            os.close(waits)
        self._heard = b""
        self._is_over = False

    def answer(self, until: float, noted: Note) -> Any:  # noqa: ANN401 - as json.loads has it
        """What the work returned; None where it is not done `until` then (time.monotonic).

        What it notes on the way is given to `noted`. Raises what the work raised, FirstkeyError(timed-out)
        when the time of the whole visit is over. With an answer or an error, the visit has ended.
        """
        if self._answer is not None:
            return self._answer
        while part := self._worker.hear_by(min(until, self.deadline)):
            self._heard += part
            if self._heard.endswith(b"\n"):
                noted(json.loads(self._heard))
                self._heard = b""
                with suppress(BrokenPipeError):  # it died meanwhile, which is heard next
                    os.write(self._resume, b"!")
        if part is None and time.monotonic() < self.deadline:
            return None
        if part is None:
            self.stop()
            return _value(None, self._account, self._seconds)
        self._is_over = True
        os.close(self._resume)
        return _value(b"" if self._worker.finish() else self._heard, self._account, self._seconds)

    def stop(self) -> None:
        """End it, wherever it is; one that has ended is left alone."""
        if not self._is_over:
            self._is_over = True
            os.close(self._resume)
            self._worker.stop(PATIENCE_SECONDS)


def _visit(tell: Tell, waits: int, work: Callable[[Note | None], Any]) -> None:
    def note(value: Any) -> None:  # noqa: ANN401 - as json.dumps has it
        tell(json.dumps(value).encode() + b"\n")
        if not os.read(waits, 1):
            raise FirstkeyError("nobody heeds it any more", reason=reasons.TIMED_OUT)

    tell(json.dumps(_attempt(lambda: work(note))).encode())


def _attempt(work: Callable[[], Any]) -> dict[str, Any]:
    try:
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
