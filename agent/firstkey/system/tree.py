"""A tree of files: the running system, an image, or a scratch root.

Every path is resolved inside it, component by component, as a process chrooted into it would see it:
an absolute symbolic link or a `..` in an image never leads out to the host.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, nullcontext

from firstkey import reasons
from firstkey.reasons import FirstkeyError
from firstkey.system.files import Directory, Looks, open_quietly, translated

MAXIMUM_LINKS = 40
"""How many symbolic links one path may go through; the kernel's own limit (path_resolution(7))."""


def resolved(root: str) -> str:
    """The root's path without links; `/` for the running system by another name (a bind mount, say)."""
    path = os.path.realpath(root)
    return "/" if os.path.exists(path) and os.path.samefile(path, "/") else path


class Tree:
    """The tree under `root`: `/` is the running system, anything else an image or a scratch root."""

    def __init__(self, root: str = "/", *, at: str | None = None) -> None:
        """`at`: where this process has the tree that the host has at `root` (a resolved path)."""
        self.root = root if at else resolved(root)
        with translated(f"open the root {root}"):
            self._fd = os.open(at or self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Tree:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def is_running_system(self) -> bool:
        """Whether this is the system that runs, not an image of another one."""
        return self.root == "/"

    def on_host(self, path: str) -> str:
        """The path as the host would write it, its links not followed: for messages and comparisons."""
        return path if self.is_running_system else self.root + path

    def open(self, path: str) -> Directory | None:
        """The directory at `path`, or None where a part of it does not exist.

        Links are followed inside the tree, but only root's own (or, for a caller that is not root, the
        caller's): a link that a user placed could aim anything that root does at another file.
        """
        with translated(f"open {path}"):
            try:
                return Directory(self.walk(path)[0], path)
            except FileNotFoundError:
                return None

    def opened(self, path: str) -> Directory:
        """The directory at `path`, which must exist."""
        directory = self.open(path)
        if directory is None:
            raise FirstkeyError(f"{path} does not exist", reason=reasons.NOT_A_DIRECTORY)
        return directory

    def ensure(self, path: str, *, mode: int) -> Directory:
        """The directory at `path`, made with `mode` where it is missing, and its parents with 0755."""
        directory = self.open(path)
        if directory is not None:
            return directory
        parent, name = os.path.split(path.rstrip("/"))
        with self.ensure(parent, mode=0o755) as above:
            return above.make(name, Looks(mode))

    def read(self, path: str, *, limit: int) -> bytes | None:
        """The content of the regular file at `path`, links followed as `open` does; None where it is absent.

        A link to /dev/null reads as empty: that is how systemd's configuration is masked.
        """
        final, directory = self._final(path)
        if directory is None:
            return b"" if is_null(final) else None
        with directory:
            if is_null(final):
                return b""
            file = directory.read(os.path.basename(final), limit=limit)
            return file.content if file else None

    def locate(self, path: str) -> tuple[Directory, str] | None:
        """The directory and name that `path` leads to in the end, root's links followed.

        The file may be missing. None where a directory on the way does not exist.
        """
        final, directory = self._final(path)
        return (directory, os.path.basename(final)) if directory else None

    def place(self, path: str) -> tuple[Directory, str]:
        """As `locate`; a directory that does not exist is made."""
        final, directory = self._final(path)
        directory = directory or self.ensure(os.path.dirname(final), mode=0o755)
        return directory, os.path.basename(final)

    def _final(self, path: str) -> tuple[str, Directory | None]:
        """`path`, or where the links lead that stand at its end, and the directory of that, open."""
        for _ in range(MAXIMUM_LINKS + 1):
            directory = self.open(os.path.dirname(path))
            if directory is None:
                return path, None
            name = os.path.basename(path)
            with ExitStack() as stack:
                stack.push(directory.__exit__)
                found = directory.status(name)
                if found is None or not stat.S_ISLNK(found.st_mode):
                    stack.pop_all()
                    return path, directory
                _check_link(found, path)
                with translated(f"look at {path}"):
                    path = os.path.join(directory.path, os.readlink(name, dir_fd=directory.fd))
        raise FirstkeyError(f"{path} goes round in links", reason=reasons.SYMLINK_REFUSED)

    def names(self, path: str) -> list[str]:
        """The names in the directory at `path`; none where it is absent."""
        with self.open(path) or nullcontext() as directory:
            return directory.names() if directory else []

    def exists(self, path: str) -> bool:
        """Whether anything, a link included, has that name."""
        try:
            with self.open(os.path.dirname(path)) or nullcontext() as directory:
                return directory is not None and directory.status(os.path.basename(path)) is not None
        except FirstkeyError as error:
            if isinstance(error.__cause__, NotADirectoryError):
                return False
            raise

    def write(self, path: str, content: bytes, *, mode: int) -> None:
        """Replace the file at `path`; its directory is made where it is missing."""
        with self.ensure(os.path.dirname(path), mode=0o755) as directory:
            directory.replace(os.path.basename(path), content, Looks(mode))

    def walk(self, path: str) -> tuple[int, str]:
        """Open the directory at `path`, component by component: a descriptor to read it, and where it is.

        Raises OSError for what the kernel refuses, FirstkeyError for a stranger's link.
        """
        if "\0" in path:
            raise FileNotFoundError(errno.ENOENT, "no file can have such a name")
        # The directories from the root to where the walk has come, all open: `..` is the one before.
        opened, links = [os.dup(self._fd)], 0
        names: list[str] = []
        pending = path.split("/")[::-1]
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            while pending:
                name = pending.pop()
                if name == ".." and names:
                    os.close(opened.pop())
                    names.pop()
                if name in ("", ".", ".."):
                    continue
                try:
                    # It is O_DIRECTORY that has an automount point (a home, say) mounted at all.
                    opened.append(os.open(name, flags | os.O_DIRECTORY, dir_fd=opened[-1]))
                except NotADirectoryError:
                    links += 1
                    target = _follow(os.open(name, flags, dir_fd=opened[-1]), links, path)
                    pending.extend(target.split("/")[::-1])
                    while target.startswith("/") and names:
                        os.close(opened.pop())
                        names.pop()
                else:
                    names.append(name)
            return _readable(opened[-1]), "/" + "/".join(names)
        finally:
            for fd in opened:
                os.close(fd)


def _readable(place: int) -> int:
    """A descriptor to list and sync the directory; where only passing through is allowed, one for that."""
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return open_quietly(".", os.O_RDONLY | flags, place)
    except PermissionError:
        return os.open(".", os.O_PATH | flags, dir_fd=place)


def is_null(path: str) -> bool:
    """Whether that is /dev/null, to which systemd links what is masked."""
    return os.path.normpath(path) == "/dev/null"


def _follow(fd: int, links: int, path: str) -> str:
    """Where the link leads; anything else that is no directory is refused. Closes `fd`."""
    try:
        found = os.fstat(fd)
        if not stat.S_ISLNK(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        _check_link(found, path)
        if links > MAXIMUM_LINKS:
            raise OSError(errno.ELOOP, "too many symbolic links")
        return os.readlink("", dir_fd=fd)
    finally:
        os.close(fd)


def _check_link(found: os.stat_result, path: str) -> None:
    if found.st_uid not in (0, os.getuid()):
        message = f"{path} goes through a symbolic link of user {found.st_uid}; it was not followed"
        raise FirstkeyError(message, reason=reasons.SYMLINK_REFUSED)
