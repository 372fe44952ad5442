"""When the process began, although it looks only later."""

from __future__ import annotations

import time

import processes

CODE = """
    import time
    time.sleep(0.5)
    from firstkey.cli.daemon import process_started
    print(process_started(), time.monotonic())
"""


def test_the_time_before_the_first_line_counts() -> None:
    """The start lies between the moment before the program was started and half a second before its end."""
    before = time.monotonic()
    started, now = map(float, processes.run(CODE).split())
    assert before - 0.05 <= started <= now - 0.45
