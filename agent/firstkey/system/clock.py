"""When this process began: a promise that counts from a start counts the time that Python took to load."""

from __future__ import annotations

import os
import time

_START_TIME = 19
"""proc(5), /proc/PID/stat: starttime is field 22, in clock ticks since boot; field 3 follows the name."""


def process_started() -> float:
    """The moment on time.monotonic() at which this process began, as well as anybody can tell."""
    now = time.monotonic()
    try:
        with open("/proc/self/stat", "rb") as stat:
            ticks = int(stat.read().rsplit(b")", 1)[1].split()[_START_TIME])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return now
    return now - max(0.0, age)
