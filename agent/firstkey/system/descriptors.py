"""What is done with one open file, whatever its name; and what the kernel's refusals mean."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SELINUX = "security.selinux"
_CARRIED = ("user.", "system.")
"""The attributes that go on to new content: ACLs and users' own. What the kernel keeps under security.* and
trusted.* (xattr(7)) is about the old content, like a signature of it."""

_BY_ERRNO = {
    errno.ELOOP: reasons.SYMLINK_REFUSED,
    errno.EACCES: reasons.PERMISSION_DENIED,
    errno.EBADF: reasons.PERMISSION_DENIED,  # a directory that may be passed through, but not read (tree.py)
    errno.EPERM: reasons.READ_ONLY,
    errno.EROFS: reasons.READ_ONLY,
    errno.ENOSPC: reasons.NO_SPACE,
    errno.EDQUOT: reasons.NO_SPACE,
    errno.EFBIG: reasons.NO_SPACE,
    errno.ENOTDIR: reasons.NOT_A_DIRECTORY,
    errno.EISDIR: reasons.NOT_A_REGULAR_FILE,
    errno.ENXIO: reasons.NOT_A_REGULAR_FILE,
    errno.ENOENT: reasons.CONCURRENT_CHANGE,  # where that is expected, it is no error but None
    errno.ESTALE: reasons.CONCURRENT_CHANGE,
    errno.EAGAIN: reasons.CONCURRENT_CHANGE,  # somebody holds a lease on it (fcntl(2), F_SETLEASE)
    errno.ETIMEDOUT: reasons.TIMED_OUT,
}
_UNSYNCED = (errno.EBADF, errno.EINVAL, errno.ENOSYS)
_MODE = 0o1777
"""What of a mode is kept: a set-id bit means nothing on a file of keys, and the unit's sandbox refuses it."""


class Stamp(NamedTuple):
    """What tells one state of a file from another: identity, size and times (ns)."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class File(NamedTuple):
    """A regular file as it was read: its content and the metadata that belonged to it."""

    content: bytes
    stamp: Stamp
    mode: int
    uid: int
    gid: int


class Looks(NamedTuple):
    """How a new file is to look before anything is written into it. `owner`: uid and gid; None: the caller's.

    `durable`: it survives a power cut from now on; not needed for what is lost with the boot anyway.
    """

    mode: int
    owner: tuple[int, int] | None = None
    label: str | None = None
    attributes: tuple[tuple[str, bytes], ...] = ()
    durable: bool = True


def fill_standard() -> None:
    """Open descriptors 0, 1 and 2 where the caller closed them: to nowhere."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # noqa: PERF203 - three times
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one


def send_nowhere(number: int) -> None:
    """Let an open descriptor lead to nowhere from now on."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, number)
    os.close(nowhere)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn the kernel's refusals into FirstkeyError; `doing` says what was tried, with the path."""
    try:
        yield
    except OSError as error:
        reason = _BY_ERRNO.get(error.errno or 0, reasons.IO_ERROR)
        raise FirstkeyError(f"cannot {doing}: {error.strerror}", reason=reason) from error


def open_quietly(name: str, flags: int, dir_fd: int | None = None) -> int:
    """Open to read, without a new access time where this process may do that (its own files, or root)."""
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:
        return os.open(name, flags, dir_fd=dir_fd)


def stamp(found: os.stat_result) -> Stamp:
    """The stamp of what has that status."""
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def attributes(fd: int) -> tuple[tuple[str, bytes], ...]:
    """Those that a rewritten file should have again."""
    return tuple((key, os.getxattr(fd, key)) for key in os.listxattr(fd) if key.startswith(_CARRIED))


def is_plain(mode: int) -> bool:
    """Whether that st_mode is a regular file's or a directory's: what can be opened without any effect."""
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def require(found: os.stat_result, wanted: Callable[[int], bool], path: str) -> None:
    """Refuse what is a link, or is not of a wanted type (by its st_mode)."""
    if stat.S_ISLNK(found.st_mode):
        message = f"{path} is a symbolic link; it was not followed"
        raise FirstkeyError(message, reason=reasons.SYMLINK_REFUSED)
    if not wanted(found.st_mode):
        raise FirstkeyError(f"{path} is not a regular file", reason=reasons.NOT_A_REGULAR_FILE)


def read_file(fd: int, path: str, limit: int) -> File:
    """All of it, up to `limit` bytes. The stamp is of before: what changes meanwhile makes it an old one."""
    found = os.fstat(fd)
    parts: list[bytes] = []
    length = 0
    while part := os.read(fd, min(limit + 1 - length, 1 << 20)):
        parts.append(part)
        length += len(part)
        if length > limit:
            message = f"{path} is larger than {limit} bytes"
            raise FirstkeyError(message, reason=reasons.FILE_TOO_LARGE)
    return File(b"".join(parts), stamp(found), stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def dress(fd: int, looks: Looks) -> None:
    """Owner, then mode (chown clears set-id bits), then attributes and the SELinux label."""
    if looks.owner is not None:
        os.fchown(fd, *looks.owner)
    os.fchmod(fd, looks.mode & _MODE)
    # What a file system or an unprivileged owner cannot set is no reason to lose the key. Without a label of
    # its own, a file has the one that its directory hands down.
    label = ((_SELINUX, looks.label.encode() + b"\0"),) if looks.label else ()
    for key, value in (*looks.attributes, *label):
        with suppress(OSError):
            os.setxattr(fd, key, value)


def sync_directory(fd: int) -> None:
    """Put the names in it on the disk (fsync(2)).

    A directory that one may only pass through cannot be synced, nor can any on some file systems (FUSE, 9p):
    these write it when they please, and what was done is done.
    """
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            raise


def write_all(fd: int, content: bytes) -> None:
    """Write all of `content`: write(2) may take less than it is given."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]
