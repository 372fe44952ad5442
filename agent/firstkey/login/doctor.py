"""Would `ssh NAME@here` give a shell with the launch key? One verdict, and everything that speaks against it.

The checks run in sshd's order, so the first obstacle is the first that a login meets. Nothing is changed.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from firstkey import NamedTuple, reasons
from firstkey import login_reasons as why
from firstkey.login import (
    access_control,
    connectivity,
    journal,
    key_files,
    key_lines,
    launch_key,
    methods,
    probe,
    session,
    view,
)
from firstkey.login.context import Context, LaunchKey
from firstkey.login.finding import OBSTACLE, OK, UNKNOWN, Finding, note, obstacle, passed, unanswered, unknown
from firstkey.reasons import FirstkeyError
from firstkey.ssh import authorized_keys, restrictions
from firstkey.system import sshd_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.site import Site
    from firstkey.login.connectivity import Connectivity
    from firstkey.login.launch_key import Sources
    from firstkey.model import Account
    from firstkey.ssh.restrictions import Client

OPEN = "open"
BLOCKED = "blocked"
UNSURE = "unsure"

OUT_OF_SCOPE = (
    "Not checked, since they can be seen only from outside: security groups, network ACLs, firewalls and"
    " routes between the client and this machine."
)


class Diagnosis(NamedTuple):
    """One user's verdict with what it rests on, in sshd's order."""

    user: str
    key: LaunchKey | None
    port: int
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """`open`, `blocked` where there is an obstacle, or `unsure` where something cannot be known."""
        statuses = {finding.status for finding in self.findings}
        return BLOCKED if OBSTACLE in statuses else UNSURE if UNKNOWN in statuses else OPEN

    def as_json(self) -> dict[str, Any]:
        """The published form: fields may be added, never removed or renamed."""
        return {
            "name": self.user,
            "verdict": self.verdict,
            "port": self.port,
            "key": {"fingerprint": self.key.fingerprint, "type": self.key.type, "source": self.key.source}
            if self.key
            else None,
            "findings": [finding.as_json() for finding in self.findings],
        }


class Doctor:
    """Examines users of one system. `probing`: the running sshd is asked too. `off`: why firstkey is off."""

    def __init__(
        self, site: Site, sources: Sources, *, client: Client | None, probing: bool, off: str | None = None
    ) -> None:
        self._site = site
        self._off = off
        self._sources = sources
        self._client = client
        self._probing = probing
        self._connectivity: Connectivity | None = None
        self._sshd = sshd_tree.sshd_of(site.tree)

    def examine(self, name: str) -> Diagnosis:
        """What stands between the launch key and a shell as that user."""
        meaning = self._sshd.meaning(name, restrictions.connection(self._client))
        if self._connectivity is None:
            self._connectivity = connectivity.examine(self._site, self._sshd, meaning, self._client)
        sought = self._sources.of(name)
        before = (*self._connectivity.findings, *sought.findings, *self._switched_off())
        account = self._site.accounts.find(name)
        if account is None:
            return self._diagnosis(name, None, (*before, _no_such_user(name)))
        keys = sought.keys or (None,)
        now = time.time()
        about = (self._client, self._sshd, meaning.effective, now)
        contexts = [Context(self._site, account, key, *about) for key in keys if key]
        if not contexts:
            return self._diagnosis(name, None, (*before, *self._without_key(account, meaning, now)))
        return self._best([self._of_key(context, before, meaning.refusal) for context in contexts])

    def _switched_off(self) -> list[Finding]:
        """No key of a new instance comes by itself then, which is worth knowing before the rest."""
        if self._off is None:
            return []
        return [note("firstkey", reasons.DISABLED, f"firstkey is switched off: {self._off}")]

    def _of_key(
        self, context: Context, before: Sequence[Finding], refusal: reasons.Refusal | None
    ) -> Diagnosis:
        context = context._replace(key=_recovered(context))
        found = [*before, *(_no_meaning(context.name, refusal) if refusal else _checks(context))]
        found += self._elsewhere(found)
        return self._diagnosis(context.name, context.key, tuple(self._asked(context, found)))

    def _diagnosis(self, name: str, key: LaunchKey | None, found: tuple[Finding, ...]) -> Diagnosis:
        return Diagnosis(name, key, self._connectivity.port if self._connectivity else 22, found)

    def _without_key(self, account: Account, meaning: Any, now: float) -> list[Finding]:  # noqa: ANN401
        """What can be said without a key."""
        none = LaunchKey("no key", "no source")
        context = Context(self._site, account, none, self._client, self._sshd, meaning.effective, now)
        found = _guarded("account", lambda: access_control.findings(context))
        return [*found, *_guarded("session", lambda: session.findings(context, found))]

    @staticmethod
    def _best(diagnoses: Sequence[Diagnosis]) -> Diagnosis:
        """Of several launch keys, one that lets in is enough."""
        order = (OPEN, UNSURE, BLOCKED)
        return min(diagnoses, key=lambda diagnosis: order.index(diagnosis.verdict))

    def _elsewhere(self, found: Sequence[Finding]) -> list[Finding]:
        """Where sshd's answers differ by client, and none was named, they are those for one far away."""
        if self._client or session.stops(found) or not sshd_tree.depends_on_client(self._sshd.files.values()):
            return []
        detail = "sshd's configuration has Match blocks about where the client comes from"
        return [unknown("match", why.CLIENT_DEPENDENT, detail)]

    def _asked(self, context: Context, found: list[Finding]) -> list[Finding]:
        """The findings, and what the running sshd says, which knows best what it goes by."""
        at = self._connectivity
        if not (self._probing and at and at.listener and at.source and context.key.key):
            return found
        choosy = any(
            each.reason in (why.CLIENT_DEPENDENT, why.KEY_NOT_FROM_HERE) or each.check == key_lines.FROM
            for each in found
        )
        source = (self._client.address if self._client else "") if choosy else at.source
        if not source.startswith("127."):
            # The question comes from this machine itself: its answer would be about another client.
            return found
        began = time.time()
        try:
            reply = probe.ask(at.listener, context.name, context.key.key, source)
        except FirstkeyError as error:
            return [*found, unanswered("running-sshd", error)]
        return _weighed(reply, found, context, began) if reply else found


