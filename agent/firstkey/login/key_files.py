"""Whether sshd finds the key for this user: each file of keys, what makes sshd ignore it, the key's line."""

from __future__ import annotations

import os
import shlex
import stat
import time
from binascii import b2a_base64
from collections.abc import Iterator
from io import BytesIO

from firstkey import login_reasons as why
from firstkey import reasons
from firstkey.login import storage, view
from firstkey.login.context import DISABLED, Context
from firstkey.login.finding import OBSTACLE, OK, UNKNOWN, Finding, note, obstacle, passed, unanswered, unknown
from firstkey.login.view import Seen
from firstkey.reasons import FirstkeyError
from firstkey.ssh import access, authorized_keys, key_options, restrictions
from firstkey.ssh.sshd_config import looks_for
from firstkey.system import as_user, command, sshd_tree

CHECK, MISSING, COMMAND = "authorized-keys", "authorized-keys-missing", "authorizedkeyscommand"
LINE, FROM, FORCED = "key-line", "key-from", "forced-command"
"""The key's line, that the key is there for some clients, and that it is for one command."""
PIECE = 40
"""So many characters of a key's data are its own alone: those before are the same for all of its type."""


def findings(context: Context) -> Iterator[Finding]:
    """What sshd goes by, whatever is wrong with other files; else everything that is wrong."""
    files = [_of_file(context, path) for path in paths(context)]
    if taken := _taken(files):
        yield from taken
        return
    # Which of several files is missing does not matter.
    wrong = [found for found in files if not any(each.check == MISSING for each in found)] or files[:1]
    # A directory that is in the way of two files is one obstacle.
    each = list({(finding.reason, finding.path): finding for found in wrong for finding in found}.values())
    if program := context.says("authorizedkeyscommand"):
        detail = f"no file has the key, and only sshd knows whether {program} vouches for it"
        each.append(obstacle(COMMAND, why.KEYS_COMMAND_FAILED, detail, path=program.split(" ")[0]))
        yield from (finding if finding.status == OK else finding._replace(status=UNKNOWN) for finding in each)
        return
    yield from each
    if not files:
        patterns = " ".join(context.effective.authorized_keys_files)
        none = f"sshd finds no file of keys for {context.name} by {patterns}"
        none = none if patterns else f"sshd reads no file of keys for {context.name}"
        detail = f"{none}, and asks no command"
        keyword, reason = "authorizedkeysfile", reasons.AUTHORIZED_KEYS_DISABLED
        yield context.in_config(keyword, reason, detail, check=CHECK, edit=DISABLED)


def _taken(each: list[list[Finding]]) -> list[Finding]:
    """Of files or lines, the first that lets the key in, if only to run a command: sshd reads no further."""
    for found in each:
        others = [finding for finding in found if finding.check != FORCED]
        if all(finding.status == OK for finding in others):
            return found
        if len(others) < len(found) and all(finding.status != OBSTACLE for finding in others):
            return [finding._replace(status=UNKNOWN) for finding in found]  # for some clients, this one
    return []


def paths(context: Context) -> list[str]:
    """Where sshd looks for this user's keys, in its order."""
    account, patterns = context.account, context.effective.authorized_keys_files
    if not any(map(looks_for, patterns)):
        return sshd_tree.key_files(context.sshd, account, patterns)
    groups = context.target.accounts.group_ids(account)
    found: list[str] = as_user.run_as(
        account, groups, lambda: sshd_tree.key_files(context.sshd, account, patterns)
    )
    return found


def _of_file(context: Context, path: str) -> list[Finding]:
    try:
        return list(_judged(context, view.look(context.target, context.account, path)))
    except FirstkeyError as error:
        return [unanswered(CHECK, error, path=path)]


