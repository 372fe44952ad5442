"""Launch keys: which the metadata service offers, which lines go into which file, and what became of each.

What is to be done is decided from the offered keys, the ledger and sshd's word, without touching a home; each
user's change is then made in one visit (boot/key_file.py), remembered in the ledger, and reported.
"""

from __future__ import annotations

from contextlib import suppress

from firstkey import TYPE_CHECKING, events, reasons
from firstkey.boot import key_file
from firstkey.boot.key_file import Change
from firstkey.boot.ledger import INSTALLED, PENDING, PRESENT, InstalledKey
from firstkey.model import FAILED, REFUSED, UNCHANGED, UserResult
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import public_key, sshd_config
from firstkey.ssh.authorized_keys import Line
from firstkey.ssh.sshd_config import fits, looks_for
from firstkey.system.accounts import unmounted
from firstkey.system.sshd import knows_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from firstkey.boot.accounts import Setup
    from firstkey.boot.ledger import LedgerStore
    from firstkey.boot.target import Target
    from firstkey.events import Event
    from firstkey.model import Account, OfferedKey
    from firstkey.ssh.public_key import PublicKey
    from firstkey.ssh.sshd_config import Effective
    from firstkey.system.sshd import Sshd

ANOTHER = "another-user"
"""Any other user: an account that a directory service may have, and that no Match block names."""
_REFUSALS = frozenset({
    reasons.NO_SUCH_USER, reasons.INVALID_USER_NAME, reasons.HOME_MISSING, reasons.SYMLINK_REFUSED,
    reasons.SHARED_FILE, reasons.NOT_A_REGULAR_FILE, reasons.NOT_A_DIRECTORY, reasons.UNSAFE_DIRECTORY,
    reasons.FILE_TOO_LARGE, reasons.AUTHORIZED_KEYS_DISABLED, reasons.SUDOERS_INVALID,
})  # fmt: skip
"""Reasons for which firstkey declined; any other one is a failure of the system's."""


def judge(offered: Iterable[OfferedKey]) -> tuple[tuple[PublicKey, ...], tuple[OfferedKey, ...]]:
    """The keys that OpenSSH would take, each once; and all that were offered, the others with the reason."""
    keys, judged = dict[bytes, "PublicKey"](), []
    for offer in offered:
        key, refusal = None, offer.refusal
        try:
            key = None if refusal else public_key.parse_launch_key(offer.text)
            with suppress(FirstkeyError):  # an ssh-keygen that is missing or killed says nothing of a key
                if key and key.type not in public_key.JUDGED_HERE and not knows_key(Line(key).text):
                    detail = f"ssh-keygen does not take its data for a key of the type {key.type}"
                    key, refusal = None, Refusal(reasons.NOT_A_PUBLIC_KEY, detail)
        except FirstkeyError as error:
            refusal = error.refusal
        key = key and keys.setdefault(key.blob, key)
        named = offer._replace(type=key.type, fingerprint=key.fingerprint) if key else offer
        judged.append(named._replace(refusal=refusal))
    return tuple(keys.values()), tuple(judged)


def lines(keys: Sequence[PublicKey], *, redirect_to: str | None = None) -> tuple[Line, ...]:
    """The lines for a user: the keys as they are, or those of a root whose login says which user to take
    instead, and nothing else (sshd(8)).
    """
    options = ""
    if redirect_to:
        words = f'Please login as the user \\"{redirect_to}\\" rather than the user \\"root\\".'
        command = f"echo '{words}';echo;sleep 10;exit 142"
        options = f'no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="{command}"'
    return tuple(Line(key, options) for key in keys)