def _weighed(reply: probe.Reply, found: list[Finding], context: Context, began: float) -> list[Finding]:
    """The running sshd's word against what its files say. What stands in its way only in files is a note."""
    check = "running-sshd"
    # Whether a command vouches for the key is what only sshd knows, and now has said.
    vouched = any(each.check == key_files.COMMAND for each in found)
    open_yet = [
        each for each in found if vouched and each.status == UNKNOWN and each.check in _BEFORE_THE_KEY
    ]
    if reply.verdict == probe.ACCEPTED:
        found = [each for each in found if each not in open_yet]
        took = f"asked with the public key alone, the running sshd takes it for {context.name}"
        later = [each for each in found if each.status == OBSTACLE and each.check in _BEFORE_THE_KEY]
        kept = [each._replace(status=OK) if each in later else each for each in found]
        if later:
            detail = f"{took}; it will not, once it has read its files as they are now"
            return [*kept, note(check, why.SSHD_DISAGREES, detail)]
        return [*found, passed(check, took)]
    found = [each._replace(status=OBSTACLE) if each in open_yet else each for each in found]
    if reply.verdict == probe.UNLIKE:
        # They come to no key at all: it stands before everything that is about the user.
        spoken = next((number for number, each in enumerate(found, 1) if each.check == "banner"), 0)
        return [*found[:spoken], _unlike(context, reply.words), *found[spoken:]]
    if session.stops([each for each in found if each.check in _BEFORE_THE_KEY]):
        return [*found, passed(check, f"the running sshd does not take the key either: {reply.words}")]
    logged = "; ".join(journal.since(began))
    said = f"{reply.words} (sshd logged: {logged})" if logged else reply.words
    detail = f"nothing in its files says so, yet the running sshd does not take the key: {said}"
    started = _started(context)
    detail += f"; it was started as: {started}" if started else ""
    reading = "" if _CONFIGURED.search(started) else context.reload
    # It stands where sshd is asked about the key: what comes after that is not reached.
    place = next((n for n, each in enumerate(found) if each.check in _AFTER_THE_KEY), len(found))
    return [*found[:place], obstacle(check, why.SSHD_DISAGREES, detail, command=reading), *found[place:]]


