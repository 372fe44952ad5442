"""Carrying out what was decided about host keys: all new ones made at once, each put in place in one instant.

The order is: generate in a private directory, write the ledger, publish. So a key that sshd could ever show
is one that the ledger knows as firstkey's own, whenever the power goes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from firstkey import events, reasons
from firstkey.boot import host_keys
from firstkey.boot.ledger import MadeHostKey
from firstkey.errors import FirstkeyError
from firstkey.model import CHANGED, FAILED, SKIPPED, UNCHANGED, HostKeyResult
from firstkey.reasons import Refusal
from firstkey.ssh import public_key
from firstkey.system import openssh, selinux
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.host_keys import Action
    from firstkey.boot.ledger import Ledger
    from firstkey.boot.site import Site
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.command import Process
    from firstkey.system.files import Directory

PRIVATE_MODE = 0o600
GROUP_MODE = 0o640
PUBLIC_MODE = 0o644


class Pair(NamedTuple):
    """A new key pair, still in the private directory."""

    action: Action
    private: bytes
    public_line: bytes
    public: PublicKey


class Making:
    """The host keys that are being made. Leaving the `with` block ends and removes what is unfinished."""

    def __init__(self, site: Site, actions: Sequence[Action]) -> None:
        self._site = site
        self.actions = actions
        self._running: list[tuple[Action, Process]] = []
        self._failures: dict[str, Refusal] = {}
        self._rooms: dict[str, tuple[Directory, Directory, str]] = {}

    def __enter__(self) -> Making:  # noqa: PYI034 - Self came with Python 3.11
        if not self._site.dry_run:
            for action in self.actions:
                if action.makes_a_key:
                    self._start(action)
        return self

    def __exit__(self, *_: object) -> None:
        for _action, process in self._running:
            process.kill()
        for parent, staging, name in self._rooms.values():
            staging.__exit__()
            with parent:
                parent.remove_directory(name)
        self._rooms.clear()

    def finish(self) -> list[Pair]:
        """Wait for the keys that are being made; what failed is known to `results`."""
        pairs = []
        for action, process in self._running:
            try:
                pairs.append(self._finished(action, process))
            except FirstkeyError as error:  # noqa: PERF203 - one key that fails must not stop the others
                self._failures[action.found.wanted.file] = error.refusal
        self._running.clear()
        return pairs

    def publish(self, pairs: Sequence[Pair]) -> None:
        """Put the new pairs in place, and mend what only needs mending."""
        by_file = {pair.action.found.wanted.file: pair for pair in pairs}
        for action in self.actions:
            file = action.found.wanted.file
            try:
                _carry_out(self._site, action, by_file.get(file))
            except FirstkeyError as error:
                self._failures[file] = error.refusal

    def results(self, pairs: Sequence[Pair]) -> list[HostKeyResult]:
        """What became of each wanted host key; for a dry run, what would."""
        made = {pair.action.found.wanted.file: pair.public for pair in pairs}
        return [self._result(action, made.get(action.found.wanted.file)) for action in self.actions]

    def _result(self, action: Action, made: PublicKey | None) -> HostKeyResult:
        file, kind = action.found.wanted
        public = made or action.found.public
        result, refusal = CHANGED, action.refusal
        if _is_foreign(action):
            refusal = Refusal(reasons.HOST_KEY_FOREIGN, f"{file} was there before firstkey")
        if file in self._failures:
            refusal = self._failures[file]
            result = SKIPPED if refusal.reason is reasons.KEYGEN_REFUSED else FAILED
        elif action.kind in (host_keys.KEEP, host_keys.SKIP):
            result = UNCHANGED if action.kind == host_keys.KEEP else SKIPPED
        fingerprint = public.fingerprint if public and (made or not action.makes_a_key) else None
        return HostKeyResult(
            kind or (public.short_type if public else "unknown"),
            file,
            result,
            fingerprint,
            refusal,
            public.line if public and fingerprint else None,
            public.bits if public else 0,
        )

    def _start(self, action: Action) -> None:
        file, kind = action.found.wanted
        try:
            staging = self._staging(file.rsplit("/", 1)[0] or "/")
            path = f"{staging.on_host}/{_staged_name(file)}"
            process = openssh.start_generating(str(kind), path, comment=_comment(self._site))
        except FirstkeyError as error:
            self._failures[file] = error.refusal
            return
        self._running.append((action, process))

    def _staging(self, where: str) -> Directory:
        """The private directory for new keys beside the old ones."""
        if where not in self._rooms:
            place = self._site.tree.locate(f"{where}/x")
            parent = place[0] if place else self._site.tree.ensure(where, mode=0o755)
            parent.remove_stale()
            name = parent.temporary_name("hostkeys")
            self._rooms[where] = (parent, parent.make(name, Looks(0o700)), name)
        return self._rooms[where][1]

    def _finished(self, action: Action, process: Process) -> Pair:
        file, kind = action.found.wanted
        openssh.check_generated(str(kind), process.finish())
        staging = self._staging(file.rsplit("/", 1)[0] or "/")
        name = _staged_name(file)
        private = staging.read(name, limit=host_keys.LIMIT)
        public = staging.read(f"{name}.pub", limit=host_keys.LIMIT)
        if private is None or public is None:
            raise FirstkeyError(f"ssh-keygen left no {kind} key behind", reason=reasons.KEYGEN_FAILED)
        return Pair(action, private.content, public.content, public_key.parse_launch_key(public.content))


def remembered(
    ledger: Ledger, actions: Sequence[Action], pairs: Sequence[Pair], mark: tuple[str | None, str | None]
) -> Ledger:
    """The ledger with the new pairs as firstkey's own, the good ones as seen. `mark`: instance, boot id."""
    instance, boot = mark
    for pair in pairs:
        digest = host_keys.digest_of(pair.private, pair.public_line)
        file = pair.action.found.wanted.file
        ledger = ledger.with_host_key(
            MadeHostKey(file, pair.public.fingerprint, digest, instance, boot, made=True)
        )
    for action in actions:
        found = action.found
        if action.kind in (host_keys.KEEP, host_keys.MEND) and found.public and found.remembered is None:
            seen = MadeHostKey(
                found.wanted.file, found.public.fingerprint, found.digest, instance, boot, made=False
            )
            ledger = ledger.with_host_key(seen)
    return ledger


