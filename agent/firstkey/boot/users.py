"""Accounts that the configuration asks for: created by useradd, with groups, shell and a proved sudo rule.

Each change is a value first: `describe()` for people, `apply()` for the machine.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from firstkey import events, reasons
from firstkey.boot import half_made
from firstkey.boot.half_made import NO_PASSWORD, Begun
from firstkey.boot.sudoers import WriteSudoers
from firstkey.errors import FirstkeyError
from firstkey.model import CHANGED, FAILED, REFUSED, SKIPPED, Account, AccountResult
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal
from firstkey.system import command

if TYPE_CHECKING:
    from typing import Union

    from firstkey.boot.site import Site
    from firstkey.config import User

USERADD_DEFAULTS = "/etc/default/useradd"
HOMES = "/home"
"""Where useradd makes homes unless its defaults say otherwise (useradd(8))."""
SKELETON = "/etc/skel"
"""What it fills them with, likewise."""
_TOUCHED = (
    "/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid",
    "/var/mail/x", "/var/spool/mail/x", USERADD_DEFAULTS, "/etc/login.defs",
)  # fmt: skip
"""What useradd and usermod read and write in a tree (useradd(8): FILES), by paths that they only join."""


class CreateUser(NamedTuple):
    """Create an account with its home; a group that has the user's name already is its primary one.

    `again`: its making was cut off before, and what there is of it goes first. It keeps the `uid` then.
    """

    user: User
    groups: tuple[str, ...]
    home: str
    begun: Begun
    again: bool = False
    uid: int | None = None

    def describe(self) -> str:
        """The programs that do it, as one would type them."""
        removals = []
        if self.again and not self.begun.had_home:
            removals.append(["rm", "-rf", self.home])
        if self.again and self.uid is not None:
            removals.append(["userdel", self.user.name])
        return " && ".join(_typed(argv) for argv in [*removals, self.argv()])

    def argv(self) -> list[str]:
        """As useradd(8) has it."""
        own = [] if self.begun.group is None else ["--gid", self.user.name]
        own += [] if self.uid is None else ["--uid", str(self.uid)]
        groups = ["--groups", ",".join(self.groups)] if self.groups else []
        shell = ["--shell", self.user.shell] if self.user.shell else []
        return ["useradd", "--create-home", "--password", NO_PASSWORD, *own, *groups, *shell, self.user.name]

    def apply(self, site: Site) -> None:
        """Run useradd. Raises FirstkeyError(user-create-failed) with its own words."""
        name = self.user.name
        if self.again:
            self._unmake(site)
        half_made.note(site, name, self.begun._replace(boot=site.boot_id(), since=None))
        try:
            _run_account_program(site, [*self.argv(), *_skeleton_of_the_tree(site)], name)
        except FirstkeyError:
            # A useradd that refused at once has made nothing: whoever makes the account now is somebody else.
            if site.accounts.find(name) is None:
                half_made.forget(site, name)
            raise
        half_made.finish(site, name, self.begun)

    def _unmake(self, site: Site) -> None:
        """The note is there until all is done, so this may be cut off as well."""
        name, group = self.user.name, self.begun.group
        half_made.remove_dead_locks(site, name, self.begun)
        half_made.unmaking(site, name, self.begun)
        if not self.begun.had_home:
            half_made.remove_home(site, self.home)
        if self.uid is not None:
            _run_account_program(site, ["userdel", name], name)
        # userdel takes the group of the same name along, also one that was there before. A disk that kept no
        # order may have useradd's group and not the account, and useradd makes no account beside it.
        there = site.accounts.group_id(name) is not None
        if group is not None and not there:
            _run_account_program(site, ["groupadd", "--gid", str(group), name], name)
        elif group is None and there:
            _run_account_program(site, ["groupdel", name], name)

    def entry(self) -> events.Entry:
        """For the journal."""
        made = events.USER_MADE_ANEW if self.again else events.USER_CREATED
        return made(user=self.user.name)


class AddToGroups(NamedTuple):
    """Add an existing account to groups that it is not in yet; it leaves none."""

    user: User
    groups: tuple[str, ...]

    def describe(self) -> str:
        """The program that does it, as one would type it."""
        return _typed(self.argv())

    def argv(self) -> list[str]:
        """As usermod(8) has it."""
        return ["usermod", "--append", "--groups", ",".join(self.groups), self.user.name]

    def apply(self, site: Site) -> None:
        """Run usermod. Raises FirstkeyError(user-create-failed) with its own words."""
        _run_account_program(site, self.argv(), self.user.name)

    def entry(self) -> events.Entry:
        """For the journal."""
        return events.USER_CHANGED(user=self.user.name, groups=" ".join(self.groups))


if TYPE_CHECKING:
    Change = Union[CreateUser, AddToGroups, WriteSudoers]


class Setup(NamedTuple):
    """What was done (or would be) for one account; `planned` is one that a dry run did not make.

    `is_half_made`: useradd failed, and may have left an account without a home of its own.
    """

    results: tuple[AccountResult, ...] = ()
    failure: FirstkeyError | None = None
    planned: Account | None = None
    is_half_made: bool = False


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
    _forget_what_is_outdated(site, user)
    results = list(_absent_groups(site, user))
    failure: FirstkeyError | None = None
    is_half_made = False
    for change in changes:
        result, trouble = _made(site, change)
        results.append(result)
        failure = failure or trouble
        is_half_made = is_half_made or (isinstance(change, CreateUser) and trouble is not None)
    creates = any(isinstance(change, CreateUser) for change in changes)
    planned = _planned(site, user) if creates and site.dry_run else None
    return Setup(tuple(results), failure, planned, is_half_made)


def _forget_what_is_outdated(site: Site, user: User) -> None:
    """Else the note would count again on a day when the home is not there."""
    if not site.dry_run and half_made.is_outdated(site, user.name, f"{_homes(site)}/{user.name}"):
        with suppress(FirstkeyError):  # the disk is read-only, say: the next run tries again
            half_made.forget(site, user.name)


def plan(site: Site, user: User) -> list[Change]:
    """What is to be done so that the account is as its section says; nothing where all is so."""
    changes: list[Change] = []
    account = site.accounts.find(user.name)
    groups = tuple(name for name in user.groups if site.accounts.group_id(name) is not None)
    creation = _creation(site, user, groups, account) if user.create else None
    if creation:
        changes.append(creation)
    elif account is not None:
        member_of = set(site.accounts.group_ids(account))
        missing = tuple(name for name in groups if site.accounts.group_id(name) not in member_of)
        if missing:
            changes.append(AddToGroups(user, missing))
    if user.sudo and (account is not None or user.create) and not WriteSudoers(user).is_done(site):
        changes.append(WriteSudoers(user))
    return changes


def _creation(site: Site, user: User, groups: tuple[str, ...], account: Account | None) -> CreateUser | None:
    home = f"{_homes(site)}/{user.name}"
    begun = half_made.found(site, user.name, home)
    if begun:
        return CreateUser(user, groups, home, begun, again=True, uid=account.uid if account else None)
    begun = Begun(site.tree.exists(home), site.accounts.group_id(user.name), site.boot_id())
    return CreateUser(user, groups, home, begun) if account is None else None


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


def _planned(site: Site, user: User) -> Account:
    """The account as useradd would make it, as far as that can be known; its ids cannot."""
    return Account(user.name, -1, -1, f"{_homes(site)}/{user.name}", user.shell)


def _homes(site: Site) -> str:
    return _useradd_default(site, "HOME", HOMES)


def _skeleton(site: Site) -> str:
    return _useradd_default(site, "SKEL", SKELETON)


def _useradd_default(site: Site, name: str, otherwise: str) -> str:
    content = site.tree.read(USERADD_DEFAULTS, limit=65536) or b""
    lines = content.decode("utf-8", "replace").split("\n")
    values = (line[len(name) + 1 :].strip().rstrip("/") for line in lines if line.startswith(f"{name}=/"))
    return next(values, otherwise)


def _skeleton_of_the_tree(site: Site) -> list[str]:
    """--prefix alone leaves the host's in its place, unless the tree's defaults name one."""
    if site.tree.is_running_system:
        return []
    return ["--skel", site.tree.on_host(_skeleton(site))]


def _run_account_program(site: Site, argv: list[str], name: str) -> None:
    """Run it, with --prefix for a tree that is not the running system: nothing in that is run."""
    program = command.find(argv[0])
    if program is None:
        message = f"{argv[0]} is not installed, so the account {name} cannot be set up"
        raise FirstkeyError(message, reason=reasons.USER_CREATE_FAILED)
    prefix = []
    if not site.tree.is_running_system:
        _refuse_ways_out(site, name)
        prefix = ["--prefix", site.tree.root]
    outcome = command.run([program, *prefix, *argv[1:]])
    if outcome.status:
        message = f"the account {name} could not be set up: {outcome.words}"
        raise FirstkeyError(message, reason=reasons.USER_CREATE_FAILED)


def _refuse_ways_out(site: Site, name: str) -> None:
    """--prefix only joins paths: an absolute link in the tree would lead useradd to the host's files."""
    for path in (*_TOUCHED, f"{_skeleton(site)}/x", f"{_homes(site)}/{name}"):
        if not os.path.realpath(site.tree.on_host(path)).startswith(f"{site.tree.root}/"):
            message = f"{path} goes through a link that useradd --prefix would follow out of the tree"
            raise FirstkeyError(message, reason=reasons.SYMLINK_REFUSED)


def _typed(argv: list[str]) -> str:
    import shlex

    return shlex.join(argv)