def barrier(effective: Effective, account: Account, add: Sequence[Line], target: Target | None) -> str | None:
    """The setting by which sshd refuses the user with these lines. Without `target`, groups do not count."""
    if effective.first("pubkeyauthentication") == "no":
        return "PubkeyAuthentication no"
    methods = effective.first("authenticationmethods") or "any"
    if {"any", "publickey"}.isdisjoint(methods.replace(",", " ").split()):
        return f"AuthenticationMethods {methods}"
    root, has_command = effective.first("permitrootlogin"), any(line.options for line in add)
    if account.uid == 0 and (root == "no" or (root == "forced-commands-only" and not has_command)):
        return f"PermitRootLogin {root}"
    if effective.settings.keys().isdisjoint(("denyusers", "allowusers", "denygroups", "allowgroups")):
        return None
    from firstkey.ssh import access  # few systems have such a list

    words = {keyword: " ".join(lines).split() for keyword, lines in effective.settings.items()}
    names = target.accounts.group_names(account) if target else ()
    lists = access.listings(lambda keyword: words.get(keyword, ()), account.name, names, None)
    refusing = (each for each in lists if each.refuses and (target or each.keyword.endswith("Users")))
    return next((f"{each.keyword} {' '.join(each.words)}" for each in refusing), None)


