"""Taking things out of a tree: names in one open directory at a time, no link followed, no mount entered.

That goes for files that are mounted on others, too: they are neither overwritten nor emptied.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from firstkey import reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import mounts
from firstkey.system.files import Directory, Looks, translated, write_all

Check = Callable[[os.stat_result], None]
"""Asked of the file that is there, before anything is done to it: it raises FirstkeyError to keep it."""

BLOCK = 4096
WIPE_LIMIT = 16 * 1024 * 1024
"""A key is a few KiB; what is larger than this is removed without being overwritten."""
_LABEL = "security.selinux"


def label(directory: Directory, name: str) -> str | None:
    """The SELinux label of `name`, for what takes its place: an image's policy may not be at work here."""
    directory.join(name)
    with suppress(OSError):
        path = f"/proc/self/fd/{directory.fd}/{name}"
        return os.getxattr(path, _LABEL, follow_symlinks=False).rstrip(b"\0").decode()
    return None


def label_for_new(directory: Directory) -> str | None:
    """The label for a new file: that of a file beside it, or the directory's, as the kernel would give it."""
    for name in directory.names():
        found = directory.status(name)
        beside = label(directory, name) if found and stat.S_ISREG(found.st_mode) else None
        if beside:
            return beside
    return label(directory, "")


def empty(directory: Directory, name: str, *, check: Check | None = None) -> bool | None:
    """Leave nothing in the regular file `name`; it keeps its owner, mode and label. None: it is not there.

    It is emptied in place, since a program may be writing to it; one that has other names as well is
    replaced, since those may not be meant.
    """
    found = directory.status(name)
    if found is None:
        return None
    if check:
        check(found)
    if not stat.S_ISREG(found.st_mode):
        raise FirstkeyError(
            f"{directory.join(name)} is not a regular file", reason=reasons.NOT_A_REGULAR_FILE
        )
    if found.st_nlink > 1:
        looks = Looks(stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid), label(directory, name))
        directory.replace(name, b"", looks)
        return True
    with translated(f"empty {directory.join(name)}"), _opened(directory, name, check) as fd:
        os.ftruncate(fd, 0)
        os.fsync(fd)
    return True


def remove(
    directory: Directory, name: str, *, wiping: bool = False, check: Check | None = None
) -> bool | None:
    """Remove `name`; a directory with all that is in it, except what is mounted there.

    `wiping` overwrites each file with random bytes before, but for one that has other names as well, or is
    larger than `WIPE_LIMIT`; what overwriting cannot promise (journals, snapshots, copies by the disk itself)
    is for the caller to say. `check` is asked of `name` itself. Returns whether it was overwritten, None
    where it was not there. Raises FirstkeyError for the first that cannot be removed, when all others are.
    """
    found = directory.status(name)
    if found is None:
        return None
    if stat.S_ISDIR(found.st_mode):
        _remove_directory(directory, name, wiping=wiping, check=check)
        return False
    if check:
        check(found)
    is_plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size <= WIPE_LIMIT
    if wiping and is_plain:
        with translated(f"overwrite {directory.join(name)}"), _opened(directory, name, check) as fd:
            # To the end of its last block, where an earlier and longer content may have left something.
            write_all(fd, os.urandom(-(-found.st_size // BLOCK) * BLOCK))
            os.fsync(fd)
            os.ftruncate(fd, 0)
    directory.remove(name, durable=True)
    return wiping and is_plain


def _remove_directory(directory: Directory, name: str, *, wiping: bool, check: Check | None) -> None:
    inside = directory.child(name)
    if inside is None:
        return
    failure: FirstkeyError | None = None
    with inside:
        if check:
            check(os.fstat(inside.fd))
        _refuse_mount(directory, name, inside.fd)
        for below in inside.names():
            try:
                remove(inside, below, wiping=wiping)
            except FirstkeyError as error:  # noqa: PERF203 - one that stays must not keep the others
                failure = failure or error
    if failure:
        raise failure
    with translated(f"remove {directory.join(name)}"):
        os.rmdir(name, dir_fd=directory.fd)
    directory.sync()


@contextmanager
def _opened(directory: Directory, name: str, check: Check | None) -> Iterator[int]:
    """A descriptor to write the regular file `name` as it lies there; anything else is refused."""
    with directory.opened(name, stat.S_IFREG, access=os.O_WRONLY) as fd:
        if check:
            check(os.fstat(fd))
        _refuse_mount(directory, name, fd)
        yield fd


def _refuse_mount(directory: Directory, name: str, fd: int) -> None:
    """What is bound there from the same disk has the same device, but is another mount."""
    above, here = ((mounts.number(each) or os.fstat(each).st_dev) for each in (directory.fd, fd))
    if above != here:
        message = f"{directory.join(name)} is a mount point; what is mounted there was left alone"
        raise FirstkeyError(message, reason=reasons.UNSAFE_DIRECTORY)
