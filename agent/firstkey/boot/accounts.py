"""Accounts that the configuration asks for: what is missing of them is made, a sudo rule in effect included.

An account, its groups, its home and its sudo rule are looked at in each run: what a run that was cut off did
not come to is made by the next. Nothing is ever removed.

Each change is a value first: `describe()` for people, `apply()` for the machine.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import nullcontext, suppress

from firstkey import TYPE_CHECKING, NamedTuple, events, reasons
from firstkey.model import CHANGED, FAILED, REFUSED, SKIPPED, Account, AccountResult
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.system import command
from firstkey.system.accounts import NO_PASSWORD, Defaults, unmounted
from firstkey.system.files import Looks, dress, translated

if TYPE_CHECKING:
    from typing import Union

    from firstkey.boot.target import Target
    from firstkey.config import User
    from firstkey.system.files import Directory
    from firstkey.system.tree import Tree

LIMIT = 16 * 1024 * 1024
"""The largest file that is read: a skeleton's, a list of accounts, a file of sudo's."""
NO_HOME = "/nonexistent"
"""The home of accounts that are to have none (Debian's policy, 9.2.3); many share it, so it is never made."""
HOME_MAKER = "mkhomedir_helper"
SUDO_SECONDS = 10.0
"""How long sudo may take to list a user's rules: it may ask a directory service for them."""
SUDOERS = "/etc/sudoers.d"
SUDOERS_MODE = 0o440
HEADER = "# Written by firstkey from [User {name}] of its configuration; changes here are lost.\n"
GOOD_RULE = b"root ALL=(ALL) ALL\n"
"""What every sudo takes: a checker that rejects this one as well cannot look."""


class Complete(NamedTuple):
    """Make what is missing of an account. A new one gets no password."""

    user: User
    account: Account
    """As it is, or as useradd would make it, as far as that can be known; its ids cannot."""
    programs: tuple[tuple[str, ...], ...]
    """Those that would do it, as one would type them; the home is made here, and not by them."""
    groups: tuple[str, ...]
    """Those that the account is to be added to."""
    is_new: bool
    lacks_home: bool

    def describe(self) -> str:
        """The programs that would do it, as one would type them."""
        import shlex

        return " && ".join(map(shlex.join, self.programs))

    def apply(self, target: Target) -> str:
        """Make it, if this is no dry run. Raises FirstkeyError, on the running system with a program's words.

        Returns what would change in a file, as `WriteSudoers.apply` does: nothing.
        """
        if target.dry_run:
            return ""
        programs = [argv for argv in self.programs if argv[0] != HOME_MAKER]
        if programs and not target.tree.is_running_system:
            from firstkey.boot import account_entries  # the running system has useradd

            account_entries.ensure(target.tree, self.user, self.groups, self.account.home)
            programs = []
        for name, *words in programs:
            program = command.find(name)
            without_home = ["--no-create-home" if word == "--create-home" else word for word in words]
            outcome = command.run([program, *without_home]) if program else None
            if outcome is None or outcome.status:
                why = outcome.words if outcome else f"{name} is not installed"
                message = f"the account {self.user.name} could not be set up: {why}"
                raise FirstkeyError(message, reason=reasons.USER_CREATE_FAILED)
        if self.lacks_home:
            account = target.accounts.find(self.user.name)
            if account is None:
                raise target.accounts.unknown(self.user.name)
            make_home(target.tree, account)
        if self.is_new:
            target.log(events.USER_CREATED(user=self.user.name))
        elif self.groups and len(self.programs) == 1:
            target.log(events.USER_CHANGED(user=self.user.name, groups=" ".join(self.groups)))
        else:
            target.log(events.USER_COMPLETED(user=self.user.name, programs=self.describe()))
        return ""


class WriteSudoers(NamedTuple):
    """Write the rule of one user's section, once visudo has found it right, and have sudo confirm it."""

    user: User

    @property
    def path(self) -> str:
        """Where it is. Sudo passes over names with a dot (sudoers(5))."""
        name = re.sub("[^A-Za-z0-9_-]", lambda found: f"={ord(found[0]):02x}", self.user.name)
        return f"{SUDOERS}/firstkey-{name}"

    @property
    def content(self) -> bytes:
        """The rule as it stands in the file."""
        return f"{HEADER.format(name=self.user.name)}{self.user.name} {self.user.sudo}\n".encode()

    def describe(self) -> str:
        """What would stand where."""
        return f"write {self.path}: {self.user.name} {self.user.sudo}"

    def apply(self, target: Target) -> str | None:
        """Have it checked, only then write it, and ask sudo. Raises FirstkeyError(sudoers-invalid, ...).

        Returns what would change in the file, of a dry run; None where the rule was in place, in effect.
        """
        name, there = os.path.basename(self.path), None
        with suppress(FirstkeyError), target.tree.open(SUDOERS) or nullcontext() as directory:
            there = directory.read(name, limit=LIMIT) if directory else None
        # Sudo heeds no file that others can write.
        if there and there.content == self.content and not there.mode & 0o022:
            self.require_effect(target)
            return None
        if not target.dry_run and target.accounts.find(self.user.name) is None:
            raise target.accounts.unknown(self.user.name)  # a later account of that name would get it
        self.validate(target)
        if target.dry_run:
            self.require_effect(target)
            from firstkey import display

            return display.diff(self.path, target.tree.read(self.path, limit=LIMIT), self.content)
        with target.tree.ensure(SUDOERS, mode=0o750) as directory:
            directory.remove_stale()
            directory.replace(name, self.content, Looks(SUDOERS_MODE))
        self.require_effect(target)
        target.log(events.SUDOERS_WRITTEN(user=self.user.name, file=self.path))
        return ""

    def validate(self, target: Target) -> None:
        """Raise FirstkeyError(sudoers-invalid, sudo-unchecked, sudo-missing) unless visudo accepts it."""
        wrong = _objection(target, self.content)
        if wrong and _objection(target, GOOD_RULE):
            message = f"visudo validates no rule, not even a correct one: {wrong}"
            raise FirstkeyError(message, reason=reasons.SUDO_UNCHECKED)
        if wrong:
            message = f"visudo rejects {self.user.sudo!a} as the Sudo= rule of {self.user.name}: {wrong}"
            raise FirstkeyError(message, reason=reasons.SUDOERS_INVALID)

    def require_effect(self, target: Target) -> None:
        """Raise FirstkeyError(sudo-not-effective) where sudo does not read the rule, or does not heed it.

        A dry run asks no program: sudo knows nothing of a rule that is not there, and logs the question.
        """
        flaw = None
        if not target.tree.is_running_system:
            from firstkey.boot import account_entries

            read = account_entries.sudoers(target.tree, {self.path: self.content})
            flaw = None if self.content.decode() in read else f"no file of sudo's includes {SUDOERS}"
        elif not target.dry_run:
            flaw = self._flaw_by_sudo()
        if flaw:
            message = f"the rule of {self.user.name} does not take effect: {flaw}"
            raise FirstkeyError(message, reason=reasons.SUDO_NOT_EFFECTIVE)

    def _flaw_by_sudo(self) -> str | None:
        """Why this rule is not among those that sudo or sudo-rs lists for the user; None if it is."""
        if (program := command.find("sudo")) is None:
            raise FirstkeyError("sudo is not installed", reason=reasons.SUDO_MISSING)
        outcome = command.run([program, "-l", "-l", "-U", self.user.name], seconds=SUDO_SECONDS)
        listed = outcome.stdout.decode("utf-8", "replace")
        if outcome.status or "may run the following commands" not in listed:
            return outcome.words if outcome.status else " ".join(listed.split())
        # Since 1.9.15 sudo names the file of each entry. Older ones and sudo-rs leave the tag that decides
        # whether an account without a password can use its rules.
        if "\nSudoers entry: /" in listed:
            is_read = f"/{os.path.basename(self.path)}\n" in listed
        else:
            is_read = "NOPASSWD:" not in self.user.sudo or "!authenticate" in listed
        return None if is_read else "sudo lists other rules, and not this one"


if TYPE_CHECKING:
    Change = Union[Complete, WriteSudoers]


class Setup(NamedTuple):
    """What was done (or would be) for one account; `planned` is one that a dry run did not make."""

    results: tuple[AccountResult, ...] = ()
    failure: FirstkeyError | None = None
    planned: Account | None = None


def set_up(target: Target, user: User) -> Setup:
    """Bring the account to what its section says; a change that fails does not stop the others."""
    results: list[AccountResult] = []
    failures: list[FirstkeyError] = []

    def failed(change: str, error: Exception) -> None:
        if not isinstance(error, FirstkeyError):
            message = f"setting up the account {user.name} failed: {error!r}"
            error = FirstkeyError(message, reason=reasons.INTERNAL_ERROR)
        target.log(events.ACCOUNT_FAILED(user=user.name, reason=error.reason.code, detail=error.message))
        kind = REFUSED if error.reason is reasons.SUDOERS_INVALID else FAILED
        results.append(AccountResult(user.name, change, kind, error.refusal))
        failures.append(error)

    changes: list[Change] = []
    absent: list[str] = []
    try:
        changes, absent = plan(target, user)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one account, the others are served
        failed("look at the account", error)
    for name in absent:  # an account can be made without them
        why = Refusal(reasons.NO_SUCH_GROUP, f"there is no group {name}")
        target.log(events.GROUP_MISSING(user=user.name, reason=why.reason.code, detail=why.detail))
        results.append(AccountResult(user.name, f"add to the group {name}", SKIPPED, why))
    for change in changes:
        try:
            diff = change.apply(target)
        except Exception as error:  # noqa: BLE001, PERF203 - as above
            failed(change.describe(), error)
        else:
            if diff is not None:
                results.append(AccountResult(user.name, change.describe(), CHANGED, diff=diff))
    new = (change.account for change in changes if isinstance(change, Complete) and change.is_new)
    planned = next(new, None) if target.dry_run else None
    return Setup(tuple(results), failures[0] if failures else None, planned)


def plan(target: Target, user: User) -> tuple[list[Change], list[str]]:
    """What is to be done so that the account is as its section says, and the groups that there are not.

    A rule in place is to be confirmed.
    """
    account = target.accounts.find(user.name)
    if account is None and not user.create:
        return [], []
    groups = tuple(name for name in user.groups if target.accounts.group_id(name) is not None)
    absent = [name for name in user.groups if name not in groups]
    is_new = account is None
    if account is None:
        homes = Defaults(target.tree).path("HOME", "/home")
        account = Account(user.name, -1, -1, f"{homes}/{user.name}", user.shell)
    # What an account of a directory service lacks is for that to give.
    is_local = user.create and (is_new or account in target.accounts.all())
    lacks_home = is_local and account.home != NO_HOME and not target.tree.exists(account.home)
    programs = _completion(target, account) if is_local and not is_new else []
    if is_new:
        useradd = ["useradd", "--create-home" if lacks_home else "--no-create-home"]
        useradd += ["--password", NO_PASSWORD]
        useradd += ["--gid", user.name] if target.accounts.group_id(user.name) is not None else []
        useradd += ["--groups", ",".join(groups)] if groups else []
        useradd += ["--shell", user.shell] if user.shell else []
        programs.append((*useradd, user.name))
    else:
        member_of = set(target.accounts.group_ids(account))
        groups = tuple(name for name in groups if target.accounts.group_id(name) not in member_of)
        if groups:
            programs.append(("usermod", "--append", "--groups", ",".join(groups), user.name))
        if lacks_home:
            programs.append((HOME_MAKER, user.name))
    changes: list[Change] = []
    if programs:
        changes.append(Complete(user, account, tuple(programs), groups, is_new, lacks_home))
    if user.sudo:
        changes.append(WriteSudoers(user))
    return changes, absent


def _completion(target: Target, account: Account) -> list[tuple[str, ...]]:
    """What completes a useradd that was cut off: it writes passwd, shadow and group, in this order."""
    programs: list[tuple[str, ...]] = []
    groups = {name: number for name, number, _ in target.accounts.groups()}
    if account.gid == account.uid and account.name not in groups and account.gid not in groups.values():
        programs.append(("groupadd", "--gid", str(account.gid), account.name))
    shadow = target.tree.read("/etc/shadow", limit=LIMIT)
    if shadow is not None and f"\n{account.name}:".encode() not in b"\n" + shadow:
        programs.append(("usermod", "--password", NO_PASSWORD, account.name))
    return programs


# --- the home ---------------------------------------------------------------------------------------


def make_home(tree: Tree, account: Account) -> None:
    """Make the home as useradd(8) would. Raises FirstkeyError; then there is none, as before.

    It is made beside its name, filled from the skeleton, given to its user, and only then put there: whatever
    cuts that off, a home is there with all that belongs into it or not at all.
    """
    if error := unmounted(tree, account.home):
        raise error
    defaults = Defaults(tree)
    mode = defaults.number("HOME_MODE", 0o777 & ~defaults.number("UMASK", 0o022))
    skeletons = (defaults.path("USRSKEL", "/usr/etc/skel"), defaults.path("SKEL", "/etc/skel"))
    parent, name = os.path.split(account.home.rstrip("/"))
    with tree.ensure(parent, mode=0o755) as above:
        above.remove_stale(directories=True)
        with above.temporary(name, directory=True) as temporary:
            with above.make(temporary, Looks(0o700, durable=False)) as home:
                for source in filter(None, map(tree.open, skeletons)):
                    with source:
                        _copy(tree, source, home, account, account.home)
                with translated(f"set up the directory {account.home}"):
                    dress(home.fd, _looks(tree, account, mode, account.home, "dir"))
            above.rename(temporary, name)


def _copy(tree: Tree, source: Directory, target: Directory, account: Account, place: str) -> None:
    """Copy files, directories, and links as links; `place` is where `target` will be in the end."""
    for name in source.names():
        found, path = source.status(name), f"{place}/{name}"
        if found and stat.S_ISLNK(found.st_mode):
            target.link(name, os.readlink(name, dir_fd=source.fd), (account.uid, account.gid))
        elif found and stat.S_ISREG(found.st_mode):
            file = source.read(name, limit=LIMIT)
            if file:
                looks = _looks(tree, account, stat.S_IMODE(found.st_mode), path, "file")
                target.replace(name, file.content, looks)
        elif found and stat.S_ISDIR(found.st_mode):
            inner = source.child(name)
            looks = _looks(tree, account, stat.S_IMODE(found.st_mode), path, "dir")
            if inner:
                with inner, target.make(name, looks) as made:
                    _copy(tree, inner, made, account, path)


def _looks(tree: Tree, account: Account, mode: int, path: str, kind: str) -> Looks:
    return Looks(mode, (account.uid, account.gid), command.selinux_label(tree, path, kind))


# --- sudo -------------------------------------------------------------------------------------------


def _objection(target: Target, rule: bytes) -> str | None:
    """What visudo has against it. It gets a private file: that of sudo-rs reads no standard input."""
    if (program := command.find("visudo")) is None:
        raise FirstkeyError("visudo is not installed", reason=reasons.SUDO_MISSING)
    if target.tree.is_running_system:
        with command.scratch_directory() as private:
            private.replace("rule", rule, Looks(SUDOERS_MODE, durable=False))
            path = f"{private.on_host}/rule"
            outcome = command.run([program, "-c", "-f", path])
    else:
        from firstkey.system import inspector  # a boot works on the running system

        path = f"{inspector.HERE}/rule"
        outcome = inspector.run([program, "-c", "-f", path], files={"rule": rule})
    if not outcome.status:
        return None
    # The first line says what is wrong and where; those behind it only draw an arrow below the rule.
    words = (outcome.stderr or outcome.stdout).decode("utf-8", "replace").split("\n")[0]
    return words.replace(path, "the rule").strip(" :<>") or outcome.words