def announce(site: Site, results: Sequence[HostKeyResult], actions: Sequence[Action]) -> None:
    """Say in the journal what happened to each host key that is not simply as it was."""
    for result, action in zip(results, actions):
        for entry in _entries(result, action):
            site.say(entry)


def _entries(result: HostKeyResult, action: Action) -> list[events.Entry]:
    names = {"type": result.type, "file": result.file}
    fingerprint = result.fingerprint or "none"
    if result.result in (FAILED, SKIPPED) and result.refusal:
        why = {"reason": result.refusal.reason.code, "detail": result.refusal.detail}
        event = events.HOST_KEY_FAILED if result.result == FAILED else events.HOST_KEY_SKIPPED
        return [event(**names, **why)]
    if _is_foreign(action):
        why = {"reason": reasons.HOST_KEY_FOREIGN.code, "fingerprint": fingerprint}
        return [events.HOST_KEY_FOREIGN(**names, **why)]
    if action.kind == host_keys.MAKE:
        return [events.HOST_KEY_MADE(**names, fingerprint=fingerprint)]
    if action.kind in (host_keys.SET_ASIDE, host_keys.REPLACE) and action.reason:
        old = action.found.public.fingerprint if action.found.public else "none"
        return [events.HOST_KEY_REPLACED(**names, reason=action.reason.code, old=old, new=fingerprint)]
    if action.kind == host_keys.DERIVE:
        return [events.HOST_KEY_PUBLIC_DERIVED(**names, fingerprint=fingerprint)]
    if action.kind == host_keys.MEND:
        return [events.HOST_KEY_MODE_MENDED(**names, fingerprint=fingerprint)]
    return []


def _is_foreign(action: Action) -> bool:
    """A good key that firstkey meets for the first time: it may have come with the image."""
    return action.kind == host_keys.KEEP and action.found.remembered is None


def _carry_out(site: Site, action: Action, pair: Pair | None) -> None:
    found = action.found
    if not (pair or action.kind in (host_keys.DERIVE, host_keys.MEND)):
        return
    place = site.tree.locate(found.wanted.file)
    if place is None:
        raise FirstkeyError(f"the directory of {found.wanted.file} vanished", reason=reasons.IO_ERROR)
    directory, name = place
    with directory:
        if pair:
            _publish(site, directory, name, pair)
        elif action.kind == host_keys.DERIVE and found.public:
            line = f"{found.public.line}\n".encode()
            directory.replace(
                f"{name}.pub", line, Looks(PUBLIC_MODE, label=_label(site, f"{found.wanted.file}.pub"))
            )
        if found.exposed and not pair:
            directory.set_mode(name, PRIVATE_MODE)


def _publish(site: Site, directory: Directory, name: str, pair: Pair) -> None:
    """The old public half goes first: at no instant do two halves of different keys stand side by side."""
    if pair.action.kind == host_keys.SET_ASIDE:
        _set_aside(directory, name)
    directory.remove(f"{name}.pub")
    file = pair.action.found.wanted.file
    _place_private(site, directory, name, pair.private, _label(site, file))
    directory.replace(f"{name}.pub", pair.public_line, Looks(PUBLIC_MODE, label=_label(site, f"{file}.pub")))


def _place_private(site: Site, directory: Directory, name: str, private: bytes, label: str | None) -> None:
    """0640 for the group ssh_keys where the system has it and its OpenSSH takes such a key, else 0600.

    Which of the two is right changed several times with OpenSSH's versions, so OpenSSH itself is the judge.
    """
    group = site.accounts.group_id(host_keys.KEY_GROUP)
    if group is None or not openssh.is_root():
        directory.replace(name, private, Looks(PRIVATE_MODE, label=label))
        return
    directory.replace(name, private, Looks(GROUP_MODE, (0, group), label))
    if not openssh.loads(f"{directory.on_host}/{name}"):
        directory.replace(name, private, Looks(PRIVATE_MODE, (0, 0), label))


def _set_aside(directory: Directory, name: str) -> None:
    """Keep what is broken under another name, for whoever wants to look at it."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for half in (name, f"{name}.pub"):
        if directory.status(half):
            directory.rename(half, directory.free_name(f"{half}.broken.{stamp}"))


def _staged_name(file: str) -> str:
    return file.rsplit("/", 1)[-1]


def _label(site: Site, path: str) -> str | None:
    return selinux.default_label(site.tree, path, "file")


def _comment(site: Site) -> str:
    """The comment of a new key: root@HOSTNAME, as ssh-keygen -A writes it."""
    name = site.hostname()
    return f"root@{name}" if name else "root"
