"""Would `ssh NAME@here` give a shell with the launch key? One verdict, and everything that speaks against it.

The checks run in sshd's order, so the first obstacle is the first that a login meets. Nothing is changed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from firstkey import NamedTuple, reasons
from firstkey import login_reasons as why
from firstkey.boot.target import Target
from firstkey.login import (
    access_control,
    connectivity,
    key_files,
    launch_key,
    methods,
    probe,
    session,
    view,
)
from firstkey.login.connectivity import Connectivity
from firstkey.login.context import Context, LaunchKey
from firstkey.login.finding import OBSTACLE, OK, UNKNOWN, Finding, note, obstacle, passed, unanswered, unknown
from firstkey.model import Answer
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import authorized_keys, restrictions
from firstkey.ssh.access import Client
from firstkey.system import sshd_tree

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


def examine(
    target: Target,
    users: Iterable[str],
    source: LaunchKey | Answer | Refusal,
    *,
    client: Client | None,
    probing: bool,
    off: str | None = None,
) -> Iterator[Diagnosis]:
    """What stands between the launch key and a shell, for each user.

    `source` is the key that was named, or the metadata service's answer, or why there is none. `probing`: the
    running sshd is asked too. `off`: why firstkey is off.
    """
    sshd, at = sshd_tree.sshd_of(target.tree), None
    for name in users:
        meaning = sshd.meaning(name, restrictions.connection(client))
        at = at or connectivity.examine(target, sshd, meaning, client)
        sought = launch_key.of_user(target, name, source)
        before = [*at.findings, *sought.findings]
        if off is not None:  # then no key of a new instance comes by itself
            before.append(note("firstkey", reasons.DISABLED, f"firstkey is switched off: {off}"))
        account = target.accounts.find(name)
        if account is None:
            yield Diagnosis(name, None, at.port, (*before, _no_such_user(target, name)))
            continue
        about = Context(target, account, launch_key.NONE, client, sshd, meaning.effective, time.time())
        diagnoses = []
        for key in sought.keys or (launch_key.NONE,):
            context = _with_whole_key(about._replace(key=key))
            found = [*before, *_checks(context, meaning.refusal)]
            # Where sshd's answers differ by client, and none was named, they are those for one far away.
            if not (client or session.stops(found)) and sshd_tree.depends_on_client(sshd.files.values()):
                detail = "sshd's configuration has Match blocks about where the client comes from"
                found.append(unknown("match", why.CLIENT_DEPENDENT, detail))
            found = _asked(context, at, found) if probing else found
            shown = None if key is launch_key.NONE else context.key
            diagnoses.append(Diagnosis(name, shown, at.port, tuple(found)))
        # Of several launch keys, one that lets in is enough.
        yield min(diagnoses, key=lambda diagnosis: (OPEN, UNSURE, BLOCKED).index(diagnosis.verdict))


def _checks(context: Context, refusal: Refusal | None) -> list[Finding]:
    """All that is about the user and the key. A check that fails to look is an answer too: unknown."""
    if refusal:
        detail = f"the effective settings of sshd for {context.name} are not known: {refusal.detail}"
        return [unknown("effective-config", refusal.reason, detail)]
    found: list[Finding] = []
    stages: dict[str, Callable[[], Iterable[Finding]]] = {
        "account": lambda: access_control.findings(context),
        "methods": lambda: methods.findings(context),
        "authorized-keys": lambda: key_files.findings(context),
        "session": lambda: session.findings(context, list(found)),
    }
    for name, check in stages.items():
        if context.key is launch_key.NONE and name in ("methods", "authorized-keys"):
            continue
        try:
            found.extend(check())
        except FirstkeyError as error:
            found.append(unanswered(name, error))
    return found


def _with_whole_key(context: Context) -> Context:
    """With the whole key out of one of the user's files, where only its fingerprint is known."""
    key = context.key
    for path in () if key.key or key is launch_key.NONE else key_files.paths(context):
        try:
            content = view.look(context.target, context.account, path).content or b""
        except FirstkeyError:
            continue
        for _, entry in authorized_keys.keyed(content):
            if entry.key.fingerprint == key.fingerprint:
                return context._replace(key=key._replace(key=entry.key, type=entry.key.type))
    return context


