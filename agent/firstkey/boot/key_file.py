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
from firstkey.ssh import access
from firstkey.ssh.access import Part
from firstkey.ssh.sshd_config import looks_for
from firstkey.system import child, command
from firstkey.system.files import Changed, Directory, Looks
from firstkey.system.sshd import matching

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from typing import Any, TypeVar, Union

    from firstkey.boot.ledger import Ledger
    from firstkey.boot.site import Site
    from firstkey.ssh.authorized_keys import Line, Owned
    from firstkey.system.files import File

    Answer = Union["Change", FirstkeyError]
    Result = TypeVar("Result")

LIMIT = 4 * 1024 * 1024
"""The largest file that is rewritten: some 10,000 keys. A larger one is no file of keys, or an attack."""
ATTEMPTS = 8
"""How often a merge is done again because another program changed the file meanwhile."""
OTHERS_TURN_SECONDS = 0.25
"""How long the users behind it wait for a home that does not answer; it then waits for the end itself."""
CHECK_SECONDS = 2.0
"""How long one home may take where there is nothing to do: a dead server may not hold that boot."""
ROOT = Account("root", 0, 0, "/root", "/bin/sh")
OTHERS_WRITE = 0o022


class Existing(NamedTuple):
    """An existing entry with a launch key, in this file or another one that sshd reads for the user."""

    fingerprint: str
    path: str
    options: str

    @property
    def useless(self) -> str | None:
        """What of the options makes sshd take no key by the line; None: nothing."""
        return access.useless(self.options.encode("utf-8", "surrogateescape"))


class Change(NamedTuple):
    """What is to become of one user's file of keys; and, of one that was made, what became of it.

    With nothing to add or to revoke, it is a check of owners and modes alone.
    """

    account: Account
    path: str
    add: tuple[Line, ...] = ()
    moved: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Fingerprints of lines to add that were in these other files: only if one still has the key."""
    revoke: tuple[Owned, ...] = ()
    keep: tuple[Owned, ...] = ()
    """Owned lines in the file that may stay."""
    also_read: tuple[tuple[str, frozenset[str]], ...] = ()
    """Other files in which sshd looks, each with the keys that need no line here if they stand there."""
    made: tuple[str, ...] = ()
    """Paths that firstkey made: their modes are its own to repair."""
    unread: Refusal | None = None
    """Why sshd does not look into the file."""

    # What became of it: keys by their fingerprints.
    changed: bool = False
    added: tuple[str, ...] = ()
    existing: tuple[Existing, ...] = ()
    owned: tuple[str, ...] = ()
    """Of the lines to add, those that firstkey had written already."""
    revoked: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """Keys to revoke that still stand in lines that firstkey did not write, or that were changed since."""
    repaired: tuple[tuple[str, str, str], ...] = ()
    """Path, old and new mode."""
    flaws: tuple[str, ...] = ()
    """The parts of the path for which sshd ignores the file."""
    diff: str = ""

    @property
    def is_check(self) -> bool:
        """Whether no line is to come or to go."""
        return not (self.add or self.revoke)

    def completed(self, answer: Mapping[str, Any]) -> Change:
        """The same with what the visit answered, which came through a pipe."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in answer.items()
        }
        existing = tuple(Existing(*entry) for entry in values.pop("existing", ()))
        return self._replace(**values, existing=existing)

    def result(self) -> UserResult:
        """What became of it, for the report; with the file that lets the user in, if that is another one."""
        others = {entry.path for entry in self.existing}
        is_another = len(others) == 1 and not (self.changed or self.owned)
        return UserResult(
            self.account.name,
            others.pop() if is_another else self.path,
            CHANGED if self.changed else UNCHANGED,
            self.added,
            self.revoked,
            self._refusal(),
            self.diff,
            self.left,
        )

    def _refusal(self) -> Refusal | None:
        """What keeps the user out although the keys are where they belong."""
        if self.flaws:
            return Refusal(reasons.BAD_MODES, f"sshd ignores it for: {', '.join(self.flaws)}")
        for entry in self.existing:
            if entry.useless:
                where = f"{entry.path} has {entry.fingerprint}"
                detail = f"{where} behind options with which sshd takes no key: {entry.useless}"
                return Refusal(reasons.KEY_LINE_IGNORED, detail)
        return None

    def entries(self, instance: str, owners: Mapping[str, str]) -> Iterator[events.Entry]:
        """The same for the journal. `owners` tells whose instance's each revoked key was."""
        where = {"user": self.account.name, "file": self.path}
        lines = {line.key.fingerprint: line for line in self.add}
        names = {fingerprint: line.key.comment or "unnamed" for fingerprint, line in lines.items()}
        for key in self.added:
            added = events.KEY_REDIRECTS if lines[key].options else events.KEY_ADDED
            yield added(**where, fingerprint=key, key_name=names[key], instance_id=instance)
        for entry in self.existing:
            key = entry.fingerprint
            named = {**where, "file": entry.path, "fingerprint": key, "key_name": names[key]}
            if entry.useless:
                why = reasons.KEY_LINE_IGNORED.code
                yield events.KEY_LINE_IGNORED(**named, options=entry.useless, reason=why)
            elif entry.options:
                yield events.KEY_RESTRICTED(**named, options=entry.options)
            else:
                yield events.KEY_PRESENT(**named)
        for key in self.revoked:
            yield events.KEY_REVOKED(**where, fingerprint=key, instance=owners.get(key))
        for key in self.left:
            why = reasons.KEY_LEFT_IN_PLACE.code
            yield events.KEY_LEFT_IN_PLACE(**where, fingerprint=key, instance=owners.get(key), reason=why)
        for path, old, new in self.repaired:
            yield events.MODES_REPAIRED(user=self.account.name, path=path, old=old, new=new)
        for flaw in self.flaws:
            yield events.MODES_REPORTED(user=self.account.name, detail=flaw, reason=reasons.BAD_MODES.code)


