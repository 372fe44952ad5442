"""Accounts that the configuration asks for: created by useradd, with groups, shell and a proved sudo rule.

Each change is a value first: `describe()` for people, `apply()` for the machine.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from firstkey import events, reasons
from firstkey.errors import FirstkeyError
from firstkey.system import command
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from typing import Union

    from firstkey.boot.site import Site
    from firstkey.config import User
    from firstkey.system.files import Directory

SUDOERS = "/etc/sudoers.d"
SUDOERS_MODE = 0o440
NO_PASSWORD = "*"  # noqa: S105 - matches no password, and unlike "!" is no lock that sshd heeds (shadow(5))
HEADER = "# Written by firstkey from [User {name}] of its configuration; changes here are lost.\n"


class CreateUser(NamedTuple):
    """Create an account with its home. `absent_groups` of the wanted ones are left out by useradd's rules."""

    user: User
    groups: tuple[str, ...]

    def describe(self) -> str:
        """The program that does it, as one would type it."""
        return " ".join(self.argv(""))

    def argv(self, root: str) -> list[str]:
        """useradd(8), with --prefix for a tree that is not the running system: nothing in it is run."""
        prefix = ["--prefix", root] if root else []
        groups = ["--groups", ",".join(self.groups)] if self.groups else []
        shell = ["--shell", self.user.shell] if self.user.shell else []
        options = ["--create-home", "--password", NO_PASSWORD, *groups, *shell]
        return ["useradd", *prefix, *options, self.user.name]

    def apply(self, site: Site) -> None:
        """Run useradd. Raises FirstkeyError(user-create-failed) with its own words."""
        _run_account_program(self.argv("" if site.tree.is_running_system else site.tree.root), self.user.name)


class AddToGroups(NamedTuple):
    """Add an existing account to groups that it is not in yet; it leaves none."""

    user: User
    groups: tuple[str, ...]

    def describe(self) -> str:
        """The program that does it, as one would type it."""
        return " ".join(self.argv(""))

    def argv(self, root: str) -> list[str]:
        """usermod(8) with --append."""
        prefix = ["--prefix", root] if root else []
        return ["usermod", *prefix, "--append", "--groups", ",".join(self.groups), self.user.name]

    def apply(self, site: Site) -> None:
        """Run usermod. Raises FirstkeyError(user-create-failed) with its own words."""
        _run_account_program(self.argv("" if site.tree.is_running_system else site.tree.root), self.user.name)


class WriteSudoers(NamedTuple):
    """Put a sudo rule in place, once visudo has found it right."""

    user: User

    @property
    def name(self) -> str:
        """A file name that sudo reads: it passes over names with a dot (sudoers(5))."""
        return "firstkey-" + re.sub(
            r"[^A-Za-z0-9_-]", lambda match: f"={ord(match.group()):02x}", self.user.name
        )

    @property
    def content(self) -> bytes:
        """The rule as it stands in the file."""
        return f"{HEADER.format(name=self.user.name)}{self.user.name} {self.user.sudo}\n".encode()

    def describe(self) -> str:
        """What would stand where."""
        return f"write {SUDOERS}/{self.name}: {self.user.name} {self.user.sudo}"

    def apply(self, site: Site) -> None:
        """Write, check, and only then name it. Raises FirstkeyError(sudoers-invalid, sudo-missing)."""
        program = command.find("visudo")
        if program is None:
            raise FirstkeyError("visudo is not installed", reason=reasons.SUDO_MISSING)
        with site.tree.ensure(SUDOERS, mode=0o750) as directory:
            directory.remove_stale()
            staged = directory.stage(self.name, self.content, Looks(SUDOERS_MODE))
            try:
                _check_sudoers(program, directory, staged, self.user.name)
                directory.rename(staged, self.name)
            except BaseException:
                directory.remove(staged)
                raise


if TYPE_CHECKING:
    Change = Union[CreateUser, AddToGroups, WriteSudoers]


def plan(site: Site, user: User) -> list[Change]:
    """What is to be done so that the account is as its section says; nothing where all is so."""
    changes: list[Change] = []
    account = site.accounts.find(user.name)
    if account is None and user.create:
        changes.append(CreateUser(user, _known_groups(site, user)))
    elif account is not None:
        member_of = set(site.accounts.group_ids(account))
        missing = tuple(
            name for name in _known_groups(site, user) if site.accounts.group_id(name) not in member_of
        )
        if missing:
            changes.append(AddToGroups(user, missing))
    if user.sudo and (account is not None or user.create) and not _sudoers_is_right(site, user):
        changes.append(WriteSudoers(user))
    return changes


class Setup(NamedTuple):
    """What was done (or would be) for one account, and what failed."""

    changes: tuple[Change, ...]
    failures: tuple[FirstkeyError, ...]


def set_up(site: Site, user: User) -> Setup:
    """Bring the account to what its section says; a step that fails does not stop the others."""
    changes = plan(site, user)
    failures = []
    for change in changes if not site.dry_run else ():
        try:
            change.apply(site)
            site.say(_entry(change))
        except FirstkeyError as error:  # noqa: PERF203 - one step that fails must not stop the others
            failures.append(error)
            site.say(events.USER_FAILED(user=user.name, reason=error.reason.code, detail=error.message))
    return Setup(tuple(changes), tuple(failures))


def missing_groups(site: Site, user: User) -> list[str]:
    """Groups of the section that the system does not have; an account can be made without them."""
    return [name for name in user.groups if site.accounts.group_id(name) is None]


def _known_groups(site: Site, user: User) -> tuple[str, ...]:
    absent = missing_groups(site, user)
    return tuple(name for name in user.groups if name not in absent)


def _sudoers_is_right(site: Site, user: User) -> bool:
    change = WriteSudoers(user)
    try:
        return site.tree.read(f"{SUDOERS}/{change.name}", limit=65536) == change.content
    except FirstkeyError:
        return False


def _check_sudoers(program: str, directory: Directory, staged: str, user: str) -> None:
    outcome = command.run([program, "-c", "-q", "-f", f"{directory.on_host}/{staged}"])
    if outcome.status:
        message = f"visudo rejects the Sudo= rule of [User {user}]: {outcome.words}"
        raise FirstkeyError(message, reason=reasons.SUDOERS_INVALID)


def _run_account_program(argv: list[str], name: str) -> None:
    program = command.find(argv[0])
    if program is None:
        message = f"{argv[0]} is not installed, so the account {name} cannot be set up"
        raise FirstkeyError(message, reason=reasons.USER_CREATE_FAILED)
    outcome = command.run([program, *argv[1:]])
    if outcome.status:
        message = f"the account {name} could not be set up: {outcome.words}"
        raise FirstkeyError(message, reason=reasons.USER_CREATE_FAILED)


def _entry(change: Change) -> events.Entry:
    name = change.user.name
    if isinstance(change, CreateUser):
        return events.USER_CREATED(user=name)
    if isinstance(change, AddToGroups):
        return events.USER_CHANGED(user=name, groups=" ".join(change.groups))
    return events.SUDOERS_WRITTEN(user=name, file=f"{SUDOERS}/{change.name}")
