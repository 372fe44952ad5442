"""Carrying out what was decided about host keys: all new ones are made at once, and put in place one by one.

The order is: make the keys where nobody sees them, write the ledger, put them in place. So a key that sshd
could ever show is one that the ledger knows as firstkey's own, whenever the power goes.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

from firstkey import reasons
from firstkey.boot import host_key_files, host_key_survey, host_keys
from firstkey.boot.host_key_files import Pair
from firstkey.errors import FirstkeyError
from firstkey.model import CHANGED, FAILED, SKIPPED, UNCHANGED, HostKeyResult
from firstkey.reasons import Refusal
from firstkey.ssh import public_key
from firstkey.system import command, openssh
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.host_keys import Action
    from firstkey.boot.site import Site
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.command import Process
    from firstkey.system.files import Directory

RUN_DIRECTORY = "/run/firstkey"
LEAST_SECONDS = 0.5
"""What a key gets to be collected that was ready long before its turn came."""

_RESULTS = {host_keys.KEEP: UNCHANGED, host_keys.SKIP: SKIPPED, host_keys.FAIL: FAILED}
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")


class _Started(NamedTuple):
    """A key that is being made, under that name in the workshop."""

    action: Action
    name: str
    process: Process


class Making:
    """The host keys that are being made. Leaving the `with` block ends and removes what is unfinished.

    They are made in a directory of /run, for root alone: it is in memory, is gone with the boot, and no
    owner of a directory that HostKey names can lead ssh-keygen, which takes paths, anywhere else.
    """

    def __init__(self, site: Site, actions: Sequence[Action]) -> None:
        self._site = site
        self.actions = actions
        self._started: list[_Started] = []
        self._deadline = 0.0
        self._workshop: tuple[Directory, Directory, str] | None = None
        self._looks: Looks | None = None
        self._failures: dict[str, Refusal] = {}
        self._tried: set[str] = set()
        self.asides: dict[str, str] = {}
        """Where the old private half of a file was moved to."""

    def __enter__(self) -> Making:  # noqa: PYI034 - Self came with Python 3.11
        self._deadline = time.monotonic() + command.SECONDS
        if self._site.dry_run:
            return self
        self._sweep()
        try:
            for number, action in enumerate(filter(_makes_a_key, self.actions)):
                self._start(action, f"key{number}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for started in self._started:
            started.process.kill()
        if self._workshop:
            run, workshop, name = self._workshop
            self._workshop = None
            workshop.__exit__()
            with run:
                run.remove_directory(name)

    def finish(self) -> list[Pair]:
        """Wait for the keys that are being made; what failed is known to `results`."""
        pairs = []
        for started in self._started:
            try:
                pairs.append(self._finished(started))
            except FirstkeyError as error:  # noqa: PERF203 - one key that fails must not stop the others
                self._failures[started.action.file] = error.refusal
        self._started.clear()
        return pairs

    def publish(self, pairs: Sequence[Pair]) -> None:
        """Put the new pairs in place, and mend what only needs mending."""
        by_file = {pair.action.file: pair for pair in pairs}
        for action in self.actions:
            try:
                self._carry_out(action, by_file.get(action.file))
            except FirstkeyError as error:  # noqa: PERF203 - one key that fails must not stop the others
                self._failures[action.file] = error.refusal

    def results(self, pairs: Sequence[Pair]) -> list[HostKeyResult]:
        """What became of each wanted host key; for a dry run, what would."""
        made = {pair.action.file: pair.public for pair in pairs}
        results = [self._result(action, made.get(action.file)) for action in self.actions]
        return results if any(map(_is_usable, results)) else [_without_any(result) for result in results]

    def _result(self, action: Action, made: PublicKey | None) -> HostKeyResult:
        file, kind = action.file, action.found.wanted.kind
        failure = self._failures.get(file)
        shown = self._shown(action, made)
        known = shown or action.found.public
        return HostKeyResult(
            kind or (known.short_type if known else "unknown"),
            file,
            _failed(failure) if failure else _RESULTS.get(action.kind, CHANGED),
            shown.fingerprint if shown else None,
            failure or action.refusal,
            shown.line if shown else None,
            shown.bits if shown else 0,
        )

    def _shown(self, action: Action, made: PublicKey | None) -> PublicKey | None:
        """The key that sshd has at that place now, as far as that is known."""
        if action.file not in self._failures:
            return made or (None if action.makes_a_key else action.found.public)
        # What came before a failed attempt is still there; what an attempt left behind is not known.
        return None if action.file in self._tried else action.found.public

    # --- making -------------------------------------------------------------------------------

    def _start(self, action: Action, name: str) -> None:
        try:
            host_key_files.prove_writable(self._site.tree, action.file)
            path = f"{self._in_workshop().on_host}/{name}"
            kind = str(action.found.wanted.kind)
            process = openssh.start_generating(kind, path, comment=_comment(self._site))
        except FirstkeyError as error:
            self._failures[action.file] = error.refusal
            return
        self._started.append(_Started(action, name, process))

    def _sweep(self) -> None:
        """Remove the workshop of a run that was killed: there are private keys in it."""
        run = self._site.tree.open(RUN_DIRECTORY)
        if run:
            with run:
                run.remove_stale()

    def _in_workshop(self) -> Directory:
        """The private directory in which keys are made."""
        if self._workshop is None:
            run = self._site.tree.ensure(RUN_DIRECTORY, mode=0o755)
            name = run.temporary_name("hostkeys")
            self._workshop = run, run.make(name, Looks(0o700)), name
        return self._workshop[1]

    def _finished(self, started: _Started) -> Pair:
        action, name, process = started
        kind = str(action.found.wanted.kind)
        openssh.check_generated(
            kind, process.finish(seconds=max(LEAST_SECONDS, self._deadline - time.monotonic()))
        )
        workshop = self._in_workshop()
        private = workshop.read(name, limit=host_key_survey.LIMIT)
        public = workshop.read(f"{name}.pub", limit=host_key_survey.LIMIT)
        key = public_key.read_key(public.content.strip()) if public else None
        if private is None or public is None or key is None:
            raise FirstkeyError(f"ssh-keygen left no {kind} key behind", reason=reasons.KEYGEN_FAILED)
        if action.found.condition == host_keys.BROKEN:
            _check_judge(action, private.content, key)
        if self._looks is None:
            self._looks = host_key_files.private_looks(self._site, private.content, workshop)
        return Pair(action, private.content, public.content, key, self._looks)

    # --- putting in place ---------------------------------------------------------------------

    def _carry_out(self, action: Action, pair: Pair | None) -> None:
        if pair:
            self._tried.add(action.file)
            aside = host_key_files.publish(self._site, pair)
            if aside:
                self.asides[action.file] = aside
        elif action.keeps_the_key:
            host_key_files.amend(self._site, action)


def _makes_a_key(action: Action) -> bool:
    return action.makes_a_key


def _check_judge(action: Action, private: bytes, key: PublicKey) -> None:
    """Whoever called the old key broken must be able to tell a good one; else the old one stays."""
    line = openssh.public_half(private)
    told = public_key.read_key(line) if line else None
    if told is None or told.blob != key.blob:
        message = f"ssh-keygen cannot load the key that it has made itself, so {action.file} was left alone"
        raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED)


def _failed(failure: Refusal) -> str:
    """A type that ssh-keygen refuses is skipped, so long as there is another key."""
    return SKIPPED if failure.reason is reasons.KEYGEN_REFUSED else FAILED


def _is_usable(result: HostKeyResult) -> bool:
    return result.result in (CHANGED, UNCHANGED)


def _without_any(result: HostKeyResult) -> HostKeyResult:
    """Where there is no host key at all, sshd does not start: then a refused type is a failure."""
    is_refused = result.refusal and result.refusal.reason is reasons.KEYGEN_REFUSED
    return result._replace(result=FAILED) if is_refused else result


def _comment(site: Site) -> str:
    """The comment of a new key: root@HOSTNAME, as ssh-keygen -A writes it."""
    name = site.hostname() or ""
    return f"root@{name}" if _HOST_NAME.fullmatch(name) else "root"