def _judged(context: Context, seen: Seen) -> Iterator[Finding]:
    if seen.missing:
        yield from _missing(context, seen)
    elif seen.barred:
        yield _barred(context, seen)
    elif seen.file and not stat.S_ISREG(seen.file.mode):
        detail = f"sshd reads keys only from a regular file ({view.looks(seen.file)})"
        install = context.how_to_install(seen.path, storage.at(context.target, seen.canonical))
        command = install and f"rm -d {shlex.quote(seen.path)} && {install}"
        yield obstacle(CHECK, reasons.NOT_A_REGULAR_FILE, detail, path=seen.path, command=command)
    elif seen.trouble:
        yield obstacle(CHECK, reasons.IO_ERROR, seen.trouble, path=seen.path)
    else:
        yield from _ignored(context, seen)
        yield from _label(context, seen)
        yield from _lines(context, seen)


def _missing(context: Context, seen: Seen) -> Iterator[Finding]:
    home = context.account.home.rstrip("/") or "/"
    kept = storage.at(context.target, seen.missing or seen.path)
    remedy = context.how_to_install(seen.path, kept)
    if seen.missing and (home == seen.missing or home.startswith(f"{seen.missing}/")):
        make = remedy and f"mkhomedir_helper {shlex.quote(context.name)} && {remedy}"
        detail = f"the home of {context.name} does not exist, and so neither do the keys in it"
        yield obstacle(MISSING, reasons.HOME_MISSING, detail, path=home, command=make)
        return
    detail = kept.about(f"the file of keys does not exist ({seen.missing} is missing)")
    if context.target.tree.is_running_system and os.path.islink(seen.path):
        remedy = remedy and f"rm {shlex.quote(seen.path)} && {remedy}"
    yield obstacle(MISSING, why.KEY_NOT_INSTALLED, detail, path=seen.path, command=remedy)
    # The next file there would be ignored for the directories that there are.
    yield from (finding for finding in _ignored(context, seen) if finding.status != OK)


def _barred(context: Context, seen: Seen) -> Finding:
    barred = seen.barred or seen.path
    if os.geteuid() not in (0, context.account.uid):  # it was read with another user's rights
        detail = f"only root and {context.name} can look behind {barred}"
        return unknown(CHECK, reasons.NEEDS_ROOT, detail, path=barred)
    step = next((step for step in seen.steps if step.path == barred), None)
    detail = f"{context.name} may not {'read' if barred == seen.canonical else 'pass'} {barred}"
    if step:
        detail += f" ({view.looks(step)}), so sshd cannot either"
    inside = barred == context.account.home or barred.startswith(f"{context.account.home}/")
    quoted = shlex.quote(barred)
    remedy = f"chown -h {context.name} {quoted} && chmod u+rwX {quoted}" if inside else f"chmod a+rX {quoted}"
    remedy = storage.at(context.target, barred).unlock + remedy
    return obstacle(CHECK, reasons.PERMISSION_DENIED, detail, path=barred, command=remedy)


def _ignored(context: Context, seen: Seen) -> Iterator[Finding]:
    if not restrictions.strict_modes(context.effective):
        return
    home = view.resolve(context.target.tree, context.account.home)
    found = view.flaws(context.target, context.account, seen.steps, home)
    for flaw in found:
        detail = f"sshd ignores the keys, since {view.why(flaw, context.account)} ({view.looks(flaw)})"
        remedy = view.remedy(context.target, flaw, context.account, home)
        yield obstacle("strict-modes", reasons.BAD_MODES, detail, path=flaw.path, command=remedy)
    if not found:
        yield passed("strict-modes", "owners and modes are such that sshd takes the file", path=seen.path)


def _label(context: Context, seen: Seen) -> Iterator[Finding]:
    """Where SELinux is enforced, restorecon itself says whether it would change the label (selinux(8))."""
    enforced = (context.target.tree.read("/sys/fs/selinux/enforce", limit=16) or b"").strip() == b"1"
    program = command.find("restorecon") if enforced and context.target.tree.is_running_system else None
    said = command.run([program, "-n", "-v", seen.canonical]).stdout if program else b""
    if said.strip():
        detail = f"its SELinux label is wrong: {said.decode('utf-8', 'replace').strip()}"
        again = f"restorecon -Rv {shlex.quote(os.path.dirname(seen.canonical))}"
        yield obstacle("selinux", why.SELINUX_LABEL, detail, path=seen.path, command=again)


# --- the key's line -------------------------------------------------------------------------------


