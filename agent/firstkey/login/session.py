"""Between an accepted key and the shell: root's own rule, PAM's account rules, and the session."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from firstkey import login_reasons as why
from firstkey import reasons
from firstkey.login import pam, view
from firstkey.login.finding import OBSTACLE, Finding, note, obstacle, passed, unanswered
from firstkey.reasons import FirstkeyError
from firstkey.ssh import restrictions
from firstkey.ssh.sshd_config import with_tokens
from firstkey.system import sshd_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from firstkey.login.context import Context


def findings(context: Context, before: Sequence[Finding]) -> Iterator[Finding]:
    """In sshd's order (monitor.c, auth-pam.c, session.c). `before` is what was found out about the key."""
    yield from _root(context, before)
    if restrictions.use_pam(context.effective):
        yield from pam.findings(context)
    else:
        yield from pam.closed(context, pam.NOLOGIN)  # which sshd itself heeds without PAM
    yield from _chroot(context)
    yield from _home(context, before)
    yield from _forced(context)
    shell = context.account.shell or "/bin/sh"
    if restrictions.is_no_shell(shell):
        detail = f"the shell of {context.name} is {shell}, which only ends the session"
        remedy = f"usermod -s /bin/sh {shlex.quote(context.name)}"
        yield obstacle("login-shell", why.NO_LOGIN_SHELL, detail, path="/etc/passwd", remedy=remedy)
    if context.says("permittty") == "no":
        yield note("terminal", why.NO_TERMINAL, f"PermitTTY is no for {context.name}")


def _root(context: Context, before: Sequence[Finding]) -> Iterator[Finding]:
    if context.account.uid != 0:
        return
    value = restrictions.permit_root_login(context.effective)
    forced = any(finding.check == "forced-command" for finding in before)
    if value in ("yes", "prohibit-password") or (value == "forced-commands-only" and forced):
        yield passed("permitrootlogin", f"PermitRootLogin {value} lets root in with a key")
        return
    yield context.in_config("permitrootlogin", why.ROOT_LOGIN_REFUSED, f"PermitRootLogin is {value}")


def _chroot(context: Context) -> Iterator[Finding]:
    """Every part of the path must be root's, and nobody else may write it (session.c: safely_chroot)."""
    pattern = context.says("chrootdirectory")
    if not pattern:
        return
    path = with_tokens(pattern, context.account)
    steps = {step.path: step for step in view.look(context.site, context.account, path, content=False).steps}
    parts = [part for part in path.split("/") if part]
    for depth in range(len(parts) + 1):
        place = "/".join(["", *parts[:depth]]) or "/"
        step = steps.get(place)
        if step is None or step.uid != 0 or step.mode & 0o022:
            looks = view.looks(step) if step else "it does not exist"
            quoted = shlex.quote(place)
            remedy = f"chown root {quoted} && chmod go-w {quoted}" if step else f"mkdir -p {quoted}"
            detail = f"ChrootDirectory must be root's alone at each step: {looks}"
            yield obstacle("chroot", why.CHROOT_UNSAFE, detail, path=place, remedy=remedy)
            return
    detail = f"the session runs in {path}; whether a shell is in there was not looked at"
    yield note("chroot", why.CHROOT_UNSAFE, detail, path=path, remedy=f"chroot {shlex.quote(path)} /bin/sh")


def _home(context: Context, before: Sequence[Finding]) -> Iterator[Finding]:
    """A missing home ends no login by itself: sshd says so, and the shell starts in the root directory."""
    home = context.account.home
    told = any(finding.reason is reasons.HOME_MISSING for finding in before)
    if told or context.says("chrootdirectory"):
        return
    try:
        seen = view.look(context.site, context.account, home, content=False)
    except FirstkeyError as error:
        yield unanswered("home", error, path=home)
        return
    if seen.file is None:
        detail = f"the home of {context.name} is not there or not to be entered: the shell starts in /"
        yield note("home", reasons.HOME_MISSING, detail, path=home)
    else:
        yield passed("home", f"the home {home} is there", path=home)


def _forced(context: Context) -> Iterator[Finding]:
    command = context.says("forcecommand")
    if command:
        place = sshd_tree.where(context.sshd, "forcecommand")
        remedy = f"take ForceCommand out of {place}; then reload sshd" if place else ""
        detail = f"ForceCommand runs {command[:80]!r} in place of a shell"
        yield obstacle("forced-command", why.FORCED_COMMAND, detail, path=place, remedy=remedy)


def stops(found: Sequence[Finding]) -> bool:
    """Whether one of them is an obstacle."""
    return any(finding.status == OBSTACLE for finding in found)
