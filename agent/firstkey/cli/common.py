"""What the commands share: their options, the system that they work on, and how a refusal is told."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

from firstkey import TYPE_CHECKING, config, events, reasons
from firstkey.boot.site import CLOUD_INIT_ENABLED, Site
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
    """The options of one of the commands that a boot runs."""
    plain = plain_options(argv, flags=flags, others=others)
    if plain is None:
        from firstkey.cli import usage  # the unit gives no option

        return usage.PARSERS[command]().parse_args(argv)
    return plain


def plain_options(
    argv: Sequence[str], *, flags: Sequence[str] = (), others: Sequence[str] = ()
) -> argparse.Namespace | None:
    """The options, where they have the form in which units and scripts give them; else None.

    argparse takes longer to load than a run with nothing to do takes for everything else. Whatever is not as
    plain as this (an abbreviation, `--name=value`, a mistake, a call for help) is argparse's to judge.
    `flags` are the command's own ones (`--dry-run`); `others` are the names of its options that take values,
    which are left to argparse, and are None as long as they are not given.
    """
    own = {flag: flag[2:].replace("-", "_") for flag in flags}
    known = {**COMMON_FLAGS, **own}
    found: dict[str, Any] = {**COMMON_DEFAULTS, **dict.fromkeys(own.values(), False), **dict.fromkeys(others)}
    words = iter(argv)
    for word in words:
        if word in known:
            found[known[word]] = True
            continue
        value = next(words, "") if word in COMMON_VALUES else ""
        if not value or value.startswith("-"):
            return None
        found[COMMON_VALUES[word]] = value
    if found["verbose"] and found["quiet"]:
        return None
    return SimpleNamespace(**found)  # type: ignore[return-value]


def voice(args: argparse.Namespace) -> Callable[[events.Entry], None]:
    """Where events go: the journal, or stderr."""
    verbosity = 1 if args.verbose else -1 if args.quiet else 0
    return journal.Log(verbosity=verbosity).say


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
    args: argparse.Namespace, say: Callable[[events.Entry], None], *, warn: bool = True
) -> Iterator[Site]:
    """The system that the options name, with its configuration; mistakes in that are warnings."""
    with tree_at(args.root) as tree:
        yield site_of(tree, args, say, warn=warn)


def site_of(
    tree: Tree, args: argparse.Namespace, say: Callable[[events.Entry], None], *, warn: bool = True
) -> Site:
    """The system in the tree, with its configuration; mistakes in that are warnings."""
    settled = configuration(tree, args)
    for warning in settled.warnings if warn else ():
        code = warning.refusal.reason.code
        say(events.CONFIG_WARNING(**warning._asdict(), reason=code))
    dry_run = getattr(args, "dry_run", False)
    return Site(tree, Accounts(tree), settled, say, dry_run=dry_run, force=getattr(args, "force", False))


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
    if args.config or args.imds or getattr(args, "user", None):
        from firstkey.cli import overrides  # the unit gives no option

        return overrides.configuration(tree, args)
    return config.load(tree)


def require_root(args: argparse.Namespace, doing: str) -> None:
    """The running system is root's; a tree of one's own is one's own."""
    if resolved(args.root) == "/" and os.geteuid() != 0 and not getattr(args, "dry_run", False):
        raise NeedsRoot(f"{doing} on the running system is for root")


