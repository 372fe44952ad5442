"""What seal may do to an image, as values: described to people first, then applied through the doors."""

from __future__ import annotations

import os
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.system import erase
from firstkey.system.files import Changed, Looks
from firstkey.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from firstkey.image.subject import Image
    from firstkey.system.files import Directory, File

LIMIT = 16 * 1024 * 1024
"""The largest file that is rewritten; all of them are configuration."""

WIPED = "overwritten and removed"
ONLY_REMOVED = "removed, but not overwritten: it is large, no plain file, or has other names"


class Change(Protocol):
    """One thing to be done. Applying it twice is applying it once."""

    @property
    def path(self) -> str:
        """The file that it is about."""

    def describe(self) -> str:
        """What would be done, in one line; a diff of the file may follow."""

    def apply(self, image: Image) -> str:
        """Do it; returns what was done, in a few words. Raises FirstkeyError where it cannot be done."""


class Remove(NamedTuple):
    """Remove a file, a link, or a directory with all that is in it. `wiping`: overwrite files before.

    `links`: those that lead to it, which go when it is gone.
    """

    path: str
    what: str
    wiping: bool = False
    spare: Callable[[str], bool] | None = None
    links: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line."""
        verb = "overwrite and remove" if self.wiping else "remove"
        return f"{verb} {visible(self.path)} ({self.what}{_and_links(self.links)})"

    def apply(self, image: Image) -> str:
        """Remove it; nothing is to be done where it is gone."""
        done = self._remove(image)
        _unlink(image, self.links)
        return done

    def _remove(self, image: Image) -> str:
        directory = image.tree.open(os.path.dirname(self.path))
        if directory is None:
            return "was gone already"
        with directory:
            name = os.path.basename(self.path)
            if self.wiping and not image.is_directory(self.path):
                return WIPED if erase.wipe(directory, name) else ONLY_REMOVED
            erase.remove(directory, name, spare=self.spare, wiping=self.wiping)
        return "removed"


class Clear(NamedTuple):
    """Remove all that is in a directory; the directory itself stays, and so does what `spare` names."""

    path: str
    what: str
    spare: Callable[[str], bool] | None = None

    def describe(self) -> str:
        """One line."""
        return f"remove all that is in {visible(self.path)} ({self.what})"

    def apply(self, image: Image) -> str:
        """Remove what is in it."""
        directory = image.tree.open(os.path.dirname(self.path))
        if directory is not None:
            with directory:
                erase.clear(directory, os.path.basename(self.path), spare=self.spare)
        return "cleared"


class Empty(NamedTuple):
    """Leave nothing in a file, which keeps its owner and mode. `links` that lead to it are removed."""

    path: str
    what: str
    links: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line."""
        return f"empty {visible(self.path)} ({self.what}{_and_links(self.links)})"

    def apply(self, image: Image) -> str:
        """Empty it."""
        directory = image.tree.open(os.path.dirname(self.path))
        if directory is None:
            return "was gone already"
        with directory:
            erase.empty(directory, os.path.basename(self.path))
        _unlink(image, self.links)
        return "emptied"


def _and_links(links: tuple[str, ...]) -> str:
    return f"; with what leads to it: {', '.join(map(visible, links))}" if links else ""


def _unlink(image: Image, links: tuple[str, ...]) -> None:
    for path in links:
        directory = image.tree.open(os.path.dirname(path))
        if directory is not None:
            with directory:
                erase.unlink(directory, os.path.basename(path))


class Write(NamedTuple):
    """Give a file another content; a new one gets `mode`. `what` says why, in a few words.

    `before` is what was read when this was decided, None for no file: where something else is there now,
    nothing is written. `mask` hides secrets in the diff.
    """

    path: str
    what: str
    before: bytes | None
    after: bytes
    mode: int = 0o644
    mask: Callable[[bytes], bytes] | None = None

    def describe(self) -> str:
        """One line, and the diff."""
        mask = self.mask or bytes
        return f"{self.what} in {visible(self.path)}\n" + diff(
            self.path, None if self.before is None else mask(self.before), mask(self.after)
        )

    def apply(self, image: Image) -> str:
        """Write it where the path leads in the end, links of root's own followed inside the tree."""
        with located(image, self.path) as (directory, name):
            old = directory.read(name, limit=LIMIT)
            if old is not None and old.content == self.after:
                return "was so already"
            if (old.content if old else None) != self.before:
                message = f"{self.path} changed since it was looked at"
                raise FirstkeyError(message, reason=reasons.CONCURRENT_CHANGE)
            put(directory, name, self.after, old, mode=self.mode)
        return "written"


class Link(NamedTuple):
    """Put a symbolic link in place of whatever is there."""

    path: str
    target: str
    what: str

    def describe(self) -> str:
        """One line."""
        return f"link {visible(self.path)} to {visible(self.target)} ({self.what})"

    def apply(self, image: Image) -> str:
        """Link it; the directory is made where it is missing."""
        with image.tree.ensure(os.path.dirname(self.path), mode=0o755) as directory:
            erase.link(directory, os.path.basename(self.path), self.target)
        return "linked"


@contextmanager
def located(image: Image, path: str) -> Iterator[tuple[Directory, str]]:
    """The open directory and the name that `path` leads to; the directory is made where it is missing."""
    place = image.tree.locate(path)
    if place is None:
        place = image.tree.ensure(os.path.dirname(path), mode=0o755), os.path.basename(path)
    directory, name = place
    with directory:
        image.refuse_mounted(directory.join(name))
        yield directory, name


def put(directory: Directory, name: str, content: bytes, old: File | None, *, mode: int) -> None:
    """Replace the file in one instant; owner, mode, attributes and SELinux label stay what they were.

    A new file takes the label of one beside it, since the image's own policy cannot be asked here.
    """
    if old is None:
        looks = Looks(mode, label=erase.label_for_new(directory))
    else:
        owner = (old.uid, old.gid) if os.geteuid() == 0 else None
        looks = Looks(old.mode, owner, erase.label(directory, name), directory.attributes(name))
    directory.remove_stale()
    try:
        directory.replace(name, content, looks, expected=old)
    except Changed as error:
        message = f"{directory.join(name)} changed while it was written"
        raise FirstkeyError(message, reason=reasons.CONCURRENT_CHANGE) from error


def diff(path: str, before: bytes | None, after: bytes | None) -> str:
    """A unified diff; nothing in it that a terminal would act on."""
    import difflib

    old, new = (_lines(content or b"") for content in (before, after))
    source, target = (path if content is not None else "/dev/null" for content in (before, after))
    return "".join(difflib.unified_diff(old, new, visible(source), visible(target)))


def _lines(content: bytes) -> list[str]:
    text = content.decode("utf-8", "surrogateescape")
    return [f"{visible(line)}\n" for line in text.removesuffix("\n").split("\n")] if content else []


def quoted(path: str) -> str:
    """The path as one types it in a shell, for remedies."""
    return shlex.quote(path) if path.isprintable() else f"$'{''.join(map(_typed, path))}'"


def _typed(char: str) -> str:
    """The character inside the shell's $'...'."""
    if char.isprintable() and char not in "'\\":
        return char
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
