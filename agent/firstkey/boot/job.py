"""The main job, once: host keys and launch keys, for the instance that this is.

Host keys need no network, so they are made first, and while ssh-keygen works the metadata service is asked.
Those that sshd need not wait for go on being made meanwhile, and are put in place at the end.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress

from firstkey import TYPE_CHECKING, events, reasons
from firstkey.boot import host_key_files, host_keys
from firstkey.boot.host_key_files import Generation
from firstkey.boot.host_keys import Judge
from firstkey.boot.ledger import LedgerStore, Served
from firstkey.model import CHANGED, FAILED, OK, UNCHANGED, UNREACHABLE, HostKeyResult, Imds, Phase, Report
from firstkey.reasons import FirstkeyError, Refusal, Unreachable
from firstkey.system.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from firstkey.boot.accounts import Setup
    from firstkey.boot.host_keys import Action
    from firstkey.boot.ledger import Ledger
    from firstkey.boot.site import Site
    from firstkey.metadata.client import Answer, Client
    from firstkey.model import UserResult
    from firstkey.ssh.public_key import PublicKey

FIRST_ATTEMPT_SECONDS = 10.0
"""How long the attempt may take at most that is made while host keys wait to be put in place."""
LOOK_SECONDS = 2.0
"""How long it is asked, once sshd runs, before a look whether the last host keys are made."""


class Timeline:
    """The phases of a run, in the order in which they ended."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.phases: tuple[Phase, ...] = ()

    @contextmanager
    def phase(self, name: str, *, since: float | None = None) -> Iterator[None]:
        """Measure what is done inside, and what other processes did for it `since` then (time.monotonic)."""
        start = self._at(since or time.monotonic())
        try:
            yield
        finally:
            self.phases = (*self.phases, Phase(name, start, self._at(time.monotonic())))

    def _at(self, moment: float) -> int:
        return round((moment - self._start) * 1000)


