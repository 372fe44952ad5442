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
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.system import descriptors
from firstkey.system.descriptors import File, Looks, Stamp, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ANYTHING", "Changed", "Directory", "File", "Looks", "Stamp", "translated"]

_STALE = re.compile(r"\.firstkey-.+\.[0-9a-f]{8}", re.DOTALL)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What link(2) answers where there are no hard links: vfat, and some file systems in user space."""

NAME_PART = 50
"""Characters of a name that stand in that of its temporary file: with four bytes each it fits (NAME_MAX)."""

ANYTHING = object()
"""For `Directory.replace`: whatever is there may go."""


class Changed(Exception):  # noqa: N818 - not an error but an answer: look again
    """The file is not the one that was read: another program changed it meanwhile."""


class Directory:
    """An open directory. Names in it are plain names; nothing here follows a link."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path

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
        with translated(f"look at {self.join(name)}"):
            try:
                return os.stat(name, dir_fd=self.fd, follow_symlinks=False) if name else os.fstat(self.fd)
            except FileNotFoundError:
                return None

    def names(self) -> list[str]:
        """The names in it, sorted."""
        with translated(f"list {self.path}"):
            return sorted(os.listdir(self.fd))

    def child(self, name: str) -> Directory | None:
        """The directory `name` in it, or None; anything but a real directory is refused."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        path = self.join(name)
        with translated(f"open {path}"):
            try:
                return Directory(descriptors.open_quietly(name, flags, self.fd), path)
            except FileNotFoundError:
                return None
            except NotADirectoryError:
                # O_DIRECTORY hides a link behind ENOTDIR.
                self._refuse_link(name)
                raise

    def _refuse_link(self, name: str) -> None:
        found = self.status(name)
        if found and stat.S_ISLNK(found.st_mode):
            message = f"{self.join(name)} is a symbolic link; it was not followed"
            raise FirstkeyError(message, reason=reasons.SYMLINK_REFUSED)

    def make(self, name: str, looks: Looks) -> Directory:
        """Make the directory `name`, durably, and open it; one that is there already is opened as it is."""
        with translated(f"make the directory {self.join(name)}"):
            made = self._mkdir(name, looks.mode)
        directory = self.child(name)
        if directory is None:
            raise FirstkeyError(f"{self.join(name)} vanished", reason=reasons.CONCURRENT_CHANGE)
        if not made:
            return directory
        try:
            directory.dress(looks)
            with translated(f"sync {self.path}"):
                self._sync(looks)
        except BaseException:
            directory.__exit__()
            with suppress(OSError):
                os.rmdir(name, dir_fd=self.fd)
            raise
        return directory

    def _mkdir(self, name: str, mode: int) -> bool:
        """Made with its mode from the start: nobody comes back to mend it after a crash."""
        umask = os.umask(0)
        try:
            os.mkdir(name, mode, dir_fd=self.fd)
        except FileExistsError:
            return False
        finally:
            os.umask(umask)
        return True

    def _sync(self, looks: Looks) -> None:
        if looks.durable:
            descriptors.sync_directory(self.fd)

    def read(self, name: str, *, limit: int) -> File | None:
        """The regular file `name`, or None where there is none. More than `limit` bytes are refused."""
        path = self.join(name)
        try:
            with translated(f"read {path}"), self._opened(name, stat.S_ISREG) as fd:
                return descriptors.read_file(fd, path, limit)
        except FirstkeyError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def replace(self, name: str, content: bytes, looks: Looks, *, expected: object = ANYTHING) -> None:
        """Put `content` in place of whatever `name` is, in one instant.

        `expected`: the `File` that was read there, or None where nothing was; if it is no longer so,
        Changed is raised, and what is there is what the other program wrote.
        """
        temporary = self.temporary_name(name)
        with self.unless_renamed(temporary), translated(f"write {self.join(name)}"):
            self._fill(temporary, content, looks)
            if isinstance(expected, File):
                found = self.status(name)
                if found is None or descriptors.stamp(found) != expected.stamp:
                    raise Changed(name)
            if expected is None:
                self._link(temporary, name)
            else:
                os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            self._sync(looks)

    def _link(self, temporary: str, name: str) -> None:
        """Give the new file its name only if nothing has that: link(2) replaces nothing, unlike rename(2)."""
        try:
            os.link(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)
        except FileExistsError as error:
            raise Changed(name) from error
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A file system without hard links: between this look and the rename, a file that comes is lost.
            if self.status(name):
                raise Changed(name) from error
            os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        else:
            os.unlink(temporary, dir_fd=self.fd)

    def stage(self, name: str, content: bytes, looks: Looks) -> str:
        """Write a complete new file beside `name`, and return its temporary name."""
        temporary = self.temporary_name(name)
        with self.unless_renamed(temporary), translated(f"write {self.join(name)}"):
            self._fill(temporary, content, looks)
        return temporary

    @contextmanager
    def unless_renamed(self, temporary: str) -> Iterator[None]:
        """Leave no temporary file behind, whatever stops the work: a full disk, or a signal at any moment."""
        try:
            yield
        except BaseException:
            with suppress(FirstkeyError):
                self.remove(temporary)
            raise

    def _fill(self, temporary: str, content: bytes, looks: Looks) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=self.fd)
        try:
            descriptors.dress(fd, looks)
            descriptors.write_all(fd, content)
            if looks.durable:
                os.fsync(fd)
        finally:
            os.close(fd)

    @staticmethod
    def temporary_name(name: str) -> str:
        """A name that nobody can guess, and that `remove_stale` knows as firstkey's."""
        return f".firstkey-{name[:NAME_PART]}.{os.urandom(4).hex()}"

    def free_name(self, name: str) -> str:
        """`name`, or that with the first number behind it that is not taken."""
        number = 0
        free = name
        while self.status(free):
            number += 1
            free = f"{name}.{number}"
        return free

    def rename(self, old: str, new: str) -> None:
        """Give `old` the name `new`, durably."""
        with translated(f"rename {self.join(old)} to {self.join(new)}"):
            os.rename(old, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            descriptors.sync_directory(self.fd)

    def open_to_lock(self, name: str) -> int:
        """A descriptor of the regular file `name`, made for its owner alone where it is missing."""
        path = self.join(name)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with translated(f"open {path}"):
            found = self.status(name)
            if found:
                descriptors.require(found, stat.S_ISREG, path)
            fd = os.open(name, flags, 0o600, dir_fd=self.fd)
            try:
                descriptors.require(os.fstat(fd), stat.S_ISREG, path)
            except BaseException:
                os.close(fd)
                raise
            return fd

    def remove(self, name: str, *, durable: bool = False) -> None:
        """Remove the file or link `name`; one that is gone already is no matter."""
        with translated(f"remove {self.join(name)}"):
            try:
                os.unlink(name, dir_fd=self.fd)
            except FileNotFoundError:
                return
            if durable:
                descriptors.sync_directory(self.fd)

    def remove_directory(self, name: str) -> None:
        """Remove the directory `name` and the plain files in it; it is one that firstkey made."""
        directory = self.child(name)
        if directory is None:
            return
        with directory:
            for inside in directory.names():
                directory.remove(inside)
        with translated(f"remove {self.join(name)}"):
            os.rmdir(name, dir_fd=self.fd)

    def remove_stale(self) -> None:
        """Remove what an interrupted run of firstkey left here. Called while no other one can be at work.

        What cannot be removed stays: it is in nobody's way, and no reason to refuse the work.
        """
        for name in self.stale_names():
            with suppress(FirstkeyError):
                found = self.status(name)
                if found and stat.S_ISDIR(found.st_mode):
                    self.remove_directory(name)
                elif found and (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
                    self.remove(name)

    def stale_names(self) -> list[str]:
        """What an interrupted run of firstkey left here."""
        # One by one: whose directory it is may have put a million names there.
        with translated(f"list {self.path}"), os.scandir(self.fd) as entries:
            return [entry.name for entry in entries if _STALE.fullmatch(entry.name)]

    def link(self, name: str, target: str, owner: tuple[int, int] | None) -> None:
        """Make the symbolic link `name`, which must not be there, durably; `owner`: uid and gid."""
        with translated(f"link {self.join(name)} to {target}"):
            os.symlink(target, name, dir_fd=self.fd)
            if owner:
                os.chown(name, *owner, dir_fd=self.fd, follow_symlinks=False)
            descriptors.sync_directory(self.fd)

    def dress(self, looks: Looks) -> None:
        """Give the directory itself that mode and owner."""
        with translated(f"set up the directory {self.path}"):
            descriptors.dress(self.fd, looks)

    def set_mode(self, name: str, mode: int) -> None:
        """Give the regular file or directory `name` another mode."""
        with translated(f"change the mode of {self.join(name)}"), self._opened(name) as fd:
            os.fchmod(fd, mode)

    def set_owner(self, name: str, uid: int, gid: int) -> None:
        """Give the regular file or directory `name` to somebody else."""
        with translated(f"change the owner of {self.join(name)}"), self._opened(name) as fd:
            os.fchown(fd, uid, gid)

    def attributes(self, name: str) -> tuple[tuple[str, bytes], ...]:
        """The extended attributes (ACLs among them) of `name` that a rewritten file should have again."""
        with suppress(OSError), self._opened(name) as fd:
            return descriptors.attributes(fd)
        return ()

    @contextmanager
    def _opened(self, name: str, wanted: Callable[[int], bool] = descriptors.is_plain) -> Iterator[int]:
        """A descriptor of `name` to read it, once it is known what it is: opening a device can be an act."""
        descriptors.require(os.stat(name, dir_fd=self.fd, follow_symlinks=False), wanted, self.join(name))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = descriptors.open_quietly(name, flags, self.fd)
        try:
            # Looked at again: between the two, it may have been exchanged.
            descriptors.require(os.fstat(fd), wanted, self.join(name))
            yield fd
        finally:
            os.close(fd)
