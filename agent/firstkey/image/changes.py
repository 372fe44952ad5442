"""What seal may do to an image, as values: described to people first, then applied through one door.

A change is pure data, so that it can be decided where nothing can be written and applied elsewhere. What it
destroys, it names by a path without a link in it, with what was seen there: at the door, the path is entered
name by name, no link is followed, and another file than the one that was seen is left alone.
"""

from __future__ import annotations

import json
import os
import posixpath
import stat
from contextlib import ExitStack
from functools import partial
from typing import Union

from firstkey import NamedTuple, image_reasons, reasons
from firstkey.boot import ledger
from firstkey.boot.ledger import Sealed
from firstkey.display import diff
from firstkey.image import door, shadow
from firstkey.image.door import Context, Seen
from firstkey.reasons import FirstkeyError
from firstkey.system import command, erase, walk
from firstkey.system.files import Looks
from firstkey.system.mounts import upwards
from firstkey.system.shadow import LOCKED, entries
from firstkey.system.tree import Tree
from firstkey.text import visible

SSHD_MODE = 0o600
"""That of a new file of sshd's settings."""
AMI_TOOLS = ("aws-amitools-ec2", "ec2-ami-tools")
MANAGERS = {
    "apt": ("apt-get", "install", "--yes", "--only-upgrade"),
    "yum": ("yum", "--assumeyes", "update"),
}
"""The packages that may be updated, and how each package manager does it."""
SALT_BYTES = 16
MINUTES = 15
"""How long a package manager may take."""


class Remove(NamedTuple):
    """Remove a file, a link, or a directory with all that is in it. `wiping`: overwrite files before.

    `links`: those that lead to it, which go when it is gone. `blob`: the public half of a host key, which is
    remembered by a salted hash. `emptying`: leave the file, with nothing in it; it keeps its owner and mode.
    """

    path: str
    what: str
    wiping: bool = False
    links: tuple[str, ...] = ()
    seen: Seen | None = None
    blob: bytes | None = None
    emptying: bool = False

    def describe(self) -> str:
        """One line."""
        verb = "empty" if self.emptying else "overwrite and remove" if self.wiping else "remove"
        links = f"; with what leads to it: {', '.join(map(visible, self.links))}" if self.links else ""
        remembered = ", and leave a salted hash of it" if self.blob else ""
        return f"{verb} {visible(self.path)} ({self.what}{links}){remembered}"

    def apply(self, context: Context) -> str:
        """The hash first: a key that is gone cannot be hashed. Then the links to it, if they still are."""
        if self.blob is not None:
            try:
                ways = (walk.follow(context.tree, path) for path in upwards(ledger.DIRECTORY))
                context.require_own(next(filter(None, ways)).path)
                remember(context.tree, self.blob, instance=context.instance)
            except FirstkeyError as error:
                message = f"{self.path} was not removed: it could not be remembered: {error.message}"
                raise FirstkeyError(message, reason=error.reason) from error
        erasing = erase.empty if self.emptying else partial(erase.remove, wiping=self.wiping)
        check, *_ = [door.checked(path, self.seen, context.needed) for path in (self.path, *self.links)]
        with context.door(self.path) as (directory, name):
            done = erasing(directory, name, check=check) if directory else None
        for path in self.links:
            with context.door(path) as (directory, name):
                found = directory.status(name) if directory else None
                if directory and found and stat.S_ISLNK(found.st_mode):
                    directory.remove(name, durable=True)
        if done is None:
            return "was gone already"
        if self.emptying:
            return "emptied"
        if not self.wiping or (self.seen and stat.S_ISDIR(self.seen.kind)):
            return "removed"
        return door.WIPED if done else door.ONLY_REMOVED


Empty = partial(Remove, emptying=True)
"""Leave nothing in a file."""


def remember(tree: Tree, blob: bytes, *, instance: str | None) -> None:
    """Add a removed key to the salted hashes by which a boot knows one that comes back.

    Raises FirstkeyError where the file cannot be written.
    """
    before = ledger.load_sealed(tree)
    sealed = before if before.salt else Sealed(os.urandom(SALT_BYTES))
    instances = {sealed.digest(instance.encode())} if instance else set()
    sealed = Sealed(sealed.salt, sealed.hashes | {sealed.digest(blob)}, sealed.instances | instances)
    if sealed == before:
        return
    plain = {
        "version": ledger.VERSION,
        "salt": sealed.salt.hex(),
        "hashes": sorted(sealed.hashes),
        "instances": sorted(sealed.instances),
    }
    with tree.ensure(ledger.DIRECTORY, mode=0o700) as directory:
        directory.remove_stale()
        content = json.dumps(plain, indent=1).encode() + b"\n"
        directory.replace(posixpath.basename(ledger.SEALED), content, Looks(0o600))


class Write(NamedTuple):
    """Give a file another content; a new one gets `mode`. `what` says why, in a few words.

    `before` is what was read when this was decided, None for no file: where something else is there now,
    nothing is written. `masked` is shown in place of both where there are secrets in them. `link`: it is put
    in place of a link of that name, and not where that leads.
    """

    path: str
    what: str
    before: bytes | None
    after: bytes
    mode: int = 0o644
    masked: tuple[bytes, bytes] | None = None
    link: Seen | None = None

    def describe(self) -> str:
        """One line, and the diff."""
        before, after = self.masked or (self.before, self.after)
        return f"{self.what} in {visible(self.path)}\n{diff(self.path, before, after)}"

    def apply(self, context: Context) -> str:
        """Write it, in one instant."""
        with context.door(self.path, make=True) as (directory, name):
            assert directory  # noqa: S101 - it was made
            found = directory.status(name)
            if self.link and found and stat.S_ISLNK(found.st_mode):
                self.link.require(found, self.path)
                door.put(directory, name, self.after, None, mode=self.mode, over_link=True)
                return "written"
            old = door.read(directory, name)
            if old is not None and old.content == self.after:
                return "was so already"
            if (old.content if old else None) != self.before:
                raise door.changed(self.path)
            door.put(directory, name, self.after, old, mode=self.mode)
        return "written"


