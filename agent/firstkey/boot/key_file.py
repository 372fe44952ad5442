"""One user's file of keys: what is to become of it, and the one visit in which that is done.

The file is read, merged and written, and its modes are repaired, with the rights that go with its place.

Those are the user's own wherever they suffice. Only where nobody but root can change any part of the path is
it safe for root to work on it; and only there is it needed, for a directory of all users' files, or a home
that its user may not write.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import nullcontext, suppress
from functools import partial

from firstkey import TYPE_CHECKING, NamedTuple, events, reasons
from firstkey.model import CHANGED, UNCHANGED, Account, UserResult
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import authorized_keys
from firstkey.ssh.authorized_keys import GROUP_WRITE, OTHERS_WRITE, Part
from firstkey.system import child, command
from firstkey.system.files import Changed, Directory, Looks
from firstkey.system.sshd import matching

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from typing import Any, Union

    from firstkey.boot.ledger import InstalledKey
    from firstkey.boot.site import Site
    from firstkey.ssh.authorized_keys import Line
    from firstkey.system.files import File

    Answer = Union["Change", FirstkeyError]

LIMIT = 4 * 1024 * 1024
"""The largest file that is rewritten: some 10,000 keys. A larger one is no file of keys, or an attack."""
ATTEMPTS = 8
"""How often a merge is done again because another program changed the file meanwhile."""
OTHERS_TURN_SECONDS = 0.25
"""How long the users behind it wait for a home that does not answer; it then waits for the end itself."""
CHECK_SECONDS = 2.0
"""How long one home may take where there is nothing to do: a dead server may not hold that boot."""
ROOT = Account("root", 0, 0, "/root", "/bin/sh")


class Existing(NamedTuple):
    """An existing line with a launch key, in this file or another one that sshd reads for the user.

    `flaw` is what of the options makes sshd take no key by the line.
    """

    fingerprint: str
    path: str
    options: str
    flaw: str | None


class Change(NamedTuple):
    """What is to become of one user's file of keys; and, of one that was made, what became of it.

    With nothing to add or to revoke, it is a check of owners and modes alone.
    """

    account: Account
    path: str
    add: tuple[Line, ...] = ()
    moved: tuple[tuple[str, str], ...] = ()
    """Fingerprints of lines to add that were in another file, with that: only if it still has the key."""
    stale: tuple[InstalledKey, ...] = ()
    """Other instances' lines in this and other files of the user: they will be gone after this run."""
    also_read: tuple[str, ...] = ()
    """Other files in which sshd looks for the user's keys, and patterns of such (sshd_config.looks_for)."""
    made: tuple[str, ...] = ()
    """Paths that firstkey made: their modes are its own to repair."""
    unread: Refusal | None = None
    """Why sshd does not look into the file."""

    # What became of it: keys by their fingerprints.
    changed: bool = False
    added: Sequence[str] = ()
    existing: Sequence[Existing] = ()
    revoked: Sequence[str] = ()
    left: Sequence[str] = ()
    """Keys to revoke that still stand in lines that firstkey did not write, or that were changed since."""
    repaired: Sequence[tuple[str, str, str]] = ()
    """Path, old and new mode."""
    flaws: Sequence[str] = ()
    """The parts of the path for which sshd ignores the file."""
    diff: str = ""

    @property
    def revoke(self) -> list[InstalledKey]:
        """The lines that are to go from this file."""
        return [key for key in self.stale if key.file == self.path]

    @property
    def is_check(self) -> bool:
        """Whether no line is to come or to go."""
        return not (self.add or self.revoke)

    def result(self) -> UserResult:
        """What became of it, for the report; with the file that lets the user in, if that is another one."""
        refusal = None
        useless = next((entry for entry in self.existing if entry.flaw), None)
        if self.flaws:
            refusal = Refusal(reasons.BAD_MODES, f"sshd ignores it for: {', '.join(self.flaws)}")
        elif useless:
            where = f"{useless.path} has {useless.fingerprint}"
            detail = f"{where} behind options with which sshd takes no key: {useless.flaw}"
            refusal = Refusal(reasons.KEY_LINE_IGNORED, detail)
        others = {entry.path for entry in self.existing}
        is_another = len(others) == 1 and not self.changed
        return UserResult(
            self.account.name,
            others.pop() if is_another else self.path,
            CHANGED if self.changed else UNCHANGED,
            self.added,
            self.revoked,
            refusal,
            self.diff,
            self.left,
        )

    def entries(self, instance: str) -> Iterator[events.Entry]:
        """The same for the journal of that instance."""
        user = self.account.name
        where = {"user": user, "file": self.path}
        lines = {line.key.fingerprint: line for line in self.add}
        names = {fingerprint: line.key.comment or "unnamed" for fingerprint, line in lines.items()}
        owners = {key.fingerprint: key.instance for key in self.revoke}
        for key in self.added:
            added = events.KEY_REDIRECTS if lines[key].options else events.KEY_ADDED
            yield added(**where, fingerprint=key, key_name=names[key], instance_id=instance)
        for key, path, options, flaw in self.existing:
            named = {"user": user, "file": path, "fingerprint": key, "key_name": names[key]}
            if flaw:
                yield events.KEY_LINE_IGNORED(**named, options=flaw, reason=reasons.KEY_LINE_IGNORED.code)
            elif options:
                yield events.KEY_RESTRICTED(**named, options=options)
            else:
                yield events.KEY_PRESENT(**named)
        for key in self.revoked:
            yield events.KEY_REVOKED(**where, fingerprint=key, instance=owners[key])
        for key in self.left:
            why = reasons.KEY_LEFT_IN_PLACE.code
            yield events.KEY_LEFT_IN_PLACE(**where, fingerprint=key, instance=owners[key], reason=why)
        for path, old, new in self.repaired:
            yield events.MODES_REPAIRED(user=user, path=path, old=old, new=new)
        for flaw in self.flaws:
            yield events.MODES_REPORTED(user=user, detail=flaw, reason=reasons.BAD_MODES.code)


