"""What is to be done in which file of keys: decided from the launch keys, sshd's word and the ledger.

Nothing is changed here.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.boot import keys_file
from firstkey.boot.keys_file import Assignment
from firstkey.boot.ledger import INSTALLED, PENDING, TAKEN_OUT
from firstkey.boot.placement import Placement, Placer
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal
from firstkey.ssh import access
from firstkey.system import selinux

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from firstkey.boot.keys_file import Elsewhere
    from firstkey.boot.ledger import InstalledKey, Ledger
    from firstkey.boot.site import Site
    from firstkey.boot.standing import Standing
    from firstkey.model import Account
    from firstkey.ssh.authorized_keys import Line, Written
    from firstkey.system.sshd import Sshd


class Task(NamedTuple):
    """One user's part of the job. `refusal` is set where it is clear that nothing can be installed.

    `withheld` are lines that a person had taken out of another file; `unread`: sshd does not look there.
    """

    name: str
    assignment: Assignment | None
    refusal: Refusal | None = None
    withheld: tuple[Line, ...] = ()
    unread: Refusal | None = None

    @property
    def path(self) -> str | None:
        """The file, where it is known."""
        return self.assignment.path if self.assignment else None


class Planner:
    """Makes the tasks of one run on one instance."""

    def __init__(self, site: Site, sshd: Sshd, instance: str, standing: Standing) -> None:
        self._site = site
        self._placer = Placer(site, sshd)
        self.instance = instance
        self._standing = standing
        self._claimed: dict[str, Account] = {}

    def task(self, account: Account, wanted: Sequence[Line], ledger: Ledger) -> Task:
        """What is to be done for one user. Raises FirstkeyError where keys cannot go anywhere."""
        placement = self._known_place(account, wanted, ledger) or self._placer.place(account)
        self._refuse_shared(account, placement.path)
        choice = _Choice(self._site, account, placement.path, ledger.of(account.name, self.instance))
        for line in wanted:
            choice.make(line)
        assignment = self._assignment(account, placement.path, choice, ledger)
        if assignment.add:
            assignment = assignment._replace(
                elsewhere=self._elsewhere(account, placement, ledger, assignment.add)
            )
        return Task(account.name, assignment, withheld=tuple(choice.withheld), unread=placement.unread)

    def clearances(self, tasks: Iterable[Task], ledger: Ledger) -> list[Task]:
        """Other instances' keys in files that no task touches: of users or paths configured no more."""
        touched = {(task.name, task.path) for task in tasks}
        left = dict.fromkeys((key.user, key.file) for key in self.stale(ledger))
        clearances = []
        for name, path in left:
            account = self._site.accounts.find(name)
            if account and (name, path) not in touched:
                clearances.append(Task(name, self._assignment(account, path, None, ledger)))
        return clearances

    def stale(self, ledger: Ledger) -> list[InstalledKey]:
        """What firstkey wrote for other instances, if such lines are to go."""
        if self._site.config.keys.revoke == "never":
            return []
        return ledger.of_other_instances(self.instance)

    def _known_place(self, account: Account, wanted: Sequence[Line], ledger: Ledger) -> Placement | None:
        """Where all these lines were installed already: then sshd need not be asked again where keys go."""
        served = self._standing.serving(account.name, ledger, self.instance)
        if self._site.force or served is None or served.file is None:
            return None
        here = [key for key in ledger.of(account.name, self.instance) if key.file == served.file]
        done = [key for key in here if key.state != PENDING]
        known = {(key.fingerprint, key.options if key.is_own else None) for key in done}
        either = [{(line.key.fingerprint, line.options), (line.key.fingerprint, None)} for line in wanted]
        return Placement(served.file) if all(known & each for each in either) else None

    def _elsewhere(
        self, account: Account, placement: Placement, ledger: Ledger, add: Sequence[Line]
    ) -> tuple[Elsewhere, ...]:
        """Which of the keys are in another of the user's files, and will be there after this run.

        One that stands plainly in a file which sshd ignores is in none: nobody restricted it.
        """
        if account.uid < 0:
            return ()  # an account that a dry run only plans
        wanted = {line.key.fingerprint for line in add}
        best: dict[str, Elsewhere] = {}
        for path in placement.also_read:
            for found in self._found_in(account, path, wanted, ledger):
                if found.options or not found.flaws:
                    best.setdefault(found.fingerprint, found)
                if not (found.flaws or access.useless(found.options.encode("utf-8", "surrogateescape"))):
                    best[found.fingerprint] = found
                    wanted.discard(found.fingerprint)
        return tuple(best.values())

    def _found_in(
        self, account: Account, path: str, wanted: Collection[str], ledger: Ledger
    ) -> list[Elsewhere]:
        stale = self.stale(ledger)
        going = {key.fingerprint for key in stale if (key.user, key.file) == (account.name, path)}
        # What cannot be read with the user's rights, sshd cannot read either.
        with suppress(FirstkeyError):
            return keys_file.found_in(self._site, account, path, set(wanted) - going) or []
        return []

    def _refuse_shared(self, account: Account, path: str) -> None:
        """Two users whose files are one and the same would let each in as the other."""
        other = self._claimed.setdefault(path, account)
        if other.uid != account.uid:
            message = f"{path} is the file of {other.name} too"
            raise FirstkeyError(message, reason=reasons.SHARED_FILE)

    def _assignment(self, account: Account, path: str, choice: _Choice | None, ledger: Ledger) -> Assignment:
        own = [key for key in ledger.in_file(account.name, path) if key.is_own]
        going = [key for key in self.stale(ledger) if key in own]
        add = tuple(choice.add) if choice else ()
        revoke = (*(key.written for key in going), *(choice.replaced if choice else ()))
        staying = (key.written for key in own if key.written not in revoke)
        assignment = Assignment(account, path, add, revoke, tuple(staying), made=ledger.made_files)
        return self._labelled(assignment) if add or revoke else assignment

    def _labelled(self, assignment: Assignment) -> Assignment:
        parent = os.path.dirname(assignment.path)
        return assignment._replace(
            directory_label=selinux.default_label(self._site.tree, parent, "dir"),
            file_label=selinux.default_label(self._site.tree, assignment.path, "file"),
        )