@contextmanager
def locked(tree: Tree, seconds: float, say: Callable[[events.Entry], None]) -> Iterator[None]:
    """Hold the tree's lock; wait `seconds` at most for another holder, else FirstkeyError(already-running).

    Raises NeedsRoot where the tree is not the caller's to change. Where there can be no lock (a full, broken
    or read-only /run), that is told, and the work goes on: two at once harm nothing, since every write
    notices the other's, and no lock is no reason to keep anybody out.

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
        say(events.STATE_NOT_SAVED(file=LOCK, detail=error.message, reason=error.reason.code))
        yield
        return
    try:
        _wait_for(lock, time.monotonic() + seconds, say)
        yield
    finally:
        os.close(lock)


def _wait_for(lock: int, deadline: float, say: Callable[[events.Entry], None]) -> None:
    is_told = False
    while True:
        with translated(f"lock {LOCK}"), suppress(BlockingIOError, PermissionError):
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if not is_told:
            say(events.ALREADY_RUNNING())
            is_told = True
        left = deadline - time.monotonic()
        if left <= 0:
            raise FirstkeyError("another firstkey is at work on this system", reason=reasons.ALREADY_RUNNING)
        time.sleep(min(LOCK_PAUSE, left))


def switched_off(site: Site) -> str | None:
    """What switches firstkey off on this system, or None (DESIGN: the unit)."""
    if site.tree.exists("/etc/firstkey/disabled"):
        return "/etc/firstkey/disabled is there"
    words = (site.tree.read("/proc/cmdline", limit=65536) or b"").split()
    return "firstkey=off on the kernel command line" if b"firstkey=off" in words else None


def tell_of_cloud_init(site: Site) -> None:
    """Say that cloud-init works on this system too, or will at its first boot, and by which path that shows.

    The two do not fight, since firstkey.service is ordered behind cloud-init's stage for users and SSH: what
    that makes is found, and kept.
    """
    shows = (CLOUD_INIT_ENABLED, *(() if site.tree.is_running_system else CLOUD_INIT_WANTED))
    found = next(filter(site.tree.exists, shows), None)
    if found and not any(map(site.tree.exists, CLOUD_INIT_DISABLED)):
        site.say(events.CLOUD_INIT_BESIDE(detail=found))


def client(site: Site) -> Client:
    """A client of the metadata service by the site's settings. `requests` is imported here, not before."""
    if command.ask_watcher:
        from firstkey.metadata import crossing

        return crossing.Client(site.config.imds, command.ask_watcher)  # type: ignore[return-value]
    from firstkey.metadata.client import Client

    return Client(site.config.imds, say=site.say)


def save_report(site: Site, done: Report) -> None:
    """Leave the report for programs, if anything was really done."""
    if site.dry_run:
        return
    try:
        # World-readable, no secrets in it.
        site.tree.write(REPORT, f"{as_json(done.as_json())}\n".encode(), mode=0o644)
    except FirstkeyError as error:
        site.say(events.STATE_NOT_SAVED(file=REPORT, detail=error.message, reason=error.reason.code))


def show_on_console(site: Site, done: Report) -> None:
    """Host keys to the console: once a boot, and whenever they are not those that it shows.

    A console that fails counts as well, or a daemon that tries again would say so every time. An image's tree
    has no console of its own, unless somebody put a file or pipe there to look at.
    """
    keys = [key for key in done.host_keys if key.public and key.fingerprint]
    if site.dry_run or not site.config.host_keys.console or not keys:
        return
    shown = "".join(f"{key.public}\n" for key in keys).encode("utf-8", "replace")
    with suppress(FirstkeyError):
        if site.tree.read(SHOWN, limit=2 * len(shown)) == shown:
            return
    if not (site.tree.is_running_system or site.tree.exists(CONSOLE)):
        return
    try:
        _write_block(site, keys)
        site.say(events.CONSOLE_WRITTEN(path=CONSOLE))
    except FirstkeyError as error:
        site.say(events.CONSOLE_FAILED(detail=error.message, reason=error.reason.code))
    with suppress(FirstkeyError):
        site.tree.write(SHOWN, shown, mode=0o644)


def _listed(key: HostKeyResult) -> str:
    """As `ssh-keygen -l` prints the key: it is asked about a type whose size only OpenSSH knows."""
    asked = None if key.bits else sshd.ask_keygen("-l", "-f", "/dev/stdin", stdin=str(key.public).encode())
    if asked and not asked.status:
        return asked.stdout.decode("utf-8", "replace").strip()
    return f"{key.bits} {key.fingerprint} {key.comment} ({key.type.upper()})"


def _write_block(site: Site, keys: Sequence[HostKeyResult]) -> None:
    from firstkey.system import console

    pairs = [(_listed(key), str(key.public)) for key in keys]
    place = site.tree.locate(CONSOLE)
    if place is None:
        raise FirstkeyError(f"there is no {CONSOLE}", reason=reasons.CONSOLE_FAILED)
    with place[0] as directory:
        path = f"{directory.on_host}/{place[1]}"
        block = console.fingerprint_block(pairs, prefix=console.syslog_prefix())
        console.write(block, path=path, is_device=site.tree.is_running_system)
