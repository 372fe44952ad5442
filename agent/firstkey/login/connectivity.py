"""Before anybody is asked who they are: whether sshd starts, listens where it can be reached, and speaks."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from firstkey import NamedTuple, reasons
from firstkey import login_reasons as why
from firstkey.boot import host_key_files, host_keys
from firstkey.login import tcp_wrappers
from firstkey.login.finding import OBSTACLE, OK, Finding, note, obstacle, passed, unanswered, unknown
from firstkey.reasons import FirstkeyError
from firstkey.system import command, sockets, sshd_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.boot.site import Site
    from firstkey.ssh.restrictions import Client
    from firstkey.system.sockets import Listener
    from firstkey.system.sshd import Meaning, Sshd

BANNER_SECONDS = 5.0
UNITS = ("ssh", "sshd")
TURNED_AWAY = ("Exceeded MaxStartups", "Not allowed at this time")
"""What sshd says in place of its banner (sshd.c: drop_connection)."""
_UNUSABLE = {
    host_keys.BROKEN: reasons.HOST_KEY_BROKEN,
    host_keys.ENCRYPTED: reasons.HOST_KEY_ENCRYPTED,
    host_keys.TOO_SMALL: reasons.HOST_KEY_TOO_SMALL,
    host_keys.UNKNOWN_TYPE: reasons.HOST_KEY_TYPE_UNKNOWN,
}


_NO_PRIVSEP = ("Privilege separation user", "must be owned by root and not group")
_NOT_THE_CONFIGURATION = ("no hostkeys available", "Missing privilege separation")
_LINE = re.compile(r"(?<!\S)(/\S+?):? line (\d+)")


class Connectivity(NamedTuple):
    """What was found out, and where sshd can be reached, if anywhere."""

    findings: tuple[Finding, ...]
    listener: Listener | None = None
    port: int = 22


def examine(site: Site, sshd: Sshd, meaning: Meaning, client: Client | None) -> Connectivity:
    """All of it, in the order in which sshd comes by."""
    program = command.find("sshd") if site.tree.is_running_system else sshd_tree.program(site.tree)
    if program is None:
        remedy = "apt-get install openssh-server, or dnf install openssh-server"
        return Connectivity((obstacle("sshd", reasons.SSHD_MISSING, "sshd is not installed", remedy=remedy),))
    found = [passed("sshd", "sshd is installed", path=program)]
    if site.tree.is_running_system and os.geteuid() == 0:
        found += _trial(command.run([program, "-t", *sshd.options]))
    elif meaning.refusal:
        found.append(_unstarted(meaning.refusal, sshd.config))
    found += _host_keys(site, sshd, meaning)
    if not site.tree.is_running_system:
        detail = "whether sshd runs can only be seen on the system itself"
        return Connectivity((*found, note("socket", why.NOT_RUNNING_SYSTEM, detail)))
    listener, said = _socket(site, sshd, meaning)
    found.append(said)
    if listener:
        found += _spoken(site, program, listener, client)
    return Connectivity(tuple(found), listener, listener.port if listener else 22)


# --- whether it starts ----------------------------------------------------------------------------


def _trial(outcome: command.Outcome) -> Iterator[Finding]:
    """Whether sshd would start with its files as they are (sshd -t), and what it says about them."""
    check = "sshd-config"
    lines = (outcome.stderr + outcome.stdout).decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    if not outcome.status:
        yield passed(check, "sshd takes its configuration")
    elif any(words in line for words in _NO_PRIVSEP for line in said):
        yield obstacle("privilege-separation", why.PRIVSEP_MISSING, said[-1])
    elif not any(words in line for words in _NOT_THE_CONFIGURATION for line in said):
        match = next(filter(None, map(_LINE.search, said)), None)
        place = f"{match[1]}:{match[2]}" if match else None
        remedy = f"correct {place}, until this says nothing: sshd -t" if place else ""
        detail = f"sshd does not start: {'; '.join(said)[:500]}"
        yield obstacle(check, reasons.SSHD_CONFIG_INVALID, detail, path=place, remedy=remedy)


def _unstarted(refusal: reasons.Refusal, config: str | None) -> Finding:
    if refusal.reason is reasons.SSHD_CONFIG_INVALID and "Permission denied" not in refusal.detail:
        return obstacle("sshd-config", refusal.reason, refusal.detail, path=config)
    return unknown("sshd-config", refusal.reason, refusal.detail, path=config)


def _host_keys(site: Site, sshd: Sshd, meaning: Meaning) -> Iterator[Finding]:
    """One that loads is enough for sshd; those that do not are worth a note."""
    files = [file for file in meaning.effective.host_keys if not file.endswith(".pub")]
    if meaning.effective.has_host_key_agent:
        yield passed("host-keys", "the host keys are in an agent (HostKeyAgent)")
        return
    found = [_host_key(site, sshd, file) for file in files]
    if any(finding.status == OK and not finding.reason for finding in found):
        yield from found
    elif any(finding.status not in (OK, OBSTACLE) for finding in found):
        yield next(finding for finding in found if finding.status not in (OK, OBSTACLE))
    elif not site.tree.is_running_system:
        yield note("host-keys", why.NO_HOST_KEY, "no host key in the tree; they are made when it boots")
    else:
        detail = f"sshd can load none of its host keys: {'; '.join(finding.detail for finding in found)}"
        path = files[0] if files else None
        exposed = [finding.remedy for finding in found if finding.reason is reasons.BAD_MODES]
        remedy = (exposed and exposed[0]) or "firstkey host-keys"
        yield obstacle("host-keys", why.NO_HOST_KEY, detail, path=path, remedy=remedy)


def _host_key(site: Site, sshd: Sshd, file: str) -> Finding:
    try:
        want = host_keys.Wanted(file, host_keys.kind_of(file))
        found = host_key_files.inspect(site, sshd, want)
    except FirstkeyError as error:
        if error.reason is reasons.PERMISSION_DENIED and os.geteuid() != 0:
            return unknown("host-keys", reasons.NEEDS_ROOT, f"only root can read {file}", path=file)
        return unanswered("host-keys", error, path=file)
    if found.condition == host_keys.MISSING:
        return note("host-keys", why.NO_HOST_KEY, f"{file} does not exist", path=file)
    reason = _UNUSABLE.get(found.condition)
    if reason:
        return note("host-keys", reason, f"{file} is {found.condition}", path=file)
    if found.is_loose:
        remedy = f"chmod 0600 {shlex.quote(file)}"
        return note("host-keys", reasons.BAD_MODES, f"{file} can be read by others", path=file, remedy=remedy)
    return passed("host-keys", f"sshd can load {file}", path=file)


# --- whether it can be reached --------------------------------------------------------------------


def _socket(site: Site, sshd: Sshd, meaning: Meaning) -> tuple[Listener | None, Finding]:
    try:
        all_of_them = sockets.listeners(site.tree)
    except FirstkeyError as error:
        return None, unanswered("socket", error)
    ports = [int(port) for port in meaning.effective.settings.get("port", ("22",)) if port.isdigit()]
    found = [listener for listener in all_of_them if listener.port in ports]
    outside = [listener for listener in found if not listener.is_loopback]
    if outside:
        best = min(outside, key=lambda listener: (ports.index(listener.port), not listener.is_any))
        return best, passed("socket", f"something listens on {best}")
    if found:
        detail = f"port {found[0].port} is open on {found[0].address} only"
        place = sshd_tree.where(sshd, "listenaddress")
        return found[0], obstacle("socket", why.SSHD_ON_LOOPBACK, detail, path=place)
    detail = f"nothing listens on port {' or '.join(map(str, ports))}{_unit_state(site)}"
    return None, obstacle("socket", why.SSHD_NOT_RUNNING, detail, remedy=_start(site))


def _unit(site: Site) -> str:
    places = ("/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system")
    found = (unit for unit in UNITS for place in places if site.tree.exists(f"{place}/{unit}.service"))
    return next(found, "sshd")


def _start(site: Site) -> str:
    unit = _unit(site)
    if site.tree.exists("/run/systemd/system"):
        return f"systemctl enable --now {unit}; then, if it fails: journalctl -b -u {unit}"
    return "mkdir -p -m 0755 /run/sshd && $(command -v sshd)"


def _unit_state(site: Site) -> str:
    """What the service manager says of sshd, and of firstkey, which holds sshd back for the keys."""
    program = command.find("systemctl") if site.tree.exists("/run/systemd/system") else None
    if program is None:
        return ""
    units = [f"{unit}.service" for unit in (_unit(site), "firstkey")]
    states = [
        command.run([program, "is-active", unit]).stdout.decode("ascii", "replace").strip() for unit in units
    ]
    return "".join(f"; {unit} is {state or 'not known'}" for unit, state in zip(units, states))


def _spoken(site: Site, program: str, listener: Listener, client: Client | None) -> Iterator[Finding]:
    turned_away = [*_wrapped(site, os.path.realpath(program), client)]
    yield from turned_away
    if not any(finding.status == OBSTACLE for finding in turned_away):
        yield _banner(listener)


def _wrapped(site: Site, program: str, client: Client | None) -> Iterator[Finding]:
    if not tcp_wrappers.are_asked(site.tree, program):
        return
    decision = tcp_wrappers.decide(site.tree, client)
    if decision.lets is None:
        detail = "hosts.allow and hosts.deny let clients through from some places only"
        yield unknown("tcp-wrappers", why.CLIENT_DEPENDENT, detail, path=decision.place)
    elif not decision.lets:
        who = client.address if client else "everybody"
        remedy = f"echo 'sshd: {client.address if client else 'ALL'}' >> {tcp_wrappers.ALLOW}"
        detail = f"this rule turns {who} away before sshd speaks"
        yield obstacle("tcp-wrappers", why.TCP_WRAPPERS, detail, path=decision.place, remedy=remedy)


def _banner(listener: Listener) -> Finding:
    try:
        said = sockets.first_words(listener, seconds=BANNER_SECONDS)
    except FirstkeyError as error:
        return obstacle("banner", why.SSHD_NOT_RUNNING, error.message)
    text = said.decode("utf-8", "replace").strip()
    if "SSH-" in text:
        return passed("banner", f"sshd speaks on {listener}: {text.splitlines()[-1]}")
    if any(words in text for words in TURNED_AWAY):
        return obstacle("banner", why.SSHD_BUSY, f"sshd turns connections away: {text}")
    what = f"it says {text[:60]!r}" if text else f"it says nothing within {BANNER_SECONDS:g} s"
    return obstacle("banner", why.SSHD_SILENT, f"{listener} is open, but {what}")
