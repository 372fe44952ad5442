"""Bringing launch keys to their users, and taking other instances' away: done, remembered, and told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import events, reasons
from firstkey.boot import keys_file, launch_keys, telling, upkeep
from firstkey.boot.ledger import INSTALLED, PENDING, PRESENT, TAKEN_OUT, InstalledKey
from firstkey.boot.tasks import Task
from firstkey.errors import FirstkeyError
from firstkey.model import FAILED, REFUSED, UNCHANGED, UserResult
from firstkey.reasons import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from firstkey.boot.accounts import Setup
    from firstkey.boot.keys_file import Assignment
    from firstkey.boot.ledger import Ledger
    from firstkey.boot.site import Site
    from firstkey.boot.tasks import Planner
    from firstkey.model import Account
    from firstkey.ssh.authorized_keys import Line
    from firstkey.ssh.public_key import PublicKey

_REFUSALS = frozenset({
    reasons.NO_SUCH_USER, reasons.INVALID_USER_NAME, reasons.HOME_MISSING, reasons.SYMLINK_REFUSED,
    reasons.SHARED_FILE, reasons.NOT_A_REGULAR_FILE, reasons.NOT_A_DIRECTORY, reasons.UNSAFE_DIRECTORY,
    reasons.FILE_TOO_LARGE, reasons.AUTHORIZED_KEYS_DISABLED, reasons.SUDOERS_INVALID,
})  # fmt: skip
"""Reasons for which firstkey declined; any other one is a failure of the system's."""


