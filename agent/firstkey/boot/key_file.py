"""One user's file of keys: what is to become of it, and the one visit in which that is done.

The file is read, merged and written, and its modes are repaired, with the rights that go with its place.

Those are the user's own, except where only root can change any part of the path. There alone is it safe for
root to work, and needed: for a directory of all users' files, or a home that its user may not write.
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
from firstkey.system.files import Changed, Directory, Looks, translated
from firstkey.system.sshd import matching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from firstkey.boot.ledger import InstalledKey
    from firstkey.boot.target import Target
    from firstkey.ssh.authorized_keys import Line
    from firstkey.system.files import File

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
    moved: tuple[tuple[str, InstalledKey], ...] = ()
    """Fingerprints of lines to add, each with its record in another file: only if that still has the key."""
    stale: tuple[InstalledKey, ...] = ()
    """Other instances' lines in this and other files of the user: they will be gone after this run."""
    also_read: tuple[str, ...] = ()
    """Other files in which sshd looks for the user's keys, and patterns of such (sshd_config.looks_for)."""
    made: tuple[str, ...] = ()
    """Paths that firstkey made: their modes are its own to repair."""
    is_strict: bool = True
    """Whether sshd ignores a file for its owner or mode, or those of a directory above it (StrictModes)."""
    barred: Refusal | None = None
    """Why the keys in this file have no effect: sshd reads another file, or refuses the user."""

    # What became of it: keys by their fingerprints.
    failure: FirstkeyError | None = None
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
    def changed(self) -> bool:
        """Whether anything is another one now; of a dry run, whether it would be."""
        return bool(self.added or self.revoked or self.repaired)

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
        file = others.pop() if len(others) == 1 and not self.changed else self.path
        done = (CHANGED if self.changed else UNCHANGED, self.added, self.revoked)
        return UserResult(self.account.name, file, *done, refusal, self.diff, self.left, not self.barred)

    def entries(self, instance: str) -> Iterator[events.Entry]:
        """The same for the journal of that instance."""
        user = self.account.name
        where = {"user": user, "file": self.path}
        names = {line.key.fingerprint: line.key.comment or "unnamed" for line in self.add}
        owners = {key.fingerprint: key.instance for key in self.revoke}
        added = events.KEY_REDIRECTS if any(line.options for line in self.add) else events.KEY_ADDED
        for key in self.added:
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


def visit(
    target: Target,
    changes: Iterable[Change],
    noted: Callable[[Change, list[str]], None],
    done: Callable[[Change], None],
) -> None:
    """Make the changes, each in one child; `done` gets each, with what became of it, as soon as it ends.

    A home that does not answer at once costs its owner alone: the others come before it. `noted` gets the
    keys that will be firstkey's, before they are written.
    """
    waiting: dict[Change, child.Visit] = {}

    def turns() -> Iterator[Change]:
        """Whose visit is to begin, and then, over and over, those that have not ended."""
        yield from changes
        while waiting:
            yield from list(waiting)

    try:
        for change in turns():
            turn = time.monotonic() + OTHERS_TURN_SECONDS
            try:
                if change not in waiting:
                    # For a mere look at one's own files, a process would be most of what it costs.
                    here = change.is_check and change.account.uid == os.geteuid()
                    seconds = CHECK_SECONDS if change.is_check else child.SECONDS
                    work = _Visitor(target, change).visit
                    waiting[change] = child.Visit(change.account.name, work, seconds=seconds, here=here)
                if (values := waiting[change].answer(turn, partial(noted, change))) is None:
                    continue
                existing = [Existing(*entry) for entry in values.pop("existing")]
                made = change._replace(**values, existing=existing)
            except FirstkeyError as error:
                # Where nothing is to be done, what cannot be looked at now is no failure.
                made = change if change.is_check else change._replace(failure=error)
            waiting.pop(change, None)
            done(made)
    finally:
        for visitor in waiting.values():
            visitor.stop()


