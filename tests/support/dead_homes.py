"""Homes that hang for ever: a file system in user space that takes every request and answers none.

A process that asks it is stuck in the kernel beyond the reach of any signal, until the server is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from private_system import PrivateSystem

# linux/fuse.h: fuse_in_header (length, opcode, unique, ...), fuse_out_header, fuse_init_out.
SERVER = """
import ctypes, os, select, struct, sys

devices = {}
for path in sys.argv[1:]:
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    if ctypes.CDLL(None, use_errno=True).mount(b"dead", path.encode(), b"fuse", 0, options.encode()):
        sys.exit(f"{path}: {os.strerror(ctypes.get_errno())}")
    request = os.read(device, 1 << 20)
    unique = struct.unpack_from("=Q", request, 8)[0]
    body = struct.pack("=IIIIHHIIHHI28x", 7, 31, 0, 0, 1, 1, 4096, 1, 0, 0, 0)
    os.write(device, struct.pack("=IiQ", 16 + len(body), 0, unique) + body)
    devices[device] = path
print(flush=True)
while True:
    for device in select.select(devices, [], [])[0]:
        os.read(device, 1 << 20)
        print(devices[device], flush=True)
"""


@contextmanager
def dead(system: PrivateSystem, *homes: str) -> Iterator[None]:
    """These directories of the system answer nothing, as long as the block lasts."""
    server = system.start("/usr/bin/python3", "-c", SERVER, *homes)
    try:
        assert server.stdout
        assert server.stdout.readline() == "\n", "the file systems could not be mounted"
        yield
    finally:
        server.kill()
        server.communicate()
        system.run("umount", "--lazy", *homes)
