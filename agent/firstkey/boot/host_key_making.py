"""Carrying out what was decided about host keys: all new ones are made at once, and put in place one by one.

The order is: make the keys where nobody sees them, write the ledger, put them in place. So a key that sshd
could ever show is one that the ledger knows as firstkey's own, whenever the power goes.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.boot import host_key_files, host_key_survey, host_keys
from firstkey.boot.host_key_files import Pair
from firstkey.errors import FirstkeyError
from firstkey.model import CHANGED, FAILED, SKIPPED, UNCHANGED, HostKeyResult
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal
from firstkey.ssh import public_key
from firstkey.system import command, head_start, openssh
from firstkey.system.files import Looks
from firstkey.system.head_start import HeadStart

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


class _Started(NamedTuple):
    """A key that is being made: under that name in the workshop, or since before firstkey was there."""

    action: Action
    name: str
    maker: Process | HeadStart


class _Halves(NamedTuple):
    """The content of both files of a key pair."""

    private: bytes
    public: bytes


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
        self.began: float | None = None
        """When (time.monotonic) keys began to be made, beside everything else; None where none is."""

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
            started.maker.kill()
        if self._site.tree.is_running_system and not self._site.dry_run:
            head_start.remove()
        if self._workshop:
            run, workshop, name = self._workshop
            self._workshop = None
            workshop.__exit__()
            # What stays is swept by the next run, and no reason to go without launch keys.
            with run, suppress(FirstkeyError):
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
            () if failure else action.changes,
        )

    def _shown(self, action: Action, made: PublicKey | None) -> PublicKey | None:
        """The key that sshd has at that place now, as far as that is known."""
        if action.file not in self._failures:
            return made or (None if action.makes_a_key else action.found.public)
        # What came before a failed attempt is still there; what an attempt left behind is not known.
        return None if action.file in self._tried else action.found.public

    # --- making -------------------------------------------------------------------------------

    def _start(self, action: Action, name: str) -> None:
        self.began = self.began or time.monotonic()
        try:
            host_key_files.prove_writable(self._site.tree, action.file)
            maker = self._begun_before(action) or self._begun(action, name)
        except FirstkeyError as error:
            self._failures[action.file] = error.refusal
            return
        self._started.append(_Started(action, name, maker))

    def _begun_before(self, action: Action) -> HeadStart | None:
        """The head start, which is one RSA key, for whichever file wants one first."""
        is_wanted = action.found.wanted.kind == "rsa" and self._site.tree.is_running_system
        is_taken = any(isinstance(started.maker, HeadStart) for started in self._started)
        return head_start.join() if is_wanted and not is_taken else None

    def _begun(self, action: Action, name: str) -> Process:
        path = f"{self._in_workshop().on_host}/{name}"
        comment = head_start.comment(self._site.hostname() or "")
        return openssh.start_generating(str(action.found.wanted.kind), path, comment=comment)

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
        action = started.action
        halves = self._halves(started)
        key = public_key.read_key(halves.public.strip()) if halves else None
        if halves is None or key is None:
            message = f"ssh-keygen left no {action.found.wanted.kind} key behind"
            raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED)
        if action.found.condition == host_keys.BROKEN:
            _check_judge(action, halves.private, key)
        if self._looks is None:
            self._looks = host_key_files.private_looks(self._site, halves.private, self._in_workshop())
        return Pair(action, halves.private, halves.public, key, self._looks)

    def _halves(self, started: _Started) -> _Halves | None:
        action, name, maker = started
        if isinstance(maker, HeadStart):
            early = self._early(maker)
            if early:
                return early
            # One that came to nothing is no failure: there is time for another.
            maker = self._begun(action, name)
        outcome = maker.finish(seconds=self._left())
        openssh.check_generated(str(action.found.wanted.kind), outcome)
        return _read(self._in_workshop(), name)

    def _early(self, maker: HeadStart) -> _Halves | None:
        """What the head start has made by the middle of the time that there is; nobody takes it twice."""
        maker.wait(seconds=self._left() / 2)
        directory = self._site.tree.open(head_start.DIRECTORY)
        if directory is None:
            return None
        with directory:
            halves = _read(directory, head_start.KEY)
        head_start.remove()
        return halves

    def _left(self) -> float:
        return max(LEAST_SECONDS, self._deadline - time.monotonic())

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


def _read(directory: Directory, name: str) -> _Halves | None:
    private = directory.read(name, limit=host_key_survey.LIMIT)
    public = directory.read(f"{name}.pub", limit=host_key_survey.LIMIT)
    return _Halves(private.content, public.content) if private and public else None
