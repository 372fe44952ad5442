"""What the process makes without meaning to show it: files without a mode of their own, and core files."""

from __future__ import annotations

import os
import resource
from contextlib import suppress


def keep() -> None:
    """For this process and all that it starts, whatever the caller's umask and limits are.

    A core file would hold the session token, and ssh-keygen's a private key. The unit says the same; this is
    for who starts firstkey by hand. (Where cores go to a program, systemd-coredump heeds the limit, core(5).)
    """
    os.umask(0o077)
    with suppress(OSError, ValueError):  # a sandbox that forbids it has a limit of its own
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
