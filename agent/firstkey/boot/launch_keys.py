"""Launch keys: which the metadata service offers, which lines go into which file, and what became of each.

What is to be done is decided from the offered keys, the ledger and sshd's word, without touching a home; each
user's change is then made in one visit (boot/key_file.py), remembered in the ledger, and reported.
"""

from __future__ import annotations

from firstkey import TYPE_CHECKING, events, reasons
from firstkey.boot import key_file
from firstkey.boot.key_file import Change
from firstkey.boot.ledger import INSTALLED, PENDING, PRESENT, TAKEN_OUT, InstalledKey
from firstkey.boot.placement import Placement, place
from firstkey.model import CHANGED, FAILED, REFUSED, UNCHANGED, UserResult
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import public_key
from firstkey.ssh.authorized_keys import Line
from firstkey.system import keygen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from firstkey.boot.accounts import Setup
    from firstkey.boot.ledger import LedgerStore
    from firstkey.boot.site import Site
    from firstkey.model import Account, OfferedKey
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.sshd import Sshd

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
    """The key. Raises FirstkeyError where OpenSSH would not take it.

    Whether a point is on its elliptic curve is ssh-keygen's to say. Without it, sshd will pass over the line.
    """
    key = public_key.parse_launch_key(text)
    try:
        is_taken = "ecdsa" not in key.type or keygen.knows(f"{key.line}\n".encode("utf-8", "surrogateescape"))
    except FirstkeyError:
        is_taken = True
    if not is_taken:
        message = "ssh-keygen does not take it: its point is not on the curve"
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


