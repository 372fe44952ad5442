"""The one door to files: directory descriptors, no link followed, atomic writes.

A write is: new file in the same directory, mode and owner first, content, fsync, rename, fsync the directory.
A file that is not to replace another one gets its name by link(2) instead, which fails where there is one.
So at every instant, power cuts included, the name holds either the old content or the new.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from contextlib import contextmanager, suppress

from firstkey import TYPE_CHECKING, NamedTuple, reasons
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    from collections.abc import Iterator

_STALE = re.compile(r"\.firstkey-.+\.[0-9a-f]{8}", re.DOTALL)

NAME_PART = 50
"""Characters of a name that stand in that of its temporary file: with four bytes each it fits (NAME_MAX)."""

_BY_ERRNO = {
    errno.ELOOP: reasons.SYMLINK_REFUSED,
    errno.EACCES: reasons.PERMISSION_DENIED,
    errno.EBADF: reasons.PERMISSION_DENIED,  # a directory that may be passed through, but not read
    errno.EPERM: reasons.READ_ONLY,
    errno.EROFS: reasons.READ_ONLY,
    errno.ENOSPC: reasons.NO_SPACE,
    errno.EDQUOT: reasons.NO_SPACE,
    errno.EFBIG: reasons.NO_SPACE,
    errno.ENOTDIR: reasons.NOT_A_DIRECTORY,
    errno.ENAMETOOLONG: reasons.NOT_A_DIRECTORY,  # no file can have such a name here
    errno.EISDIR: reasons.NOT_A_REGULAR_FILE,
    errno.ENXIO: reasons.NOT_A_REGULAR_FILE,
    errno.ENOENT: reasons.CONCURRENT_CHANGE,  # where that is expected, it is no error but None
    errno.ESTALE: reasons.CONCURRENT_CHANGE,
    errno.EAGAIN: reasons.CONCURRENT_CHANGE,  # another process holds a lease on it (fcntl(2), F_SETLEASE)
    errno.ETIMEDOUT: reasons.TIMED_OUT,
}
_UNSYNCED = (errno.EBADF, errno.EINVAL, errno.ENOSYS)
_MODE = 0o1777
"""What of a mode is kept: a set-id bit means nothing on a file of keys, and the unit's sandbox refuses it."""


ANYTHING = object()
"""For `Directory.replace`: whatever is there may go."""


class Changed(Exception):  # noqa: N818 - not an error but an answer: look again
    """The file is not the one that was read: another program changed it meanwhile."""


class File(NamedTuple):
    """A regular file as it was read: its content and the metadata that belonged to it."""

    content: bytes
    stamp: tuple[int, ...]
    modified_ns: int
    mode: int
    uid: int
    gid: int
    attributes: tuple[tuple[str, bytes], ...]
    """The extended ones that what takes its place should have again (xattr(7)): ACLs and users' own. What the
    kernel keeps under security.* is about the old content, like a signature of it.
    """


class Looks(NamedTuple):
    """How a new file is to look before anything is written into it. `owner`: uid and gid; None: the caller's.

    `durable`: it survives a power cut from now on; not needed for what is lost with the boot anyway.
    """

    mode: int
    owner: tuple[int, int] | None = None
    label: str | None = None
    durable: bool = True
    attributes: tuple[tuple[str, bytes], ...] = ()


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


def stamp(found: os.stat_result) -> tuple[int, ...]:
    """By these, two states of a file differ: identity, size and times (ns)."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def require(found: os.stat_result, path: str, *kinds: int) -> None:
    """Refuse what is a link, or of none of the kinds (inode(7): S_IFREG, ...), if there are any."""
    if stat.S_ISLNK(found.st_mode):
        message = f"{path} is a symbolic link; it was not followed"
        raise FirstkeyError(message, reason=reasons.SYMLINK_REFUSED)
    if kinds and stat.S_IFMT(found.st_mode) not in kinds:
        raise FirstkeyError(f"{path} is not a regular file", reason=reasons.NOT_A_REGULAR_FILE)


def dress(fd: int, looks: Looks) -> None:
    """Owner, then mode (chown clears set-id bits), then attributes and the SELinux label."""
    if looks.owner is not None:
        os.fchown(fd, *looks.owner)
    os.fchmod(fd, looks.mode & _MODE)
    label = [("security.selinux", looks.label.encode() + b"\0")] if looks.label else []
    for key, value in (*looks.attributes, *label):
        # What a file system or an unprivileged owner cannot set is no reason to lose the key: without a label
        # of its own, a file has the one that its directory hands down.
        with suppress(OSError):
            os.setxattr(fd, key, value)


def write_all(fd: int, content: bytes) -> None:
    """Write all of `content`: write(2) may take less than it is given."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


