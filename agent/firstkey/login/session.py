"""Between an accepted key and the shell: root's own rule, PAM's, and the session up to the first command.

At last the shell itself is tried: whether it comes as far as a command, its start-up files being as they are.
It runs with the user's own rights in a box (system/box.py): all that it sees is read-only, and it gets no
socket, so that the user's start-up files can neither change nor send anything. A start-up file that needs
a terminal, a network or a file to write may do something else there.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice

from firstkey import NamedTuple, reasons
from firstkey import login_reasons as why
from firstkey.login import pam, view
from firstkey.login.context import DISABLED, Context, status
from firstkey.login.finding import OBSTACLE, Finding, note, obstacle, passed, unanswered, unknown
from firstkey.reasons import FirstkeyError
from firstkey.ssh import restrictions
from firstkey.ssh.authorized_keys import Part
from firstkey.ssh.sshd_config import with_tokens
from firstkey.system import box, command
from firstkey.system import pam as answers

START_UP = {
    "bash": (
        "/etc/profile", "~/.bash_profile", "~/.bash_login", "~/.profile", "/etc/bash.bashrc", "~/.bashrc",
    ),
    "zsh": ("/etc/zsh/zshenv", "~/.zshenv", "/etc/zsh/zprofile", "~/.zprofile", "~/.zshrc", "~/.zlogin"),
    "csh": ("/etc/csh.cshrc", "~/.tcshrc", "~/.cshrc", "/etc/csh.login", "~/.login"),
    "fish": ("/etc/fish/config.fish", "~/.config/fish/config.fish"),
}  # fmt: skip
"""What a shell reads before its first command; a shell that is not here reads what sh does."""
USUAL = ("/etc/profile", "~/.profile")
LIMITS = "/etc/security/limits"
MOST_LIMITS = 100
"""How many lines of limits.conf(5) are tried, each by a start of the shell."""
MARK = "firstkey-came-as-far-as-a-command"
SECONDS = 20.0
REFUSED, NO_BOX, NOT_STARTED = 123, 124, 125
INTERACTIVE = frozenset({"ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "rbash", "sh", "tcsh", "zsh"})
"""Shells that take commands from what is no terminal with -i."""
_ENDS = re.compile(r"(?:^|[;&|){]|\bthen|\bdo|\belse)\s*(?:exit|logout|exec(?!\s+[^\s/]*[<>])|kill)\b")


class Trial(NamedTuple):
    """How it ended: `words` are the last that it printed."""

    reached: bool
    status: int
    words: str


def findings(context: Context, before: Sequence[Finding]) -> Iterator[Finding]:
    """In sshd's order (monitor.c, auth-pam.c, session.c). `before` is what was found out about the key."""
    yield from _root(context, before)
    has_pam = restrictions.use_pam(context.effective)
    if has_pam:
        yield from pam.findings(context)
        yield from pam.session(context)
    else:
        yield from pam.closed(context, pam.NOLOGIN)  # which sshd itself reads too
    if context.says("maxsessions") == "0":
        detail = "MaxSessions is 0: sshd begins no session"
        yield context.in_config("maxsessions", why.SESSION_LIMIT, detail, edit=DISABLED)
    unsafe = list(_chroot(context))
    yield from unsafe
    if forced := context.says("forcecommand"):
        detail = f"ForceCommand runs {forced[:80]!r} in place of a shell"
        yield context.in_config("forcecommand", why.FORCED_COMMAND, detail, check="forced-command")
    shell = context.account.shell or "/bin/sh"
    if restrictions.is_no_shell(shell):
        detail = f"the shell of {context.name} is {shell}, which only ends the session"
        remedy = f"usermod -s /bin/sh {shlex.quote(context.name)}"
        yield obstacle("login-shell", why.NO_LOGIN_SHELL, detail, path="/etc/passwd", command=remedy)
    elif not (unsafe or forced or any(each.check == "shell" and each.status == OBSTACLE for each in before)):
        yield from _tried(context, has_pam=has_pam)
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
    """What each part of the path leads to must be root's alone (session.c: safely_chroot)."""
    path = _new_root(context)
    if not path:
        return
    parts = [part for part in path.split("/") if part]
    for depth in range(len(parts) + 1):
        place = "/".join(["", *parts[:depth]]) or "/"
        found = status(context.target, place)
        step = found and Part(place, found.st_uid, found.st_gid, found.st_mode)
        if step is None or step.uid != 0 or step.mode & 0o022:
            looks = view.looks(step) if step else "it does not exist"
            quoted = shlex.quote(place)
            command = f"chown root {quoted} && chmod go-w {quoted}" if step else f"mkdir -p {quoted}"
            detail = f"ChrootDirectory must be root's alone at each step: {looks}"
            yield obstacle("chroot", why.CHROOT_UNSAFE, detail, path=place, command=command)
            return


