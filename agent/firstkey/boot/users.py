"""Accounts that the configuration asks for: what is missing of them is made, and a proved sudo rule.

An account, its groups and its home are looked at in each run: what a run that was cut off did not come to is
made by the next. Nothing is ever removed.

Each change is a value first: `describe()` for people, `apply()` for the machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import events, reasons
from firstkey.boot import home_directory
from firstkey.boot.account_defaults import NO_PASSWORD, Defaults
from firstkey.boot.sudoers import WriteSudoers
from firstkey.errors import FirstkeyError
from firstkey.model import CHANGED, FAILED, REFUSED, SKIPPED, Account, AccountResult
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal
from firstkey.system import command
from firstkey.system.accounts import LIMIT

if TYPE_CHECKING:
    from typing import Union

    from firstkey.boot.site import Site
    from firstkey.config import User


class Missing(NamedTuple):
    """What an account lacks: all of it, its line in shadow(5), its primary group's name, groups, the home."""

    account: bool = False
    shadow: bool = False
    group: bool = False
    groups: tuple[str, ...] = ()
    home: bool = False


class Complete(NamedTuple):
    """Make what is missing of an account. A new one gets no password."""

    user: User
    missing: Missing
    account: Account
    """As it is, or as useradd would make it, as far as that can be known; its ids cannot."""
    has_group: bool
    """Whether there is a group that has the user's name: it is a new user's primary one."""

    def describe(self) -> str:
        """The programs that would do it, as one would type them."""
        import shlex

        return " && ".join(shlex.join(argv) for argv in self._programs(with_home=True))

    def apply(self, site: Site) -> None:
        """Make it. Raises FirstkeyError, on the running system with the program's own words."""
        name = self.user.name
        if site.tree.is_running_system:
            for argv in self._programs(with_home=False):
                _run(argv, name)
        elif any(self.missing._replace(home=False)):
            from firstkey.boot import account_entries  # the running system has useradd

            account_entries.ensure(site.tree, self.user, self.missing.groups, self.account.home)
        if self.missing.home:
            account = site.accounts.find(name)
            if account is None:
                raise site.accounts.unknown(name)
            home_directory.make(site.tree, account)

    def entry(self) -> events.Entry:
        """For the journal."""
        if self.missing.account:
            return events.USER_CREATED(user=self.user.name)
        if self.missing == Missing(groups=self.missing.groups):
            return events.USER_CHANGED(user=self.user.name, groups=" ".join(self.missing.groups))
        return events.USER_COMPLETED(user=self.user.name, programs=self.describe())

    def _programs(self, *, with_home: bool) -> list[list[str]]:
        name, missing, programs = self.user.name, self.missing, []
        groups = ["--groups", ",".join(missing.groups)] if missing.groups else []
        if missing.account:
            home = "--create-home" if with_home and missing.home else "--no-create-home"
            own = ["--gid", name] if self.has_group else []
            shell = ["--shell", self.user.shell] if self.user.shell else []
            return [["useradd", home, "--password", NO_PASSWORD, *own, *groups, *shell, name]]
        if missing.group:
            programs.append(["groupadd", "--gid", str(self.account.gid), name])
        if missing.shadow:
            programs.append(["usermod", "--password", NO_PASSWORD, name])
        if groups:
            programs.append(["usermod", "--append", *groups, name])
        if missing.home and with_home:
            programs.append(["mkhomedir_helper", name])
        return programs


if TYPE_CHECKING:
    Change = Union[Complete, WriteSudoers]


class Setup(NamedTuple):
    """What was done (or would be) for one account; `planned` is one that a dry run did not make."""

    results: tuple[AccountResult, ...] = ()
    failure: FirstkeyError | None = None
    planned: Account | None = None


def set_up(site: Site, user: User) -> Setup:
    """Bring the account to what its section says; a step that fails does not stop the others."""
    try:
        return _set_up(site, user)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one account, the others are served
        message = f"setting up the account {user.name} failed: {error!r}"
        unforeseen = FirstkeyError(message, reason=reasons.INTERNAL_ERROR)
        return Setup((_failed(site, user, "set up the account", unforeseen),), unforeseen)