class Directory:
    """An open directory, at `real` without links. Names in it are plain names; no link in it is followed."""

    def __init__(self, fd: int, path: str, real: str) -> None:
        self.fd = fd
        self.path = path
        self.real = real

    def __enter__(self) -> Directory:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    @property
    def on_host(self) -> str:
        """Where it really is, as the host sees it: for programs that take no descriptor (proc(5))."""
        with translated(f"find {self.path}"):
            return os.readlink(f"/proc/self/fd/{self.fd}")

    def join(self, name: str) -> str:
        """The path of `name` in this directory, for people; whatever is done to a name comes by here.

        So this is where a name is refused that would lead out of the directory, or that no file can have.
        """
        path = f"{self.path.rstrip('/')}/{name}"
        if name == ".." or "/" in name or "\0" in name:
            message = f"{path!r} was not touched: {name!r} is not the name of one file"
            raise FirstkeyError(message, reason=reasons.UNSAFE_DIRECTORY)
        return path

    def status(self, name: str = "") -> os.stat_result | None:
        """The status of `name` itself (or of the directory), or None where it does not exist."""
        with translated(f"look at {self.join(name)}"), suppress(FileNotFoundError):
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False) if name else os.fstat(self.fd)
        return None

    def names(self) -> list[str]:
        """The names in it, sorted."""
        with translated(f"list {self.path}"):
            return sorted(os.listdir(self.fd))

    def child(self, name: str) -> Directory | None:
        """The directory `name` in it, or None; anything but a real directory is refused."""
        path, only = self.join(name), os.O_RDONLY | os.O_DIRECTORY
        with translated(f"open {path}"), suppress(FileNotFoundError), self.opened(name, access=only) as fd:
            return Directory(os.dup(fd), path, f"{self.real.rstrip('/')}/{name}")
        return None

    def make(self, name: str, looks: Looks) -> Directory:
        """Make the directory `name`, durably, and open it; one that is there already is opened as it is.

        It has its mode from the start: nobody comes back to repair it after a crash.
        """
        with translated(f"make the directory {self.join(name)}"):
            umask, is_new = os.umask(0), True
            try:
                os.mkdir(name, looks.mode, dir_fd=self.fd)
            except FileExistsError:
                is_new = False
            finally:
                os.umask(umask)
            if (directory := self.child(name)) is None:
                raise FirstkeyError(f"{self.join(name)} vanished", reason=reasons.CONCURRENT_CHANGE)
            if not is_new:
                return directory
            try:
                dress(directory.fd, looks)
                if looks.durable:
                    self.sync()
            except BaseException:
                directory.__exit__()
                raise
        return directory

    def sync(self) -> None:
        """Put the names in it on the disk (fsync(2)).

        A directory that one may only pass through cannot be synced, nor can any on some file systems (FUSE,
        9p): these write it when they please, and what was done is done.
        """
        with translated(f"sync {self.path}"):
            try:
                os.fsync(self.fd)
            except OSError as error:
                if error.errno not in _UNSYNCED:
                    raise

    def read(self, name: str, *, limit: int) -> File | None:
        """The regular file `name`, or None where there is none. More than `limit` bytes are refused."""
        path = self.join(name)
        with translated(f"read {path}"), suppress(FileNotFoundError):
            with self.opened(name, stat.S_IFREG) as fd, open(fd, "rb", closefd=False) as file:
                found = os.fstat(fd)  # of before: what changes meanwhile makes the stamp an old one
                content = file.read(limit + 1)
                attributes: tuple[tuple[str, bytes], ...] = ()
                with suppress(OSError):
                    keys = [key for key in os.listxattr(fd) if key.startswith(("user.", "system."))]
                    attributes = tuple((key, os.getxattr(fd, key)) for key in keys)
            if len(content) > limit:
                raise FirstkeyError(f"{path} is larger than {limit} bytes", reason=reasons.FILE_TOO_LARGE)
            looks = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
            return File(content, stamp(found), found.st_mtime_ns, *looks, attributes)
        return None

    def replace(self, name: str, content: bytes, looks: Looks, *, expected: object = ANYTHING) -> None:
        """Put `content` in place of whatever `name` is, in one instant.

        `expected`: the `File` that was read there, or None where nothing was; if it is no longer so,
        Changed is raised, and what is there is what the other program wrote.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self.temporary(name) as temporary, translated(f"write {self.join(name)}"):
            fd = os.open(temporary, flags, 0o600, dir_fd=self.fd)
            try:
                dress(fd, looks)
                write_all(fd, content)
                if looks.durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            if isinstance(expected, File):
                found = self.status(name)
                if found is None or stamp(found) != expected.stamp:
                    raise Changed(name)
            if expected is None:
                # link(2) replaces nothing, unlike rename(2).
                try:
                    os.link(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)
                except FileExistsError as error:
                    raise Changed(name) from error
                os.unlink(temporary, dir_fd=self.fd)
            else:
                os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            if looks.durable:
                self.sync()

    @contextmanager
    def temporary(self, name: str, *, directory: bool = False) -> Iterator[str]:
        """A name that cannot be guessed, and that `remove_stale` knows as firstkey's.

        What has it at the end, a file or the caller's own `directory`, is removed, whatever stopped the work:
        a full disk, or a signal at any moment.
        """
        temporary = f".firstkey-{name[:NAME_PART]}.{os.urandom(4).hex()}"
        try:
            yield temporary
        finally:
            with suppress(FirstkeyError):
                if self.status(temporary):
                    (self.remove_all if directory else self.remove)(temporary)

    def back_up(self, name: str, why: str) -> str:
        """Keep `name` under another name, durably, and return that: why, and when, stand behind it."""
        number, stamp = 0, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        new = kept = f"{name}.{why}.{stamp}"
        while self.status(new):
            number += 1
            new = f"{kept}.{number}"
        self.rename(name, new)
        return new

    def rename(self, old: str, new: str) -> None:
        """Give `old` the name `new`, durably."""
        with translated(f"rename {self.join(old)} to {self.join(new)}"):
            os.rename(old, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        self.sync()

    def open_to_lock(self, name: str) -> int:
        """A descriptor of the regular file `name`, made for its owner alone where it is missing."""
        with translated(f"open {self.join(name)}"):
            with suppress(FileExistsError):
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self.fd))
            with self.opened(name, stat.S_IFREG, access=os.O_RDWR) as fd:
                return os.dup(fd)

    def remove(self, name: str, *, durable: bool = False) -> None:
        """Remove the file or link `name`; one that is gone already is no matter."""
        with translated(f"remove {self.join(name)}"), suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)
            if durable:
                self.sync()

    def remove_all(self, name: str) -> None:
        """Remove `name`, which firstkey made: a file, a link, or a directory with all that is in it."""
        found = self.status(name)
        directory = self.child(name) if found and stat.S_ISDIR(found.st_mode) else None
        if directory is None:
            self.remove(name)
            return
        with directory:
            for inside in directory.names():
                directory.remove_all(inside)
        with translated(f"remove {self.join(name)}"):
            os.rmdir(name, dir_fd=self.fd)

    def remove_stale(self, *, directories: bool = False) -> None:
        """Remove what an interrupted run of firstkey left here. Called while no other one can be at work.

        `directories`: those too, for a place that is root's alone. A user could give such a name to one that
        is not theirs to empty. What cannot be removed stays: it is no reason to refuse the work.
        """
        # One by one: whose directory it is may have put a million names there.
        with translated(f"list {self.path}"), os.scandir(self.fd) as entries:
            stale = [entry.name for entry in entries if _STALE.fullmatch(entry.name)]
        for name in stale:
            with suppress(FirstkeyError, RecursionError):
                (self.remove_all if directories else self.remove)(name)

    def link(self, name: str, target: str, owner: tuple[int, int] = (-1, -1)) -> None:
        """Put a symbolic link in place of what `name` is, in one instant, durably; `owner`: uid and gid."""
        with self.temporary(name) as temporary, translated(f"link {self.join(name)} to {target}"):
            os.symlink(target, temporary, dir_fd=self.fd)
            os.chown(temporary, *owner, dir_fd=self.fd, follow_symlinks=False)
            os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            self.sync()

    def set_mode(self, name: str, mode: int, owner: tuple[int, int] | None = None) -> None:
        """Give the regular file or directory `name` another mode, and before that an owner (uid and gid)."""
        plain = stat.S_IFREG, stat.S_IFDIR
        with translated(f"change the mode of {self.join(name)}"), self.opened(name, *plain) as fd:
            if owner:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)

    @contextmanager
    def opened(self, name: str, *kinds: int, access: int = os.O_RDONLY) -> Iterator[int]:
        """A descriptor of `name`, once its kind is known: opening a device can be an act. Raises OSError."""
        require(os.stat(name, dir_fd=self.fd, follow_symlinks=False), self.join(name), *kinds)
        flags = access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = open_quietly(name, flags, self.fd)
        try:
            # Looked at again: between the two, it may have been exchanged.
            require(os.fstat(fd), self.join(name), *kinds)
            yield fd
        finally:
            os.close(fd)


def send_nowhere(number: int) -> None:
    """Let a standard descriptor lead to nowhere from now on."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:  # it is where that one was closed, and the lowest that was free
        os.dup2(nowhere, number)
        os.close(nowhere)
