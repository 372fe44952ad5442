"""Whether sshd finds the key for this user: each file of keys, and what makes sshd ignore it."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from firstkey import login_reasons as why
from firstkey import reasons
from firstkey.login import key_lines, storage, view
from firstkey.login.context import DISABLED
from firstkey.login.finding import OK, UNKNOWN, Finding, obstacle, passed, unanswered, unknown
from firstkey.reasons import FirstkeyError
from firstkey.ssh import restrictions
from firstkey.ssh.sshd_config import looks_for
from firstkey.system import as_user, command, sshd_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.login.context import Context
    from firstkey.login.view import Seen

CHECK, COMMAND = "authorized-keys", "authorizedkeyscommand"


def findings(context: Context) -> Iterator[Finding]:
    """One good file is enough, whatever is wrong with the others; else everything that is wrong."""
    files = [_of_file(context, path) for path in paths(context)]
    good = next((found for found in files if all(finding.status == OK for finding in found)), None)
    if good:
        yield from good
        return
    wrong = [found for found in files if not _is_missing(found)] or files[:1]
    # A directory that is in the way of two files is one obstacle.
    each = list({(finding.reason, finding.path): finding for found in wrong for finding in found}.values())
    program = context.says("authorizedkeyscommand")
    if program:
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


def paths(context: Context) -> list[str]:
    """Where sshd looks for this user's keys, in its order."""
    account, patterns = context.account, context.effective.authorized_keys_files
    if not any(map(looks_for, patterns)):
        return sshd_tree.key_files(context.sshd, account, patterns)
    groups = context.site.accounts.group_ids(account)
    found: list[str] = as_user.run_as(
        account, groups, lambda: sshd_tree.key_files(context.sshd, account, patterns)
    )
    return found


def _is_missing(found: list[Finding]) -> bool:
    """Whether the only fault is that the file is missing: which of several is missing does not matter."""
    return any(finding.check == f"{CHECK}-missing" for finding in found)


def _of_file(context: Context, path: str) -> list[Finding]:
    try:
        seen = view.look(context.site, context.account, path)
        return list(_judged(context, seen))
    except FirstkeyError as error:
        return [unanswered(CHECK, error, path=path)]


def _judged(context: Context, seen: Seen) -> Iterator[Finding]:
    if seen.missing:
        yield from _missing(context, seen)
    elif seen.barred:
        yield _barred(context, seen)
    elif seen.file and not seen.file.is_file:
        detail = f"sshd reads keys only from a regular file ({view.looks(seen.file)})"
        install = context.how_to_install(seen.path, storage.at(context.site, seen.canonical))
        command = install and f"rm -d {shlex.quote(seen.path)} && {install}"
        yield obstacle(CHECK, reasons.NOT_A_REGULAR_FILE, detail, path=seen.path, command=command)
    elif seen.trouble:
        yield obstacle(CHECK, reasons.IO_ERROR, seen.trouble, path=seen.path)
    else:
        yield from _ignored(context, seen)
        yield from _label(context, seen)
        yield from key_lines.findings(context, seen)


def _missing(context: Context, seen: Seen) -> Iterator[Finding]:
    home = context.account.home.rstrip("/") or "/"
    kept = storage.at(context.site, seen.missing or seen.path)
    remedy = context.how_to_install(seen.path, kept)
    if seen.missing and (home == seen.missing or home.startswith(f"{seen.missing}/")):
        make = remedy and f"mkhomedir_helper {shlex.quote(context.name)} && {remedy}"
        detail = f"the home of {context.name} does not exist, and so neither do the keys in it"
        yield obstacle(f"{CHECK}-missing", reasons.HOME_MISSING, detail, path=home, command=make)
        return
    detail = kept.about(f"the file of keys does not exist ({seen.missing} is missing)")
    if context.site.tree.is_running_system and os.path.islink(seen.path):
        remedy = remedy and f"rm {shlex.quote(seen.path)} && {remedy}"
    yield obstacle(f"{CHECK}-missing", why.KEY_NOT_INSTALLED, detail, path=seen.path, command=remedy)
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
    remedy = storage.at(context.site, barred).unlock + remedy
    return obstacle(CHECK, reasons.PERMISSION_DENIED, detail, path=barred, command=remedy)


def _ignored(context: Context, seen: Seen) -> Iterator[Finding]:
    if not restrictions.strict_modes(context.effective):
        return
    home = _home(context)
    found = view.flaws(context.site, context.account, seen.steps, home)
    for flaw in found:
        detail = f"sshd ignores the keys, since {view.why(flaw, context.account)} ({view.looks(flaw)})"
        remedy = view.remedy(context.site, flaw, context.account, home)
        yield obstacle("strict-modes", reasons.BAD_MODES, detail, path=flaw.path, command=remedy)
    if not found:
        yield passed("strict-modes", "owners and modes are such that sshd takes the file", path=seen.path)


def _home(context: Context) -> str:
    try:
        return view.resolve(context.site.tree, context.account.home)
    except OSError:
        return context.account.home


def _label(context: Context, seen: Seen) -> Iterator[Finding]:
    """Where SELinux is enforced, restorecon itself says whether it would change the label (selinux(8))."""
    enforced = (context.site.tree.read("/sys/fs/selinux/enforce", limit=16) or b"").strip() == b"1"
    program = command.find("restorecon") if enforced and context.site.tree.is_running_system else None
    said = command.run([program, "-n", "-v", seen.canonical]).stdout if program else b""
    if said.strip():
        detail = f"its SELinux label is wrong: {said.decode('utf-8', 'replace').strip()}"
        again = f"restorecon -Rv {shlex.quote(os.path.dirname(seen.canonical))}"
        yield obstacle("selinux", why.SELINUX_LABEL, detail, path=seen.path, command=again)
