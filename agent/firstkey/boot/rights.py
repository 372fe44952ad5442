"""With whose rights a user's file of keys is touched: the user's own wherever they suffice.

Only where nobody but root can change any part of the path is it safe for root to work on it; and only there
is it needed, for a directory of all users' files, or a home that its user may not write.
Everything that touches such a path runs in the child process of `identity.run_as`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Callable

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.model import Account
from firstkey.system import identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.boot.site import Site
    from firstkey.system.files import Directory
    from firstkey.system.tree import Tree

    Work = Callable[..., Any]

ROOT = Account("root", 0, 0, "/root", "/bin/sh")
OTHERS_WRITE = 0o022

_NOT_ROOTS = "it is not root's alone"
"""What the child says where root must not work; a JSON value, as it comes through a pipe."""


def exercise(site: Site, account: Account, path: str, work: Work, *, seconds: float) -> Any:  # noqa: ANN401
    """Do `work(as_root)` with the rights that go with the path, and return its answer (JSON values).

    Raises FirstkeyError as `work` does, and FirstkeyError(unsafe-directory) for a path that others than root
    and the user can change.
    """
    if is_in_home(account, path):
        return _as_user_first(site, account, path, work, seconds)
    answer = identity.run_as(ROOT, [0], lambda: _as_root(site.tree, account, path, work), seconds=seconds)
    return answer if answer != _NOT_ROOTS else _as_user(site, account, work, seconds)


def is_in_home(account: Account, path: str) -> bool:
    """Whether the path lies in the user's home, as it is written."""
    return path.startswith(account.home.rstrip("/") + "/") and ".." not in path.split("/")


def above(path: str) -> Iterator[str]:
    """Every directory above `path`, the nearest first."""
    while path not in ("/", ""):
        path = os.path.dirname(path)
        yield path


def real_path(tree: Tree, directory: Directory) -> str:
    """Where the open directory really is in the tree, root's links followed."""
    return directory.on_host[len(tree.root.rstrip("/")) :] or "/"


def folder(tree: Tree, account: Account, path: str) -> Directory | None:
    """The directory of the file, or None where it does not exist. Called in the child.

    Raises FirstkeyError(home-missing, symlink-refused, ...).
    """
    if not is_in_home(account, path):
        return tree.open(os.path.dirname(path))
    home = account.home.rstrip("/")
    directory = tree.open(home or "/")
    if directory is None:
        message = f"the home directory {account.home} of {account.name} does not exist"
        raise FirstkeyError(message, reason=reasons.HOME_MISSING)
    # Below the home no link is followed at all: everything there is the user's to exchange.
    for part in filter(None, os.path.dirname(path)[len(home) :].split("/")):
        with directory:
            below = directory.child(part)
        if below is None:
            return None
        directory = below
    return directory


def _as_user_first(site: Site, account: Account, path: str, work: Work, seconds: float) -> Any:  # noqa: ANN401
    try:
        return _as_user(site, account, work, seconds)
    except FirstkeyError as refused:
        if refused.reason is not reasons.PERMISSION_DENIED or os.geteuid() != 0:
            raise
        _refuse_shared_home(site, account, path)
        answer = identity.run_as(ROOT, [0], lambda: _if_roots(site.tree, path, work), seconds=seconds)
        if answer == _NOT_ROOTS:
            raise
        return answer


def _refuse_shared_home(site: Site, account: Account, path: str) -> None:
    """A file of root's in a home is heeded by sshd for everybody who has that home (`/`, say)."""
    for other in site.accounts.all():
        if other.uid != account.uid and other.home.rstrip("/") == account.home.rstrip("/"):
            message = f"{path} is the file of {other.name} too, whose home is the same"
            raise FirstkeyError(message, reason=reasons.SHARED_FILE)


def _as_user(site: Site, account: Account, work: Work, seconds: float) -> Any:  # noqa: ANN401
    groups = site.accounts.group_ids(account)
    return identity.run_as(account, groups, lambda: work(as_root=False), seconds=seconds)


def _if_roots(tree: Tree, path: str, work: Work) -> Any:  # noqa: ANN401
    """In the child, as root: the work, if nobody but root can change the path."""
    return _NOT_ROOTS if _others_directory(tree, path, (0, os.getuid())) else work(as_root=True)


def _as_root(tree: Tree, account: Account, path: str, work: Work) -> Any:  # noqa: ANN401
    """The same outside of homes, where a path that even strangers can change is refused."""
    others = _others_directory(tree, path, (0, os.getuid(), account.uid))
    if others:
        message = f"{others} can be changed by others than root and {account.name}"
        raise FirstkeyError(message, reason=reasons.UNSAFE_DIRECTORY)
    return _if_roots(tree, path, work)


def _others_directory(tree: Tree, path: str, allowed: tuple[int, ...]) -> str | None:
    """The first directory above the path that somebody else than these users can write, or None."""
    with _nearest(tree, path) as directory:
        place = real_path(tree, directory)
    for part in (place, *above(place)):
        with tree.opened(part) as opened:
            found = opened.status()
        if found and (found.st_uid not in allowed or found.st_mode & OTHERS_WRITE):
            return part
    return None


def _nearest(tree: Tree, path: str) -> Directory:
    """The nearest directory above the path that exists."""
    directories = (tree.open(place) for place in above(path))
    return next((directory for directory in directories if directory), None) or tree.opened("/")
