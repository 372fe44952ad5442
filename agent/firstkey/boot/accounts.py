"""Accounts that the configuration asks for: what is missing of them is made, a sudo rule in effect included.

An account, its groups, its home and its sudo rule are looked at in each run: what a run that was cut off did
not come to is made by the next. Nothing is ever removed.

Each change is a value first: `describe()` for people, `apply()` for the machine.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress

from firstkey import TYPE_CHECKING, NamedTuple, events, reasons
from firstkey.model import CHANGED, FAILED, REFUSED, SKIPPED, Account, AccountResult
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.system import command
from firstkey.system.accounts import NO_PASSWORD, Defaults
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from typing import Union

    from firstkey.boot.site import Site
    from firstkey.config import User
    from firstkey.system.files import Directory
    from firstkey.system.tree import Tree

LIMIT = 16 * 1024 * 1024
"""The largest file that is read: a skeleton's, a list of accounts, a file of sudo's."""
NO_HOME = "/nonexistent"
"""The home of accounts that are to have none (Debian's policy, 9.2.3); many share it, so it is never made."""
SUDO_SECONDS = 10.0
"""How long sudo may take to list a user's rules: it may ask a directory service for them."""
SUDOERS = "/etc/sudoers.d"
SUDOERS_MODE = 0o440
HEADER = "# Written by firstkey from [User {name}] of its configuration; changes here are lost.\n"
GOOD_RULE = b"root ALL=(ALL) ALL\n"
"""What every sudo takes: a checker that rejects this one as well cannot look."""


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
                program = command.find(argv[0])
                outcome = command.run([program, *argv[1:]]) if program else None
                if outcome is None or outcome.status:
                    why = outcome.words if outcome else f"{argv[0]} is not installed"
                    message = f"the account {name} could not be set up: {why}"
                    raise FirstkeyError(message, reason=reasons.USER_CREATE_FAILED)
        elif any(self.missing._replace(home=False)):
            from firstkey.boot import account_entries  # the running system has useradd

            account_entries.ensure(site.tree, self.user, self.missing.groups, self.account.home)
        if self.missing.home:
            account = site.accounts.find(name)
            if account is None:
                raise site.accounts.unknown(name)
            make_home(site.tree, account)

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

    def entry(self) -> events.Entry:
        """For the journal."""
        return events.SUDOERS_WRITTEN(user=self.user.name, file=self.path)

    def is_in_place(self, site: Site) -> bool:
        """Whether the rule stands in a file that sudo heeds: one that others cannot write."""
        with suppress(FirstkeyError):
            directory = site.tree.open(SUDOERS)
            if directory:
                with directory:
                    there = directory.read(os.path.basename(self.path), limit=LIMIT)
                return there is not None and there.content == self.content and not there.mode & 0o022
        return False

    def diff(self, site: Site) -> str:
        """What would change in the file. Raises FirstkeyError as `apply` does."""
        self.prove(site)
        self.require_effect(site)
        from firstkey import display  # for a dry run

        return display.diff(self.path, site.tree.read(self.path, limit=LIMIT), self.content)

    def apply(self, site: Site) -> None:
        """Have it checked, only then write it, and ask sudo. Raises FirstkeyError(sudoers-invalid, ...)."""
        if site.accounts.find(self.user.name) is None:  # it would wait for whoever gets that name one day
            raise site.accounts.unknown(self.user.name)
        self.prove(site)
        with site.tree.ensure(SUDOERS, mode=0o750) as directory:
            directory.remove_stale()
            directory.replace(os.path.basename(self.path), self.content, Looks(SUDOERS_MODE))
        self.require_effect(site)

    def prove(self, site: Site) -> None:
        """Raise FirstkeyError(sudoers-invalid, sudo-unchecked, sudo-missing) unless visudo takes the rule."""
        wrong = _objection(site, self.content)
        if wrong and _objection(site, GOOD_RULE):
            message = f"visudo validates no rule, not even a correct one: {wrong}"
            raise FirstkeyError(message, reason=reasons.SUDO_UNCHECKED)
        if wrong:
            message = f"visudo rejects {self.user.sudo!a} as the Sudo= rule of {self.user.name}: {wrong}"
            raise FirstkeyError(message, reason=reasons.SUDOERS_INVALID)

    def require_effect(self, site: Site) -> None:
        """Raise FirstkeyError(sudo-not-effective) where sudo does not read the rule, or does not heed it.

        A dry run asks no program: sudo knows nothing of a rule that is not there, and logs the question.
        """
        flaw = None
        if not site.tree.is_running_system:
            from firstkey.boot import account_entries

            read = account_entries.sudoers(site.tree, {self.path: self.content})
            flaw = None if self.content.decode() in read else f"no file of sudo's includes {SUDOERS}"
        elif not site.dry_run:
            flaw = self._flaw_by_sudo()
        if flaw:
            message = f"the rule of {self.user.name} does not take effect: {flaw}"
            raise FirstkeyError(message, reason=reasons.SUDO_NOT_EFFECTIVE)

    def _flaw_by_sudo(self) -> str | None:
        """What sudo or sudo-rs, asked for the user's rules, lets one see that this one lacks."""
        program = command.find("sudo")
        if program is None:
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


def set_up(site: Site, user: User) -> Setup:
    """Bring the account to what its section says; a change that fails does not stop the others."""
    results: list[AccountResult] = []
    failures: list[FirstkeyError] = []
    planned = None

    def failed(change: str, error: Exception) -> None:
        if not isinstance(error, FirstkeyError):
            message = f"setting up the account {user.name} failed: {error!r}"
            error = FirstkeyError(message, reason=reasons.INTERNAL_ERROR)
        site.say(events.ACCOUNT_FAILED(user=user.name, reason=error.reason.code, detail=error.message))
        kind = REFUSED if error.reason is reasons.SUDOERS_INVALID else FAILED
        results.append(AccountResult(user.name, change, kind, error.refusal))
        failures.append(error)

    changes: list[Change] = []
    absent: list[str] = []
    try:
        changes, absent = plan(site, user)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one account, the others are served
        failed("look at the account", error)
    for name in absent:  # an account can be made without them
        why = Refusal(reasons.NO_SUCH_GROUP, f"there is no group {name}")
        site.say(events.GROUP_MISSING(user=user.name, reason=why.reason.code, detail=why.detail))
        results.append(AccountResult(user.name, f"add to the group {name}", SKIPPED, why))
    for change in changes:
        diff = ""
        try:
            if isinstance(change, WriteSudoers) and change.is_in_place(site):
                change.require_effect(site)
                continue
            if not site.dry_run:
                change.apply(site)
                site.say(change.entry())
            elif isinstance(change, WriteSudoers):
                diff = change.diff(site)
            elif change.missing.account:
                planned = change.account
        except Exception as error:  # noqa: BLE001 - as above
            failed(change.describe(), error)
        else:
            results.append(AccountResult(user.name, change.describe(), CHANGED, diff=diff))
    return Setup(tuple(results), failures[0] if failures else None, planned)


def plan(site: Site, user: User) -> tuple[list[Change], list[str]]:
    """What is to be done so that the account is as its section says, and the groups that there are not.

    A rule in place is to be confirmed.
    """
    account = site.accounts.find(user.name)
    if account is None and not user.create:
        return [], []
    changes: list[Change] = []
    groups = tuple(name for name in user.groups if site.accounts.group_id(name) is not None)
    has_group = site.accounts.group_id(user.name) is not None
    if account is None:
        homes = Defaults(site.tree).path("HOME", "/home")
        account = Account(user.name, -1, -1, f"{homes}/{user.name}", user.shell)
        missing = Missing(account=True, groups=groups, home=_lacks_home(site.tree, account))
    else:
        missing = _missing(site, account) if user.create else Missing()
        member_of = set(site.accounts.group_ids(account))
        left = tuple(name for name in groups if site.accounts.group_id(name) not in member_of)
        missing = missing._replace(groups=left)
    if any(missing):
        changes.append(Complete(user, missing, account, has_group))
    if user.sudo:
        changes.append(WriteSudoers(user))
    return changes, [name for name in user.groups if name not in groups]


def _missing(site: Site, account: Account) -> Missing:
    """What a useradd that was cut off did not come to: it writes passwd, shadow and group, in this order."""
    if account not in site.accounts.all():
        return Missing()  # a directory service's: what it lacks is for that to give
    groups = {name: number for name, number, _ in site.accounts.groups()}
    is_own = account.gid == account.uid and account.name not in groups
    shadow = site.tree.read("/etc/shadow", limit=LIMIT)
    return Missing(
        shadow=shadow is not None and f"\n{account.name}:".encode() not in b"\n" + shadow,
        group=is_own and account.gid not in groups.values(),
        home=_lacks_home(site.tree, account),
    )


# --- the home ---------------------------------------------------------------------------------------


def _lacks_home(tree: Tree, account: Account) -> bool:
    return account.home != NO_HOME and not tree.exists(account.home)


def make_home(tree: Tree, account: Account) -> None:
    """Make the home as useradd(8) would. Raises FirstkeyError; then there is none, as before.

    It is made beside its name, filled from the skeleton, given to its user, and only then put there: whatever
    cuts that off, a home is there with all that belongs into it or not at all. It is not made where a file
    system is to be mounted first: it would disappear below that.
    """
    point = _unmounted(tree, account.home)
    if point:
        message = f"{point} is not mounted yet, so {account.home} was not made"
        raise FirstkeyError(message, reason=reasons.HOME_MISSING)
    defaults = Defaults(tree)
    mode = defaults.number("HOME_MODE", 0o777 & ~defaults.number("UMASK", 0o022))
    skeletons = (defaults.path("USRSKEL", "/usr/etc/skel"), defaults.path("SKEL", "/etc/skel"))
    parent, name = os.path.split(account.home.rstrip("/"))
    with tree.ensure(parent, mode=0o755) as above:
        above.remove_stale(directories=True)
        temporary = above.temporary_name(name)
        try:
            with above.make(temporary, Looks(0o700, durable=False)) as home:
                for source in filter(None, map(tree.open, skeletons)):
                    with source:
                        _copy(tree, source, home, account, account.home)
                home.dress(_looks(tree, account, mode, account.home, "dir"))
            above.rename(temporary, name)
        except BaseException:
            above.remove_all(temporary)
            raise


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


def _unmounted(tree: Tree, home: str) -> str | None:
    """Where a file system of fstab(5) is to be mounted, at the home or above it, and is not yet."""
    if not tree.is_running_system:
        return None
    lines = (tree.read("/etc/fstab", limit=LIMIT) or b"").decode("utf-8", "replace").split("\n")
    entries = (line.split() for line in lines)
    points = [entry[1].rstrip("/") for entry in entries if len(entry) > 1 and entry[0][0] != "#"]
    above = (point for point in points if point.startswith("/") and f"{home}/".startswith(f"{point}/"))
    return next((point for point in above if not os.path.ismount(point)), None)


# --- sudo -------------------------------------------------------------------------------------------


def _objection(site: Site, rule: bytes) -> str | None:
    """What visudo has against it. It gets a private file: that of sudo-rs reads no standard input."""
    program = command.find("visudo")
    if program is None:
        raise FirstkeyError("visudo is not installed", reason=reasons.SUDO_MISSING)
    if site.tree.is_running_system:
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
