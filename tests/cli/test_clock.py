"""When the process began, although it looks only later."""

from __future__ import annotations

import time

import processes

CODE = """
    import time
    time.sleep(0.5)
    from firstkey.cli.daemon import process_started
    before = time.monotonic()
    print(process_started(), before, time.monotonic())
"""


def test_the_time_before_the_first_line_counts() -> None:
    """The start lies between the moment before the program was started and half a second before its end."""
    earliest = time.monotonic()
    started, before, after = map(float, processes.run(CODE).split())
    # It reads two clocks, one after the other: a busy machine may keep it waiting in between.
    assert earliest - 0.05 - (after - before) <= started <= before - 0.45