# --- visiting -------------------------------------------------------------------------------------


class Visits:
    """Each home is asked in one child, once; one that does not answer at once costs its owner alone.

    `noted` is told which keys will be firstkey's, before they are written; `done` what became of each change.
    """

    def __init__(
        self,
        site: Site,
        *,
        done: Callable[[Change, Answer], None],
        noted: Callable[[Change, list[str]], None] = lambda _change, _keys: None,
    ) -> None:
        self._site = site
        self._done = done
        self._noted = noted
        self._open: dict[child.Visit, Change] = {}

    def __enter__(self) -> Visits:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        for visit in self._open:
            visit.stop()

    def make(self, change: Change) -> None:
        """Make the change, or leave it open where the home does not answer."""
        # For a mere look at one's own files, a process would be most of what it costs.
        here = change.is_check and change.account.uid == os.geteuid()
        seconds = CHECK_SECONDS if change.is_check else child.SECONDS
        try:
            work = _Visitor(self._site, change).visit
            visit = child.Visit(change.account.name, work, seconds=seconds, here=here)
        except FirstkeyError as error:
            self._done(change, error)
            return
        self._open[visit] = change
        self._hear(visit)

    def wait(self) -> None:
        """Wait for those that are open, until each has answered or used up its time."""
        while self._open:
            for visit in list(self._open):
                self._hear(visit)

    def _hear(self, visit: child.Visit) -> None:
        change = self._open[visit]
        turn = time.monotonic() + OTHERS_TURN_SECONDS
        try:
            values = visit.answer(turn, lambda keys: self._noted(change, keys))
            answer: Answer | None = change.completed(values) if values else None
        except FirstkeyError as error:
            answer = error
        if answer:
            del self._open[visit]
            self._done(change, answer)


def check(site: Site, ledger: Ledger) -> list[UserResult]:
    """Check the files of who was served before; what cannot be looked at now is no failure."""
    keys = site.config.keys
    names = {*keys.users, "root"} if keys.redirect_root else keys.users
    results = {}

    def done(change: Change, answer: Answer) -> None:
        if isinstance(answer, Change):
            results[change.account.name] = answer.result()
            for entry in () if site.dry_run else answer.entries("", {}):
                site.say(entry)

    with Visits(site, done=done) as visits:
        for served in ledger.served:
            if served.name in names:
                results[served.name] = UserResult(served.name, served.file, UNCHANGED)
                account = site.accounts.listed(served.name)
                if account and served.file:
                    visits.make(Change(account, served.file, made=ledger.made_files))
        visits.wait()
    return list(results.values())