# --- visiting -------------------------------------------------------------------------------------


def visit(
    site: Site, changes: Iterable[Change], noted: Callable[[Change, list[str]], None]
) -> Generator[tuple[Change, Answer], None, None]:
    """Make the changes, each in one child; yields what became of each, in the order in which they end.

    A home that does not answer at once costs its owner alone: the others come before it. `noted` is told
    which keys will be firstkey's, before they are written.
    """
    waiting: dict[child.Visit, Change] = {}

    def heard(visitor: child.Visit) -> Iterator[tuple[Change, Answer]]:
        change = waiting[visitor]
        turn = time.monotonic() + OTHERS_TURN_SECONDS
        try:
            values = visitor.answer(turn, lambda keys: noted(change, keys))
        except FirstkeyError as error:
            del waiting[visitor]
            yield change, error
        else:
            if values:
                del waiting[visitor]
                existing = [Existing(*entry) for entry in values.pop("existing")]
                yield change, change._replace(**values, existing=existing)

    try:
        for change in changes:
            # For a mere look at one's own files, a process would be most of what it costs.
            here = change.is_check and change.account.uid == os.geteuid()
            seconds = CHECK_SECONDS if change.is_check else child.SECONDS
            try:
                work = _Visitor(site, change).visit
                visitor = child.Visit(change.account.name, work, seconds=seconds, here=here)
            except FirstkeyError as error:
                yield change, error
            else:
                waiting[visitor] = change
                yield from heard(visitor)
        while waiting:
            for visitor in list(waiting):
                yield from heard(visitor)
    finally:
        for visitor in waiting:
            visitor.stop()


