"""Launch keys: which the metadata service offers, who gets them where, and which of other instances go."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from firstkey import events, reasons
from firstkey.boot import keys_file
from firstkey.boot.keys_file import Assignment
from firstkey.boot.ledger import INSTALLED, PENDING, PRESENT, InstalledKey
from firstkey.errors import FirstkeyError
from firstkey.model import CHANGED, FAILED, REFUSED, UNCHANGED, KeyResult, UserResult
from firstkey.reasons import Refusal
from firstkey.ssh import public_key, sshd_config
from firstkey.ssh.authorized_keys import Line, Revocation
from firstkey.ssh.sshd_config import Login
from firstkey.system import selinux

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from firstkey.boot.ledger import Ledger
    from firstkey.boot.site import Site
    from firstkey.boot.users import Setup
    from firstkey.metadata.client import OfferedKey
    from firstkey.model import Account
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.openssh import Sshd

_REFUSALS = frozenset({
    reasons.NO_SUCH_USER, reasons.INVALID_USER_NAME, reasons.HOME_MISSING, reasons.SYMLINK_REFUSED,
    reasons.SHARED_FILE, reasons.NOT_A_REGULAR_FILE, reasons.NOT_A_DIRECTORY, reasons.UNSAFE_DIRECTORY,
    reasons.FILE_TOO_LARGE, reasons.AUTHORIZED_KEYS_DISABLED, reasons.SUDOERS_INVALID,
})  # fmt: skip
"""Reasons for which firstkey declined; any other one is a failure of the system's."""


class Offer(NamedTuple):
    """The keys that the service offers, good and bad."""

    keys: tuple[PublicKey, ...]
    results: tuple[KeyResult, ...]


class Task(NamedTuple):
    """One user's part of the job. `refusal` is set where it is clear that nothing can be installed."""

    name: str
    assignment: Assignment | None
    refusal: Refusal | None = None


def judge(offered: Sequence[OfferedKey]) -> Offer:
    """Take each offered key that OpenSSH would take; the others are results with their reason."""
    keys: list[PublicKey] = []
    results = []
    for offer in offered:
        key, refusal = _parsed(offer)
        if key:
            keys.append(key)
        results.append(
            KeyResult(
                offer.number, offer.name, key.type if key else None, key.fingerprint if key else None, refusal
            )
        )
    return Offer(tuple(keys), tuple(results))


def _parsed(offer: OfferedKey) -> tuple[PublicKey | None, Refusal | None]:
    if offer.refusal:
        return None, offer.refusal
    try:
        return public_key.parse_launch_key(offer.text), None
    except FirstkeyError as error:
        return None, error.refusal


def lines_for(name: str, keys: Sequence[PublicKey], redirect_to: str | None) -> tuple[Line, ...]:
    """The lines for a user: the keys as they are, or for a redirected root ones that tell where to go."""
    options = redirection(redirect_to) if name == "root" and redirect_to else ""
    return tuple(Line(key, options) for key in keys)


def redirection(user: str) -> str:
    """Options that let root's login say which user to take instead, and nothing else (sshd(8))."""
    words = f'Please login as the user \\"{user}\\" rather than the user \\"root\\".'
    shell = f"echo '{words}';echo;sleep 10;exit 142"
    return f'no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="{shell}"'