class Job:
    """One run on one system. `deadline` is on time.monotonic; None: until there is an answer.

    `unheld` is for a platform that has no metadata service: called once host keys are in place and accounts
    made, before the service is asked at all. `ready` is for the daemon: it gets the report as soon as sshd
    may start, where host keys are still being made then; false: it asks again sooner than these are made.
    `ready_by` is when sshd starts in any case, on time.monotonic.
    """

    def __init__(
        self,
        site: Site,
        *,
        connect: Callable[[], Client],
        deadline: float | None,
        unheld: Callable[[], None] | None = None,
        ready: Callable[[Report], bool] | None = None,
        ready_by: float = 0.0,
    ) -> None:
        self._site = site
        self._connect = connect
        self._deadline = deadline
        self._unheld = unheld
        self._ready = ready
        self._ready_by = ready_by
        self._client: Client | None = None
        self._timeline = Timeline()
        if site.dry_run:
            site.say(events.DRY_RUN())
        self._sshd = _sshd(site)
        self._store = LedgerStore(site, self._sshd.digest())
        self._warnings = [warning.refusal for warning in site.config.warnings]
        self._firmware = site.firmware_instance()
        self._instance = self._instance_by_firmware()
        digest = self._store.sshd_digest
        self._judge = Judge(
            has_changed=digest is None or digest != self._store.ledger.sshd_digest,
            ask=lambda: self._sshd.meaning("root").effective,
        )
        self._generation = Generation(site, self._judge, in_background=ready is not None)
        self._cleared: list[UserResult] = []
        self._setups: dict[str, Setup] = {}
        self._unread: frozenset[str] = frozenset()
        self._said: str | None = None

    def run(self) -> Report:
        """Everything. What goes wrong is in the report; only what nobody foresaw is raised."""
        with self._generation as generation:
            done = self._before_sshd()
            goes_on = True
            if generation.is_pending and self._ready and not generation.has_ended:
                goes_on = self._ready(done)
            if generation.is_pending and goes_on:
                if self._ready and time.monotonic() > self._ready_by:
                    self._let_load()  # sshd runs, perhaps with host keys that were replaced just now
                made = self._publish("host keys: background", is_last=True)
                done = self._finished(done._replace(host_keys=tuple(made)))
        return self._told(done)

    def _before_sshd(self) -> Report:
        made, answer = self._host_keys_and_answer()
        if isinstance(answer, FirstkeyError):
            return self._finished(self._without_answer(answer, self._leave_other_instance(made)))
        if answer is None:
            return self._finished(self._up_to_date(made))
        made = self._replace_clones(answer.instance_id, made)
        self._set_up_users()
        return self._finished(self._with_answer(answer, made))

    def host_keys_only(self) -> Report:
        """Only the host keys; the network is not touched."""
        with self._generation as generation:
            generation.begin(self._survey())
            made = self._publish()
        return self._told(self._finished(Report(OK, instance_id=self._instance, host_keys=tuple(made))))

    def _ask(self, question: Callable[[Client], Answer]) -> Answer | FirstkeyError:
        """What the metadata service says. Failures are answers too, those that nobody foresaw included."""
        with self._timeline.phase("metadata"):
            try:
                self._client = self._client or self._connect()
                return question(self._client)
            except FirstkeyError as error:
                return error
            except Exception as error:  # noqa: BLE001 - whatever an answer does to us, it costs no host key
                return FirstkeyError(f"asking failed: {error!r}", reason=reasons.INTERNAL_ERROR)

    def _ask_once(self) -> Answer | FirstkeyError:
        """One attempt, which ends long before the boot deadline: sshd fails where there is no host key yet.

        On a platform that has no such service none is made before the host keys are in place.
        """
        if self._unheld:
            return Unreachable("the metadata service was not asked yet", reason=reasons.IMDS_UNREACHABLE)
        seconds = min(FIRST_ATTEMPT_SECONDS, self._site.config.imds.boot_timeout / 2)
        soon = min(time.monotonic() + seconds, float("inf") if self._deadline is None else self._deadline)
        return self._ask(lambda client: client.ask_once(deadline=soon))

    def _ask_until(self, deadline: float | None, known: str | None) -> Answer | FirstkeyError:
        """Until there is an answer, time is over, or this proves to be another instance than `known`."""
        return self._ask(lambda client: client.ask(deadline=deadline, known=known))

    @property
    def _identity(self) -> Answer | None:
        """What the service said last of the instance, keys or no keys; None: nothing yet."""
        return self._client.identity if self._client else None

    # --- which instance this is -----------------------------------------------------------------

    def _instance_by_firmware(self) -> str | None:
        """What the firmware calls this instance, or what the service called it when the firmware said so."""
        known = self._store.ledger
        if self._firmware and self._firmware == known.firmware:
            return known.instance
        return self._firmware

    def _is_current(self) -> bool:
        """The firmware says that this is the instance where everything is done: there is nothing to ask."""
        if self._site.force or self._instance is None:
            return False
        return self._store.is_current(self._instance)

    def _up_to_date(self, made: list[HostKeyResult]) -> Report:
        self._site.say(events.FIRMWARE_SKIP(instance_id=self._instance))
        from firstkey.boot import key_file  # no line of a file is looked at

        with self._timeline.phase("launch keys: look"):
            users = key_file.check(self._site, self._store.ledger)
        return Report(OK, instance_id=self._instance, users=tuple(users), host_keys=tuple(made))

    # --- host keys, accounts, and the question --------------------------------------------------

    def _host_keys_and_answer(self) -> tuple[list[HostKeyResult], Answer | FirstkeyError | None]:
        """Ask once while the host keys are being made; put them in place; then go on asking."""
        self._generation.begin(self._survey())
        answer = None if self._is_current() else self._ask_once()
        if self._generation.began:
            _load_ahead()
        made = self._publish()
        if isinstance(answer, FirstkeyError):
            made = self._leave_other_instance(made)
        if answer is None or isinstance(answer, FirstkeyError):
            self._set_up_users()  # else once the host keys are known to be this instance's
        if isinstance(answer, Unreachable) or (answer is None and not self._is_current()):
            return self._ask_on(made)
        return made, answer

    def _ask_on(self, made: list[HostKeyResult]) -> tuple[list[HostKeyResult], Answer | FirstkeyError]:
        """Go on asking until there is an answer, or no time is left."""
        from firstkey.metadata.answers import Retriable

        if self._unheld:
            self._unheld()
        made, answer = self._ask_past_ready(made, self._instance or self._store.ledger.instance)
        if isinstance(answer, Retriable):
            # Once in a run: a service that calls the instance by two names in turn is not followed for ever.
            made = self._leave_other_instance(made)
            made, answer = self._ask_past_ready(made, None)
        return made, answer

    def _ask_past_ready(
        self, made: list[HostKeyResult], known: str | None
    ) -> tuple[list[HostKeyResult], Answer | FirstkeyError]:
        """Go on asking. Sshd runs from a moment on, and the answer may never come: then all keys are due."""
        from firstkey.metadata.answers import Retriable

        due = 0.0 if self._unheld else self._ready_by
        while self._generation.is_pending:
            if self._generation.has_ended and time.monotonic() >= due:
                made = self._publish("host keys: background", is_last=True)
                self._let_load()
                break
            answer = self._ask_until(max(due, time.monotonic() + LOOK_SECONDS), known)
            if isinstance(answer, Retriable) or not isinstance(answer, Unreachable):
                return made, answer
        return made, self._ask_until(self._deadline, known)

    def _leave_other_instance(self, made: list[HostKeyResult]) -> list[HostKeyResult]:
        """Where the instance is known and no keys are: another one's go without waiting for its own.

        The service may have told it, or the firmware alone.
        """
        instance = self._identity.instance_id if self._identity else self._instance
        if instance is None:
            return made
        if instance != self._instance:
            self._say_instance(instance)
            made = self._replace_clones(instance, made)
        if self._store.ledger.of_other_instances(instance):
            self._cleared += self._install(instance, [], [])
        return made

    def _set_up_users(self) -> None:
        """Accounts that the configuration describes, once; host keys first, for useradd may take its time."""
        sections, names = self._site.config.users, self._site.config.keys.users
        described = [sections[name] for name in names if name in sections]
        if not described or self._setups:
            return
        from firstkey.boot import accounts

        with self._timeline.phase("users"):
            self._setups = {user.name: accounts.set_up(self._site, user) for user in described}

    def _survey(self) -> list[Action]:
        with self._timeline.phase("host keys: look"):
            files = self._sshd_host_keys()
            return host_key_files.survey(self._site, files, self._store.ledger, self._instance, self._judge)

    def _sshd_host_keys(self) -> Sequence[str]:
        """Sshd's HostKey files; remembered for as long as its configuration is the same, byte for byte."""
        digest, known = self._store.sshd_digest, self._store.ledger
        if digest and known.sshd_digest == digest:
            return known.sshd_host_keys
        meaning = self._sshd.meaning("root")
        if meaning.refusal is None:
            self._store.ledger = known._replace(
                sshd_digest=digest,
                sshd_host_keys=meaning.effective.host_keys,
                sshd_has_key_agent=meaning.effective.has_host_key_agent,
            )
        elif meaning.refusal not in self._warnings:
            self._warnings.append(meaning.refusal)
            why = {"reason": meaning.refusal.reason.code, "detail": meaning.refusal.detail}
            self._site.say(events.SSHD_DEFAULTS_ASSUMED(**why))
        return meaning.effective.host_keys

    def _publish(self, phase: str = "host keys: make", *, is_last: bool = False) -> list[HostKeyResult]:
        """Put in place what is made by now, at last all; returns what became of each host key so far."""
        generation = self._generation
        with self._timeline.phase(phase, since=generation.began):
            pairs = generation.finish(is_last=is_last)
            mark = (self._instance, self._site.boot_id())
            made = [pair.record(*mark) for pair in pairs]
            ledger = host_keys.remembered(self._store.ledger, generation.todo, made, mark)
            if pairs:
                self._store.save(ledger)
            self._store.ledger = ledger
            actions = [] if self._site.dry_run else generation.publish(pairs)
        results = generation.results()
        by_file = {result.file: result for result in results}
        for action in actions:
            for entry in host_keys.entries(by_file[action.file], action, generation.backups.get(action.file)):
                self._site.say(entry)
        return results

    def _let_load(self) -> None:
        """Once the host keys are in place: an sshd that is older does not show them by itself."""
        changed, self._generation.changed = self._generation.changed, {}
        if not changed or not self._site.tree.is_running_system:
            return
        from firstkey.boot import sshd_reload

        sshd_reload.let_load(self._site, changed, may_reload=self._ready is not None)

    def _replace_clones(self, instance: str, made: list[HostKeyResult]) -> list[HostKeyResult]:
        """Now that the instance is known: keys that came along from another one go, before sshd starts."""
        if instance == self._instance:
            return made
        known = self._store.ledger
        if self._instance and self._instance == self._firmware:
            known = self._made_here(known, instance)
        self._store.ledger = host_keys.bound(known, instance, self._site.boot_id())
        self._instance = instance
        whose = (host_keys.KEEP, host_keys.REPLACE)  # what else was to be done was done before
        self._generation.begin([action for action in self._survey() if action.kind in whose])
        return self._publish()

    def _made_here(self, known: Ledger, instance: str) -> Ledger:
        """What was made under the name that this firmware gives: this is the instance's other name."""
        keys = (
            key._replace(instance=instance) if key.instance == self._firmware else key
            for key in known.host_keys
        )
        return known._replace(host_keys=tuple(keys))

    # --- launch keys ----------------------------------------------------------------------------

    def _with_answer(self, answer: Answer, made: list[HostKeyResult]) -> Report:
        from firstkey.boot import launch_keys

        self._say_answer(answer)
        good, judged = launch_keys.judge(answer.keys)
        for key in judged:
            if key.refusal:
                why = {"reason": key.refusal.reason.code, "detail": key.refusal.detail}
                self._site.say(events.KEY_REFUSED(index=key.number, **why))
        results = self._install(answer.instance_id, self._site.config.keys.users, good)
        # A key that could not be had may be had another time: nobody counts as served before.
        self._remember_service(answer, [] if any(key.refusal for key in judged) else results)
        no_key = Refusal(reasons.NO_KEY_PAIR, "the instance was launched without a key pair")
        return Report(
            OK,
            instance_id=answer.instance_id,
            imds=_spoken(answer),
            keys=judged,
            users=_joined(self._cleared, results),
            host_keys=tuple(made),
            refusal=None if answer.keys else no_key,
        )

    def _install(self, instance: str, names: Sequence[str], keys: Sequence[PublicKey]) -> list[UserResult]:
        from firstkey.boot.launch_keys import Installer

        installer = Installer(self._site, self._sshd, self._store, instance, self._setups)
        with self._timeline.phase("launch keys"):
            results = installer.install(names, keys)
        self._warnings += installer.warnings
        self._unread = frozenset(installer.unread)
        return results

    def _say_answer(self, answer: Answer) -> None:
        named = {"endpoint": answer.endpoint, "version": answer.version}
        self._site.say(events.IMDS_ANSWER(**named, instance_id=answer.instance_id))
        self._say_instance(answer.instance_id)
        if not answer.keys:
            self._site.say(events.NO_KEY_PAIR())

    def _say_instance(self, instance: str) -> None:
        """Once in a run, where it is another one than before."""
        known = self._store.ledger.instance
        if instance in (known, self._said):
            return
        self._said = instance
        self._site.say(events.FIRMWARE(claim=self._site.firmware_claim()))
        self._say_disagreement(instance)
        if known is not None:
            self._site.say(events.NEW_INSTANCE(old=known, new=instance))

    def _say_disagreement(self, instance: str) -> None:
        if self._firmware in (None, instance):
            return
        reason = reasons.FIRMWARE_DISAGREES
        detail = f"the service says {instance}, the firmware {self._firmware}"
        self._warnings.append(Refusal(reason, detail))
        self._site.say(
            events.FIRMWARE_DISAGREES(service=instance, firmware=self._firmware, reason=reason.code)
        )

    def _remember_service(self, answer: Answer, results: Sequence[UserResult]) -> None:
        """Who has been served needs no asking on the next boot, if the firmware knows the instance."""
        known = self._store.ledger
        served = {each.name: each for each in known.served if known.instance == answer.instance_id}
        for user in results:
            served.pop(user.name, None)
            conditions = self._store.conditions(user.name)
            if user.is_well and conditions and user.name not in self._unread:
                served[user.name] = Served(user.name, user.file, conditions)
        self._store.save(
            known._replace(
                instance=answer.instance_id, firmware=self._firmware, served=tuple(served.values())
            )
        )

    def _without_answer(self, error: FirstkeyError, made: list[HostKeyResult]) -> Report:
        self._site.say(events.IMDS_FAILED(reason=error.reason.code, detail=error.message))
        # The firmware alone can tell that this is another instance: the other one's keys go in any case.
        if self._instance and not self._cleared:
            self._cleared = self._install(self._instance, [], [])
        who = self._identity
        return Report(
            UNREACHABLE if isinstance(error, Unreachable) else FAILED,
            instance_id=self._instance,
            imds=_spoken(who) if who else None,
            users=tuple(self._cleared),
            host_keys=tuple(made),
            refusal=error.refusal,
        )

    def _told(self, done: Report) -> Report:
        """The end of the run: what follows from it, and its result for the journal."""
        self._let_load()
        self._site.say(events.FINISHED(outcome=done.outcome, summary=done.summary))
        return done

    def _finished(self, draft: Report) -> Report:
        self._store.save()
        accounts = [result for setup in self._setups.values() for result in setup.results]
        draft = draft._replace(
            accounts=tuple(accounts),
            warnings=(*self._store.warnings, *self._warnings),
            timeline=self._timeline.phases,
            dry_run=self._site.dry_run,
        )
        return draft.judged()


def _load_ahead() -> None:
    """Load what installing keys takes while ssh-keygen is still at work: the boot waits for it afterwards."""
    with suppress(Exception):  # it goes wrong again where that is reported, and costs no host key there
        from firstkey.boot import launch_keys  # noqa: F401


def _sshd(site: Site) -> Sshd:
    if site.tree.is_running_system and not site.dry_run:
        return Sshd(site.tree)
    from firstkey.system import sshd_tree  # a boot works on the running system, and does its work

    return sshd_tree.sshd_of(site.tree)


def _joined(earlier: Sequence[UserResult], later: Sequence[UserResult]) -> tuple[UserResult, ...]:
    """One entry a user and file, where the same run came to it twice: its first visit only took keys away."""
    before = {(user.name, user.file): user for user in earlier}
    joined = []
    for user in later:
        revoked = before.pop((user.name, user.file), user._replace(revoked=())).revoked
        result = CHANGED if revoked and user.result == UNCHANGED else user.result
        joined.append(user._replace(result=result, revoked=(*revoked, *user.revoked)))
    return (*before.values(), *joined)


def _spoken(who: Answer) -> Imds:
    why = who.fallback_reason
    return Imds(who.endpoint, who.version, Refusal(why, why.meaning) if why else None)