class _Visitor:
    """What is done in one home: in the child process, which takes the rights that go with each path."""

    def __init__(self, site: Site, change: Change) -> None:
        self._tree = site.tree
        self._dry_run = site.dry_run
        self._change = change
        # Asked for here, by the parent: a name service may take its time, and a policy is none of the user's.
        self._groups = site.accounts.group_ids(change.account)
        self._may_share = partial(site.accounts.may_share, change.account)
        paths = {"dir": os.path.dirname(change.path), "file": change.path}
        is_to_write = not (change.is_check or site.dry_run)
        self._labels = {
            kind: command.selinux_label(site.tree, path, kind) for kind, path in paths.items() if is_to_write
        }
        # Whether root works, as no user may write there: then all may read what is made, so that sshd may.
        self._as_root = False
        self._note: Callable[[list[str]], None] | None = None
        self._made: list[str] = []

    def visit(self, note: Callable[[list[str]], None] | None) -> dict[str, Any]:
        """What became of the change, as fields of it. Without `note` the rights of this process stay.

        Raises FirstkeyError where it is refused or fails, and FirstkeyError(unsafe-directory) for a path that
        others than root and the user can change.
        """
        self._note = note
        account = self._change.account
        is_outside = not (self._change.is_check or self._is_in_home(self._change.path))
        if is_outside and (others := self._others_directory(account.uid)):
            message = f"{others} can be changed by others than root and {account.name}"
            raise FirstkeyError(message, reason=reasons.UNSAFE_DIRECTORY)
        self._become(account)
        self._change = self._change._replace(add=self._still_wanted())
        elsewhere = self._existing_elsewhere()
        try:
            return self._merge(elsewhere)
        except FirstkeyError as refused:
            is_forbidden = refused.reason in (reasons.PERMISSION_DENIED, reasons.READ_ONLY)
            if not is_forbidden or os.getuid() != 0:
                raise
            self._become(None)
            is_roots = False
            with suppress(FirstkeyError):  # where root may not even look (NFS), the user's refusal counts
                is_roots = not self._others_directory()
            if not is_roots:
                raise
            return self._merge(elsewhere)

    def _become(self, account: Account | None) -> None:
        """Take the user's rights, or with None root's."""
        # Beside the files of others, also for its own: these are to be reached all the same.
        self._as_root = not (account and (account.uid or self._is_in_home(self._change.path)))
        if self._note:
            child.become(account or ROOT, self._groups if account else [0])

    def _is_in_home(self, path: str) -> bool:
        """Whether the path lies in the user's home, as it is written."""
        return path.startswith(self._change.account.home.rstrip("/") + "/") and ".." not in path.split("/")

    def _others_directory(self, *users: int) -> str | None:
        """The first directory above the file that others than root, the caller and these can write."""
        above = os.path.dirname(self._change.path)
        while (directory := self._tree.open(above)) is None:
            above = os.path.dirname(above)
        with directory:
            owners, parts = (0, os.getuid(), *users), self._parts(directory)
            found = authorized_keys.flaws(parts, owners, None, may_share=lambda _group: False)
        return found[0].path if found else None

    def _parts(self, directory: Directory) -> Iterator[Part]:
        """The open directory and each one above it, by their real paths: root's links followed."""
        path = self._real_path(directory)
        while True:
            with self._tree.opened(path) as opened:
                found = os.fstat(opened.fd)
            yield Part(path, found.st_uid, found.st_gid, found.st_mode)
            if path == "/":
                return
            path = os.path.dirname(path)

    def _real_path(self, directory: Directory) -> str:
        return directory.on_host[len(self._tree.root.rstrip("/")) :] or "/"

    def _directory(self, where: str, *, make: bool = False) -> Directory | None:
        """The directory, or None; `make` makes a missing one. Raises FirstkeyError(home-missing, ...)."""
        account, home = self._change.account, self._change.account.home.rstrip("/") or "/"
        if where == home or not self._is_in_home(where):
            directory = self._tree.open(where)
            if directory is None and where == home:
                message = f"the home directory {account.home} of {account.name} does not exist"
                raise FirstkeyError(message, reason=reasons.HOME_MISSING)
            if directory or not make:
                return directory
        above = self._directory(os.path.dirname(where), make=make)
        if above is None:
            return None
        name = os.path.basename(where)
        with above:
            # Below the home no link is followed at all: everything there is the user's to exchange.
            directory = above.child(name)
            if directory is None and make:
                directory = above.make(name, Looks(self._modes()[1], label=self._labels.get("dir")))
                self._made.append(where)
        return directory

    # --- the other files --------------------------------------------------------------------------

    def _still_wanted(self) -> tuple[Line, ...]:
        """The lines to add, without those that a person took out of the file where they were before."""
        gone = set()
        for key, file in self._change.moved:
            lines = self._find(file)
            # Only what can be seen to be gone was taken out.
            if lines is not None and key not in {line.key.fingerprint for line in lines}:
                gone.add(key)
        return tuple(line for line in self._change.add if line.key.fingerprint not in gone)

    def _existing_elsewhere(self) -> dict[str, Existing]:
        """Which of the keys to add are in another of the user's files, and will be there after this run."""
        files: list[str] = []
        for path in self._change.also_read if self._change.add else ():
            with suppress(FirstkeyError):
                files += matching(self._tree, path)
        found = [(file, line) for file in files for line in self._find(file) or ()]
        leaving = {(key.file, key.fingerprint) for key in self._change.stale}
        return _best((file, line) for file, line in found if (file, line.key.fingerprint) not in leaving)

    def _find(self, path: str) -> list[Line] | None:
        """The lines with keys to add in another file, read with the user's rights, as sshd does. None where
        that cannot be seen, where no such directory is, or where sshd ignores the file for a mode.
        """
        wanted = {line.key.blob for line in self._change.add}
        with suppress(FirstkeyError), self._directory(os.path.dirname(path)) or nullcontext() as directory:
            if directory and not self._flaws(path):
                file = directory.read(os.path.basename(path), limit=LIMIT)
                lines = (line for _, line in authorized_keys.keyed(file.content if file else b""))
                return [line for line in lines if line.key.blob in wanted and not line.is_authority]
        return None

    # --- merging --------------------------------------------------------------------------------

    def _merge(self, elsewhere: Mapping[str, Existing]) -> dict[str, Any]:
        """Bring the file to what the change says, or say what would be in it.

        Raises FirstkeyError where that is refused or fails; the file is then as it was.
        """
        change = self._change
        where, name = os.path.split(change.path)
        revoke = [key.written for key in change.revoke]
        is_new = any(line.key.fingerprint not in elsewhere for line in change.add)
        for _ in range(ATTEMPTS):
            with self._directory(where, make=is_new and not self._dry_run) or nullcontext() as directory:
                old = directory.read(name, limit=LIMIT) if directory else None
                before = old.content if old else b""
                merge = authorized_keys.merge(before, add=change.add, revoke=revoke, elsewhere=elsewhere)
                is_needed, diff = merge.content != before, ""
                if self._dry_run and is_needed:
                    from firstkey import display

                    diff = display.diff(change.path, old.content if old else None, merge.content)
                elif directory and not self._dry_run:
                    # Noted before anything is written: after a power cut the line is known to be firstkey's.
                    if self._note and merge.added:
                        self._note(list(merge.added))
                    try:
                        # Also where nothing is needed: it may be another name of the file.
                        directory.remove_stale()
                        if is_needed:
                            looks = self._looks(directory, name, old)
                            directory.replace(name, merge.content, looks, expected=old)
                    except Changed:
                        continue
                    self._made += [change.path] if is_needed and old is None else []
                here = _best((change.path, line) for line in merge.existing)
                repaired = self._repaired(directory)
                try:
                    flaws = self._flaws(change.path)
                except FirstkeyError as error:
                    # Where they cannot be told: what is done is done, and no reason to call it a failure.
                    flaws = [error.message] if error.reason is reasons.PERMISSION_DENIED else []
                return {
                    "added": merge.added,
                    "existing": [*{**elsewhere, **here}.values()],
                    "revoked": merge.revoked,
                    "left": merge.left,
                    "made": self._made,
                    "repaired": repaired,
                    "flaws": flaws,
                    "changed": is_needed or bool(repaired),
                    "diff": diff,
                }
        message = f"{change.path} kept changing while keys were merged into it"
        raise FirstkeyError(message, reason=reasons.CONCURRENT_CHANGE)

    def _looks(self, directory: Directory, name: str, old: File | None) -> Looks:
        """How the file is to look: as the old one, or as a new one."""
        label = self._labels.get("file")
        if old is None:
            return Looks(self._modes()[0], label=label)
        is_mine = old.gid in (os.getegid(), *os.getgroups())
        # Root gives it to whom the old one belonged; a user can only keep a group of the own ones.
        owner = (-1, old.gid) if is_mine else None
        if self._as_root and os.geteuid() == 0:
            owner = (old.uid, old.gid)
        return Looks(old.mode, owner, label, attributes=directory.attributes(name))

    def _modes(self) -> tuple[int, int]:
        """Of a new file and a new directory."""
        return (0o644, 0o755) if self._as_root else (0o600, 0o700)

    # --- owners and modes (sshd_config(5): StrictModes) -----------------------------------------

    def _repaired(self, directory: Directory | None) -> list[tuple[str, str, str]]:
        """Repair the modes of the file and its directory where firstkey made them and others may write: path,
        old and new mode. What somebody else made is theirs to repair.
        """
        path, repaired = self._change.path, []
        parts = (path, os.path.basename(path)), (os.path.dirname(path), ".")
        for (part, name), mode in zip(parts, self._modes()):
            is_own = part in (*self._change.made, *self._made) and not self._dry_run
            found = directory.status(name) if directory and is_own else None
            if directory and found and found.st_mode & (GROUP_WRITE | OTHERS_WRITE):
                directory.set_mode(name, mode)
                repaired.append((part, _octal(found.st_mode), _octal(mode)))
        return repaired

    def _flaws(self, path: str) -> list[str]:
        """The parts of the path for which sshd ignores the file, seen with the user's rights as sshd sees it.

        No file, no flaw.
        """
        account, name = self._change.account, os.path.basename(path)
        self._become(account)
        with self._directory(os.path.dirname(path)) or nullcontext() as directory:
            file = directory.status(name) if directory else None
            if directory is None or file is None:
                return []
            parts = [Part(path, file.st_uid, file.st_gid, file.st_mode), *self._parts(directory)]
            may_read = os.access(name, os.R_OK, dir_fd=directory.fd, effective_ids=True)
        with self._tree.open(account.home) or nullcontext() as opened:
            home = self._real_path(opened) if opened else None
        owners = (0, os.getuid(), account.uid)
        found = authorized_keys.flaws(parts, owners, home, may_share=self._may_share)
        flaws = [f"{part.path} (mode {_octal(part.mode)}, owner {part.uid})" for part in found]
        return flaws if flaws or may_read else [f"{path}, which {account.name} may not read"]


def _best(found: Iterable[tuple[str, Line]]) -> dict[str, Existing]:
    """Of each key, the first line by which sshd lets it in, or else the first of all. Each has its file."""
    best: dict[bytes, Existing] = {}
    for path, line in found:
        known = best.get(line.key.blob)
        # Each flaw is looked for once: a user may have written long options before many lines.
        if known is None or known.flaw:
            entry = Existing(line.key.fingerprint, path, line.options, line.flaw)
            if known is None or not entry.flaw:
                best[line.key.blob] = entry
    return {entry.fingerprint: entry for entry in best.values()}


def _octal(mode: int) -> str:
    return f"{stat.S_IMODE(mode):04o}"
