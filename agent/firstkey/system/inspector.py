"""A program of this machine that looks at what came out of a tree, and can do nothing else.

It gets copies, in a private directory that is gone afterwards, and never a path of the tree: what the tree's
author wrote leads it nowhere. It runs in a box (system/box.py): it reads, and gets no socket, so that no host
name in a configuration is looked up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

from firstkey import reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import command
from firstkey.system.files import Looks

PROGRAMS = ("sshd", "ssh-keygen", "visudo", "cvtsudoers", "matchpathcon")
"""Those that may be asked from within a box."""
HERE = "/@the-directory-of-the-copies@"
"""Stands for the directory of the copies, in arguments and in the copies. A tree that has the same words in a
file has its own copies named there.
"""
_COPY = re.escape(HERE) + r"/[A-Za-z0-9_.]+"
FORMS = (
    ("sshd", "-G", "-T", "-C", "user=.*", "-f", _COPY),
    ("sshd", "-T", "-h", "/dev/stdin", "-C", "user=.*", "-f", _COPY),
    ("ssh-keygen", "-y", "-P", "", "-f", "/dev/stdin"),
    ("ssh-keygen", "-l", "-f", "/dev/stdin"),
    ("ssh-keygen", "-Q", "-f", _COPY, "/dev/stdin"),
    ("visudo", "-c", "-f", _COPY),
    ("cvtsudoers", "-e", "-f", "json"),
    ("cvtsudoers", "-e", "-f", "json", "-d", "runas", "-s", "privileges"),
    ("matchpathcon", "-n", "-m", "file|dir", "/.*"),
)
"""How they may be asked: each argument fits its pattern. None names a file of this machine."""
SECONDS = 10.0


def run(
    argv: Sequence[str], *, files: Mapping[str, bytes] | None = None, stdin: bytes = b""
) -> command.Outcome:
    """Run a program (by its full path, from command.find) to its end, with copies of `files` by their names.

    Raises FirstkeyError where it cannot be started or does not end in time.
    """
    copies = files or {}
    if command.ask_watcher:
        return command.Outcome(*command.ask_watcher("program", list(argv), dict(copies), stdin))
    from firstkey.system import box  # late, since ctypes costs more than a look at what has changed

    kernel = box.Kernel()
    with command.scratch_directory() as directory:
        where = directory.on_host
        for name, content in copies.items():
            own = content.replace(HERE.encode(), where.encode())
            directory.replace(name, own, Looks(0o600, durable=False))
        own_argv = [word.replace(HERE, where) for word in argv]
        shut = partial(kernel.shut_for_program, where, own_argv[0])
        done = command.start(own_argv, stdin=stdin, before=shut).finish(seconds=SECONDS)
    return done._replace(
        stdout=done.stdout.replace(where.encode(), HERE.encode()),
        stderr=done.stderr.replace(where.encode(), HERE.encode()),
    )


def answer_find(program: str) -> str | None:
    """The question `find` of a boxed process: where the program is, if it is one of PROGRAMS."""
    return command.find(program) if program in PROGRAMS else None


def answer_program(argv: list[str], files: dict[str, bytes], stdin: bytes) -> command.Outcome:
    """The question `program` of a boxed process, whose every word may be the tree's author's."""
    if not any(_fits(argv, form) for form in FORMS):
        raise FirstkeyError(f"{argv!a:.200} is not run for a tree", reason=reasons.INTERNAL_ERROR)
    if any("/" in name or name in ("", ".", "..") for name in files):
        raise FirstkeyError("a copy has a name that is a path", reason=reasons.INTERNAL_ERROR)
    return run(argv, files=files, stdin=stdin)


def _fits(argv: list[str], form: tuple[str, ...]) -> bool:
    """Whether it is that program, with arguments of that form."""
    return (
        argv[:1] == [command.find(form[0])]
        and len(argv) == len(form)
        and all(re.fullmatch(pattern, word, re.DOTALL) for pattern, word in zip(form[1:], argv[1:]))
    )