class Installer:
    """Brings the launch keys of one instance to their users, and takes other instances' away.

    `unread` are users whose file is written as configured, and that sshd does not read.
    """

    def __init__(
        self,
        site: Site,
        sshd: Sshd,
        store: LedgerStore,
        instance: str,
        setups: Mapping[str, Setup],
    ) -> None:
        self.unread: set[str] = set()
        self.warnings: list[Refusal] = []
        self._site = site
        self._sshd = sshd
        self._store = store
        self._instance = instance
        self._setups = setups
        self._results: dict[tuple[str, str | None], UserResult] = {}
        """By user and file, in the order in which they were planned."""
        self._claimed: dict[str, Account] = {}
        self._visits = key_file.Visits(site, noted=self._note, done=self._done)

    def install(self, names: Sequence[str], keys: Sequence[PublicKey]) -> list[UserResult]:
        """Give the users the keys, and take away what is another instance's, wherever it is."""
        root = ["root"] if self._site.config.keys.redirect_root else []
        with self._visits:
            if keys:
                for name in dict.fromkeys(names):
                    if name not in root:
                        self._serve(name, lines(keys))
                target = self._target(names) if root else None
                if root and (target or "root" in names):
                    self._serve("root", lines(keys, redirect_to=target))
            for change in self._clearances():
                self._make(change)
            self._visits.wait()
        served = {user for user, _ in self._results}
        others = [] if keys else [name for name in dict.fromkeys((*names, *root)) if name not in served]
        return [*(UserResult(name, None, UNCHANGED) for name in others), *self._results.values()]

    def _target(self, names: Sequence[str]) -> str | None:
        """Who can be logged in as in root's place; None: nobody, and root's copy is as the others'.

        Once root is redirected on this instance, no state of a user's home undoes that: a user could bring
        such a state about.
        """
        if not self._able():
            self._visits.wait()
        able = self._able()
        if any(key.options for key in self._store.ledger.of("root", self._instance)):
            able += [name for name in names if name != "root" and self._site.accounts.find(name)]
        if able:
            return able[0]
        why = Refusal(reasons.REDIRECT_WITHOUT_USER, "nobody of Users= can be logged in as in root's place")
        self.warnings.append(why)
        self._site.say(events.REDIRECT_IMPOSSIBLE(reason=why.reason.code))
        return None

    def _able(self) -> list[str]:
        return [user.name for user in self._results.values() if user.is_well and user.name not in self.unread]

    # --- deciding -------------------------------------------------------------------------------

    def _serve(self, name: str, wanted: Sequence[Line]) -> None:
        setup = self._setups.get(name)
        try:
            account = self._site.accounts.find(name) or (setup.planned if setup else None)
            if account is None:
                raise (setup.failure if setup else None) or self._site.accounts.unknown(name)
            change = self._change(account, wanted)
        except FirstkeyError as error:
            self._failed(name, None, error.refusal)
        else:
            self._make(change)

    def _change(self, account: Account, wanted: Sequence[Line]) -> Change:
        """What is to become of the user's file: each launch key is added once an instance.

        What a person took out since stays out, unless forced. Raises FirstkeyError where keys cannot go
        anywhere.
        """
        own = self._site.config.user(account.name).authorized_keys_file
        placement = self._known_place(account, wanted) or place(self._sshd, account, own)
        path = placement.path
        # Two users whose files are one and the same would let each in as the other.
        other = self._claimed.setdefault(path, account)
        if other.uid != account.uid:
            raise FirstkeyError(f"{path} is the file of {other.name} too", reason=reasons.SHARED_FILE)
        known = self._store.ledger.of(account.name, self._instance)
        add, moved = [], []
        for line in wanted:
            key = line.key.fingerprint
            mine = {each.file: each for each in known if each.fingerprint == key}
            if self._site.force or path not in mine or mine[path].state == PENDING:
                add.append(line)
                # Where sshd reads another file by now, it comes along, unless a person took it out.
                if mine and path not in mine and not self._site.force:
                    moved.append((key, tuple(mine)))
        keys = frozenset(line.key.fingerprint for line in wanted)
        stale = self._stale(account.name)
        also_read = tuple(
            (file, keys - {each.fingerprint for each in stale if each.file == file})
            for file in placement.also_read
        )
        return self._revocation(account, path)._replace(
            add=tuple(add), moved=tuple(moved), also_read=also_read, unread=placement.unread
        )

    def _known_place(self, account: Account, wanted: Sequence[Line]) -> Placement | None:
        """Where all these keys were installed already: then sshd need not be asked again where keys go."""
        served = self._store.serving(account.name, self._store.ledger, self._instance)
        if self._site.force or served is None or served.file is None:
            return None
        known = self._store.ledger.of(account.name, self._instance)
        done = {key.fingerprint for key in known if key.file == served.file and key.state != PENDING}
        return Placement(served.file) if done.issuperset(line.key.fingerprint for line in wanted) else None

    def _clearances(self) -> list[Change]:
        """Other instances' keys in files that no change touches: of users or paths configured no more."""
        left = dict.fromkeys((key.user, key.file) for key in self._stale())
        accounts = {name: self._site.accounts.find(name) for name, _ in left}
        untouched = [each for each in left if each not in self._results]
        return [self._revocation(account, file) for name, file in untouched if (account := accounts[name])]

    def _revocation(self, account: Account, path: str) -> Change:
        """The change of one file with nothing to add: other instances' lines go, this one's may stay."""
        own = [key for key in self._store.ledger.in_file(account.name, path) if key.is_own]
        going = [key.written for key in self._stale(account.name) if key in own]
        keep = tuple(key.written for key in own if key.written not in going)
        return Change(account, path, revoke=tuple(going), keep=keep, made=self._store.ledger.made_files)

    def _stale(self, name: str | None = None) -> list[InstalledKey]:
        """What firstkey wrote for other instances, if such lines are to go."""
        if self._site.config.keys.revoke == "never":
            return []
        others = self._store.ledger.of_other_instances(self._instance)
        return [key for key in others if name in (None, key.user)]

    # --- doing ----------------------------------------------------------------------------------

    def _make(self, change: Change) -> None:
        name = change.account.name
        # Its place in the report, whenever the home answers.
        self._results[name, change.path] = UserResult(name, change.path, FAILED)
        setup = self._setups.get(name)
        if setup and setup.planned:
            # In a dry run, an account that would be made: there is no home to look into, and all is new.
            from firstkey import display

            diff = display.diff(change.path, None, b"".join(line.text for line in change.add))
            added = tuple(line.key.fingerprint for line in change.add)
            self._results[name, change.path] = UserResult(name, change.path, CHANGED, added, diff=diff)
            return
        self._visits.make(change)

    def _note(self, change: Change, keys: Sequence[str]) -> None:
        """Note, before anything is written, which lines will be firstkey's; not those there already."""
        for line in change.add:
            if line.key.fingerprint in keys:
                self._remember(change, line, PENDING)
        self._store.save()

    def _done(self, change: Change, answer: key_file.Answer) -> None:
        """Remember and report what became of a change."""
        name, file = change.account.name, change.path
        if isinstance(answer, FirstkeyError) and not change.is_check:
            # The intention stays noted: the failure may have come after the rename.
            self._failed(name, change, answer.refusal)
            return
        # Where nothing is to be done, what cannot be looked at now is no failure.
        self._results[name, file] = UserResult(name, file, UNCHANGED)
        if isinstance(answer, Change):
            owners = {key.fingerprint: key.instance for key in self._store.ledger.in_file(name, file)}
            self._record(answer)
            for entry in () if self._site.dry_run else answer.entries(self._instance, owners):
                self._site.say(entry)
            left = [f"{key} stays in {file} of {name}" for key in answer.left]
            self.warnings += [Refusal(reasons.KEY_LEFT_IN_PLACE, detail) for detail in left]
            self._results[name, file] = answer.result()
        if change.unread:
            self.unread.add(name)
            self.warnings.append(change.unread)
            why = {"reason": change.unread.reason.code, "detail": change.unread.detail}
            self._site.say(events.FILE_NOT_READ(user=name, file=file, **why))

    def _failed(self, name: str, change: Change | None, refusal: Refusal) -> None:
        file = change.path if change else None
        why = {"user": name, "reason": refusal.reason.code, "detail": refusal.detail}
        is_revocation = change and not change.add
        self._site.say(events.REVOKE_FAILED(**why, file=file) if is_revocation else events.USER_FAILED(**why))
        kind = REFUSED if refusal.reason in _REFUSALS else FAILED
        self._results[name, file] = UserResult(name, file, kind, refusal=refusal)

    # --- remembering ----------------------------------------------------------------------------

    def _remember(self, change: Change, line: Line, state: str, *, file: str | None = None) -> None:
        known = InstalledKey(change.account.name, file or change.path, *line.written, self._instance, state)
        self._store.ledger = self._store.ledger.with_key(known)

    def _record(self, change: Change) -> None:
        """What was there before firstkey came is a person's; what it wrote, now or earlier, is its own."""
        if change.is_check:
            return
        entries = self._store.ledger.in_file(change.account.name, change.path)
        own = {key.fingerprint: key for key in entries if key.is_own and key.fingerprint in change.owned}
        stale = self._stale(change.account.name)
        gone = [key for key in entries if key.instance != self._instance and (not key.is_own or key in stale)]
        self._store.ledger = self._store.ledger.without(gone)
        existing = {entry.fingerprint: entry.path for entry in change.existing}
        for line in change.add:
            key = line.key.fingerprint
            if key in change.added:
                self._remember(change, line, INSTALLED)
            elif key in own:
                entry = own[key]._replace(instance=self._instance, state=INSTALLED)
                self._store.ledger = self._store.ledger.with_key(entry)
            else:
                state = PRESENT if key in existing else TAKEN_OUT
                self._remember(change, line, state, file=existing.get(key))
        made = tuple(dict.fromkeys([*self._store.ledger.made_files, *change.made]))
        self._store.ledger = self._store.ledger._replace(made_files=made)
