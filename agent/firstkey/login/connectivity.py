"""Before any user is named: whether sshd starts, listens where it can be reached, and speaks."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress

from firstkey import NamedTuple, reasons
from firstkey import login_reasons as why
from firstkey.boot import host_key_files, host_keys
from firstkey.boot.target import Target
from firstkey.login import last_run, probe
from firstkey.login.context import how_to_reload, status, unit
from firstkey.login.finding import OK, UNKNOWN, Finding, note, obstacle, passed, unanswered, unknown
from firstkey.reasons import FirstkeyError
from firstkey.ssh import restrictions
from firstkey.ssh.access import Client
from firstkey.system import command, sockets, sshd_tree
from firstkey.system.sockets import Listener
from firstkey.system.sshd import Meaning, Sshd

BANNER_SECONDS = 5.0
ALLOW, DENY = "/etc/hosts.allow", "/etc/hosts.deny"
LIMIT = 1024 * 1024
TURNED_AWAY = ("Exceeded MaxStartups", "Not allowed at this time")
"""What sshd says in place of its banner (sshd.c: drop_connection)."""
_UNUSABLE = {
    host_keys.BROKEN: reasons.HOST_KEY_BROKEN,
    host_keys.ENCRYPTED: reasons.HOST_KEY_ENCRYPTED,
    host_keys.TOO_SMALL: reasons.HOST_KEY_TOO_SMALL,
    host_keys.UNKNOWN_TYPE: reasons.HOST_KEY_TYPE_UNKNOWN,
}


_PRIVSEP, _NOLOGIN = "/run/sshd", "/usr/sbin/nologin"
_NO_PRIVSEP = ("Privilege separation user", "must be owned by root and not group")
_NOT_THE_CONFIGURATION = ("no hostkeys available", "Missing privilege separation")
_LINE = re.compile(r"(?<!\S)(/\S+?):? line (\d+)")


class Connectivity(NamedTuple):
    """What was found out, and where sshd can be reached, if anywhere.

    `source` is the address from which sshd is asked; None where it would not answer as it does to the client.
    """

    findings: tuple[Finding, ...]
    listener: Listener | None = None
    source: str | None = None

    @property
    def port(self) -> int:
        """The port that clients have to name."""
        return self.listener.port if self.listener else 22


def examine(target: Target, sshd: Sshd, meaning: Meaning, client: Client | None) -> Connectivity:
    """All of it, in the order in which sshd comes by."""
    program = command.find("sshd") if target.tree.is_running_system else sshd_tree.program(target.tree)
    if program is None:
        remedy = "apt-get install openssh-server, or dnf install openssh-server"
        found = [obstacle("sshd", reasons.SSHD_MISSING, "sshd is not installed")._replace(remedy=remedy)]
        return Connectivity(tuple(found))
    found = [passed("sshd", "sshd is installed", path=program)]
    if target.tree.is_running_system and os.geteuid() == 0:
        found += _trial(target, command.run([program, "-t", *sshd.start.options]))
    elif meaning.refusal:
        why_not = meaning.refusal
        is_known = why_not.reason is reasons.SSHD_CONFIG_INVALID and "Permission denied" not in why_not.detail
        finding = obstacle if is_known else unknown
        found.append(finding("sshd-config", why_not.reason, why_not.detail, path=sshd.config))
    found += _host_keys(target, sshd, meaning)
    if not target.tree.is_running_system:
        detail = "whether sshd runs can only be seen on the system itself"
        return Connectivity((*found, note("socket", why.NOT_RUNNING_SYSTEM, detail)))
    listener, said = _socket(target, sshd, meaning)
    found.append(said)
    if listener:
        rule = _rule(target, os.path.realpath(program))
        if source := _source(sshd, meaning, client, is_choosy=rule is not None):
            listener, said = _banner(target, listener, source)
            is_silent = said.reason is why.SSHD_SILENT
            found.append(_wrapped(rule, client) if rule and is_silent and client else said)
        elif rule:
            detail = "hosts.allow and hosts.deny may turn clients away, and only from the client that shows"
            found.append(unknown("tcp-wrappers", why.CLIENT_DEPENDENT, detail, path=rule))
        found += _unread(target, sshd, meaning)
        return Connectivity(tuple(found), listener, source)
    return Connectivity(tuple(found))


def _source(sshd: Sshd, meaning: Meaning, client: Client | None, *, is_choosy: bool) -> str | None:
    """An address of the doctor's own; where sshd goes by it, the client's, if that is on this machine."""
    lists = [
        word
        for keyword in ("allowusers", "denyusers")
        for word in restrictions.words(meaning.effective, keyword)
    ]
    is_choosy = is_choosy or sshd_tree.depends_on_client(sshd.files.values())
    if not is_choosy and not any("@" in word for word in lists):
        return probe.own_address()
    return client.address if client and client.address.startswith("127.") else None


def _unread(target: Target, sshd: Sshd, meaning: Meaning) -> Iterator[Finding]:
    """Whether a file of the configuration is younger than the running sshd's PID file, which it writes again
    whenever it reads them.
    """
    written = status(target, meaning.effective.first("pidfile") or "/run/sshd.pid")
    inside = {*map(os.path.dirname, sshd.files), "/etc/ssh/sshd_config.d"} - {"/etc/ssh", "/etc/openssh"}
    found = ((path, status(target, path)) for path in (*sshd.files, *sorted(inside)) if written)
    younger = [path for path, at in found if written and at and at.st_ctime_ns > written.st_ctime_ns]
    if younger:
        detail = "this was changed after sshd read it, so the effective settings of sshd are not known"
        command = f"sshd -t && {how_to_reload(target, meaning.effective)}"
        yield unknown("sshd-unread", why.SSHD_UNREAD, detail, path=younger[0], command=command)


# --- whether it starts ----------------------------------------------------------------------------


def _trial(target: Target, outcome: command.Outcome) -> Iterator[Finding]:
    """Whether sshd would start with its files as they are (sshd -t), and what it says about them."""
    check = "sshd-config"
    lines = (outcome.stderr + outcome.stdout).decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    if not outcome.status:
        yield passed(check, "sshd takes its configuration")
    elif any(words in line for words in _NO_PRIVSEP for line in said):
        command = "" if "user" not in said[-1] else f"useradd -r -M -d /run/sshd -s {_NOLOGIN} sshd"
        command = command or f"chown root:root {_PRIVSEP} && chmod 0755 {_PRIVSEP}"
        yield obstacle("privilege-separation", why.PRIVSEP_MISSING, said[-1], command=command)
    elif not any(words in line for words in _NOT_THE_CONFIGURATION for line in said):
        match = next(filter(None, map(_LINE.search, said)), None)
        place = f"{match[1]}:{match[2]}" if match else None
        remedy = f"correct {place}, until this says nothing: sshd -t" if place else ""
        detail = f"sshd does not start: {'; '.join(said)[:500]}"
        line = None
        if match:
            lines = (target.tree.read(match[1], limit=LIMIT) or b"").decode("utf-8", "replace").split("\n")
            line = lines[int(match[2]) - 1] if int(match[2]) <= len(lines) else None
        found = obstacle(check, reasons.SSHD_CONFIG_INVALID, detail, path=place, line=line)
        yield found._replace(remedy=remedy or found.remedy)
    elif any("Missing privilege separation" in line for line in said) and (
        not target.tree.exists("/run/systemd/system") or target.tree.exists("/run/sshd.pid")
    ):  # else systemd makes it when it starts sshd
        command = f"mkdir -p -m 0755 {_PRIVSEP}"
        yield obstacle("privilege-separation", why.PRIVSEP_MISSING, said[-1], command=command)


def _host_keys(target: Target, sshd: Sshd, meaning: Meaning) -> Iterator[Finding]:
    """One that loads is enough for sshd; those that do not are worth a note."""
    files = [file for file in meaning.effective.host_keys if not file.endswith(".pub")]
    if meaning.effective.has_host_key_agent:
        yield passed("host-keys", "the host keys are in an agent (HostKeyAgent)")
        return
    found = [_host_key(target, sshd, file) for file in files]
    unread = next((finding for finding in found if finding.status == UNKNOWN), None)
    if any(finding.status == OK and not finding.reason for finding in found):
        yield from found
    elif unread:
        yield unread
    elif not target.tree.is_running_system:
        detail = "no host key in the tree; host keys are generated when it boots"
        yield note("host-keys", why.NO_HOST_KEY, detail)
    else:
        detail = f"sshd can load none of its host keys: {'; '.join(finding.detail for finding in found)}"
        exposed = (finding.remedy for finding in found if finding.reason is reasons.BAD_MODES)
        command, path = next(exposed, None) or "firstkey host-keys", files[0] if files else None
        yield obstacle("host-keys", why.NO_HOST_KEY, detail, path=path, command=command)


def _host_key(target: Target, sshd: Sshd, file: str) -> Finding:
    check = "host-keys"
    try:
        found = host_key_files.inspect(target, sshd, file)
    except FirstkeyError as error:
        return unanswered(check, error, path=file)
    if found.condition == host_keys.MISSING:
        with suppress(FirstkeyError):
            reported = last_run.part(last_run.report(target.tree), "host_keys", file=file)
            if reported.get("reason") == reasons.HOST_KEY_PENDING.code:
                detail = f"{file} is being generated in the background"
                return note(check, reasons.HOST_KEY_PENDING, detail, path=file)
        return note(check, why.NO_HOST_KEY, f"{file} does not exist", path=file)
    if reason := _UNUSABLE.get(found.condition):
        command = "firstkey host-keys" if found.condition in (host_keys.BROKEN, host_keys.TOO_SMALL) else ""
        return note(check, reason, f"{file} is {found.condition}", path=file, command=command)
    if found.is_loose:
        remedy, detail = f"chmod 0600 {shlex.quote(file)}", f"{file} can be read by others"
        return note(check, reasons.BAD_MODES, detail, path=file, command=remedy)
    return passed(check, f"sshd can load {file}", path=file)


# --- whether it can be reached --------------------------------------------------------------------


def _socket(target: Target, sshd: Sshd, meaning: Meaning) -> tuple[Listener | None, Finding]:
    ports = [int(port) for port in meaning.effective.settings.get("port", ("22",)) if port.isdigit()]

    def look() -> list[Listener]:
        return [listener for listener in sockets.listeners(target.tree) if listener.port in ports]

    try:
        found = probe.through_reload(look, lambda found: found or not probe.is_sshd_there())
    except FirstkeyError as error:
        return None, unanswered("socket", error)
    if outside := [listener for listener in found if not listener.is_loopback]:
        best = min(outside, key=lambda listener: (ports.index(listener.port), not listener.is_any))
        return best, passed("socket", f"something listens on {best}")
    if found:
        detail = f"port {found[0].port} is open on {found[0].address} only"
        place = sshd_tree.where(sshd, "listenaddress")
        shown = {"path": str(place), "line": place.line} if place else {}
        return found[0], obstacle("socket", why.SSHD_ON_LOOPBACK, detail, **shown)
    detail = f"nothing listens on port {' or '.join(map(str, ports))}{_unit_state(target)}"
    return None, obstacle("socket", why.SSHD_NOT_RUNNING, detail, command=_start(target))


def _start(target: Target) -> str:
    name = unit(target)
    if not target.tree.exists("/run/systemd/system"):
        return "mkdir -p -m 0755 /run/sshd && $(command -v sshd)"
    masks = {"/etc/systemd/system": "", "/run/systemd/system": "--runtime "}
    files = {how: f"{place}/{name}.service" for place, how in masks.items()}
    unmask = [how for how, path in files.items() if os.path.islink(path) and os.readlink(path) == os.devnull]
    return "".join(f"systemctl unmask {how}{name} && " for how in unmask) + f"systemctl enable --now {name}"


def _unit_state(target: Target) -> str:
    """What the service manager says of sshd, and of firstkey, which holds sshd back for the keys."""
    program = command.find("systemctl") if target.tree.exists("/run/systemd/system") else None
    if program is None:
        return ""
    units = [f"{name}.service" for name in (unit(target), "firstkey")]
    states = [
        command.run([program, "is-active", name]).stdout.decode("ascii", "replace").strip() for name in units
    ]
    return "".join(f"; {name} is {state or 'not known'}" for name, state in zip(units, states))


def _rule(target: Target, program: str) -> str | None:
    """FILE:LINE of the first rule of TCP wrappers (hosts_access(5)) that may turn a client away.

    None where sshd does not ask them: only Debian's and Ubuntu's does.
    """
    for path, word in ((DENY, b""), (ALLOW, b"deny")):
        lines = (target.tree.read(path, limit=LIMIT) or b"").split(b"\n")
        for number, line in enumerate(lines, 1):
            if b":" in line and word in line and not line.lstrip().startswith(b"#"):
                programs = (program, *sshd_tree.SESSIONS)
                contents = (target.tree.read(each, limit=sshd_tree.PROGRAM_LIMIT) or b"" for each in programs)
                return f"{path}:{number}" if any(b"libwrap.so" in content for content in contents) else None
    return None


def _wrapped(rule: str, client: Client) -> Finding:
    detail = f"sshd does not speak to {client.address}, as rules of TCP wrappers have it; this is the first"
    command = f"echo 'sshd: {client.address}' >> {ALLOW}"
    return obstacle("tcp-wrappers", why.TCP_WRAPPERS, detail, path=rule, command=command)


def _banner(target: Target, listener: Listener, source: str) -> tuple[Listener, Finding]:
    """What sshd says first, and where it said it: IPv4 has addresses enough to come from one's own."""
    doors = [listener._replace(address="0.0.0.0")] if listener.address == "::" else []  # noqa: S104

    def listen() -> tuple[Listener, bytes, str]:
        trouble = ""
        for door in (*doors, listener):
            try:
                words = sockets.first_words(door.reachable, door.port, seconds=BANNER_SECONDS, source=source)
            except FirstkeyError as error:
                trouble = error.message
                continue
            return door, words, ""
        return listener, b"", trouble

    # A connection that sshd had not taken yet when it closed its port is cut without a word.
    door, words, trouble = probe.through_reload(listen, lambda said: said[1])
    if trouble:
        return door, obstacle("banner", why.SSHD_NOT_RUNNING, trouble, command=_start(target))
    return door, _judged(door, words.decode("utf-8", "replace").strip())


def _judged(listener: Listener, text: str) -> Finding:
    if "SSH-" in text:
        return passed("banner", f"sshd speaks on {listener}: {text.splitlines()[-1]}")
    if any(words in text for words in TURNED_AWAY):
        return obstacle("banner", why.SSHD_BUSY, f"sshd turns connections away: {text}")
    what = f"it says {text[:60]!r}" if text else f"it says nothing within {BANNER_SECONDS:g} s"
    return obstacle("banner", why.SSHD_SILENT, f"{listener} is open, but {what}")
