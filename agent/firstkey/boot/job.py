"""The main job, once: host keys and launch keys, for the instance that this is.

Host keys need no network, so they are made first, and while ssh-keygen works the metadata service is asked.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from firstkey import events, reasons
from firstkey.boot import host_key_making, host_keys, launch_keys, ledger, report, users
from firstkey.boot.host_key_making import Making
from firstkey.boot.report import Timeline
from firstkey.errors import FirstkeyError, Unreachable
from firstkey.model import FAILED, OK, UNREACHABLE, HostKeyResult, Imds, Report
from firstkey.reasons import Refusal
from firstkey.system.openssh import Sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firstkey.boot.ledger import Ledger
    from firstkey.boot.site import Site
    from firstkey.boot.users import Setup
    from firstkey.metadata.client import Answer, Client
    from firstkey.model import UserResult
    from firstkey.ssh.public_key import PublicKey

FIRST_ATTEMPT_SECONDS = 10.0
"""How long the attempt may take that is made while host keys wait to be put in place."""


class Job:
    """One run on one system. `deadline` is on time.monotonic; None: until there is an answer."""

    def __init__(
        self,
        site: Site,
        *,
        connect: Callable[[], Client],
        deadline: float | None,
        answered: Callable[[], None] = lambda: None,
        ask_anyway: bool = False,
    ) -> None:
        self._site = site
        self._connect = connect
        self._deadline = deadline
        self._answered = answered
        self._ask_anyway = ask_anyway or site.force
        self._sshd = Sshd(site.tree)
        self._timeline = Timeline()
        self._warnings: list[Refusal] = []
        self._loaded = self._load()
        self._ledger = self._loaded
        self._instance = site.firmware_instance()
        self._client: Client | None = None
        if site.dry_run:
            site.say(events.DRY_RUN())
        self._setups: dict[str, Setup] = {}

    def run(self) -> Report:
        """Everything. What goes wrong is in the report; only what nobody foresaw is raised."""
        made, answer = self._host_keys_and_answer()
        if isinstance(answer, FirstkeyError):
            return self._finished(self._without_answer(answer, made))
        if answer is None:
            self._settled()
            return self._finished(Report(OK, instance_id=self._instance, host_keys=tuple(made)))
        made = self._replace_clones(answer.instance_id, made)
        return self._finished(self._with_answer(answer, made))

    def host_keys_only(self) -> Report:
        """Only the host keys; the network is not touched."""
        with self._making() as making:
            made = self._publish(making)
        return self._finished(Report(OK, instance_id=self._instance, host_keys=tuple(made)))

    # --- the parts, in their order ------------------------------------------------------------

    def _load(self) -> Ledger:
        loaded = ledger.load(self._site.tree)
        if loaded.refusal:
            self._warn(loaded.refusal)
            self._site.say(events.LEDGER_DAMAGED(file=ledger.PATH, detail=loaded.refusal.detail))
            if not self._site.dry_run:
                ledger.set_aside(self._site.tree)
        return loaded.ledger

    def _warn(self, refusal: Refusal) -> None:
        self._warnings.append(refusal)

    def _set_up_users(self) -> dict[str, Setup]:
        """Accounts that the configuration describes; one that fails does not hold up the others."""
        config = self._site.config
        with self._timeline.phase("users"):
            return {
                name: users.set_up(self._site, config.users[name])
                for name in config.keys.users
                if name in config.users
            }

    def _host_keys_and_answer(self) -> tuple[list[HostKeyResult], Answer | FirstkeyError | None]:
        """Ask once while the host keys are being made; put them in place; then go on asking."""
        with self._making() as making:
            self._setups = self._set_up_users()
            answer = None if self._is_settled() else self._ask(once=True)
            made = self._publish(making)
        if isinstance(answer, Unreachable):
            answer = self._ask(once=False)
        return made, answer

    def _making(self) -> Making:
        with self._timeline.phase("host keys: look"):
            files = self._sshd_host_keys()
            actions = host_keys.survey(self._site, files, self._ledger, self._instance)
        return Making(self._site, actions)

    def _sshd_host_keys(self) -> Sequence[str]:
        """Sshd's HostKey files; remembered for as long as its configuration is the same, byte for byte."""
        digest = self._sshd_digest()
        if digest and self._ledger.sshd_digest == digest:
            return self._ledger.sshd_host_keys
        meaning = self._sshd.meaning("root")
        if meaning.refusal:
            self._warn(meaning.refusal)
            self._site.say(
                events.SSHD_DEFAULTS_ASSUMED(
                    reason=meaning.refusal.reason.code, detail=meaning.refusal.detail
                )
            )
        else:
            self._ledger = self._ledger._replace(
                sshd_digest=digest, sshd_host_keys=meaning.effective.host_keys
            )
        return meaning.effective.host_keys

    def _sshd_digest(self) -> str | None:
        try:
            return _digest(self._sshd.files())
        except FirstkeyError:
            return None

    def _publish(self, making: Making) -> list[HostKeyResult]:
        with self._timeline.phase("host keys: make"):
            pairs = making.finish()
            mark = (self._instance, self._site.boot_id())
            self._ledger = host_key_making.remembered(self._ledger, making.actions, pairs, mark)
            self._save(self._ledger)
            if not self._site.dry_run:
                making.publish(pairs)
            results = making.results(pairs)
        if not self._site.dry_run:
            host_key_making.announce(self._site, results, making.actions)
        return results

    def _is_settled(self) -> bool:
        """The firmware says that this is the instance where everything is done: there is nothing to ask."""
        known = self._ledger
        if self._ask_anyway or self._instance is None or known.instance != self._instance:
            return False
        return set(self._served_names()) <= set(known.served)

    def _served_names(self) -> list[str]:
        keys = self._site.config.keys
        return [*keys.users, *(["root"] if keys.redirect_root else [])]

    def _settled(self) -> None:
        self._site.say(events.FIRMWARE_SKIP(instance_id=self._instance))

    def _ask(self, *, once: bool) -> Answer | FirstkeyError:
        with self._timeline.phase("metadata"):
            try:
                self._client = self._client or self._connect()
                if once:
                    return self._client.ask_once(deadline=self._deadline or wait_until(FIRST_ATTEMPT_SECONDS))
                return self._client.ask(deadline=self._deadline)
            except FirstkeyError as error:
                return error

    def _replace_clones(self, instance: str, made: list[HostKeyResult]) -> list[HostKeyResult]:
        """Now that the instance is known: keys that came along from another one go, before sshd starts."""
        if instance == self._instance:
            return made
        self._ledger = host_keys.bound(self._ledger, instance, self._site.boot_id())
        self._instance = instance
        with self._making() as making:
            if not any(action.makes_a_key for action in making.actions):
                return made
            again = self._publish(making)
        before = {result.file: result for result in made}
        return [new if new.result != "unchanged" else before.get(new.file, new) for new in again]

    def _with_answer(self, answer: Answer, made: list[HostKeyResult]) -> Report:
        self._say_answer(answer)
        offer = launch_keys.judge(answer.keys)
        for key in offer.results:
            if key.refusal:
                self._site.say(
                    events.KEY_REFUSED(
                        index=key.number, reason=key.refusal.reason.code, detail=key.refusal.detail
                    )
                )
        results = self._install(answer.instance_id, self._site.config.keys.users, offer.keys)
        self._remember_service(answer, results, usable=bool(offer.keys or not answer.keys))
        no_key = Refusal(reasons.NO_KEY_PAIR, "the instance was launched without a key pair")
        return Report(
            OK,
            instance_id=answer.instance_id,
            imds=Imds(answer.endpoint, answer.version, _fallback(answer)),
            keys=offer.results,
            users=tuple(results),
            host_keys=tuple(made),
            refusal=None if answer.keys else no_key,
        )

    def _install(self, instance: str, names: Sequence[str], keys: Sequence[PublicKey]) -> list[UserResult]:
        installation = launch_keys.Installation(
            self._site, self._sshd, instance, save=self._save, setups=self._setups
        )
        with self._timeline.phase("launch keys"):
            tasks = installation.tasks(names, keys, self._ledger)
            results, self._ledger = installation.carry_out(tasks, self._ledger)
        return results

    def _say_answer(self, answer: Answer) -> None:
        self._answered()
        self._site.say(
            events.IMDS_ANSWER(
                endpoint=answer.endpoint, version=answer.version, instance_id=answer.instance_id
            )
        )
        if self._ledger.instance != answer.instance_id:
            self._site.say(events.FIRMWARE(claim=self._site.firmware_claim()))
        if self._ledger.instance not in (None, answer.instance_id):
            self._site.say(events.NEW_INSTANCE(old=self._ledger.instance, new=answer.instance_id))
        if not answer.keys:
            self._site.say(events.NO_KEY_PAIR())

    def _remember_service(self, answer: Answer, results: Sequence[UserResult], *, usable: bool) -> None:
        """Who has been served needs no asking on the next boot, if the firmware knows the instance."""
        good = [user.name for user in results if user.result in ("changed", "unchanged")] if usable else []
        before = self._ledger.served if self._ledger.instance == answer.instance_id else ()
        served = tuple(dict.fromkeys([*before, *good]))
        self._ledger = self._ledger._replace(instance=answer.instance_id, served=served)
        self._save(self._ledger)

    def _without_answer(self, error: FirstkeyError, made: list[HostKeyResult]) -> Report:
        unreachable = isinstance(error, Unreachable)
        if not unreachable:
            self._answered()
        self._site.say(events.IMDS_FAILED(reason=error.reason.code, detail=error.message))
        outcome = UNREACHABLE if unreachable else FAILED
        cleared = tuple(self._revoke_by_firmware())
        return Report(
            outcome, instance_id=self._instance, users=cleared, host_keys=tuple(made), refusal=error.refusal
        )

    def _revoke_by_firmware(self) -> list[UserResult]:
        """The firmware alone can tell that this is another instance: the other one's keys go in any case."""
        if self._instance is None:
            return []
        cleared = self._install(self._instance, [], [])
        self._save(self._ledger)
        return cleared

    def _save(self, new: Ledger) -> None:
        """Put the ledger on the disk, if it says anything new. A disk that refuses may not cost the login."""
        if self._site.dry_run or new == self._loaded:
            return
        try:
            ledger.save(self._site.tree, new)
        except FirstkeyError as error:
            self._warn(error.refusal)
            self._site.say(
                events.STATE_NOT_SAVED(file=ledger.PATH, detail=error.message, reason=error.reason.code)
            )
        self._loaded = new

    def _finished(self, draft: Report) -> Report:
        draft = draft._replace(warnings=tuple(self._warnings), dry_run=self._site.dry_run)
        draft = draft._replace(host_keys=tuple(draft.host_keys), timeline=self._timeline.phases)
        done = draft._replace(outcome=report.outcome(draft))
        self._site.say(events.FINISHED(outcome=done.outcome, summary=report.summary(done)))
        return done


def wait_until(seconds: float) -> float:
    """The deadline that lies so many seconds ahead, on time.monotonic."""
    return time.monotonic() + seconds


def _fallback(answer: Answer) -> Refusal | None:
    if answer.fallback_reason is None:
        return None
    return Refusal(answer.fallback_reason, answer.fallback_reason.meaning)


def _digest(files: dict[str, bytes]) -> str:
    from hashlib import sha256

    whole = sha256()
    for path, content in files.items():
        whole.update(f"{path}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        whole.update(content)
    return whole.hexdigest()