class _Visitor:
    """What is done in one home: in the child process, which takes the rights that go with each path."""

    def __init__(self, target: Target, change: Change) -> None:
        self._target = target
        self._tree = target.tree
        self._change = change
        # Asked for here, by the parent: a name service may take its time, and a policy is none of the user's.
        self._groups = target.accounts.group_ids(change.account)
        self._may_share = partial(target.accounts.may_share, change.account)
        where = os.path.dirname(change.path)
        paths = () if change.is_check or target.dry_run else (("dir", where), ("file", change.path))
        self._labels = {kind: command.selinux_label(target.tree, path, kind) for kind, path in paths}
        self._made: list[str] = []

    def visit(self, note: Callable[[list[str]], None] | None) -> dict[str, Any]:
        """What became of the change, as fields of it. Without `note` the rights of this process stay.

        Raises FirstkeyError where it is refused or fails, and FirstkeyError(unsafe-directory) for a path that
        others than root and the user can change.
        """
        self._note = note
        account, is_in_home = self._change.account, self._is_in_home(self._change.path)
        if is_in_home:
            self._become(account)  # for a mere look, too
        elif not self._change.is_check and (others := self._others_directory(account.uid)):
            message = f"{others} can be changed by others than root and {account.name}"
            raise FirstkeyError(message, reason=reasons.UNSAFE_DIRECTORY)
        is_roots = False
        with suppress(FirstkeyError):  # a home that is missing, or closed to its user, is none of root's
            is_roots = os.getuid() == 0 and not self._others_directory()
        self._become(account)
        # What root makes beside the files of others, all may read, so that sshd may.
        self._as_root = is_roots if account.uid else not is_in_home
        self._modes = (0o644, 0o755) if self._as_root else (0o600, 0o700)
        found = self._look_elsewhere()
        if is_roots:
            self._become(ROOT)
        return self._merge(found)

    def _become(self, account: Account) -> None:
        if self._note:
            child.become(account, [0] if account is ROOT else self._groups)

    def _is_in_home(self, path: str) -> bool:
        """Whether the path lies in the user's home, as it is written."""
        return path.startswith(self._change.account.home.rstrip("/") + "/") and ".." not in path.split("/")

    def _others_directory(self, *users: int) -> str | None:
        """The first directory above the file that others than root, the caller and these can write."""
        with self._nearest(os.path.dirname(self._change.path)) as directory:
            owners, parts = (0, os.getuid(), *users), self._parts(directory)
            found = authorized_keys.flaws(parts, owners, None, may_share=lambda _group: False)
        return found[0].path if found else None

    def _nearest(self, where: str) -> Directory:
        """The directory, or the first one above it that exists."""
        while (directory := self._directory(where)) is None:
            where = os.path.dirname(where)
        return directory

    def _parts(self, directory: Directory) -> Iterator[Part]:
        """The open directory and each one above it, by their real paths: root's links followed."""
        path, up = directory.real, "."
        with self._tree.opened("/") as top:
            end = os.fstat(top.fd)
        while True:
            with translated(f"look at {path}"):
                found = os.stat(up, dir_fd=directory.fd)
            yield Part(path, found.st_uid, found.st_gid, found.st_mode)
            if os.path.samestat(found, end):
                return
            path, up = os.path.dirname(path), f"{up}/.."

    def _directory(self, where: str, *, make: bool = False) -> Directory | None:
        """The directory, or None; `make` makes a missing one. Raises FirstkeyError(home-missing, ...)."""
        account, home = self._change.account, self._change.account.home.rstrip("/") or "/"
        if where == home or not self._is_in_home(where):
            directory = self._tree.open(where)
            if directory is None and where == home and account.uid >= 0:  # else a dry run did not make it
                message = f"the home directory {account.home} of {account.name} does not exist"
                raise FirstkeyError(message, reason=reasons.HOME_MISSING)
            if directory or not make:
                return directory
        name = os.path.basename(where)
        with self._directory(os.path.dirname(where), make=make) or nullcontext() as above:
            if above is None:
                return None
            # Below the home no link is followed at all: everything there is the user's to exchange.
            directory = above.child(name)
            if directory is None and make:
                directory = above.make(name, Looks(self._modes[1], label=self._labels.get("dir")))
                self._made.append(where)
        return directory

    def _look_elsewhere(self) -> list[tuple[str, Line]]:
        """The lines in the user's other files that have a key to add, and stay there after this run.

        Before that, the change loses each moved key that a person took out of the file where it was.
        """
        for key, old in self._change.moved:
            # A file that cannot be read tells nothing. A key that a person restricted moves with its options.
            if (lines := self._find(old.file)) is not None:
                last = next((line for line in lines if line.key.fingerprint == key), None)
                is_own = last and last.options in ("", old.options)
                add = (line if is_own or line.key.fingerprint != key else last for line in self._change.add)
                self._change = self._change._replace(add=tuple(filter(None, add)))
        files: list[str] = []
        for path in self._change.also_read if self._change.add else ():
            with suppress(FirstkeyError):
                files += matching(self._tree, path)
        leaving = {(key.file, *key.written) for key in self._change.stale}
        found = ((file, line) for file in files for line in self._find(file) or ())
        return [(file, line) for file, line in found if (file, *line.written) not in leaving]

    def _find(self, path: str) -> Sequence[Line] | None:
        """The lines with keys to add in another file, read with the user's rights, as sshd does. None where
        that cannot be seen, where no such directory is, or where sshd ignores the file for a mode.
        """
        with suppress(FirstkeyError), self._directory(os.path.dirname(path)) or nullcontext() as directory:
            if directory and not self._flaws(path):
                file = directory.read(os.path.basename(path), limit=LIMIT)
                return authorized_keys.merge(file.content if file else b"", add=self._change.add).existing
        return None

    def _merge(self, found: Sequence[tuple[str, Line]]) -> dict[str, Any]:
        """Bring the file to what the change says, or say what would be in it. `found`: lines elsewhere.

        Raises FirstkeyError where that is refused or fails; the file is then as it was.
        """
        change, is_dry = self._change, self._target.dry_run
        where, name = os.path.split(change.path)
        revoke = [key.written for key in change.revoke]
        elsewhere = {line.key.fingerprint for _, line in found}
        is_new = any(line.key.fingerprint not in elsewhere for line in change.add)
        for _ in range(ATTEMPTS):
            with self._directory(where, make=is_new and not is_dry) or nullcontext() as directory:
                old = directory.read(name, limit=LIMIT) if directory else None
                before = old.content if old else b""
                merge = authorized_keys.merge(before, add=change.add, revoke=revoke, elsewhere=elsewhere)
                is_needed, diff = merge.content != before, ""
                if is_dry and is_needed:
                    from firstkey import display

                    diff = display.diff(change.path, old.content if old else None, merge.content)
                elif directory and not is_dry:
                    # Noted before anything is written: after a power cut the line is known to be firstkey's.
                    if self._note and merge.added:
                        self._note(list(merge.added))
                    try:
                        # Also where nothing is needed: it may be another name of the file.
                        directory.remove_stale()
                        if is_needed:
                            looks = self._looks(old)
                            directory.replace(name, merge.content, looks, expected=old)
                    except Changed:
                        continue
                    self._made += [change.path] if is_needed and old is None else []
                repaired = self._repaired(directory) if directory and not is_dry else []
                try:
                    flaws = self._flaws(change.path)
                except FirstkeyError as error:
                    # Where they cannot be seen: what is done is done, and no reason to call it a failure.
                    flaws = [error.message] if error.reason is reasons.PERMISSION_DENIED else []
                existing = _best([*((change.path, line) for line in merge.existing), *found])
                keys = {"added": merge.added, "existing": existing, "revoked": merge.revoked}
                others = {"left": merge.left, "made": self._made, "repaired": repaired, "flaws": flaws}
                return {**keys, **others, "diff": diff}
        message = f"{change.path} kept changing while keys were merged into it"
        raise FirstkeyError(message, reason=reasons.CONCURRENT_CHANGE)

    def _looks(self, old: File | None) -> Looks:
        """How the file is to look: as the old one, or as a new one."""
        label = self._labels.get("file")
        if old is None:
            return Looks(self._modes[0], label=label)
        # Root gives it to whom the old one belonged; a user can only keep a group of the own ones.
        owner = (-1, old.gid) if old.gid in (os.getegid(), *os.getgroups()) else None
        if self._as_root and os.geteuid() == 0:
            owner = (old.uid, old.gid)
        return Looks(old.mode, owner, label, attributes=old.attributes)

    # --- owners and modes (sshd_config(5): StrictModes) -----------------------------------------

    def _repaired(self, directory: Directory) -> list[tuple[str, str, str]]:
        """Repair the modes of the file and its directory where firstkey made them and others may write: path,
        old and new mode. What others made is theirs to repair.
        """
        where, name = os.path.split(self._change.path)
        repaired = []
        for part, path, mode in ((name, self._change.path, self._modes[0]), (".", where, self._modes[1])):
            found = directory.status(part) if path in (*self._change.made, *self._made) else None
            if found and found.st_mode & (GROUP_WRITE | OTHERS_WRITE):
                directory.set_mode(part, mode)
                repaired.append((path, f"{stat.S_IMODE(found.st_mode):04o}", f"{mode:04o}"))
        return repaired

    def _flaws(self, path: str) -> list[str]:
        """The parts of the path for which sshd ignores the file, seen with the user's rights as sshd sees it.

        No file, no flaw; but a dry run looks at what is there of the path to the file that would be made.
        """
        account, (where, name) = self._change.account, os.path.split(path)
        self._become(account)
        with self._directory(where) or nullcontext() as directory:
            file = directory.status(name) if directory else None
            if directory and file:
                parts = [Part(path, file.st_uid, file.st_gid, file.st_mode), *self._parts(directory)]
                may_read = os.access(name, os.R_OK, dir_fd=directory.fd, effective_ids=True)
            elif self._target.dry_run and path == self._change.path and self._change.add:
                with self._nearest(where) as above:
                    parts, may_read = [*self._parts(above)], True
            else:
                return []
        with self._tree.open(account.home) or nullcontext() as opened:
            home = opened.real if opened else None
        owners, looked_at = (0, os.getuid(), account.uid), parts if self._change.is_strict else ()
        found = authorized_keys.flaws(looked_at, owners, home, may_share=self._may_share)
        flaws = [f"{part.path} (mode {stat.S_IMODE(part.mode):04o}, owner {part.uid})" for part in found]
        return flaws if flaws or may_read else [f"{path}, which {account.name} may not read"]


def _best(found: Iterable[tuple[str, Line]]) -> list[Existing]:
    """Of each key, the first line by which sshd lets it in, or else the first of all. Each has its file."""
    best: dict[str, Existing] = {}
    for path, line in found:
        key = line.key.fingerprint  # long options are read only where they count: there may be many
        if key not in best or (best[key].flaw and not line.flaw):
            best[key] = Existing(key, path, line.options, line.flaw)
    return [*best.values()]