def _set_up(site: Site, user: User) -> Setup:
    try:
        changes = plan(site, user)
    except FirstkeyError as error:
        return Setup((_failed(site, user, "look at the account", error),), error)
    results = list(_absent_groups(site, user))
    failure: FirstkeyError | None = None
    planned = None
    for change in changes:
        result, trouble = _made(site, change)
        results.append(result)
        failure = failure or trouble
        if site.dry_run and isinstance(change, Complete) and change.missing.account:
            planned = change.account
    return Setup(tuple(results), failure, planned)


def plan(site: Site, user: User) -> list[Change]:
    """What is to be done so that the account is as its section says; nothing where all is so."""
    account = site.accounts.find(user.name)
    if account is None and not user.create:
        return []
    changes: list[Change] = []
    groups = tuple(name for name in user.groups if site.accounts.group_id(name) is not None)
    has_group = site.accounts.group_id(user.name) is not None
    if account is None:
        homes = Defaults(site.tree).path("HOME", "/home")
        account = Account(user.name, -1, -1, f"{homes}/{user.name}", user.shell)
        missing = Missing(account=True, groups=groups, home=home_directory.is_missing(site.tree, account))
    else:
        missing = _missing(site, account) if user.create else Missing()
        member_of = set(site.accounts.group_ids(account))
        left = tuple(name for name in groups if site.accounts.group_id(name) not in member_of)
        missing = missing._replace(groups=left)
    if any(missing):
        changes.append(Complete(user, missing, account, has_group))
    if user.sudo and not WriteSudoers(user).is_done(site):
        changes.append(WriteSudoers(user))
    return changes


def _missing(site: Site, account: Account) -> Missing:
    """What a useradd that was cut off did not come to: it writes passwd, shadow and group, in this order."""
    if account not in site.accounts.all():
        return Missing()  # a directory service's: what it lacks is for that to give
    home = home_directory.is_missing(site.tree, account)
    groups = dict(site.accounts.groups())
    is_own = account.gid == account.uid and account.name not in groups
    shadow_lines = site.tree.read("/etc/shadow", limit=LIMIT)
    return Missing(
        shadow=shadow_lines is not None and f"\n{account.name}:".encode() not in b"\n" + shadow_lines,
        group=is_own and account.gid not in groups.values(),
        home=home,
    )


def _made(site: Site, change: Change) -> tuple[AccountResult, FirstkeyError | None]:
    name, diff = change.user.name, ""
    try:
        if not site.dry_run:
            change.apply(site)
            site.say(change.entry())
        elif isinstance(change, WriteSudoers):
            diff = change.diff(site)
    except FirstkeyError as error:
        return _failed(site, change.user, change.describe(), error), error
    return AccountResult(name, change.describe(), CHANGED, diff=diff), None


def _failed(site: Site, user: User, change: str, error: FirstkeyError) -> AccountResult:
    site.say(events.ACCOUNT_FAILED(user=user.name, reason=error.reason.code, detail=error.message))
    kind = REFUSED if error.reason is reasons.SUDOERS_INVALID else FAILED
    return AccountResult(user.name, change, kind, error.refusal)


def _absent_groups(site: Site, user: User) -> list[AccountResult]:
    """Groups of the section that the system does not have; an account can be made without them."""
    account = site.accounts.find(user.name)
    if account is None and not user.create:
        return []
    absent = [name for name in user.groups if site.accounts.group_id(name) is None]
    refusals = [Refusal(reasons.NO_SUCH_GROUP, f"there is no group {name}") for name in absent]
    for refusal in refusals:
        site.say(events.GROUP_MISSING(user=user.name, reason=refusal.reason.code, detail=refusal.detail))
    return [
        AccountResult(user.name, f"add to the group {name}", SKIPPED, refusal)
        for name, refusal in zip(absent, refusals)
    ]


def _run(argv: list[str], name: str) -> None:
    program = command.find(argv[0])
    if program is None:
        message = f"{argv[0]} is not installed, so the account {name} cannot be set up"
        raise FirstkeyError(message, reason=reasons.USER_CREATE_FAILED)
    outcome = command.run([program, *argv[1:]])
    if outcome.status:
        message = f"the account {name} could not be set up: {outcome.words}"
        raise FirstkeyError(message, reason=reasons.USER_CREATE_FAILED)