class _Visitor:
    """What is done in one home: in the child process, which takes the rights that go with each path."""

    def __init__(self, site: Site, change: Change) -> None:
        self._tree = site.tree
        self._accounts = site.accounts
        self._dry_run = site.dry_run
        self._change = change
        # Asked for here, by the parent: a name service may take its time, and a policy is none of the user's.
        self._groups = tuple(site.accounts.group_ids(change.account))
        self._labels: dict[str, str | None] = {}
        if not (change.is_check or site.dry_run):
            for kind, path in (("dir", os.path.dirname(change.path)), ("file", change.path)):
                self._labels[kind] = command.selinux_label(site.tree, path, kind)
        # Whether root works, as no user may write there: then all may read what is made, so that sshd may.
        self._as_root = False
        self._note: Callable[[list[str]], None] | None = None
        self._made: list[str] = []

    def visit(self, note: Callable[[list[str]], None] | None) -> dict[str, Any]:
        """What became of the change, as fields of it. Without `note` the rights of this process stay."""
        self._note = note
        change = self._change
        # What a person took out elsewhere stays out; only what can be seen to be gone was taken out.
        gone = [key for key, files in change.moved if all(self._find(at, {key}) == [] for at in files)]
        add = tuple(line for line in change.add if line.key.fingerprint not in gone)
        self._change = change._replace(add=add)
        if self._change.is_check:
            return self._with_rights(change.path, self._check)
        others = self._existing_elsewhere() if add else {}
        return self._with_rights(change.path, lambda: self._merge(others))

    # --- with whose rights ----------------------------------------------------------------------

    def _with_rights(self, path: str, work: Callable[[], Result]) -> Result:
        """Do the work with the rights that go with the path.

        Raises FirstkeyError as `work` does, and FirstkeyError(unsafe-directory) for a path that others than
        root and the user can change.
        """
        account, roots = self._change.account, (0, os.getuid())
        is_in_home = self._is_in_home(path)
        if not is_in_home:
            self._become(None)
            others = self._others_directory(path, (*roots, account.uid))
            if others and not self._change.is_check:
                message = f"{others} can be changed by others than root and {account.name}"
                raise FirstkeyError(message, reason=reasons.UNSAFE_DIRECTORY)
            if not self._others_directory(path, roots):
                return work()
        self._become(account)
        try:
            return work()
        except FirstkeyError as refused:
            if not (refused.reason is reasons.PERMISSION_DENIED and is_in_home and os.getuid() == 0):
                raise
            self._become(None)
            if self._others_directory(path, roots):
                raise
            return work()

    def _become(self, account: Account | None) -> None:
        """Take the user's rights, or with None root's."""
        self._as_root = account is None
        if self._note:
            child.become(account or ROOT, self._groups if account else [0])

    def _is_in_home(self, path: str) -> bool:
        """Whether the path lies in the user's home, as it is written."""
        return path.startswith(self._change.account.home.rstrip("/") + "/") and ".." not in path.split("/")

    def _others_directory(self, path: str, allowed: tuple[int, ...]) -> str | None:
        """The first directory above the path that somebody else than these users can write, or None."""
        with next(filter(None, map(self._tree.open, _above(path)))) as directory:
            place = self._real_path(directory)
        for part in (place, *_above(place)):
            with self._tree.opened(part) as opened:
                found = opened.status()
            if found and (found.st_uid not in allowed or found.st_mode & OTHERS_WRITE):
                return part
        return None

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

    # --- reading --------------------------------------------------------------------------------

    def _existing_elsewhere(self) -> dict[str, Existing]:
        """Which of the keys to add are in another of the user's files, and will be there after this run.

        Of several entries with a key, the first counts by which sshd lets it in, or else the first of all.
        """
        wanted = {line.key.fingerprint for line in self._change.add}
        found: dict[str, Existing] = {}
        for path, keys in self._change.also_read:
            files = [path]
            if looks_for(path):
                files = []
                with suppress(FirstkeyError):
                    files = self._with_rights(path, partial(matching, self._tree, path))
            for entry in [entry for file in files for entry in self._find(file, wanted & keys) or ()]:
                known = found.setdefault(entry.fingerprint, entry)
                if known.useless and not entry.useless:
                    found[entry.fingerprint] = entry
        return found

    def _find(self, path: str, keys: Collection[str]) -> list[Existing] | None:
        """Which of these keys another file has; None where no such directory is, no right to look (what the
        user cannot read, sshd cannot read either), or a mode for which sshd ignores it.
        """
        from firstkey.ssh import authorized_keys

        added = (line.key for line in self._change.add)
        wanted = {key.blob: key.fingerprint for key in added if key.fingerprint in keys}

        def read() -> list[Existing] | None:
            directory = self._directory(os.path.dirname(path))
            if directory is None:
                return None
            with directory:
                file = directory.read(os.path.basename(path), limit=LIMIT)
                if self._flaws(directory, path):
                    return None
            found = (entry for _, entry in authorized_keys.keyed(file.content if file else b""))
            best = authorized_keys.best_of_each_key(found, wanted)
            return [Existing(wanted[blob], path, _text(each.options)) for blob, each in best.items()]

        with suppress(FirstkeyError):
            return self._with_rights(path, read)
        return None

    # --- merging --------------------------------------------------------------------------------

    def _merge(self, others: Mapping[str, Existing]) -> dict[str, Any]:
        """Bring the file to what the change says, or say what would be in it.

        Raises FirstkeyError where that is refused or fails; the file is then as it was.
        """
        from firstkey.ssh import authorized_keys

        change = self._change
        where, name = os.path.split(change.path)
        make = False
        for _ in range(ATTEMPTS):
            with self._directory(where, make=make) or nullcontext() as directory:
                old = directory.read(name, limit=LIMIT) if directory else None
                before = old.content if old else b""
                merge = authorized_keys.merge(
                    before, add=change.add, revoke=change.revoke, own=change.keep, elsewhere=others
                )
                is_needed, found = merge.content != before, merge._asdict()
                here = {key: Existing(key, change.path, _text(options)) for key, options in merge.existing}
                found["existing"] = [*{**others, **here}.values()]
                del found["content"]
                if self._dry_run:
                    from firstkey import display

                    diff = display.diff(change.path, old.content if old else None, merge.content)
                    return {**found, **self._checked(directory), "changed": is_needed, "diff": diff}
                # Noted before anything is written: after a power cut the line is known to be firstkey's.
                if self._note and merge.added:
                    self._note(list(merge.added))
                if directory is None and is_needed:
                    make = True
                    continue
                try:
                    if directory:
                        # Also where nothing is needed: it may be another name of the file.
                        directory.remove_stale()
                    if directory and is_needed:
                        directory.replace(
                            name, merge.content, self._looks(directory, name, old), expected=old
                        )
                except Changed:
                    continue
                if is_needed and old is None:
                    self._made.append(change.path)
                checked = self._checked(directory)
                is_changed = is_needed or bool(checked["repaired"])
                return {**found, **checked, "made": self._made, "changed": is_changed}
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

    def _check(self) -> dict[str, Any]:
        """Only whether sshd still heeds the file."""
        with self._directory(os.path.dirname(self._change.path)) or nullcontext() as directory:
            checked = self._checked(directory)
        return {**checked, "changed": bool(checked["repaired"])}

    def _checked(self, directory: Directory | None) -> dict[str, Any]:
        """Repair the modes of the file and its directory where firstkey made them and others may write, and
        look for flaws that are left. What somebody else made is theirs to repair, and reported.
        """
        path, repaired, flaws = self._change.path, [], []
        own = {*self._change.made, *self._made} if directory and not self._dry_run else ()
        parts = (path, os.path.basename(path)), (os.path.dirname(path), ".")
        for (part, inside), mode in zip(parts, self._modes()):
            found = directory.status(inside) if directory and part in own else None
            if directory and found and found.st_mode & OTHERS_WRITE and not stat.S_ISLNK(found.st_mode):
                directory.set_mode(inside, mode)
                repaired.append((part, _octal(found.st_mode), _octal(mode)))
        # Where they cannot be told: what is done is done, and no reason to call it a failure.
        with suppress(FirstkeyError):
            flaws = self._flaws(directory, path) if directory else []
        return {"repaired": repaired, "flaws": flaws}

    def _flaws(self, directory: Directory, path: str) -> list[str]:
        """The parts of the path for which sshd ignores the file, each with its mode and owner.

        sshd goes by the real path: the file, and each directory above it up to the home, or up to the root
        outside of it (misc.c: safe_path). It reads the file as the user. No file, no flaw.
        """
        file = directory.status(os.path.basename(path))
        if file is None:
            return []
        folder, home = self._real_path(directory), None
        found = [(f"{folder.rstrip('/')}/{os.path.basename(path)}", file), (folder, directory.status())]
        with self._tree.open(self._change.account.home) or nullcontext() as opened:
            home = self._real_path(opened) if opened else None
        for above in () if folder == home else _above(folder):
            with self._tree.opened(above) as opened:
                found.append((above, opened.status()))
            if above == home:
                break
        parts = [Part(part, each.st_uid, each.st_gid, each.st_mode) for part, each in found if each]
        owners = (0, os.getuid(), self._change.account.uid)
        may_share = partial(self._accounts.may_share, self._change.account)
        bad = {flaw.part for flaw in access.flaws(parts, owners, home, may_share=may_share)}
        return [
            f"{part.path} (mode {_octal(part.mode)}, owner {part.uid})"
            for part in parts
            if part in bad or not self._may_use(part)
        ]

    def _may_use(self, part: Part) -> bool:
        """Whether the user may read the file, or pass the directory: what the own rights did, they may."""
        uid = self._change.account.uid
        if not self._as_root or uid == 0 or os.geteuid() != 0:
            return True
        needed = 0o4 if part.is_file else 0o1
        shift = 6 if part.uid == uid else 3 if part.gid in self._groups else 0
        return bool(part.mode >> shift & needed)

    def _real_path(self, directory: Directory) -> str:
        """Where the open directory really is in the tree, root's links followed."""
        return directory.on_host[len(self._tree.root.rstrip("/")) :] or "/"


def _above(path: str) -> Iterator[str]:
    """Every directory above `path`, the nearest first."""
    while path not in ("/", ""):
        path = os.path.dirname(path)
        yield path


def _text(options: bytes) -> str:
    return options.decode("utf-8", "surrogateescape")


def _octal(mode: int) -> str:
    return f"{stat.S_IMODE(mode):04o}"
