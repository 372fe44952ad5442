"""The main job, once: host keys and launch keys, for the instance that this is.

Host keys need no network, so they are made first; then the metadata service is asked. Those that sshd need
not wait for go on being made meanwhile.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress

from firstkey import TYPE_CHECKING, events, reasons
from firstkey.boot import host_key_files
from firstkey.boot.host_key_files import Generation
from firstkey.boot.ledger import LedgerStore, Served
from firstkey.model import CHANGED, OK, UNCHANGED, UNREACHABLE, Phase, Report
from firstkey.reasons import FirstkeyError, Refusal, Unreachable
from firstkey.system.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from firstkey.boot.accounts import Setup
    from firstkey.boot.target import Target
    from firstkey.metadata.client import Client
    from firstkey.model import Answer, UserResult
    from firstkey.ssh.public_key import PublicKey

ATTEMPT_SECONDS = 10.0
"""How long one attempt to get an answer lasts. After it, other instances' keys go without an answer, and the
host keys that are made by then are put in place. In a shorter one, a slow service would get nothing across.
"""
LONGEST_ATTEMPT_SECONDS = 300.0
"""The same where no host key is being made. Each attempt begins with short pauses, so few are better."""


class Job:
    """One run on one system.

    `connect` makes the client of the metadata service, which is asked for `wait` seconds. The daemon passes
    `ready`, which gets the report as soon as sshd may start: there may be no answer yet, and host keys that
    are still being made. If it returns false, the job ends without these: the daemon runs another one soon.
    `ready_by` is when sshd starts in any case, on time.monotonic.
    """

    def __init__(
        self,
        target: Target,
        connect: Callable[[], Client],
        *,
        wait: float = float("inf"),
        ready: Callable[[Report], bool] | None = None,
        ready_by: float = 0.0,
    ) -> None:
        self._target = target
        self._connect = connect
        self._wait = wait
        self._ready = ready
        self._ready_by = ready_by
        self._client: Client | None = None
        self._started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._began = time.monotonic()
        self._phases: tuple[Phase, ...] = ()  # in the order in which they ended
        if target.dry_run:
            target.log(events.DRY_RUN())
        if target.tree.is_running_system and not target.dry_run:
            self._sshd = Sshd(target.tree)
        else:
            from firstkey.system import sshd_tree  # a boot works on the running system, and does its work

            self._sshd = sshd_tree.sshd_of(target.tree)
        self._store = LedgerStore(target, self._sshd.digest())
        self._warnings = [warning.refusal for warning in target.config.warnings]
        self._firmware = target.firmware_instance()
        known = self._store.ledger
        # What the firmware calls this instance, or what the service called it when the firmware said so.
        same = self._firmware is not None and self._firmware == known.firmware
        self._instance = known.instance if same else self._firmware
        self._generation = Generation(target, self._sshd, in_background=ready is not None)
        self._setups: dict[str, Setup] = {}
        self._problem: FirstkeyError | None = None  # why the service gave no keys, or none so far
        self._imds: Answer | None = None  # what the service said last, the keys as they were judged
        self._users: dict[tuple[str, str | None], UserResult] = {}  # by name and file
        self._left: str | None = None  # which instance this proved to be, once another one's keys are gone

    def run(self) -> Report:
        """Everything. What goes wrong is in the report; only what was not foreseen is raised."""
        with self._generation as generation:
            self._begin_host_keys()
            if generation.began:
                # Loaded while ssh-keygen works, for which the boot waits anyway. What goes wrong goes wrong
                # again where that is reported, and costs no host key there.
                with suppress(Exception):
                    from firstkey.boot import launch_keys  # noqa: F401

                    self._client = self._connect()
            self._publish()
            self._set_up_users()
            self._launch_keys()
            ready = self._ready
            if generation.is_pending and (generation.has_ended or not ready or ready(self._report())):
                self._publish(is_last=True)
        return self._ended()

    def host_keys_only(self) -> Report:
        """Only the host keys; the network is not touched."""
        with self._generation:
            self._begin_host_keys()
            self._publish()
        return self._ended()

    def _report(self) -> Report:
        """What became of everything so far."""
        self._store.save()
        return Report(
            UNREACHABLE if isinstance(self._problem, Unreachable) else OK,
            instance_id=self._instance,
            imds=self._imds,
            keys=self._imds.keys if self._imds else (),
            users=tuple(self._users.values()),
            host_keys=tuple(self._generation.results()),
            accounts=tuple(result for setup in self._setups.values() for result in setup.results),
            started=self._started,
            timeline=self._phases,
            warnings=(*self._store.warnings, *self._warnings),
            dry_run=self._target.dry_run,
            refusal=self._problem.refusal if self._problem else None,
        ).judged()

    def _ended(self) -> Report:
        done = self._report()
        self._let_load()
        self._target.log(events.FINISHED(outcome=done.outcome, summary=done.summary))
        return done

    @contextmanager
    def _phase(self, name: str, *, since: float | None = None) -> Iterator[None]:
        """Measure what is done inside, and what other processes did for it `since` then (time.monotonic)."""
        start = since or time.monotonic()
        try:
            yield
        finally:
            begin, end = (round((moment - self._began) * 1000) for moment in (start, time.monotonic()))
            *earlier, last = *self._phases, Phase(name, begin, end)
            if earlier and earlier[-1].phase == name:  # one phase: there may be no end of these
                last = last._replace(start_ms=earlier.pop().start_ms)
            self._phases = (*earlier, last)

    # --- host keys and accounts -----------------------------------------------------------------

    def _begin_host_keys(self) -> None:
        """Look at all of them, and begin to make those that are missing, broken, or another instance's."""
        with self._phase("host keys: look"):
            files, known = self._sshd_host_keys(), self._store.ledger
            keys, ledger = host_key_files.survey(self._target, self._sshd, files, known, self._instance)
        self._store.ledger = ledger
        self._generation.begin(keys)

    def _sshd_host_keys(self) -> Sequence[str]:
        """Sshd's HostKey files; remembered as long as its program and configuration are the same."""
        digest, known = self._store.sshd_digest, self._store.ledger
        digest = digest and f"{digest} {self._sshd.program_stamp()}"
        if digest and known.sshd_digest == digest:
            return known.sshd_host_keys
        meaning = self._sshd.meaning("root")
        if meaning.refusal is None:
            # Host keys that were good under another configuration are looked at again.
            seen = tuple(key._replace(digest="") for key in known.host_keys)
            files, is_strict = meaning.effective.host_keys, meaning.effective.first("strictmodes") != "no"
            known = known._replace(sshd_digest=digest, sshd_host_keys=files, sshd_is_strict=is_strict)
            self._store.ledger = known._replace(host_keys=seen)
        elif meaning.refusal not in self._warnings:
            self._warnings.append(meaning.refusal)
            self._target.log(events.SSHD_DEFAULTS_ASSUMED(**meaning.refusal.fields))
        return meaning.effective.host_keys

    def _publish(self, *, is_last: bool = False) -> None:
        """Put in place what sshd waits for, at last all; the ledger knows of it before sshd can show it."""
        generation = self._generation
        with self._phase(f"host keys: {'background' if is_last else 'make'}", since=generation.began):
            news = generation.finish(is_last=is_last)
            for known in (key.remembered for key in news if key.pair and key.remembered):
                own = known._replace(instance=self._instance, boot=self._target.boot_id())
                self._store.ledger = self._store.ledger.with_host_key(own)
            self._store.save()
            generation.publish(news)
        results = {result.file: result for result in generation.results()}
        for key in () if self._target.dry_run else news:
            for entry in key.entries(results[key.file]):
                self._target.log(entry)

    def _let_load(self) -> None:
        """Once the host keys are in place: an sshd that is older does not show them by itself."""
        changed, self._generation.changed = self._generation.changed, {}
        if changed and self._target.tree.is_running_system:
            from firstkey.boot import sshd_reload

            may_reload = self._ready is not None
            sshd_reload.let_load(self._target, self._sshd.start.options, changed, may_reload=may_reload)

    def _set_up_users(self) -> None:
        """Accounts that the configuration describes; host keys first, for useradd may take its time."""
        sections, names = self._target.config.users, self._target.config.keys.users
        if described := [sections[name] for name in names if name in sections]:
            from firstkey.boot import accounts

            with self._phase("users"):
                self._setups = {user.name: accounts.set_up(self._target, user) for user in described}

    # --- which instance this is -----------------------------------------------------------------

    def _recognize(self, instance: str) -> None:
        """Say where this is another instance than before; host keys that came along from there go."""
        known = self._store.ledger.instance
        if instance not in (known, self._left):
            if claim := self._target.firmware_claim():
                self._target.log(events.FIRMWARE(claim=claim))
            if self._firmware not in (None, instance):
                detail = f"the service says {instance}, the firmware {self._firmware}"
                why = Refusal(reasons.FIRMWARE_DISAGREES, detail)
                self._warnings.append(why)
                names = {"service": instance, "firmware": self._firmware}
                self._target.log(events.FIRMWARE_DISAGREES(**names, **why.fields))
            if known is not None:
                self._target.log(events.NEW_INSTANCE(old=known, new=instance))
        if instance == self._instance:
            return
        if self._instance and self._instance == self._firmware:
            # A container or a test's service: what was made under the firmware's name is this instance's own.
            keys = (
                key._replace(instance=instance) if key.instance == self._firmware else key
                for key in self._store.ledger.host_keys
            )
            self._store.ledger = self._store.ledger._replace(host_keys=tuple(keys))
        self._instance = instance
        self._begin_host_keys()
        self._publish()

    def _leave_other_instance(self) -> None:
        """Once the instance is known, by the firmware or the service: another one's keys go.

        They do not wait until this one's own can be had, which may be after sshd has started.
        """
        instance = self._imds.instance_id if self._imds else self._instance
        if instance in (None, self._left):
            return
        self._recognize(instance)
        if self._store.ledger.of_other_instances(instance):
            self._install(instance, [], [])
        self._left = instance

    def _answer(self) -> Answer | None:
        """Ask until there is an answer or no time is left.

        The answer may never come. So another instance's keys go before sshd runs, and from then on all that
        is known is reported; host keys that sshd does not wait for are put in place when they are made.
        """
        now = time.monotonic()
        stops = [now + self._wait]
        if self._ready and now < self._ready_by:
            stops = [min(now + ATTEMPT_SECONDS, (now + self._ready_by) / 2), self._ready_by, *stops]
        self._problem = Unreachable("the metadata service was not asked yet", reason=reasons.IMDS_UNREACHABLE)
        for stop in stops:
            until = 0.0
            while until < stop and isinstance(self._problem, Unreachable):
                if self._generation.is_pending and self._generation.has_ended:
                    self._publish(is_last=True)
                if self._ready and stop == stops[-1]:  # sshd runs
                    self._leave_other_instance()
                    self._ready(self._report())
                    self._let_load()
                seconds = ATTEMPT_SECONDS if self._generation.is_pending else LONGEST_ATTEMPT_SECONDS
                until = min(time.monotonic() + seconds, stop)
                if answer := self._ask(until):
                    return answer
        self._target.log(events.IMDS_FAILED(**self._problem.refusal.fields))
        return None

    def _ask(self, deadline: float) -> Answer | None:
        """What the metadata service says; None: nothing that helps, and `_problem` is why."""
        with self._phase("metadata"):
            try:
                self._client = self._client or self._connect()
                return self._client.ask(deadline=deadline)
            except FirstkeyError as error:
                self._problem = error
            except Exception as error:  # noqa: BLE001 - whatever an answer does to us, it costs no host key
                self._problem = FirstkeyError(f"asking failed: {error!r}", reason=reasons.INTERNAL_ERROR)
        self._imds = self._client.identity if self._client else None
        self._leave_other_instance()
        return None

    def _launch_keys(self) -> None:
        """Ask which there are and bring them to their users, where that is not all done."""
        from firstkey.boot import launch_keys

        if self._instance and not self._target.force and self._store.is_current(self._instance):
            # The firmware says that this is the instance where everything is done: there is nothing to ask.
            self._target.log(events.FIRMWARE_SKIP(instance_id=self._instance))
            with self._phase("launch keys: look"):
                given = (self._target, self._sshd, self._store, self._instance, self._setups)
                checked = launch_keys.Installer(*given).check()
            self._users = {(user.name, user.file): user for user in checked}
            return
        if (answer := self._answer()) is None:
            return
        self._problem = None
        named = {"endpoint": answer.endpoint, "version": answer.version}
        self._target.log(events.IMDS_ANSWER(**named, instance_id=answer.instance_id))
        self._recognize(answer.instance_id)
        if not answer.keys:
            self._target.log(events.NO_KEY_PAIR())
            message = "the instance was launched without a key pair"
            self._problem = FirstkeyError(message, reason=reasons.NO_KEY_PAIR)
        good, judged = launch_keys.judge(answer.keys)
        self._imds = answer._replace(keys=judged)
        refused = [(key.number, key.refusal) for key in judged if key.refusal]
        for number, why in refused:
            self._target.log(events.KEY_REFUSED(index=number, **why.fields))
        results = self._install(answer.instance_id, self._target.config.keys.users, good)
        # A key that could not be had may be had another time: no user counts as served before.
        self._remember_service(answer, [] if refused else results)

    def _install(self, instance: str, names: Sequence[str], keys: Sequence[PublicKey]) -> list[UserResult]:
        from firstkey.boot.launch_keys import Installer

        installer = Installer(self._target, self._sshd, self._store, instance, self._setups)
        with self._phase("launch keys"):
            results = installer.install(names, keys)
        self._warnings += installer.warnings
        for user in results:
            # An earlier visit of this run to the same file only took keys away.
            gone = self._users.pop((user.name, user.file), user._replace(revoked=())).revoked
            result = CHANGED if gone and user.result == UNCHANGED else user.result
            self._users[user.name, user.file] = user._replace(result=result, revoked=(*gone, *user.revoked))
        return results

    def _remember_service(self, answer: Answer, results: Sequence[UserResult]) -> None:
        """Who has been served needs no asking on the next boot, if the firmware knows the instance."""
        known, done = self._store.ledger, {user.name for user in results}
        before = known.served if known.instance == answer.instance_id else ()
        served = {each.name: each for each in before if each.name not in done}
        for user in results:
            conditions = user.name in self._target.config.keys.holders and self._store.conditions(user.name)
            if conditions and all(each.is_well for each in results if each.name == user.name):
                # Of a user's files, the first is the one for the launch keys; without any, there is none.
                served.setdefault(
                    user.name, Served(user.name, user.file if answer.keys else None, conditions)
                )
        known = known._replace(instance=answer.instance_id, firmware=self._firmware)
        self._store.save(known._replace(served=tuple(sorted(served.values()))))
