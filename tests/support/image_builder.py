"""A small tree for the image tests, which the rules' own examples grow."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from firstkey import config
from firstkey.boot.target import Target
from firstkey.events import Entry
from firstkey.image import audit, door, in_use, rules, seal, sshd
from firstkey.image.audit import Audit, Result, sealing, verdict_of
from firstkey.image.changes import Change
from firstkey.image.door import Context
from firstkey.image.rule import Example, Rule
from firstkey.image.scan import Looking
from firstkey.image.subject import Image
from firstkey.system import mounts
from firstkey.system.accounts import Accounts
from firstkey.system.tree import Tree


def audited(image: Image, wanted: Sequence[Rule]) -> Audit:
    """What the rules say of the image, without a box."""
    seal = sealing(image.tree.root)
    results = tuple(Result(rule, verdict_of(rule, image), seal=seal) for rule in wanted)
    is_scanned = any(rule.watched for rule in wanted)
    return Audit(image.tree.root, results, image.scan.files if is_scanned else None)


class Builder:
    """A tree under a directory. Its files are the caller's, so that no test needs root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trees: list[Tree] = []
        self.said: list[Entry] = []

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def directory(self, path: str) -> None:
        self.path(path).mkdir(parents=True, exist_ok=True)

    def file(self, path: str, content: str | bytes = "", *, mode: int = 0o644) -> None:
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
        file.chmod(mode)

    def link(self, path: str, target: str) -> None:
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path(path).symlink_to(target)

    def grow(self, files: Example) -> None:
        """Make an example of a rule's; a link that another one made stays."""
        for path, content in files.items():
            if content is None:
                self.directory(path)
            elif isinstance(content, str) and content.startswith("->"):
                if not self.path(path).is_symlink():
                    self.link(path, content[2:])
            else:
                self.file(path, content)

    def target(self) -> Target:
        tree = Tree(str(self.root))
        self.trees.append(tree)
        return Target(tree, Accounts(tree), config.load(tree), self.said.append)

    def image(self, looking: Looking | None = None) -> Image:
        """The image as it is now: nothing is remembered from before."""
        root = str(self.root)
        return audit.image_of(
            self.target(), looking or Looking(mounts.foreign(root), used=in_use.paths(root))
        )

    def context(self) -> Context:
        """What changes are applied with."""
        tree = self.target().tree
        foreign = mounts.foreign(tree.root)
        return Context(tree, partial(sshd.holds, tree), foreign=foreign, needed=door.needed(tree, foreign))

    def settled(self, *names: str) -> list[Change]:
        """The changes of these rules as a plan has them, in its order."""
        wanted = [rule for rule in rules.ALL if rule.id in names]
        options = [rule.option for rule in wanted if rule.option]
        return [step.change for step in seal.plan(self.image(), wanted, options).steps]

    def paths(self) -> list[bytes]:
        """Everything in the tree, each directory before what is in it."""
        walk = os.walk(os.fsencode(self.root))
        return [os.path.join(where, name) for where, below, files in walk for name in (b"", *below, *files)]

    def age(self) -> None:
        """Give everything the same old times, so that looking at something would show."""
        old = 1_000_000_000
        for path in reversed(self.paths()):
            os.utime(path, (old, old), follow_symlinks=False)

    def snapshot(self) -> dict[bytes, tuple[object, ...]]:
        """All that there is to know of each file; of access times, those that reading need not change."""
        paths = [path.rstrip(b"/") for path in self.paths()]
        status = {path: os.lstat(path) for path in paths}
        return {
            path: (
                (found.st_mode, found.st_uid, found.st_gid, found.st_ino, found.st_nlink),
                (found.st_size, found.st_mtime_ns, found.st_ctime_ns),
                # Listing a directory, as this does itself, and reading a link count as access.
                found.st_atime_ns if stat.S_ISREG(found.st_mode) else 0,
            )
            for path, found in status.items()
        }

    def close(self) -> None:
        for tree in self.trees:
            tree.__exit__()