def _unlike(context: Context, said: str) -> Finding:
    """Which line of sshd's configuration leaves this machine's ssh nothing to agree on."""
    keyword = next((keyword for words, keyword in _AGREED if words in said), "")
    return context.in_config(keyword, why.ALGORITHMS_DIFFER, f"this machine's ssh says: {said}")


def _started(context: Context) -> str:
    """The command line of the running sshd, where its PID file leads to it; sshd adds its state to it."""
    path = context.says("pidfile") or "/run/sshd.pid"
    pid = (context.site.tree.read(path, limit=32) or b"").strip().decode("ascii", "replace")
    try:
        content = context.site.tree.read(f"/proc/{pid}/cmdline", limit=4096) if pid.isdigit() else None
    except FirstkeyError:
        return ""
    words = (content or b"").replace(b"\0", b" ").decode("utf-8", "replace")
    return words.removeprefix("sshd: ").partition(" [listener]")[0].strip()


_CONFIGURED = re.compile(r" -[46DdeGiqrTt]*[fhop]")
"""An option that counts before any file, and that no reload takes back (sshd(8))."""
_AGREED = (
    ("key exchange method", "kexalgorithms"), ("host key type", "hostkeyalgorithms"),
    ("cipher", "ciphers"), ("MAC", "macs"),
)  # fmt: skip
"""What ssh says of which keyword."""
_BEFORE_THE_KEY = frozenset(
    {
        "account", "shell", "denyusers", "allowusers", "denygroups", "allowgroups", "pubkeyauthentication",
        "pubkeyacceptedalgorithms", "requiredrsasize", "revokedkeys", "authorized-keys", "strict-modes",
        "authorized-keys-missing", "selinux", "key-line", "authorizedkeyscommand", "sshd-config", "host-keys",
        "privilege-separation", "maxauthtries",
    }
)  # fmt: skip
"""What sshd has looked at when it says that it would take a key; PAM and the session come later."""
_AFTER_THE_KEY = frozenset(
    {
        "permitrootlogin", "pam", "nologin", "shells", "pam-session", "maxsessions", "chroot", "home",
        "forced-command", "login-shell", "session", "terminal",
    }
)  # fmt: skip


def _checks(context: Context) -> list[Finding]:
    """All that is about the user and the key. A check that fails to look is an answer too: unknown."""
    found = [
        *_guarded("account", lambda: access_control.findings(context)),
        *_guarded("methods", lambda: methods.findings(context)),
        *_guarded("authorized-keys", lambda: key_files.findings(context)),
    ]
    return [*found, *_guarded("session", lambda: session.findings(context, found))]


def _guarded(name: str, check: Any) -> list[Finding]:  # noqa: ANN401 - a generator of findings
    found: list[Finding] = []
    try:
        found.extend(check())
    except FirstkeyError as error:
        found.append(unanswered(name, error))
    return found


def _recovered(context: Context) -> LaunchKey:
    """The whole key out of one of the user's files, where only its fingerprint is known."""
    if context.key.key is not None:
        return context.key
    for path in key_files.paths(context):
        try:
            content = view.look(context.site, context.account, path).content or b""
        except FirstkeyError:
            continue
        for _, entry in authorized_keys.keyed(content):
            if entry.key.fingerprint == context.key.fingerprint:
                return launch_key.recover(context.key, entry.key)
    return context.key


def _no_meaning(name: str, refusal: reasons.Refusal) -> list[Finding]:
    detail = f"what sshd would do with {name} cannot be known: {refusal.detail}"
    return [unknown("effective-config", refusal.reason, detail)]


def _no_such_user(name: str) -> Finding:
    detail = f"there is no account {name} on this system"
    remedy = f"useradd -m {name}, or Create=yes in [User {name}] of firstkey.conf; then: firstkey run --force"
    return obstacle("account", reasons.NO_SUCH_USER, detail, path="/etc/passwd")._replace(remedy=remedy)