def _new_root(context: Context) -> str:
    """Where ChrootDirectory leads; empty where there is none."""
    return with_tokens(context.says("chrootdirectory"), context.account)


# --- the shell --------------------------------------------------------------------------------------


def _tried(context: Context, *, has_pam: bool) -> Iterator[Finding]:
    """Whether the shell comes as far as a command, for `ssh HOST` and for `ssh HOST COMMAND`."""
    check = "session"
    if not context.target.tree.is_running_system:
        yield note(check, why.NOT_RUNNING_SYSTEM, "the shell can only be tried on the system itself")
        return
    if os.geteuid() != 0:
        yield unknown(check, reasons.NEEDS_ROOT, "only root can try the shell without changing anything")
        return
    found = pam.rules(context.target.tree, pam.service(context), "session") if has_pam else []
    rule = next((rule for rule in found if rule.module == "pam_limits"), None)
    for is_login, what in ((True, "ssh HOST"), (False, "ssh HOST COMMAND")):
        start = partial(_started, context, is_login=is_login)
        try:
            tried = start(rule)
            if not tried.reached and rule and start(None).reached:
                yield _limited(context, rule, f"{what}: {tried.words}", partial(start, rule))
                return
        except FirstkeyError as error:
            if error.reason is not reasons.TIMED_OUT:
                yield unanswered(check, error)
                return
            tried = Trial(reached=False, status=0, words=error.message)
        if not tried.reached:
            yield _ended(context, tried, what)
            return
    yield passed(check, f"{context.account.shell}, tried without a terminal, comes as far as a command")


def _started(context: Context, rule: pam.Rule | None, limits: str | None = None, *, is_login: bool) -> Trial:
    """Start the shell as sshd does (session.c: do_child), as a login shell or for a command of the client's.

    It has the limits that the rule of pam_limits gives the user, out of the lines of limits.conf(5) in
    `limits`, if these are given. Raises FirstkeyError where the shell does not end.
    """
    account, kernel = context.account, box.Kernel()
    groups = context.target.accounts.group_ids(account)
    shell = account.shell or "/bin/sh"
    name = shell.rpartition("/")[2]
    interactive = ["-i"] if name in INTERACTIVE else []
    argv = [f"-{name}", *interactive] if is_login else [name, "-c", f"echo {MARK}"]
    client = context.client.address if context.client else "192.0.2.1"
    environment = {
        "USER": account.name, "LOGNAME": account.name, "HOME": account.home, "SHELL": shell,
        "PATH": "/usr/local/bin:/usr/bin:/bin", "TERM": "dumb",
        "SSH_CLIENT": f"{client} 40000 22", "SSH_CONNECTION": f"{client} 40000 {client} 22",
    }  # fmt: skip

    def become_the_shell(take_limits: Callable[[], None]) -> None:
        status = NO_BOX
        try:
            kernel.shut_for_session(account.uid, account.gid, groups, take_limits, _new_root(context))
            status = NOT_STARTED
            started = os.fork()  # sshd forks once more as the user, up to whose limits that is
            if not started:
                os._exit(0)
            os.waitpid(started, 0)
            os.chdir(account.home if os.access(account.home, os.X_OK) else "/")
            os.execve(shell, argv, environment)  # noqa: S606 - it is the shell that is tried
        except Exception as error:  # noqa: BLE001 - behind it there is only the end of this process
            status = REFUSED if isinstance(error, answers.SessionRefused) else status
            words = error.strerror if isinstance(error, OSError) else str(error)
            os.write(2, f"{words}\n".encode())
        os._exit(status)

    stdin = f"echo {MARK}\nexit\n".encode()
    with answers.limits(context.name, rule.line, limits) if rule else nullcontext(lambda: None) as take:
        started = command.start([shell], stdin=stdin, before=partial(become_the_shell, take))
        outcome = started.finish(seconds=SECONDS)
    return Trial(MARK.encode() in outcome.stdout, outcome.status, outcome.words)