class Installation:
    """Launch keys of one instance, on one system, by one ledger."""

    def __init__(
        self,
        site: Site,
        sshd: Sshd,
        instance: str,
        *,
        save: Callable[[Ledger], None],
        setups: Mapping[str, Setup],
    ) -> None:
        self._site = site
        self._sshd = sshd
        self._instance = instance
        self._save = save
        self._setups = setups

    def tasks(self, names: Sequence[str], keys: Sequence[PublicKey], ledger: Ledger) -> list[Task]:
        """What is to be done for each configured user, and in files that only have something to lose."""
        target = self._redirect_target(names)
        served = list(dict.fromkeys([*names, *(["root"] if target else [])]))
        claimed: dict[str, str] = {}
        tasks = []
        for name in served:
            task = self._task(name, lines_for(name, keys, target), ledger)
            tasks.append(self._unless_shared(task, claimed))
        return [*tasks, *self._clearances(tasks, ledger)]

    def carry_out(self, tasks: Sequence[Task], ledger: Ledger) -> tuple[list[UserResult], Ledger]:
        """Do it: intentions into the ledger, the files, then what became of it into the ledger."""
        if not self._site.dry_run and any(task.assignment and task.assignment.add for task in tasks):
            ledger = self._with_intentions(tasks, ledger)
            self._save(ledger)
        results = []
        for task in tasks:
            result, ledger = self._one(task, ledger)
            results.append(result)
        return results, ledger

    def _redirect_target(self, names: Sequence[str]) -> str | None:
        """Who is to be logged in as in root's place; None where root's copy is an ordinary one."""
        if not self._site.config.keys.redirect_root:
            return None
        target = next((name for name in names if name != "root" and self._exists(name)), None)
        if target is None:
            self._site.say(events.REDIRECT_IMPOSSIBLE(reason=reasons.REDIRECT_WITHOUT_USER.code))
        return target

    def _exists(self, name: str) -> bool:
        return self._site.accounts.find(name) is not None or self._site.dry_run

    def _stale(self, ledger: Ledger) -> list[InstalledKey]:
        if self._site.config.keys.revoke == "never":
            return []
        return ledger.of_other_instances(self._instance)

    def _task(self, name: str, wanted: Sequence[Line], ledger: Ledger) -> Task:
        known = ledger.of(name, self._instance)
        try:
            account = self._account(name)
            path = self._known_path(wanted, known) or self._path(account)
        except FirstkeyError as error:
            return Task(name, None, error.refusal)
        add = tuple(line for line in wanted if self._is_due(known.get(line.key.fingerprint)))
        return Task(name, self._assignment(account, path, add, ledger))

    def _known_path(self, wanted: Sequence[Line], known: Mapping[str, InstalledKey]) -> str | None:
        """Where all these keys were installed already: then sshd need not be asked again where keys go."""
        if not wanted or any(self._is_due(known.get(line.key.fingerprint)) for line in wanted):
            return None
        return known[wanted[0].key.fingerprint].file

    def _clearances(self, tasks: Sequence[Task], ledger: Ledger) -> list[Task]:
        """Other instances' keys in files that no task touches: of users or paths configured no more."""
        touched = {(task.name, task.assignment.path) for task in tasks if task.assignment}
        left = dict.fromkeys((key.user, key.file) for key in self._stale(ledger))
        clearances = []
        for name, path in left:
            account = self._site.accounts.find(name)
            if account and (name, path) not in touched:
                clearances.append(Task(name, self._assignment(account, path, (), ledger)))
        return clearances

    def _assignment(self, account: Account, path: str, add: tuple[Line, ...], ledger: Ledger) -> Assignment:
        stale = [key for key in self._stale(ledger) if (key.user, key.file) == (account.name, path)]
        revoke = tuple(Revocation(key.fingerprint, key.options) for key in stale)
        return self._labelled(Assignment(account, path, add, revoke, ledger.made_files))

    def _is_due(self, known: InstalledKey | None) -> bool:
        """Once per instance: what a person took out since stays out, unless forced."""
        return known is None or known.state == PENDING or self._site.force

    def _account(self, name: str) -> Account:
        account = self._site.accounts.find(name)
        if account:
            return account
        setup = self._setups.get(name)
        if setup and setup.failures:
            raise setup.failures[0]
        raise FirstkeyError(f"there is no user {name}", reason=reasons.NO_SUCH_USER)

    def _path(self, account: Account) -> str:
        """Where sshd looks first for this user's keys, the section's own setting before sshd's."""
        login = Login(account.name, account.uid, account.home)
        own = self._site.config.user(account.name).authorized_keys_file
        patterns = [own] if own else list(self._sshd.meaning(account.name).effective.authorized_keys_files)
        if not patterns:
            message = f"sshd reads no file of keys for {account.name}"
            raise FirstkeyError(message, reason=reasons.AUTHORIZED_KEYS_DISABLED)
        for pattern in patterns:
            if not sshd_config.is_shared(pattern):
                return sshd_config.expand(pattern, login)
        message = f"AuthorizedKeysFile {' '.join(patterns)} is one file for all users"
        raise FirstkeyError(message, reason=reasons.SHARED_FILE)

    def _unless_shared(self, task: Task, claimed: dict[str, str]) -> Task:
        """Two users whose files are one and the same would let each in as the other."""
        if task.assignment is None or not task.assignment.add:
            return task
        other = claimed.setdefault(task.assignment.path, task.name)
        if other == task.name:
            return task
        detail = f"{task.assignment.path} is the file of {other} too"
        return Task(task.name, None, Refusal(reasons.SHARED_FILE, detail))

    def _labelled(self, assignment: Assignment) -> Assignment:
        parent = assignment.path.rsplit("/", 1)[0] or "/"
        return assignment._replace(
            directory_label=selinux.default_label(self._site.tree, parent, "dir"),
            file_label=selinux.default_label(self._site.tree, assignment.path, "file"),
        )

    def _with_intentions(self, tasks: Sequence[Task], ledger: Ledger) -> Ledger:
        """Note, before anything is written, which lines will be firstkey's; not those there already."""
        rehearsal = self._site._replace(dry_run=True)
        for task in tasks:
            if task.assignment is None or not task.assignment.add:
                continue
            try:
                missing = keys_file.carry_out(rehearsal, task.assignment).added
            except FirstkeyError:
                continue  # the real attempt meets it again, and reports it
            for line in task.assignment.add:
                if line.key.fingerprint in missing:
                    ledger = _with(ledger, self._entry(task, line, PENDING))
        return ledger

    def _entry(self, task: Task, line: Line, state: str) -> InstalledKey:
        path = task.assignment.path if task.assignment else ""
        return InstalledKey(task.name, path, line.key.fingerprint, line.options, self._instance, state)

    def _one(self, task: Task, ledger: Ledger) -> tuple[UserResult, Ledger]:
        if task.assignment is None:
            return self._refused(task, task.refusal), ledger
        if not (task.assignment.add or task.assignment.revoke):
            return UserResult(task.name, task.assignment.path, UNCHANGED), ledger
        try:
            outcome = keys_file.carry_out(self._site, task.assignment)
        except FirstkeyError as error:
            return self._refused(task, error.refusal), self._without_intentions(task, ledger, error)
        self._announce(task, outcome, ledger.instance or "unknown")
        return self._result(task, outcome), self._recorded(task, outcome, ledger)

    def _without_intentions(self, task: Task, ledger: Ledger, error: FirstkeyError) -> Ledger:
        """Nothing was written, so nothing is firstkey's; after a time-out nobody knows."""
        if error.reason is reasons.TIMED_OUT:
            return ledger
        pending = (task.name, self._instance, PENDING)
        keys = tuple(key for key in ledger.keys if (key.user, key.instance, key.state) != pending)
        return ledger._replace(keys=keys)

    def _refused(self, task: Task, refusal: Refusal | None) -> UserResult:
        refusal = refusal or Refusal(reasons.INTERNAL_ERROR, "no reason was given")
        self._site.say(events.USER_FAILED(user=task.name, reason=refusal.reason.code, detail=refusal.detail))
        path = task.assignment.path if task.assignment else None
        return UserResult(
            task.name, path, REFUSED if refusal.reason in _REFUSALS else FAILED, refusal=refusal
        )

    def _recorded(self, task: Task, outcome: keys_file.Outcome, ledger: Ledger) -> Ledger:
        """What was there before firstkey came is a person's; what it wrote, now or earlier, is its own."""
        if task.assignment is None:
            return ledger
        path = task.assignment.path
        own = {
            key.fingerprint
            for key in ledger.keys
            if (key.user, key.file) == (task.name, path) and _is_own(key)
        }
        for line in task.assignment.add:
            mine = line.key.fingerprint in own.union(outcome.added)
            ledger = _with(ledger, self._entry(task, line, INSTALLED if mine else PRESENT))
        made = tuple(dict.fromkeys([*ledger.made_files, *outcome.made]))
        return self._without_revoked(task.name, path, ledger)._replace(made_files=made)

    def _without_revoked(self, name: str, path: str, ledger: Ledger) -> Ledger:
        stale = {key for key in self._stale(ledger) if (key.user, key.file) == (name, path)}
        return ledger._replace(keys=tuple(key for key in ledger.keys if key not in stale))

    def _announce(self, task: Task, outcome: keys_file.Outcome, earlier: str) -> None:
        if self._site.dry_run or task.assignment is None:
            return
        where = {"user": task.name, "file": task.assignment.path}
        names = {line.key.fingerprint: line.key.comment for line in task.assignment.add}
        for fingerprint in outcome.added:
            named = {"fingerprint": fingerprint, "key_name": names.get(fingerprint, "unnamed")}
            self._site.say(events.KEY_ADDED(**where, **named, instance_id=self._instance))
        for fingerprint in outcome.present:
            named = {"fingerprint": fingerprint, "key_name": names.get(fingerprint, "unnamed")}
            self._site.say(events.KEY_PRESENT(**where, **named))
        for fingerprint in outcome.revoked:
            self._site.say(events.KEY_REVOKED(**where, fingerprint=fingerprint, instance=earlier))
        for fingerprint in outcome.kept:
            self._site.say(events.KEY_LEFT_IN_PLACE(**where, fingerprint=fingerprint, instance=earlier))
        for path in outcome.mended:
            self._site.say(
                events.MODES_MENDED(user=task.name, path=path, old="too open", new="the user's alone")
            )
        for path in outcome.ignored_by_sshd:
            self._site.say(events.MODES_REPORTED(user=task.name, path=path.split(" (")[0], detail=path))

    def _result(self, task: Task, outcome: keys_file.Outcome) -> UserResult:
        warning = None
        if outcome.ignored_by_sshd:
            warning = Refusal(reasons.BAD_MODES, f"sshd ignores it for: {', '.join(outcome.ignored_by_sshd)}")
        return UserResult(
            task.name,
            task.assignment.path if task.assignment else None,
            CHANGED if outcome.changed else UNCHANGED,
            tuple(outcome.added),
            tuple(outcome.revoked),
            warning,
            outcome.diff,
        )


def _is_own(key: InstalledKey) -> bool:
    return key.state in (INSTALLED, PENDING)


def _with(ledger: Ledger, entry: InstalledKey) -> Ledger:
    others = tuple(key for key in ledger.keys if _place(key) != _place(entry))
    return ledger._replace(keys=(*others, entry))


def _place(key: InstalledKey) -> tuple[str, str, str, str]:
    return (key.user, key.file, key.fingerprint, key.instance)