class Lock(NamedTuple):
    """Lock one account's password."""

    path: str
    name: str
    mark: str
    diff: str

    def describe(self) -> str:
        """How it is undone, and the diff without the password."""
        is_passwds = self.mark == shadow.LOCK and self.path not in shadow.GROUPS
        undo = f"passwd -u {self.name}" if is_passwds else f"taking the {self.mark} away"
        password = f"the password of {visible(self.name)} in {visible(self.path)}"
        return f"lock {password} ({visible(undo)} undoes it)\n{self.diff}"

    def apply(self, context: Context) -> str:
        """Rewrite the one line; everything else stays byte for byte."""
        with context.door(self.path) as (directory, name):
            old = door.read(directory, name) if directory else None
            if directory is None or old is None:
                raise door.changed(self.path)
            before = old.content
            state = next((entry.state for entry in entries(before) if entry.name == self.name), "")
            if state == LOCKED:
                return "was locked already"
            door.put(directory, name, shadow.locked(before, self.name, self.mark), old, mode=0o640)
        return f"locked with {self.mark}"


class Link(NamedTuple):
    """Put a symbolic link in place of what was seen there; None: of nothing.

    `leads` is where the target leads in the end, before the plan is carried out; None: nowhere.
    """

    path: str
    target: str
    what: str
    leads: str | None = None
    seen: Seen | None = None

    def describe(self) -> str:
        """One line."""
        return f"link {visible(self.path)} to {visible(self.target)} ({self.what})"

    def apply(self, context: Context) -> str:
        """Link it; the directory is made where it is missing."""
        with context.door(self.path, make=True) as (directory, name):
            assert directory  # noqa: S101 - it was made
            found = directory.status(name)
            is_link = found is not None and stat.S_ISLNK(found.st_mode)
            if is_link and os.readlink(name, dir_fd=directory.fd) == self.target:
                return "was so already"
            if found and self.seen:
                self.seen.require(found, self.path)
            elif found or self.seen:
                raise door.changed(self.path)
            directory.remove_stale()
            directory.link(name, self.target)
        return "linked"


class SetSshd(NamedTuple):
    """Make a setting of sshd's effective. `files`, which planning chooses: path, content before and after."""

    keyword: str
    value: str
    files: tuple[tuple[str, bytes | None, bytes], ...] = ()

    @property
    def path(self) -> str:
        """The file that is written."""
        return self.files[0][0]

    def describe(self) -> str:
        """One line, and the diffs."""
        diffs = "".join(diff(*file) for file in self.files)
        places = " and ".join(visible(path) for path, _, _ in self.files)
        return f"set {self.keyword} {self.value} for sshd in {places}\n{diffs}"

    def apply(self, context: Context) -> str:
        """Write it, if sshd says of these very contents that they have the effect."""
        if context.holds(self.keyword, {}):
            return "was so already"
        if not context.holds(self.keyword, {path: after for path, _, after in self.files}):
            message = f"sshd says that {self.keyword} {self.value} has no effect; nothing was changed"
            raise FirstkeyError(message, reason=image_reasons.NO_PROOF)
        with ExitStack() as undoing:  # some of the files alone may let more users in than before
            for path, before, after in self.files:
                Write(path, "set", before, after, SSHD_MODE).apply(context)
                undoing.callback(Write(path, "put back", after, before or b"", SSHD_MODE).apply, context)
            undoing.pop_all()
        return "written, and sshd says that it is effective"


class Update(NamedTuple):
    """Have the package manager bring the AMI tools up to date."""

    manager: str
    package: str

    @property
    def path(self) -> str:
        """What it is about: no file, but the package."""
        return self.package

    @property
    def argv(self) -> tuple[str, ...]:
        """The command."""
        return (*MANAGERS[self.manager], self.package)

    def describe(self) -> str:
        """The command."""
        return f"run {' '.join(self.argv)}"

    def apply(self, context: Context) -> str:
        """Run it, on the running system only: nothing that is in an image is run."""
        command_line = " ".join(self.argv)
        if not context.tree.is_running_system:
            message = f"the tools are in an image, where nothing is run; run in it: {command_line}"
            raise FirstkeyError(message, reason=image_reasons.NOT_THE_RUNNING_SYSTEM)
        program = command.find(self.argv[0])
        if program is None:
            raise FirstkeyError(f"{self.argv[0]} is not installed", reason=reasons.DEPENDENCY_MISSING)
        outcome = command.run([program, *self.argv[1:]], seconds=60 * MINUTES)
        if outcome.status:
            raise FirstkeyError(f"{command_line} failed: {outcome.words}", reason=reasons.DEPENDENCY_MISSING)
        return "updated"


Change = Union[Remove, Write, Lock, Link, SetSshd, Update]
"""One thing to be done: `path` is the file that it is about, `describe` says what would be done, in one line
(a diff of the file may follow), and `apply` does it, and returns what was done, in a few words. It raises
FirstkeyError where it cannot be done. Applying it twice is applying it once.
"""
