"""Launch keys: which the metadata service offers, which lines go into which file, and what became of each.

What is to be done is decided from the offered keys, the ledger and sshd's word, without touching a home; each
user's change is then made in one visit (boot/key_file.py), remembered in the ledger, and reported.
"""

from __future__ import annotations

from contextlib import closing, suppress

from firstkey import TYPE_CHECKING, events, reasons
from firstkey.boot import key_file
from firstkey.boot.key_file import Change
from firstkey.boot.ledger import INSTALLED, PENDING, PRESENT, InstalledKey
from firstkey.model import CHANGED, FAILED, REFUSED, UNCHANGED, UserResult
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import public_key, sshd_config
from firstkey.ssh.authorized_keys import Line
from firstkey.ssh.sshd_config import fits, looks_for
from firstkey.system.sshd import knows_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from firstkey.boot.accounts import Setup
    from firstkey.boot.ledger import LedgerStore
    from firstkey.boot.site import Site
    from firstkey.model import Account, OfferedKey
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.sshd import Sshd

SOMEBODY = "somebody-else"
"""Any other user: an account that a directory service may have, and that no Match block names."""
_REFUSALS = frozenset({
    reasons.NO_SUCH_USER, reasons.INVALID_USER_NAME, reasons.HOME_MISSING, reasons.SYMLINK_REFUSED,
    reasons.SHARED_FILE, reasons.NOT_A_REGULAR_FILE, reasons.NOT_A_DIRECTORY, reasons.UNSAFE_DIRECTORY,
    reasons.FILE_TOO_LARGE, reasons.AUTHORIZED_KEYS_DISABLED, reasons.SUDOERS_INVALID,
})  # fmt: skip
"""Reasons for which firstkey declined; any other one is a failure of the system's."""


def judge(offered: Iterable[OfferedKey]) -> tuple[tuple[PublicKey, ...], tuple[OfferedKey, ...]]:
    """The keys that OpenSSH would take; and all that were offered, the others with the reason."""
    keys, judged = [], []
    for offer in offered:
        known = offer
        try:
            if not offer.refusal:
                keys.append(key := _taken(offer.text))
                known = offer._replace(type=key.type, fingerprint=key.fingerprint)
        except FirstkeyError as error:
            known = offer._replace(refusal=error.refusal)
        judged.append(known)
    return tuple(keys), tuple(judged)


def _taken(text: bytes) -> PublicKey:
    """The key. Raises FirstkeyError where OpenSSH would not take it."""
    key = public_key.parse_launch_key(text)
    is_taken = True
    if key.type not in public_key.JUDGED_HERE:
        with suppress(FirstkeyError):  # without ssh-keygen, sshd will pass over the line
            is_taken = knows_key(f"{key.line}\n".encode("utf-8", "surrogateescape"))
    if not is_taken:
        message = f"ssh-keygen does not take its data for a key of the type {key.type}"
        raise FirstkeyError(message, reason=reasons.NOT_A_PUBLIC_KEY)
    return key


def lines(keys: Sequence[PublicKey], *, redirect_to: str | None = None) -> tuple[Line, ...]:
    """The lines for a user: the keys as they are, or for a redirected root ones that tell where to go."""
    options = redirection(redirect_to) if redirect_to else ""
    return tuple(Line(key, options) for key in keys)


def redirection(user: str) -> str:
    """Options that let root's login say which user to take instead, and nothing else (sshd(8))."""
    words = f'Please login as the user \\"{user}\\" rather than the user \\"root\\".'
    shell = f"echo '{words}';echo;sleep 10;exit 142"
    return f'no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="{shell}"'


# --- where a user's keys go -----------------------------------------------------------------------


def place(sshd: Sshd, account: Account, own: str | None) -> Change:
    """A change, of nothing as yet, at the file that sshd reads first for this user and for nobody else.

    `own`, the section's setting, comes before sshd's.
    Raises FirstkeyError (authorized-keys-disabled, shared-file).
    """

    def looks(path: str) -> bool:
        """Whether sshd takes it for a pattern of files to look into: never a name to write to."""
        return looks_for(path) and sshd.reads_patterns is not False

    name, meaning = account.name, sshd.meaning(account.name)
    read = meaning.effective.authorized_keys_files
    patterns = (own,) if own else read
    named = [pattern for pattern in patterns if not looks(pattern)]
    if not named:
        but = f" but by a pattern: {' '.join(patterns)}" if patterns else ""
        message = f"sshd reads no file of keys for {name}{but}"
        hint = f"Set AuthorizedKeysFile= in [User {name}] to a name that it fits" if patterns else None
        raise FirstkeyError(message, reason=reasons.AUTHORIZED_KEYS_DISABLED, hint=hint)
    # Under a Match block, a file that depends on nothing of the user's may well be one user's alone.
    free = [
        pattern
        for pattern in named
        if not sshd_config.is_shared(pattern)
        or pattern not in sshd.meaning(SOMEBODY).effective.authorized_keys_files
    ]
    if not free:
        message = f"AuthorizedKeysFile {' '.join(patterns)}: sshd reads the same file for any other user too"
        raise FirstkeyError(message, reason=reasons.SHARED_FILE)
    (path,) = sshd_config.key_paths(free[:1], account)
    others = sshd_config.key_paths(read, account)
    also_read = tuple(other for other in others if other != path and looks(other) == looks_for(other))
    unread = None
    # Only what sshd itself said can contradict the configuration.
    if not meaning.refusal and not any(path == each or (looks(each) and fits(path, each)) for each in others):
        detail = f"{path} is not among the files that sshd reads for {name} ({' '.join(read) or 'none'})"
        unread = Refusal(reasons.NOT_READ_BY_SSHD, detail)
    return Change(account, path, also_read=also_read, unread=unread)


