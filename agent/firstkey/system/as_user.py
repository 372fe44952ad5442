"""What is done with a user's rights: what would that user see? No boot asks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from firstkey.model import Account
from firstkey.system import child


def run_as(
    account: Account, groups: Sequence[int], work: Callable[[], Any], *, seconds: float = child.SECONDS
) -> Any:  # noqa: ANN401 - as json.loads has it
    """Ask a child with the effective ids and groups of `account`; raises what `child.ask` raises.

    Where the caller is not root, or boxed, the work is done with the caller's own rights.
    """

    def become_and_work(note: child.Note | None) -> Any:  # noqa: ANN401 - as above
        if note:
            child.become(account, groups)
        return work()

    return child.ask(account.name, become_and_work, seconds=seconds)
