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
from firstkey.model import CHANGED, FAILED, OK, UNCHANGED, UNREACHABLE, Phase, Report
from firstkey.reasons import FirstkeyError, Refusal, Unreachable
from firstkey.system.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from firstkey.boot.accounts import Setup
    from firstkey.boot.site import Site
    from firstkey.metadata.client import Client
    from firstkey.model import Answer, UserResult
    from firstkey.ssh.public_key import PublicKey

ATTEMPT_SECONDS = 10.0
"""How long the service is asked at a time: then other instances' keys go without an answer, and host keys
that are made by now are put in place. Cut off sooner, a slow service would never come to its last answer.
"""
LONGEST_ATTEMPT_SECONDS = 300.0
"""The same where no host key is being made. It begins anew with short pauses, so this is to be seldom."""


class Job:
    """One run on one system.

    `connect` makes the client of the metadata service, which is asked for `wait` seconds. `ready` is for the
    daemon: it gets the report as soon as sshd may start, with or without an answer, and with host keys that
    may still be being made; false: the daemon asks again sooner than these are made. `ready_by` is when sshd
    starts in any case, on time.monotonic.
    """

    def __init__(
        self,
        site: Site,
        connect: Callable[[], Client],
        *,
        wait: float = float("inf"),
        ready: Callable[[Report], bool] | None = None,
        ready_by: float = 0.0,
    ) -> None:
        self._site = site
        self._connect = connect
        self._wait = wait
        self._ready = ready
        self._ready_by = ready_by
        self._client: Client | None = None
        self._started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._began = time.monotonic()
        self._phases: tuple[Phase, ...] = ()  # in the order in which they ended
        if site.dry_run:
            site.say(events.DRY_RUN())
        if site.tree.is_running_system and not site.dry_run:
            self._sshd = Sshd(site.tree)
        else:
            from firstkey.system import sshd_tree  # a boot works on the running system, and does its work

            self._sshd = sshd_tree.sshd_of(site.tree)
        self._store = LedgerStore(site, self._sshd.digest())
        self._warnings = [warning.refusal for warning in site.config.warnings]
        self._firmware = site.firmware_instance()
        known = self._store.ledger
        # What the firmware calls this instance, or what the service called it when the firmware said so.
        same = self._firmware is not None and self._firmware == known.firmware
        self._instance = known.instance if same else self._firmware
        self._generation = Generation(site, self._sshd, in_background=ready is not None)
        self._users: dict[tuple[str, str | None], UserResult] = {}  # by name and file
        self._setups: dict[str, Setup] = {}
        self._left: str | None = None  # which instance this proved to be, once another one's keys are gone

    def run(self) -> Report:
        """Everything. What goes wrong is in the report; only what was not foreseen is raised."""
        with self._generation as generation:
            done = self._before_sshd()
            if generation.is_pending and (generation.has_ended or not self._ready or self._ready(done)):
                self._publish(is_last=True)
                done = self._finished(done)
        return self._ended(done)

    def host_keys_only(self) -> Report:
        """Only the host keys; the network is not touched."""
        with self._generation:
            self._begin_host_keys()
            self._publish()
        return self._ended(self._finished(Report(OK, instance_id=self._instance)))

    def _before_sshd(self) -> Report:
        """All that sshd waits for."""
        self._begin_host_keys()
        if self._generation.began:
            # Loaded while ssh-keygen works, for which the boot waits anyway. What goes wrong goes wrong
            # again where that is reported, and costs no host key there.
            with suppress(Exception):
                from firstkey.boot import launch_keys  # noqa: F401

                self._client = self._connect()
        self._publish()
        self._set_up_users()
        if self._instance and not self._site.force and self._store.is_current(self._instance):
            # The firmware says that this is the instance where everything is done: there is nothing to ask.
            self._site.say(events.FIRMWARE_SKIP(instance_id=self._instance))
            from firstkey.boot.launch_keys import Installer

            with self._phase("launch keys: look"):
                installer = Installer(self._site, self._sshd, self._store, self._instance, self._setups)
                users = installer.check()
            return self._finished(Report(OK, instance_id=self._instance, users=tuple(users)))
        answer = self._answer()
        if isinstance(answer, FirstkeyError):
            self._site.say(events.IMDS_FAILED(reason=answer.reason.code, detail=answer.message))
            return self._finished(self._without_answer(answer))
        return self._finished(self._with_answer(answer))

    def _finished(self, draft: Report) -> Report:
        self._store.save()
        accounts = [result for setup in self._setups.values() for result in setup.results]
        draft = draft._replace(
            host_keys=tuple(self._generation.results()),
            accounts=tuple(accounts),
            warnings=(*self._store.warnings, *self._warnings),
            started=self._started,
            timeline=self._phases,
            dry_run=self._site.dry_run,
        )
        return draft.judged()

    def _ended(self, done: Report) -> Report:
        self._let_load()
        self._site.say(events.FINISHED(outcome=done.outcome, summary=done.summary))
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
            keys, ledger = host_key_files.survey(self._site, self._sshd, files, known, self._instance)
        self._store.ledger = ledger
        self._generation.begin(keys)

    def _sshd_host_keys(self) -> Sequence[str]:
        """Sshd's HostKey files; remembered for as long as its configuration is the same, byte for byte."""
        digest, known = self._store.sshd_digest, self._store.ledger
        if digest and known.sshd_digest == digest:
            return known.sshd_host_keys
        meaning = self._sshd.meaning("root")
        if meaning.refusal is None:
            # Host keys that were good under another configuration are looked at again.
            seen = tuple(key._replace(digest="") for key in known.host_keys)
            files = meaning.effective.host_keys
            self._store.ledger = known._replace(sshd_digest=digest, sshd_host_keys=files, host_keys=seen)
        elif meaning.refusal not in self._warnings:
            self._warnings.append(meaning.refusal)
            why = {"reason": meaning.refusal.reason.code, "detail": meaning.refusal.detail}
            self._site.say(events.SSHD_DEFAULTS_ASSUMED(**why))
        return meaning.effective.host_keys

    def _publish(self, *, is_last: bool = False) -> None:
        """Put in place what sshd waits for, at last all; the ledger knows of it before sshd can show it."""
        generation = self._generation
        phase = "background" if is_last else "make"
        with self._phase(f"host keys: {phase}", since=generation.began):
            news = generation.finish(is_last=is_last)
            pairs = [attempt.pair for attempt in news if attempt.pair]
            for pair in pairs:
                known = pair.known._replace(instance=self._instance, boot=self._site.boot_id())
                self._store.ledger = self._store.ledger.with_host_key(known)
            if pairs:
                self._store.save()
            generation.publish(news)
        results = {result.file: result for result in generation.results()}
        for attempt in () if self._site.dry_run else news:
            for entry in attempt.entries(results[attempt.key.file]):
                self._site.say(entry)

    def _let_load(self) -> None:
        """Once the host keys are in place: an sshd that is older does not show them by itself."""
        changed, self._generation.changed = self._generation.changed, {}
        if not changed or not self._site.tree.is_running_system:
            return
        from firstkey.boot import sshd_reload

        may_reload = self._ready is not None
        sshd_reload.let_load(self._site, self._sshd.options, changed, may_reload=may_reload)

    def _set_up_users(self) -> None:
        """Accounts that the configuration describes; host keys first, for useradd may take its time."""
        sections, names = self._site.config.users, self._site.config.keys.users
        described = [sections[name] for name in names if name in sections]
        if not described:
            return
        from firstkey.boot import accounts

        with self._phase("users"):
            self._setups = {user.name: accounts.set_up(self._site, user) for user in described}

    # --- which instance this is -----------------------------------------------------------------

    def _recognize(self, instance: str) -> None:
        """Say where this is another instance than before; host keys that came along from there go."""
        known = self._store.ledger.instance
        if instance not in (known, self._left):
            self._site.say(events.FIRMWARE(claim=self._site.firmware_claim()))
            if self._firmware not in (None, instance):
                reason = reasons.FIRMWARE_DISAGREES
                detail = f"the service says {instance}, the firmware {self._firmware}"
                self._warnings.append(Refusal(reason, detail))
                names = {"service": instance, "firmware": self._firmware}
                self._site.say(events.FIRMWARE_DISAGREES(**names, reason=reason.code))
            if known is not None:
                self._site.say(events.NEW_INSTANCE(old=known, new=instance))
        if instance == self._instance:
            return
        if self._instance and self._instance == self._firmware:
            # What was made under the name that the firmware gives: that is this instance's other name.
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
        instance = self._identity.instance_id if self._identity else self._instance
        if instance in (None, self._left):
            return
        self._recognize(instance)
        if self._store.ledger.of_other_instances(instance):
            self._install(instance, [], [])
        self._left = instance

    # --- the question ---------------------------------------------------------------------------

    @property
    def _identity(self) -> Answer | None:
        """What the service said last of the instance, keys or no keys; None: nothing yet."""
        return self._client.identity if self._client else None

    def _answer(self) -> Answer | FirstkeyError:
        """Ask until there is an answer or no time is left.

        The answer may never come. So another instance's keys go before sshd runs, and from then on all that
        is known is reported; host keys that sshd does not wait for are put in place when they are made.
        """
        now = time.monotonic()
        stops = [now + self._wait]
        if self._ready and now < self._ready_by:
            stops = [min(now + ATTEMPT_SECONDS, (now + self._ready_by) / 2), self._ready_by, *stops]
        error = Unreachable("the metadata service was not asked yet", reason=reasons.IMDS_UNREACHABLE)
        while True:
            if self._generation.is_pending and self._generation.has_ended:
                self._publish(is_last=True)
            if self._ready and len(stops) == 1:  # sshd runs
                self._ready(self._finished(self._without_answer(error)))
                self._let_load()
            seconds = ATTEMPT_SECONDS if self._generation.is_pending else LONGEST_ATTEMPT_SECONDS
            until = min(time.monotonic() + seconds, stops[0])
            answer = self._ask(until)
            if not isinstance(answer, Unreachable):
                return answer
            error = answer
            self._leave_other_instance()
            if until == stops[0]:
                stops = stops[1:]
                if not stops:
                    return error

    def _ask(self, deadline: float) -> Answer | FirstkeyError:
        """What the metadata service says. Failures are answers too, unforeseen ones included."""
        with self._phase("metadata"):
            try:
                self._client = self._client or self._connect()
                return self._client.ask(deadline=deadline)
            except FirstkeyError as error:
                return error
            except Exception as error:  # noqa: BLE001 - whatever an answer does to us, it costs no host key
                return FirstkeyError(f"asking failed: {error!r}", reason=reasons.INTERNAL_ERROR)

    def _without_answer(self, error: FirstkeyError) -> Report:
        self._leave_other_instance()
        return Report(
            UNREACHABLE if isinstance(error, Unreachable) else FAILED,
            instance_id=self._instance,
            imds=self._identity,
            users=tuple(self._users.values()),
            refusal=error.refusal,
        )

    # --- launch keys ----------------------------------------------------------------------------

    def _with_answer(self, answer: Answer) -> Report:
        from firstkey.boot import launch_keys

        named = {"endpoint": answer.endpoint, "version": answer.version}
        self._site.say(events.IMDS_ANSWER(**named, instance_id=answer.instance_id))
        self._recognize(answer.instance_id)
        if not answer.keys:
            self._site.say(events.NO_KEY_PAIR())
        good, judged = launch_keys.judge(answer.keys)
        for key in judged:
            if key.refusal:
                why = {"reason": key.refusal.reason.code, "detail": key.refusal.detail}
                self._site.say(events.KEY_REFUSED(index=key.number, **why))
        results = self._install(answer.instance_id, self._site.config.keys.users, good)
        # A key that could not be had may be had another time: no user counts as served before.
        self._remember_service(answer, [] if any(key.refusal for key in judged) else results)
        no_key = Refusal(reasons.NO_KEY_PAIR, "the instance was launched without a key pair")
        return Report(
            OK,
            instance_id=answer.instance_id,
            imds=answer,
            keys=judged,
            users=tuple(self._users.values()),
            refusal=None if answer.keys else no_key,
        )

    def _install(self, instance: str, names: Sequence[str], keys: Sequence[PublicKey]) -> list[UserResult]:
        from firstkey.boot.launch_keys import Installer

        installer = Installer(self._site, self._sshd, self._store, instance, self._setups)
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
        known = self._store.ledger
        served = {each.name: each for each in known.served if known.instance == answer.instance_id}
        troubled = {user.name for user in results if not user.is_well}
        # Of a user's files, the first is the one for the launch keys.
        files = {user.name: user.file for user in reversed(results)}
        for user in results:
            served.pop(user.name, None)
            conditions = self._store.conditions(user.name)
            if user.name not in troubled and conditions:
                served[user.name] = Served(user.name, files[user.name], conditions)
        self._store.save(
            known._replace(
                instance=answer.instance_id, firmware=self._firmware, served=tuple(served.values())
            )
        )
