"""What the commands share: their options, and the system that they work on."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

from firstkey import TYPE_CHECKING, config, events, reasons
from firstkey.boot.target import CLOUD_INIT_ENABLED, Target
from firstkey.cli import COMMON_DEFAULTS, COMMON_FLAGS, COMMON_VALUES
from firstkey.model import REPORT
from firstkey.reasons import FirstkeyError, NeedsRoot, UsageError
from firstkey.system import command, journal, sshd
from firstkey.system.accounts import Accounts
from firstkey.system.files import translated
from firstkey.system.tree import Tree, resolved
from firstkey.text import as_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from firstkey.metadata.client import Client
    from firstkey.model import HostKeyResult, Report


def parsed(
    argv: Sequence[str], command: str, *, flags: Sequence[str] = (), others: Sequence[str] = ()
) -> argparse.Namespace:
    """The options of one of the commands that a boot runs.

    argparse takes longer to load than a run with nothing to do takes for everything else. So options in the
    form in which units and scripts give them are read here; what is not as plain as this (an abbreviation,
    `--name=value`, a mistake, a call for help) is argparse's to judge. `flags` are the command's own ones
    (`--dry-run`); `others` are the names of its options that take values, which are left to argparse, and are
    None as long as they are not given.
    """
    own = {flag: flag[2:].replace("-", "_") for flag in flags}
    known = {**COMMON_FLAGS, **own}
    found: dict[str, Any] = {**COMMON_DEFAULTS, **dict.fromkeys(own.values(), False), **dict.fromkeys(others)}
    words = iter(argv)
    for word in words:
        value = next(words, "") if word in COMMON_VALUES else ""
        if word in known:
            found[known[word]] = True
        elif value and not value.startswith("-"):
            found[COMMON_VALUES[word]] = value
        else:
            break
    else:
        if not (found["verbose"] and found["quiet"]):
            return SimpleNamespace(**found)  # type: ignore[return-value]
    from firstkey.cli import usage  # the unit gives no option

    return usage.parser(command).parse_args(argv)


def logger(args: argparse.Namespace) -> Callable[[events.Entry], None]:
    """Where events go: the journal, or stderr."""
    return journal.Log(verbosity=args.verbose - args.quiet).write


LOCK = "/run/firstkey/lock"
LOCK_PAUSE = 0.05
"""Seconds between two looks whether another firstkey has ended."""
CONSOLE = "/dev/console"
SHOWN = "/run/firstkey/console-shown"
CLOUD_INIT_DISABLED = ("/run/cloud-init/disabled", "/etc/cloud/cloud-init.disabled")
"""Left by its generator, and by an operator (cloud-init's documentation, "How to disable cloud-init")."""
CLOUD_INIT_WANTED = tuple(
    f"/etc/systemd/system/cloud-init.target.wants/{unit}"
    for unit in ("cloud-init-network.service", "cloud-init.service")
)
"""In an image nothing has run yet. The stage for users and SSH was renamed in cloud-init 24.3."""

boxed_tree: list[Callable[[], Tree]] = []
"""In a box, how to open the tree of --root: nothing else is there."""


@contextmanager
def opened(
    args: argparse.Namespace, log: Callable[[events.Entry], None], *, warn: bool = True
) -> Iterator[Target]:
    """The system that the options name, with its configuration; mistakes in that are warnings."""
    with tree_at(args.root) as tree:
        yield target_of(tree, args, log, warn=warn)


def target_of(
    tree: Tree, args: argparse.Namespace, log: Callable[[events.Entry], None], *, warn: bool = True
) -> Target:
    """The system in the tree, with its configuration; mistakes in that are warnings."""
    settled = configuration(tree, args)
    for warning in settled.warnings if warn else ():
        place, detail = warning
        log(events.CONFIG_WARNING(place=place, detail=detail, reason=reasons.CONFIG_INVALID.code))
    dry_run = getattr(args, "dry_run", False)
    return Target(tree, Accounts(tree), settled, log, dry_run=dry_run, force=getattr(args, "force", False))


def tree_at(root: str) -> Tree:
    """The tree that --root names. Raises UsageError where there is none."""
    if boxed_tree:
        return boxed_tree[0]()
    if not os.path.isdir(root):
        raise UsageError(f"--root {root!a}: there is no such directory")
    if os.path.isdir(f"{root}/usr/etc") and not os.path.lexists(f"{root}/etc"):
        raise UsageError(
            f"--root {root!a} is a commit of ostree's, which has no /etc. Name a deployment of it"
        )
    return Tree(root)


def configuration(tree: Tree, args: argparse.Namespace) -> config.Config:
    """The settings, with what the command line says in their place."""
    # An empty value, as of a script's unset variable, is a mistake, and not the lack of the option.
    if tree.root != "/" or args.config is not None or args.imds is not None or getattr(args, "user", None):
        from firstkey.cli import overrides  # the unit gives no option

        return overrides.configuration(tree, args)
    return config.load(tree)


def require_root(args: argparse.Namespace, doing: str) -> None:
    """The running system is root's; a tree of one's own is one's own."""
    if resolved(args.root) == "/" and os.geteuid() != 0 and not getattr(args, "dry_run", False):
        raise NeedsRoot(f"{doing} on the running system is for root")


@contextmanager
def locked(tree: Tree, seconds: float, log: Callable[[events.Entry], None]) -> Iterator[None]:
    """Hold the tree's lock; wait `seconds` at most for another holder, else FirstkeyError(already-running).

    Raises NeedsRoot where the tree is not the caller's to change. Where there can be no lock (a full, broken
    or read-only /run), the journal says so, and the work goes on: two at once harm nothing, since every write
    notices the other's, and a missing lock is no reason to lock a user out.

    The kernel drops the lock with its holder. It belongs to the process alone (fcntl(2): F_SETLK), not to the
    children that it forks: one of these may hang on a dead disk for ever, and may not keep every later
    firstkey from its work. Such a lock is lost as soon as its process closes *any* descriptor of the file, so
    nothing else ever opens it.
    """
    try:
        with tree.ensure(os.path.dirname(LOCK), mode=0o755) as directory:
            lock = directory.open_to_lock(os.path.basename(LOCK))
    except FirstkeyError as error:
        if error.reason is reasons.PERMISSION_DENIED and os.geteuid() != 0:
            raise NeedsRoot(f"in the tree under {tree.root}: {error.message}") from error
        if error.reason not in (reasons.NO_SPACE, reasons.READ_ONLY, reasons.IO_ERROR):
            raise
        log(events.STATE_NOT_SAVED(file=LOCK, detail=error.message, reason=error.reason.code))
        yield
        return
    try:
        _wait_for(lock, time.monotonic() + seconds, log)
        yield
    finally:
        os.close(lock)


def _wait_for(lock: int, deadline: float, log: Callable[[events.Entry], None]) -> None:
    is_told = False
    while True:
        with translated(f"lock {LOCK}"), suppress(BlockingIOError, PermissionError):
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if not is_told:
            log(events.ALREADY_RUNNING())
            is_told = True
        left = deadline - time.monotonic()
        if left <= 0:
            raise FirstkeyError("another firstkey is at work on this system", reason=reasons.ALREADY_RUNNING)
        time.sleep(min(LOCK_PAUSE, left))


def switched_off(target: Target) -> str | None:
    """What switches firstkey off on this system, or None (DESIGN: the unit)."""
    if target.tree.exists("/etc/firstkey/disabled"):
        return "/etc/firstkey/disabled is there"
    words = (target.tree.read("/proc/cmdline", limit=65536) or b"").split()
    return "firstkey=off on the kernel command line" if b"firstkey=off" in words else None


def report_cloud_init(target: Target) -> None:
    """Say that cloud-init works on this system too, or will at its first boot, and by which path that shows.

    The two do not fight, since firstkey.service is ordered behind cloud-init's stage for users and SSH: what
    that makes is found, and kept.
    """
    shows = (CLOUD_INIT_ENABLED, *(() if target.tree.is_running_system else CLOUD_INIT_WANTED))
    found = next(filter(target.tree.exists, shows), None)
    if found and not any(map(target.tree.exists, CLOUD_INIT_DISABLED)):
        target.log(events.CLOUD_INIT_BESIDE(detail=found))


def client(target: Target) -> Client:
    """A client of the metadata service by the target's settings. `requests` is imported here, not before."""
    if command.ask_watcher:
        from firstkey.metadata import crossing

        return crossing.Client(target.config.imds, command.ask_watcher)  # type: ignore[return-value]
    from firstkey.metadata.client import Client

    return Client(target.config.imds, log=target.log)


def save_report(target: Target, done: Report) -> None:
    """Leave the report for programs, if anything was really done."""
    if target.dry_run:
        return
    try:
        # World-readable, no secrets in it.
        target.tree.write(REPORT, f"{as_json(done.as_json())}\n".encode(), mode=0o644)
    except FirstkeyError as error:
        target.log(events.STATE_NOT_SAVED(file=REPORT, detail=error.message, reason=error.reason.code))


def show_on_console(target: Target, done: Report) -> None:
    """Host keys to the console: once a boot, and whenever they are not those that it shows.

    A console that fails counts as well, or a daemon that tries again would say so every time. An image's tree
    has no console of its own, unless there is a file or pipe of that name.
    """
    keys = [key for key in done.host_keys if key.public and key.fingerprint]
    if target.dry_run or not target.config.host_keys.console or not keys:
        return
    shown = "".join(f"{key.public}\n" for key in keys).encode("utf-8", "replace")
    with suppress(FirstkeyError):
        if target.tree.read(SHOWN, limit=2 * len(shown)) == shown:
            return
    if not (target.tree.is_running_system or target.tree.exists(CONSOLE)):
        return
    try:
        _write_block(target, keys)
        target.log(events.CONSOLE_WRITTEN(path=CONSOLE))
    except FirstkeyError as error:
        target.log(events.CONSOLE_FAILED(detail=error.message, reason=error.reason.code))
    with suppress(FirstkeyError):
        target.tree.write(SHOWN, shown, mode=0o644)


def _listed(key: HostKeyResult) -> str:
    """As `ssh-keygen -l` prints the key: it is asked about a type whose size only OpenSSH knows."""
    asked = None if key.bits else sshd.ask_keygen("-l", "-f", "/dev/stdin", stdin=str(key.public).encode())
    if asked and not asked.status:
        return asked.stdout.decode("utf-8", "replace").strip()
    return f"{key.bits} {key.fingerprint} {key.comment} ({key.type.upper()})"


def _write_block(target: Target, keys: Sequence[HostKeyResult]) -> None:
    from firstkey.system import console

    pairs = [(_listed(key), str(key.public)) for key in keys]
    place, above = target.tree.locate(CONSOLE)
    if above is None:
        raise FirstkeyError(f"there is no {CONSOLE}", reason=reasons.CONSOLE_FAILED)
    with above as directory:
        path = f"{directory.on_host}/{os.path.basename(place)}"
        block = console.fingerprint_block(pairs, prefix=console.syslog_prefix())
        console.write(block, path=path, is_device=target.tree.is_running_system)