# --- what is to be done, and what became of it ------------------------------------------------------


class Installer:
    """Brings the launch keys of one instance to their users, and takes other instances' away."""

    def __init__(
        self, site: Site, sshd: Sshd, store: LedgerStore, instance: str, setups: Mapping[str, Setup]
    ) -> None:
        self.warnings: list[Refusal] = []
        self._site = site
        self._sshd = sshd
        self._store = store
        self._instance = instance
        self._setups = setups
        self._results: dict[tuple[str, str | None], UserResult] = {}
        """By user and file, in the order in which they were planned."""
        self._claimed: dict[str, Account] = {}

    def install(self, names: Sequence[str], keys: Sequence[PublicKey]) -> list[UserResult]:
        """Give the users the keys, and take away what is another instance's, wherever it is."""
        root = ["root"] if self._site.config.keys.redirect_root else []
        everybody = list(dict.fromkeys((*names, *root)))
        if keys:
            self._make(self._changes([name for name in everybody if name not in root], lines(keys)))
            target = self._target(names) if root else None
            if root and (target or "root" in names):
                self._make(self._changes(root, lines(keys, redirect_to=target)))
        self._make(self._clearances())
        served = {user for user, _ in self._results}
        others = [] if keys else [name for name in everybody if name not in served]
        return [*(UserResult(name, None, UNCHANGED) for name in others), *self._results.values()]

    def check(self) -> list[UserResult]:
        """Check the files of who was served before, whose lines are all as they are to be."""
        holders, ledger = self._site.config.keys.holders, self._store.ledger
        served = [each for each in ledger.served if each.name in holders]
        self._results = {
            (each.name, each.file): UserResult(each.name, each.file, UNCHANGED) for each in served
        }
        there = ((self._site.accounts.listed(each.name), each.file) for each in served)
        made = ledger.made_files
        self._make(Change(account, file, made=made) for account, file in there if account and file)
        return [*self._results.values()]

    def _target(self, names: Sequence[str]) -> str | None:
        """Who can be logged in as in root's place; None: nobody, and root's copy is as the others'.

        Once root is redirected on this instance, no state of a user's home undoes that: a user could bring
        such a state about.
        """
        able = [user.name for user in self._results.values() if user.is_well]
        if any(key.options for key in self._store.ledger.of("root", self._instance)):
            able += [name for name in names if name != "root" and self._site.accounts.find(name)]
        if able:
            return able[0]
        why = reasons.REDIRECT_WITHOUT_USER
        self.warnings.append(Refusal(why, why.meaning))
        self._site.say(events.REDIRECT_IMPOSSIBLE(reason=why.code))
        return None

    # --- deciding -------------------------------------------------------------------------------

    def _changes(self, names: Sequence[str], wanted: Sequence[Line]) -> Iterator[Change]:
        """What is to become of the files of those who can have keys at all; the others are told."""
        for name in names:
            setup = self._setups.get(name)
            try:
                account = self._site.accounts.find(name) or (setup.planned if setup else None)
                if account is None:
                    raise (setup.failure if setup else None) or self._site.accounts.unknown(name)
                yield self._change(account, wanted)
            except FirstkeyError as error:
                self._failed(name, None, error.refusal)

    def _change(self, account: Account, wanted: Sequence[Line]) -> Change:
        """What is to become of the user's file: each launch key is added once an instance.

        What a person took out since stays out, unless forced. Raises FirstkeyError where keys cannot go
        anywhere.
        """
        name = account.name
        known = self._store.ledger.of(name, self._instance)
        done = [(each.fingerprint, each.file) for each in known if each.is_done and not self._site.force]
        served = self._store.serving(name, self._instance)
        if served and served.file and all((line.key.fingerprint, served.file) in done for line in wanted):
            change = Change(account, served.file)  # installed already: sshd need not be asked again
        else:
            change = place(self._sshd, account, self._site.config.user(name).authorized_keys_file)
        # Two users whose files are one and the same would let each in as the other.
        other = self._claimed.setdefault(change.path, account)
        if other.uid != account.uid:
            message = f"{change.path} is the file of {other.name} too"
            raise FirstkeyError(message, reason=reasons.SHARED_FILE)
        add = tuple(line for line in wanted if (line.key.fingerprint, change.path) not in done)
        # Where sshd reads another file by now, it comes along, unless a person took it out of the last one.
        last, keys = dict(done), (line.key.fingerprint for line in add)
        moved = tuple((key, last[key]) for key in keys if key in last)
        return self._revoking(change._replace(add=add, moved=moved))

    def _clearances(self) -> Iterator[Change]:
        """Other instances' keys in files that no change touches: of users or paths configured no more."""
        for name, file in dict.fromkeys((key.user, key.file) for key in self._store.stale(self._instance)):
            account = None if (name, file) in self._results else self._site.accounts.find(name)
            if account:
                yield self._revoking(Change(account, file))

    def _revoking(self, change: Change) -> Change:
        """The same, and other instances' lines go."""
        stale = (key for key in self._store.stale(self._instance) if key.user == change.account.name)
        return change._replace(stale=tuple(stale), made=self._store.ledger.made_files)

    # --- doing ----------------------------------------------------------------------------------

    def _make(self, changes: Iterable[Change]) -> None:
        with closing(key_file.visit(self._site, self._planned(changes), self._note)) as visits:
            for change, answer in visits:
                self._done(change, answer)

    def _planned(self, changes: Iterable[Change]) -> Iterator[Change]:
        """Those that there is a home for; each has its place in the report, whenever the home answers."""
        for change in changes:
            name, path = change.account.name, change.path
            setup = self._setups.get(name)
            self._results[name, path] = UserResult(name, path, FAILED)
            if not (setup and setup.planned):
                yield change
                continue
            # In a dry run, an account that would be made: there is no home to look into, and all is new.
            from firstkey import display

            diff = display.diff(path, None, b"".join(line.text for line in change.add))
            added = tuple(line.key.fingerprint for line in change.add)
            self._results[name, path] = UserResult(name, path, CHANGED, added, diff=diff)

    def _note(self, change: Change, keys: Sequence[str]) -> None:
        """Note, before anything is written, which lines will be firstkey's; not those there already."""
        ledger = self._store.ledger
        for line in change.add:
            if line.key.fingerprint in keys:
                ledger = ledger.with_key(self._entry(change, line, PENDING))
        self._store.save(ledger)

    def _done(self, change: Change, answer: key_file.Answer) -> None:
        """Remember and report what became of a change."""
        name, file = change.account.name, change.path
        if isinstance(answer, FirstkeyError) and not change.is_check:
            # The intention stays noted: the failure may have come after the rename.
            self._failed(name, change, answer.refusal)
            return
        # Where nothing is to be done, what cannot be looked at now is no failure.
        result = UserResult(name, file, UNCHANGED)
        if isinstance(answer, Change):
            if not change.is_check:
                self._record(answer)
            for entry in () if self._site.dry_run else answer.entries(self._instance):
                self._site.say(entry)
            left = [f"{key} stays in {file} of {name}" for key in answer.left]
            self.warnings += [Refusal(reasons.KEY_LEFT_IN_PLACE, detail) for detail in left]
            result = answer.result()
        if change.unread:
            self.warnings.append(change.unread)
            why = {"reason": change.unread.reason.code, "detail": change.unread.detail}
            self._site.say(events.FILE_NOT_READ(user=name, file=file, **why))
        self._results[name, file] = result._replace(is_read=not change.unread)

    def _failed(self, name: str, change: Change | None, refusal: Refusal) -> None:
        file = change.path if change else None
        why = {"user": name, "reason": refusal.reason.code, "detail": refusal.detail}
        is_revocation = change and not change.add
        self._site.say(events.REVOKE_FAILED(**why, file=file) if is_revocation else events.USER_FAILED(**why))
        kind = REFUSED if refusal.reason in _REFUSALS else FAILED
        self._results[name, file] = UserResult(name, file, kind, refusal=refusal)

    # --- remembering ----------------------------------------------------------------------------

    def _entry(self, change: Change, line: Line, state: str) -> InstalledKey:
        return InstalledKey(change.account.name, change.path, *line.written, self._instance, state)

    def _record(self, change: Change) -> None:
        """What was there before firstkey came is a person's; what it wrote, now or earlier, is its own."""
        ledger = self._store.ledger
        where = (change.account.name, change.path)
        entries = [key for key in ledger.keys if (key.user, key.file) == where]
        own = {key.fingerprint: key for key in entries if key.is_own}
        keeps = self._site.config.keys.revoke == "never"
        gone = [key for key in entries if key.instance != self._instance and not (key.is_own and keeps)]
        ledger = ledger._replace(
            keys=tuple(key for key in ledger.keys if key not in gone),
            made_files=tuple(dict.fromkeys([*ledger.made_files, *change.made])),
        )
        existing = {entry.fingerprint: entry.path for entry in change.existing}
        for line in change.add:
            key = line.key.fingerprint
            if key in change.added:
                record = self._entry(change, line, INSTALLED)
            elif key in own and existing.get(key) == change.path:
                # Also where a person changed the line since: it goes only if it is as firstkey wrote it.
                record = own[key]._replace(instance=self._instance, state=INSTALLED)
            else:
                # There already, or taken out of the file where it was before sshd read this one.
                record = self._entry(change, line, PRESENT)._replace(file=existing.get(key, change.path))
            ledger = ledger.with_key(record)
        self._store.ledger = ledger
