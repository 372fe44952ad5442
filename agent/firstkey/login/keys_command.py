"""AuthorizedKeysCommand: whether sshd would run it, and whether it vouches for the key.

It is asked as sshd asks it (auth2-pubkey.c): as its user, with a cleaned environment, for this user.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from firstkey import login_reasons as why
from firstkey import reasons
from firstkey.login import key_lines, view
from firstkey.login.finding import Finding, obstacle, unanswered
from firstkey.login.view import Seen
from firstkey.model import Account
from firstkey.reasons import FirstkeyError
from firstkey.ssh.sshd_config import with_tokens
from firstkey.system import command, keygen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.login.context import Context

CHECK = "authorizedkeyscommand"
SECONDS = 20.0
LONGEST = 16 * 1024
"""Characters of the command: shlex takes the square of a word's length."""
ROOT = Account("root", 0, 0, "/root", "/bin/sh")


def findings(context: Context) -> Iterator[Finding]:
    """Nothing where there is no command; else whether it can be run, and what it says."""
    words = _arguments(context)
    if not words:
        return
    program = words[0]
    name = with_tokens(context.says("authorizedkeyscommanduser"), context.account)
    runner = context.site.accounts.find(name) if name else None
    if runner is None:
        detail = f"AuthorizedKeysCommandUser {name}: there is no such account"
        yield obstacle(CHECK, why.KEYS_COMMAND_FAILED, detail, path=program)
        return
    try:
        yield from _unsafe(context, runner, program) or _said(context, runner, words)
    except FirstkeyError as error:
        yield unanswered(CHECK, error, path=program)


def _arguments(context: Context) -> list[str]:
    """The command with its tokens expanded (sshd_config(5): TOKENS); those of the key are the key's."""
    key = context.key
    line = key.key.line.split(" ") if key.key else ["", ""]
    tokens = {"f": key.fingerprint, "t": key.type or "", "k": line[1] if len(line) > 1 else ""}
    try:
        words = shlex.split(context.says(CHECK)[:LONGEST])
    except ValueError:
        words = context.says(CHECK).split()
    return [with_tokens(word, context.account, **tokens) for word in words]


def _unsafe(context: Context, runner: Account, program: str) -> list[Finding]:
    """It and every directory above must be root's, and nobody else may write them."""
    seen = view.look(context.site, runner, program, content=False)
    if seen.file is None or not seen.file.is_file:
        detail = f"AuthorizedKeysCommand cannot be found by {runner.name}"
        return [obstacle(CHECK, why.KEYS_COMMAND_FAILED, detail, path=program)]
    return [
        obstacle(
            CHECK, why.KEYS_COMMAND_FAILED, f"sshd does not run {program}, since {view.why(flaw)}",
            path=flaw.part.path, command=view.remedy(context.site, flaw, ROOT.name, ""),
        )
        for flaw in view.flaws(context.site, ROOT, seen.steps, "/")
    ]  # fmt: skip


def _said(context: Context, runner: Account, words: list[str]) -> list[Finding]:
    if not context.site.tree.is_running_system:
        raise FirstkeyError(f"{words[0]} can only be asked where it runs", reason=why.NOT_RUNNING_SYSTEM)
    if not keygen.is_root():
        raise FirstkeyError(f"only root can run {words[0]} as {runner.name}", reason=reasons.NEEDS_ROOT)
    rights = command.Rights(runner.uid, runner.gid, tuple(context.site.accounts.group_ids(runner)))
    outcome = command.run(words, seconds=SECONDS, rights=rights)
    if outcome.status:
        said = " ".join(outcome.stderr.decode("utf-8", "replace").split())[:300]
        detail = f"{words[0]} failed with status {outcome.status}: {said or 'it does not say why'}"
        return [obstacle(CHECK, why.KEYS_COMMAND_FAILED, detail, path=words[0])]
    return list(key_lines.findings(context, Seen(words[0], words[0], content=outcome.stdout)))