def _limited(context: Context, rule: pam.Rule, tried: str, run: Callable[[str], Trial]) -> Finding:
    """The line of limits.conf(5) that ends the session when it stands alone; or else PAM's rule."""
    tree = context.target.tree
    named = [word.partition("=")[2] for word in rule.arguments if word.startswith("conf=")]
    below = [f"{LIMITS}.d/{name}" for name in sorted(tree.names(f"{LIMITS}.d")) if name.endswith(".conf")]
    lines = (each for path in named or (f"{LIMITS}.conf", *below) for each in pam.lines(tree, path))
    ends = (each for each in islice(lines, MOST_LIMITS) if not run(f"{each[1]}\n").reached)
    place, line = next(ends, (rule.place, rule.line))
    detail = f"with this limit {context.name} does not come as far as a command ({tried})"
    return obstacle("session", why.SESSION_LIMIT, detail, path=place, line=line)


def _ended(context: Context, tried: Trial, what: str) -> Finding:
    check, shell = "session", context.account.shell
    if tried.status == NOT_STARTED:
        detail = f"{shell} cannot be started by {context.name}: {tried.words}"
        if chroot := _new_root(context):
            detail = f"in ChrootDirectory {chroot}, {detail}"
            found = context.in_config("chrootdirectory", why.CHROOT_UNSAFE, detail, check="chroot")
            return found._replace(remedy=f"Put {shell} and its libraries there, or remove ChrootDirectory.")
        command = f"usermod -s /bin/sh {shlex.quote(context.name)}"
        return obstacle(check, why.SHELL_MISSING, detail, path=shell, command=command)
    if tried.status == NO_BOX:
        detail = (
            f"the shell was not tried, since nothing here would keep it from changing things: {tried.words}"
        )
        return unknown(check, why.SESSION_UNKNOWN, detail)
    detail = f"tried without a terminal, {shell} ends before it comes to a command ({what}): {tried.words}"
    ends = list(_endings(context))
    for place, line in ends:
        if _ENDS.match(line) and not line[:1].isspace():
            return obstacle(check, why.SESSION_ENDS, detail, path=place, line=line)
    found = unknown(check, why.SESSION_UNKNOWN, detail)
    return found._replace(path=ends[0][0], line=ends[0][1].strip()[:200]) if ends else found


def _endings(context: Context) -> Iterator[tuple[str, str]]:
    """The lines of start-up files that may end the session, with their places, in the order of the files."""
    name = context.account.shell.rpartition("/")[2]
    names = next((files for known, files in START_UP.items() if name.endswith(known)), USUAL)
    for path in (each.replace("~", context.account.home) for each in names):
        try:
            content = view.look(context.target, context.account, path).content or b""
        except FirstkeyError:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").split("\n"), 1):
            if _ENDS.search(line.split("#")[0]):
                yield f"{path}:{number}", line


def stops(found: Sequence[Finding]) -> bool:
    """Whether one of them is an obstacle."""
    return any(finding.status == OBSTACLE for finding in found)