class _Choice:
    """Which of the wanted lines are to be added to one file: each launch key once an instance.

    What a person took out since stays out, unless forced; also where sshd reads another file by now.
    """

    def __init__(self, site: Site, account: Account, path: str, known: Sequence[InstalledKey]) -> None:
        self._site = site
        self._account = account
        self._path = path
        self._known = known
        self.add: list[Line] = []
        self.replaced: list[Written] = []
        self.withheld: list[Line] = []

    def make(self, line: Line) -> None:
        mine = [key for key in self._known if key.fingerprint == line.key.fingerprint]
        here = next((key for key in mine if key.file == self._path), None)
        if here and here.state == INSTALLED and here.options != line.options:
            self._exchange(line, here.written)
        elif not mine or self._site.force or (here and here.state == PENDING):
            self.add.append(line)
        elif here is None:
            (self.add if self._still_stands(mine) else self.withheld).append(line)

    def _exchange(self, line: Line, old: Written) -> None:
        """RedirectRoot= was changed: firstkey's own line follows, unless it was taken out."""
        if self._site.force:
            self.add.append(line)
            self.replaced.append(old)
        else:
            self.add.append(line._replace(instead_of=old))

    def _still_stands(self, keys: Sequence[InstalledKey]) -> bool:
        """Whether the key is still where it was; only what can be seen to be gone was taken out."""
        return any(self._stands(key) for key in keys if key.state != TAKEN_OUT)

    def _stands(self, key: InstalledKey) -> bool:
        try:
            found = keys_file.found_in(self._site, self._account, key.file, [key.fingerprint])
        except FirstkeyError:
            return True
        return found is None or bool(found)