def _lines(context: Context, seen: Seen) -> Iterator[Finding]:
    """The line that sshd goes by; else what is wrong with each that has the key, or that none has."""
    content = seen.content or b""
    judged = [
        list(_options(context, entry.options, f"{seen.path}:{number}"))
        for number, entry in authorized_keys.keyed(content)
        if entry.key.fingerprint == context.key.fingerprint
    ]
    if judged:
        yield from _taken(judged) or (finding for found in judged for finding in found)
    else:
        yield _absent(context, seen, content)


def _options(context: Context, text: str, place: str) -> Iterator[Finding]:
    """What the options of one line mean for this login, in sshd's order (auth2-pubkeyfile.c)."""
    options = key_options.parse_options(text)
    reason, detail = why.KEY_OPTIONS_INVALID, ""
    if options.flaw is not None:
        detail = f"sshd passes over the line: {options.flaw!a} is nothing that it takes"
    elif options.is_authority or options.principals is not None:
        detail = "cert-authority or principals is before the key: that is for certificates"
    elif options.expires is not None and options.expires < context.now:
        reason = why.KEY_EXPIRED
        detail = f"the line expired at {_moment(options.expires)}; the clock says {_moment(context.now)}"
    if detail:
        yield obstacle(LINE, reason, detail, path=place, line=text)
        return
    if options.sources is None:
        yield passed(LINE, f"{context.key.fingerprint} is there", path=place)
    else:
        yield _sources(context, options.sources, place, text)
    if options.command is not None:
        detail = f"command= before the key runs {options.command[:80]!r} in place of a shell"
        yield obstacle(FORCED, why.FORCED_COMMAND, detail, path=place, line=text)
    elif not options.has_terminal:
        detail = "the options before the key allow no terminal"
        yield note("terminal", why.NO_TERMINAL, detail, path=place)


def _moment(seconds: float) -> str:
    """Date and time for people, in the machine's own zone, as options in the file are."""
    return time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(seconds))


def _sources(context: Context, sources: str, place: str, text: str) -> Finding:
    try:
        fits = access.host_matches(context.client, sources)
    except access.BadPattern as error:
        return obstacle(LINE, why.KEY_NOT_FROM_HERE, f"from= cannot be read: {error}", path=place, line=text)
    if fits is None:
        detail = f"from={sources[:80]!r} before the key: only from some places"
        return unknown(LINE, why.CLIENT_DEPENDENT, detail, path=place, line=text)
    if fits:
        return passed(FROM, f"{context.key.fingerprint} is there, and from= allows the client", path=place)
    address = context.client.address if context.client else ""
    detail = f"from={sources[:80]!r} before the key does not allow {address}"
    return obstacle(LINE, why.KEY_NOT_FROM_HERE, detail, path=place, line=text)


def _absent(context: Context, seen: Seen, content: bytes) -> Finding:
    """Nothing that sshd would take for the key; perhaps something that was meant to be it."""
    kept = storage.at(context.target, seen.canonical)
    install = context.how_to_install(seen.path, kept)
    if spoilt := _spoilt(context, content):
        number, detail = spoilt
        place = f"{seen.path}:{number}"
        return obstacle(LINE, why.KEY_OPTIONS_INVALID, kept.about(detail), path=place, command=install)
    count = sum(1 for _ in authorized_keys.keyed(content))
    others = f"among its {count} key{'' if count == 1 else 's'}" if count else "there, nor any other key"
    detail = f"{context.key.fingerprint} is not {others}"
    return obstacle(LINE, why.KEY_NOT_INSTALLED, kept.about(detail), path=seen.path, command=install)


def _spoilt(context: Context, content: bytes) -> tuple[int, str] | None:
    if context.key.key is None:
        return None
    data = b2a_base64(context.key.key.blob, newline=False)
    for number, raw in enumerate(BytesIO(content), start=1):
        if data in raw:
            commented = raw.lstrip().startswith(b"#")
            what = "is commented out" if commented else "has something before it that sshd does not know"
            return number, f"the key is there, but {what}"
        if data[-PIECE:] in raw or data[:-PIECE].rstrip(b"=") in raw:
            return number, "a piece of the key is there: its line was broken or cut"
    return None