class Installation:
    """Launch keys of one instance, on one system. `ledger` is what is known by now."""

    def __init__(
        self,
        site: Site,
        planner: Planner,
        ledger: Ledger,
        *,
        setups: Mapping[str, Setup],
        save: Callable[[Ledger], None],
    ) -> None:
        self.ledger = ledger
        self.unread: set[str] = set()
        """Users whose file is written as configured, and that sshd does not read."""
        self.warnings: list[Refusal] = []
        self._site = site
        self._planner = planner
        self._instance = planner.instance
        self._setups = setups
        self._save = save
        self._tasks: list[Task] = []

    def install(self, names: Sequence[str], keys: Sequence[PublicKey]) -> list[UserResult]:
        """Give the users the keys, and take away what is another instance's, wherever it is."""
        redirect = self._site.config.keys.redirect_root
        if not keys:
            everybody = dict.fromkeys([*names, *(["root"] if redirect else [])])
            cleared = self._clear()
            rest = [name for name in everybody if name not in {result.name for result in cleared}]
            return [*(UserResult(name, None, UNCHANGED) for name in rest), *cleared]
        plain = [name for name in names if not (redirect and name == "root")]
        results = self._serve(plain, launch_keys.lines(keys))
        target = self._target(names, results) if redirect else None
        if redirect and (target or "root" in names):
            results += self._serve_root(keys, target)
        return [*results, *self._clear()]

    def _serve_root(self, keys: Sequence[PublicKey], target: str | None) -> list[UserResult]:
        """Root's copy: it tells whom to log in as in root's place, or is as it is where there is nobody."""
        return self._serve(["root"], launch_keys.lines(keys, redirect_to=target))

    def _target(self, names: Sequence[str], served: Sequence[UserResult]) -> str | None:
        """Who can be logged in as in root's place.

        Once root is redirected on this instance, no state of a user's home undoes that: a user could bring
        such a state about.
        """
        able = [user.name for user in served if user.is_well and user.name not in self.unread]
        if any(key.options for key in self.ledger.of("root", self._instance)):
            known = [key.user for key in self.ledger.keys if key.instance == self._instance]
            able += [name for name in (*names, *known) if name != "root" and self._site.accounts.find(name)]
        target = next(iter(able), None)
        if target is None:
            why = Refusal(
                reasons.REDIRECT_WITHOUT_USER, "nobody of Users= can be logged in as in root's place"
            )
            self.warnings.append(why)
            self._site.say(events.REDIRECT_IMPOSSIBLE(reason=why.reason.code))
        return target

    def _serve(self, names: Sequence[str], lines: Sequence[Line]) -> list[UserResult]:
        tasks = [self._task(name, lines) for name in dict.fromkeys(names)]
        self._tasks += tasks
        self._note_intentions(tasks)
        return [self._done(task) for task in tasks]

    def _clear(self) -> list[UserResult]:
        return [self._done(task) for task in self._planner.clearances(self._tasks, self.ledger)]

    def _task(self, name: str, lines: Sequence[Line]) -> Task:
        try:
            return self._planner.task(self._account(name), lines, self.ledger)
        except FirstkeyError as error:
            return Task(name, None, error.refusal)

    def _account(self, name: str) -> Account:
        setup = self._setups.get(name)
        account = self._site.accounts.find(name) or (setup.planned if setup else None)
        if account:
            return account
        if setup and setup.failure:
            raise setup.failure
        raise self._site.accounts.unknown(name)

    # --- doing ----------------------------------------------------------------------------------

    def _note_intentions(self, tasks: Sequence[Task]) -> None:
        """Note, before anything is written, which lines will be firstkey's; not those there already."""
        if self._site.dry_run:
            return
        rehearsal = self._site._replace(dry_run=True)
        before = self.ledger
        for task in tasks:
            if task.assignment is None or not task.assignment.add:
                continue
            try:
                missing = keys_file.carry_out(rehearsal, task.assignment, with_diff=False).added
            except FirstkeyError:
                continue  # the real attempt meets it again, and reports it
            for line in task.assignment.add:
                if line.key.fingerprint in missing:
                    self._remember(task, line, PENDING)
        if self.ledger != before:
            self._save(self.ledger)

    def _done(self, task: Task) -> UserResult:
        if task.assignment is None:
            return self._failed(task, task.refusal)
        if self._is_only_planned(task.name):
            return telling.planned(task.assignment)
        if not (task.assignment.add or task.assignment.revoke):
            return self._looked_at(task, task.assignment)
        try:
            outcome = keys_file.carry_out(self._site, task.assignment)
        except FirstkeyError as error:
            # The intention stays noted: the failure may have come after the rename.
            return self._failed(task, error.refusal)
        before = self.ledger
        self._record(task, outcome)
        return self._told(task, outcome, before)

    def _is_only_planned(self, name: str) -> bool:
        """In a dry run, an account that would be made: there is no home to look into yet."""
        setup = self._setups.get(name)
        return bool(setup and setup.planned)

    def _looked_at(self, task: Task, assignment: Assignment) -> UserResult:
        """Nothing to add or to revoke: only whether sshd still heeds the file."""
        self._record_withheld(task)
        self._tell_unread(task)
        made = self.ledger.made_files
        return upkeep.look_after(self._site, assignment.account, assignment.path, made)

    def _told(self, task: Task, outcome: keys_file.Outcome, before: Ledger) -> UserResult:
        if not self._site.dry_run:
            telling.announce(self._site, task, outcome, self._instance, before)
        self._tell_unread(task)
        self.warnings += telling.left_in_place(task, outcome)
        return telling.result(task, outcome)

    def _tell_unread(self, task: Task) -> None:
        if task.unread:
            self.unread.add(task.name)
            self.warnings.append(task.unread)
            why = {"reason": task.unread.reason.code, "detail": task.unread.detail}
            self._site.say(events.FILE_NOT_READ(user=task.name, file=task.path, **why))

    def _failed(self, task: Task, refusal: Refusal | None) -> UserResult:
        refusal = refusal or Refusal(reasons.INTERNAL_ERROR, "no reason was given")
        self._site.say(telling.failure(task, refusal))
        kind = REFUSED if refusal.reason in _REFUSALS else FAILED
        return UserResult(task.name, task.path, kind, refusal=refusal)

    # --- remembering ----------------------------------------------------------------------------

    def _remember(self, task: Task, line: Line, state: str, *, file: str | None = None) -> None:
        path = file or task.path or ""
        entry = InstalledKey(task.name, path, *line.written, instance=self._instance, state=state)
        self.ledger = self.ledger.with_key(entry)

    def _record(self, task: Task, outcome: keys_file.Outcome) -> None:
        """What was there before firstkey came is a person's; what it wrote, now or earlier, is its own."""
        if task.assignment is None:
            return
        entries = self.ledger.in_file(task.name, task.assignment.path)
        own = {key.fingerprint: key for key in entries if key.is_own and key.fingerprint in outcome.own}
        others = [key for key in entries if key.instance != self._instance]
        stale = self._planner.stale(self.ledger)
        self.ledger = self.ledger.without([key for key in others if not key.is_own or key in stale])
        seen = {fingerprint for fingerprint, _ in outcome.present}
        elsewhere = {each.fingerprint: each.path for each in task.assignment.elsewhere}
        for line in task.assignment.add:
            fingerprint = line.key.fingerprint
            if fingerprint in outcome.added:
                self._remember(task, line, INSTALLED)
            elif fingerprint in own:
                self.ledger = self.ledger.with_key(
                    own[fingerprint]._replace(instance=self._instance, state=INSTALLED)
                )
            else:
                state = PRESENT if fingerprint in seen else TAKEN_OUT
                self._remember(task, line, state, file=elsewhere.get(fingerprint))
        self._record_withheld(task)
        made = tuple(dict.fromkeys([*self.ledger.made_files, *outcome.made]))
        self.ledger = self.ledger._replace(made_files=made)

    def _record_withheld(self, task: Task) -> None:
        for line in task.withheld:
            self._remember(task, line, TAKEN_OUT)
