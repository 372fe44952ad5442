"""A tree of files: the running system, an image, or a scratch root.

Every path is resolved inside it, component by component, as a process chrooted into it would see it:
an absolute symbolic link or a `..` in an image never leads out to the host.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import nullcontext, suppress

from firstkey import reasons
from firstkey.reasons import FirstkeyError
from firstkey.system.files import Directory, Looks, open_quietly, translated

MAXIMUM_LINKS = 40
"""How many symbolic links one path may go through; the kernel's own limit (path_resolution(7))."""
_PASSING = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def resolved(root: str) -> str:
    """The root's path without links; `/` for the running system by another name (a bind mount, say)."""
    with translated(f"open the root {root}"):  # of another user's process, in /proc
        path = os.path.realpath(root)
        return "/" if os.path.exists(path) and os.path.samefile(path, "/") else path


class Tree:
    """The tree under `root`: `/` is the running system, anything else an image or a scratch root."""

    def __init__(self, root: str = "/", *, at: str | None = None) -> None:
        """`at`: where this process has it (`here`), if not at `root`, the host's (a resolved path)."""
        self.root = root if at else resolved(root)
        self.is_running_system = self.root == "/"
        """Whether this is the system that runs, not an image of another one."""
        self.here = at or self.root
        with translated(f"open the root {root}"):
            self._fd = os.open(self.here, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Tree:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def open(self, path: str) -> Directory | None:
        """The directory at `path`, or None where a part of it does not exist.

        Links are followed inside the tree, but only root's own (or, for a caller that is not root, the
        caller's): a link that a user placed could aim anything that root does at another file.
        """
        with translated(f"open {path}"), suppress(FileNotFoundError):
            fd, real = self.walk(path)
            return Directory(fd, path, real)
        return None

    def opened(self, path: str) -> Directory:
        """The directory at `path`, which must exist."""
        if (directory := self.open(path)) is None:
            raise FirstkeyError(f"{path} does not exist", reason=reasons.NOT_A_DIRECTORY)
        return directory

    def ensure(self, path: str, *, mode: int) -> Directory:
        """The directory at `path`, made with `mode` where it is missing, and its parents with 0755."""
        if directory := self.open(path):
            return directory
        parent, name = os.path.split(path.rstrip("/"))
        with self.ensure(parent, mode=0o755) as above:
            return above.make(name, Looks(mode))

    def read(self, path: str, *, limit: int) -> bytes | None:
        """The content of the regular file at `path`, links followed as `open` does; None where it is absent.

        A link to /dev/null reads as empty: that is how systemd's configuration is masked.
        """
        final, found = self.locate(path)
        with found or nullcontext() as directory:
            if is_null(final):
                return b""
            file = directory.read(os.path.basename(final), limit=limit) if directory else None
            return file.content if file else None

    def place(self, path: str) -> tuple[Directory, str]:
        """As `locate`; a directory that does not exist is made."""
        final, directory = self.locate(path)
        return directory or self.ensure(os.path.dirname(final), mode=0o755), os.path.basename(final)

    def locate(self, path: str) -> tuple[str, Directory | None]:
        """Where `path` leads in the end, root's links followed, and the directory of that, open.

        The file may be missing. The directory is None where it, or one on the way, does not exist.
        """
        links = 0
        while True:
            name = os.path.basename(path)
            with self.open(os.path.dirname(path)) or nullcontext() as directory:
                found = directory.status(name) if directory else None
                if directory is None or found is None or not stat.S_ISLNK(found.st_mode):
                    return path, directory and Directory(os.dup(directory.fd), directory.path, directory.real)
                links += 1
                with translated(f"look at {path}"):
                    path = os.path.join(directory.path, _follow(name, directory.fd, links, path))

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
            if error.reason is reasons.NOT_A_DIRECTORY:
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
        way, links = [("", os.dup(self._fd))], 0
        pending = path.split("/")[::-1]
        try:
            while pending:
                name = pending.pop()
                if name == ".." and way[1:]:
                    os.close(way.pop()[1])
                if name in ("", ".", ".."):
                    continue
                try:
                    # It is O_DIRECTORY that has an automount point (a home, say) mounted at all.
                    way.append((name, os.open(name, _PASSING | os.O_DIRECTORY, dir_fd=way[-1][1])))
                except NotADirectoryError:
                    links += 1
                    target = _follow(name, way[-1][1], links, path)
                    pending.extend(target.split("/")[::-1])
                    while target.startswith("/") and way[1:]:
                        os.close(way.pop()[1])
            flags, here = os.O_DIRECTORY | os.O_CLOEXEC, way[-1][1]
            try:
                found = open_quietly(".", os.O_RDONLY | flags, here)
            except PermissionError:  # one to pass through: it can be neither listed nor synced
                found = os.dup(here)
            return found, "/".join(name for name, _ in way) or "/"
        finally:
            for _, fd in way:
                os.close(fd)


def is_null(path: str) -> bool:
    """Whether that is /dev/null, to which systemd links what is masked."""
    return os.path.normpath(path) == "/dev/null"


def _follow(name: str, above: int, links: int, path: str) -> str:
    """Where the link `name` in the open directory leads; anything else that is no directory is refused."""
    fd = os.open(name, _PASSING, dir_fd=above)
    try:
        found = os.fstat(fd)
        if not stat.S_ISLNK(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if found.st_uid not in (0, os.getuid()):
            message = f"{path} goes through a symbolic link of user {found.st_uid}; it was not followed"
            raise FirstkeyError(message, reason=reasons.SYMLINK_REFUSED)
        if links > MAXIMUM_LINKS:
            raise OSError(errno.ELOOP, "too many symbolic links")
        return os.readlink("", dir_fd=fd)
    finally:
        os.close(fd)