def _asked(context: Context, at: Connectivity, found: list[Finding]) -> list[Finding]:
    """The findings, and what the running sshd says, which knows best what it goes by."""
    if not (at.listener and at.source and context.key.key):
        return found
    is_choosy = any(
        each.reason in (why.CLIENT_DEPENDENT, why.KEY_NOT_FROM_HERE) or each.check == key_files.FROM
        for each in found
    )
    source = (context.client.address if context.client else "") if is_choosy else at.source
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
    # What files do not show (whether a command vouches for the key, say), sshd knows, and now has said.
    unseen = [each for each in found if each.status == UNKNOWN and each.check in _BEFORE_THE_KEY]
    open_yet = [each for each in unseen if each.reason is not reasons.NEEDS_ROOT]
    if reply.verdict == probe.ACCEPTED:
        found = [each for each in found if each not in open_yet]
        took = f"asked with the public key alone, the running sshd takes it for {context.name}"
        later = [each for each in found if each.status == OBSTACLE and each.check in _BEFORE_THE_KEY]
        if later:
            kept = [each._replace(status=OK) if each in later else each for each in found]
            # A reload would only lock the user out.
            hint = "Correct what is noted here; then have sshd read its files again."
            kept = [
                each._replace(remedy=hint, is_command=False) if each.reason is why.SSHD_UNREAD else each
                for each in kept
            ]
            detail = f"{took}; it will not, once it has read its files as they are now"
            return [*kept, note(check, why.SSHD_DISAGREES, detail)]
        return [*found, passed(check, took)]
    unvouched = {key_files.COMMAND: "no file has the key, and this command gives sshd none that fits"}
    found = [
        each._replace(status=OBSTACLE, detail=unvouched.get(each.check, each.detail))
        if each in open_yet
        else each
        for each in found
    ]
    if reply.verdict == probe.UNLIKE:
        # They come to no key at all: it stands before everything that is about the user.
        spoken = next((number for number, each in enumerate(found, 1) if each.check == "banner"), 0)
        keyword = next((keyword for words, keyword in _AGREED if words in reply.words), "")
        detail = f"this machine's ssh says: {reply.words}"
        unlike = context.in_config(keyword, why.ALGORITHMS_DIFFER, detail)
        return [*found[:spoken], unlike, *found[spoken:]]
    if session.stops(found):
        return [*found, passed(check, f"the running sshd does not take the key either: {reply.words}")]
    logged = "; ".join(probe.logged_since(began))
    said = f"{reply.words} (sshd logged: {logged})" if logged else reply.words
    detail = f"nothing in its files says so, yet the running sshd does not take the key: {said}"
    started = _started(context)
    detail += f"; it was started as: {started}" if started else ""
    reading = "" if _CONFIGURED.search(started) else context.reload
    # It stands where sshd is asked about the key: what comes after that is not reached.
    place = max((n for n, each in enumerate(found, 1) if each.check in _BEFORE_THE_KEY), default=len(found))
    return [*found[:place], obstacle(check, why.SSHD_DISAGREES, detail, command=reading), *found[place:]]


def _started(context: Context) -> str:
    """The command line of the running sshd, where its PID file leads to it; sshd adds its state to it."""
    path = context.says("pidfile") or "/run/sshd.pid"
    pid = (context.target.tree.read(path, limit=32) or b"").strip().decode("ascii", "replace")
    try:
        content = context.target.tree.read(f"/proc/{pid}/cmdline", limit=4096) if pid.isdigit() else None
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
        "privilege-separation", "maxauthtries", "refuseconnection",
    }
)  # fmt: skip
"""What sshd has looked at when it says that it would take a key; PAM and the session come later."""


def _no_such_user(target: Target, name: str) -> Finding:
    file = "/etc/passwd"
    detail = f"there is no account {name} on this system"
    if not target.tree.exists(file):
        detail, remedy = f"there are no accounts: {file} is missing", "name the root directory of a system"
    elif name == "root":
        remedy = f"put the line of root back into {file}: root:x:0:0:root:/root:/bin/sh"
    else:
        remedy = f"useradd -m {name}, or Create=yes in [User {name}] of firstkey.conf"
        remedy += f"; then: firstkey run --force --user {name}"
    return obstacle("account", reasons.NO_SUCH_USER, detail, path=file)._replace(remedy=remedy)
