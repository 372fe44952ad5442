"""Taking things out of a tree: names in one open directory at a time, no link followed, no mount entered.

That goes for files that are mounted on others, too: they are neither overwritten nor emptied.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import mounts
from firstkey.system.files import Directory, Looks, require, translated, write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def link(directory: Directory, name: str, target: str) -> None:
    """Put a symbolic link in place of whatever `name` is, in one instant, durably."""
    temporary = directory.temporary_name(name)
    directory.remove_stale()
    with directory.unless_renamed(temporary), translated(f"link {directory.join(name)} to {target}"):
        os.symlink(target, temporary, dir_fd=directory.fd)
        os.rename(temporary, name, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)
        os.fsync(directory.fd)


def unlink(directory: Directory, name: str) -> None:
    """Remove the symbolic link `name`, durably; what is no link (any more) stays."""
    found = directory.status(name)
    if found and stat.S_ISLNK(found.st_mode):
        directory.remove(name, durable=True)


def empty(directory: Directory, name: str, *, check: Check | None = None) -> None:
    """Leave nothing in the regular file `name`, if it is there; it keeps its owner, mode and label.

    It is emptied in place, since a program may be writing to it; one that has other names as well is
    replaced, since those may not be meant.
    """
    found = directory.status(name)
    if found is None:
        return
    if check:
        check(found)
    if not stat.S_ISREG(found.st_mode):
        raise FirstkeyError(
            f"{directory.join(name)} is not a regular file", reason=reasons.NOT_A_REGULAR_FILE
        )
    if found.st_nlink > 1:
        looks = Looks(stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid), label(directory, name))
        directory.replace(name, b"", looks)
        return
    with translated(f"empty {directory.join(name)}"), _opened(directory, name, check) as fd:
        os.ftruncate(fd, 0)
        os.fsync(fd)


def wipe(directory: Directory, name: str, *, check: Check | None = None) -> bool:
    """Overwrite the file `name` with random bytes, then remove it; returns whether it was overwritten.

    One that has other names as well, or is larger than `WIPE_LIMIT`, is only removed. What overwriting cannot
    promise (journals, snapshots, copies by the disk itself) is for the caller to say.
    """
    found = directory.status(name)
    if found is None:
        return False
    if check:
        check(found)
    overwritten = False
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size <= WIPE_LIMIT:
        _overwrite(directory, name, found.st_size, check)
        overwritten = True
    directory.remove(name)
    _sync(directory)
    return overwritten


def _overwrite(directory: Directory, name: str, size: int, check: Check | None = None) -> None:
    with translated(f"overwrite {directory.join(name)}"), _opened(directory, name, check) as fd:
        # To the end of its last block, where an earlier and longer content may have left something.
        write_all(fd, os.urandom(-(-size // BLOCK) * BLOCK))
        os.fsync(fd)
        os.ftruncate(fd, 0)


@contextmanager
def _opened(directory: Directory, name: str, check: Check | None) -> Iterator[int]:
    """A descriptor to write the regular file `name` as it lies there; anything else is refused."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory.fd)
    try:
        found = os.fstat(fd)
        require(found, stat.S_ISREG, directory.join(name))
        if check:
            check(found)
        _refuse_mount(directory, name, fd)
        yield fd
    finally:
        os.close(fd)


def remove(directory: Directory, name: str, *, wiping: bool = False, check: Check | None = None) -> None:
    """Remove `name`; a directory with all that is in it, except what is mounted there.

    `wiping` overwrites the files before; `check` is asked of `name` itself. Raises FirstkeyError for the
    first that cannot be removed, when all others are.
    """
    found = directory.status(name)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        if wiping:
            wipe(directory, name, check=check)
            return
        if check:
            check(found)
        directory.remove(name)
        _sync(directory)
        return
    inside = directory.child(name)
    if inside is None:
        return
    with inside:
        if check:
            check(os.fstat(inside.fd))
        _refuse_mount(directory, name, inside.fd)
        _clear(inside, wiping=wiping)
    with translated(f"remove {directory.join(name)}"):
        os.rmdir(name, dir_fd=directory.fd)
    _sync(directory)


def _clear(inside: Directory, *, wiping: bool) -> None:
    """Remove all that is in the directory."""
    failure: FirstkeyError | None = None
    for below in inside.names():
        try:
            remove(inside, below, wiping=wiping)
        except FirstkeyError as error:  # noqa: PERF203 - one that stays must not keep the others
            failure = failure or error
    if failure:
        raise failure


def _refuse_mount(directory: Directory, name: str, fd: int) -> None:
    """What is bound there from the same disk has the same device, but is another mount."""
    above, here = ((mounts.number(each) or os.fstat(each).st_dev) for each in (directory.fd, fd))
    if above != here:
        message = f"{directory.join(name)} is a mount point; what is mounted there was left alone"
        raise FirstkeyError(message, reason=reasons.UNSAFE_DIRECTORY)


def _sync(directory: Directory) -> None:
    with translated(f"sync {directory.path}"):
        os.fsync(directory.fd)