def place(sshd: Sshd, account: Account, own: str | None) -> Change:
    """A change, of nothing as yet, at the file that sshd reads first for this user and for no other one.

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
        raise FirstkeyError(message, reason=reasons.AUTHORIZED_KEYS_DISABLED)
    # Under a Match block, a file that depends on nothing of the user's may well be one user's alone.
    free = [
        pattern
        for pattern in named
        if not sshd_config.is_shared(pattern)
        or pattern not in sshd.meaning(ANOTHER).effective.authorized_keys_files
    ]
    if not free:
        message = f"AuthorizedKeysFile {' '.join(patterns)}: sshd reads the same file for any other user too"
        raise FirstkeyError(message, reason=reasons.SHARED_FILE)
    (path,) = sshd_config.key_paths(free[:1], account)
    others = sshd_config.key_paths(read, account)
    also_read = tuple(other for other in others if other != path and looks(other) == looks_for(other))
    barred = None
    # Only what sshd itself said can contradict the configuration.
    if not meaning.refusal and not any(path == each or (looks(each) and fits(path, each)) for each in others):
        detail = f"{path} is not among the files that sshd reads for {name} ({' '.join(read) or 'none'})"
        barred = Refusal(reasons.NOT_READ_BY_SSHD, detail)
    return Change(account, path, also_read=also_read, barred=barred)


class Installer:
    """Brings the launch keys of one instance to their users, and takes other instances' away."""

    def __init__(
        self, target: Target, sshd: Sshd, store: LedgerStore, instance: str, setups: Mapping[str, Setup]
    ) -> None:
        self.warnings: list[Refusal] = []
        self._target = target
        self._sshd = sshd
        self._store = store
        self._instance = instance
        self._setups = setups
        self._results: dict[tuple[str, str | None], UserResult] = {}
        """By user and file, in the order in which they were planned."""
        self._claimed: dict[str, Account] = {}

    def install(self, names: Sequence[str], keys: Sequence[PublicKey]) -> list[UserResult]:
        """Give the users the keys, and take away what is another instance's, wherever it is."""
        root = ["root"] if self._target.config.keys.redirect_root else []
        everybody = list(dict.fromkeys((*names, *root)))
        if keys:
            self._make(self._changes([name for name in everybody if name not in root], lines(keys)))
            other = self._other_login(names) if root else None
            if other or "root" in names:
                self._make(self._changes(root, lines(keys, redirect_to=other)))
        self._make(self._clearances())
        served = {user for user, _ in self._results}
        others = [] if keys else [name for name in everybody if name not in served]
        return [*(UserResult(name, None, UNCHANGED) for name in others), *self._results.values()]

    def check(self) -> list[UserResult]:
        """Check the files of users who were served before: their lines are all as they are to be."""
        holders, ledger = self._target.config.keys.holders, self._store.ledger
        served = [each for each in ledger.served if each.name in holders]
        there = ((self._target.accounts.listed(each.name), each.file) for each in served)
        self._make(Change(account, file) for account, file in there if account and file)
        others = {(each.name, each.file): UserResult(each.name, each.file, UNCHANGED) for each in served}
        return [*{**others, **self._results}.values()]

    def _other_login(self, names: Sequence[str]) -> str | None:
        """The user to log in as in root's place; None: there is none, and root's lines are as the others'.

        Once root is redirected on this instance, no state of a user's home undoes that: a user could bring
        such a state about.
        """
        # What was added where a mount is still to come lets the user in, too.
        results = self._results.values()
        able = [user.name for user in results if user.is_well or (user.added and user.result == REFUSED)]
        if any(key.options for key in self._store.ledger.of("root", self._instance)):
            able += [name for name in names if name != "root" and self._target.accounts.find(name)]
        if able:
            return able[0]
        why = reasons.REDIRECT_WITHOUT_USER
        self.warnings.append(Refusal(why, why.meaning))
        self._target.log(events.REDIRECT_IMPOSSIBLE(reason=why.code))
        return None

    def _changes(self, names: Sequence[str], wanted: Sequence[Line]) -> Iterator[Change]:
        """What is to become of the files of the users who can have keys; the others are reported."""
        for name in names:
            setup = self._setups.get(name)
            try:
                account = self._target.accounts.find(name) or (setup.planned if setup else None)
                if account is None:
                    raise (setup.failure if setup else None) or self._target.accounts.unknown(name)
                yield self._change(account, wanted)
            except FirstkeyError as error:
                self._failed(events.USER_FAILED, name, None, error.refusal)

    def _change(self, account: Account, wanted: Sequence[Line]) -> Change:
        """What is to become of the user's file: each launch key is added once an instance.

        What a person took out since stays out, unless forced. Raises FirstkeyError where keys cannot go
        anywhere.
        """
        name = account.name
        known = [] if self._target.force else self._store.ledger.of(name, self._instance)
        done = {(each.fingerprint, each.file): each for each in known if each.state != PENDING}
        served = self._store.serving(name, self._instance)
        if served and served.file and all((line.key.fingerprint, served.file) in done for line in wanted):
            change = Change(account, served.file)  # installed already: sshd need not be asked again
        else:
            change = place(self._sshd, account, self._target.config.user(name).authorized_keys_file)
            meaning, target = self._sshd.meaning(name), self._target
            # A directory service may not be there yet to name the groups; a dry run adds no user to any.
            has_groups = account in target.accounts.all() and not (target.dry_run and name in self._setups)
            refusing = barrier(meaning.effective, account, wanted, target if has_groups else None)
            if refusing and not (change.barred or meaning.refusal or self._sshd.depends_on_client()):
                change = change._replace(barred=Refusal(reasons.LOGIN_REFUSED, f"sshd has {refusing}"))
        # Two users whose files are one and the same would let each in as the other.
        other = self._claimed.setdefault(change.path, account)
        if other.uid != account.uid:
            message = f"{change.path} is the file of {other.name} too"
            raise FirstkeyError(message, reason=reasons.SHARED_FILE)
        add = tuple(line for line in wanted if (line.key.fingerprint, change.path) not in done)
        # If sshd reads another file by now, the key moves there, unless a person took it out of the last one.
        last, keys = {key: old for (key, _), old in done.items()}, (line.key.fingerprint for line in add)
        return change._replace(add=add, moved=tuple((key, last[key]) for key in keys if key in last))

    def _clearances(self) -> Iterator[Change]:
        """Other instances' keys in files that no change touches: of users or paths configured no more."""
        for name, file in dict.fromkeys((key.user, key.file) for key in self._store.stale(self._instance)):
            account = None if (name, file) in self._results else self._target.accounts.find(name)
            if account:
                yield Change(account, file)

    def _make(self, changes: Iterable[Change]) -> None:
        key_file.visit(self._target, map(self._revoking, changes), self._note, self._done)

    def _revoking(self, change: Change) -> Change:
        """The same, and other instances' lines go. The report knows of it before a home is asked."""
        name = change.account.name
        self._results[name, change.path] = UserResult(name, change.path, FAILED)
        stale = tuple(key for key in self._store.stale(self._instance) if key.user == name)
        ledger = self._store.ledger
        return change._replace(stale=stale, made=ledger.made_files, is_strict=ledger.sshd_is_strict)

    def _note(self, change: Change, keys: Sequence[str]) -> None:
        """Note, before anything is written, which lines will be firstkey's; not those there already."""
        ledger, where = self._store.ledger, (change.account.name, change.path)
        for line in change.add:
            if line.key.fingerprint in keys:
                ledger = ledger.with_key(InstalledKey(*where, *line.written, self._instance, PENDING))
        self._store.save(ledger)

    def _done(self, change: Change) -> None:
        """Remember and report what became of a change."""
        name, file = change.account.name, change.path
        for entry in () if self._target.dry_run else change.entries(self._instance):
            self._target.log(entry)
        late = None if change.failure or change.is_check else unmounted(self._target.tree, file)
        if failure := change.failure or late:
            # The intention stays noted: the failure may have come after the rename, or a mount may cover it.
            event = events.USER_FAILED if change.add else events.REVOKE_FAILED
            self._failed(events.FILE_COVERED if late else event, name, file, failure.refusal)
            result = self._results[name, file]
            self._results[name, file] = result._replace(added=change.added, revoked=change.revoked)
            return
        if not change.is_check:
            self._record(change)
        left = (f"{key} stays in {file} of {name}" for key in change.left)
        self.warnings += [Refusal(reasons.KEY_LEFT_IN_PLACE, detail) for detail in left]
        if change.barred:
            self.warnings.append(change.barred)
            is_unread = change.barred.reason is reasons.NOT_READ_BY_SSHD
            event = events.FILE_NOT_READ if is_unread else events.LOGIN_REFUSED
            self._target.log(event(user=name, file=file, **change.barred.fields))
        self._results[name, file] = change.result()

    def _failed(self, event: Event, name: str, file: str | None, refusal: Refusal) -> None:
        self._target.log(event(user=name, file=file or "none", **refusal.fields))
        kind = REFUSED if refusal.reason in _REFUSALS else FAILED
        self._results[name, file] = UserResult(name, file, kind, refusal=refusal)

    def _record(self, change: Change) -> None:
        """What was there before firstkey came is a person's; what it wrote, now or earlier, is its own."""
        ledger, where = self._store.ledger, (change.account.name, change.path)
        entries = [key for key in ledger.keys if (key.user, key.file) == where]
        own = {(key.file, key.fingerprint): key for key in ledger.keys if key.user == where[0] and key.is_own}
        keeps = self._target.config.keys.revoke == "never"
        gone = [key for key in entries if key.instance != self._instance and not (key.is_own and keeps)]
        made = tuple(dict.fromkeys([*ledger.made_files, *change.made]))
        ledger = ledger._replace(keys=tuple(key for key in ledger.keys if key not in gone), made_files=made)
        existing = {entry.fingerprint: entry.path for entry in change.existing}
        for line in change.add:
            key = line.key.fingerprint
            record = InstalledKey(*where, *line.written, self._instance, INSTALLED)
            if mine := own.get((existing.get(key, ""), key)):
                # Also where a person changed the line since: it goes only if it is as firstkey wrote it.
                record = mine._replace(instance=self._instance, state=INSTALLED)
            elif key not in change.added:
                # There already, or taken out of the file where it was before sshd read this one.
                record = record._replace(file=existing.get(key, change.path), state=PRESENT)
            ledger = ledger.with_key(record)
        self._store.ledger = ledger
