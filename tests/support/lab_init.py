"""The first process of a lab: gives it directories and a loopback network of its own, then collects children.

Run as `lab_init.py DIRECTORY` in new mount, network and process namespaces.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress

OWN = ("etc", "run", "srv", "var/lib")
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h


def mount(*argv: str) -> None:
    """Mount something, as the program of that name does with these arguments."""
    subprocess.run(["mount", *argv], check=True)


def main(directory: str) -> None:
    """Set the lab up, say so, and stay until it is ended."""
    mount("--make-rprivate", "/")
    for name in OWN:
        mount("--bind", f"{directory}/{name}", f"/{name}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
    print("ready", flush=True)
    while True:
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
