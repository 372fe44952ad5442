"""The entries of an account in a tree: lines of passwd(5), group(5), shadow(5), gshadow(5) and subuid(5).

A program that is given the tree's paths would follow the links in it out to the host. So the lines are
written here, as useradd(8) and usermod(8) would: each file is replaced in one instant, with its backup beside
it, and locked as shadow's tools lock. The line of passwd comes last: an account in it has all the others.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain

from firstkey import reasons
from firstkey.config import User
from firstkey.reasons import FirstkeyError
from firstkey.system import erase
from firstkey.system.accounts import NO_PASSWORD, Defaults
from firstkey.system.files import Changed, Directory, File, Looks
from firstkey.system.tree import Tree

LIMIT = 16 * 1024 * 1024
FILES = ("group", "gshadow", "shadow", "subuid", "subgid", "passwd")
TCB = "/etc/tcb"
"""Where tcb(5) has passwords, on ALT Linux and Openwall."""
SUDOERS_FILES = ("/etc/sudoers", "/usr/etc/sudoers")
"""Of these sudo reads the first that is there."""
_INCLUDE = re.compile(r'^[ \t]*[@#]include(dir)?\b(?:[ \t]|\\\n)*"?([^\s"]*).*$', re.MULTILINE)
_DEEPEST = 128
"""How deep sudo's files may include each other (sudoers(5))."""
LOCK_SECONDS = 15.0
"""How long shadow's tools wait for each other."""


def ensure(tree: Tree, user: User, groups: Iterable[str], home: str) -> None:
    """Add the account, if there is none, and its name to those groups. Raises FirstkeyError."""
    with tree.opened("/etc") as etc, _locked(etc):
        etc.remove_stale()
        files = {name: file for name in FILES if (file := etc.read(name, limit=LIMIT))}
        content = {name: file.content for name, file in files.items()}
        if not {"passwd", "group"} <= set(content):
            message = "there is no /etc/passwd or no /etc/group to add an account to"
            raise FirstkeyError(message, reason=reasons.USER_CREATE_FAILED)
        is_new = _entry(content["passwd"], user.name) is None
        if is_new and tree.exists(TCB):
            message = (
                f"the tree has each password in a file below {TCB}, and only its own useradd writes there"
            )
            raise FirstkeyError(message, reason=reasons.USER_CREATE_FAILED)
        for name, line in _lines(content, user, home, Defaults(tree)).items():
            is_there = _entry(content.get(name, b""), user.name) is not None
            if is_there and is_new and name in ("shadow", "gshadow"):
                # Left by an account that is gone: its password must open no new account.
                old = user.name.encode() + b":"
                kept = (line for line in content[name].split(b"\n") if not line.startswith(old))
                content[name] = b"\n".join(kept)
                is_there = False
            if name in content and not is_there:
                content[name] = with_line(content[name], line.encode())
        for name in {"group", "gshadow"} & set(content):
            for group in groups:
                content[name] = with_member(content[name], group.encode(), user.name.encode())
        for name, file in files.items():
            if content[name] != file.content:
                _put(etc, name, file, content[name])


def with_line(content: bytes, line: bytes) -> bytes:
    """The file with one more line: before those of NIS, behind which no program looks for it."""
    content += b"\n" if content and not content.endswith(b"\n") else b""
    found = re.search(rb"^[+-]", content, re.MULTILINE)
    end = found.start() if found else len(content)
    return content[:end] + line + b"\n" + content[end:]


def with_member(content: bytes, group: bytes, name: bytes) -> bytes:
    """The file with the name in the list of the group, if the group is in the file."""
    lines = content.split(b"\n")
    for number, line in enumerate(lines):
        fields = line.split(b":")
        if fields[0] == group and len(fields) == 4:
            if name not in fields[3].split(b","):
                lines[number] = line + (b"," if fields[3] else b"") + name
            break
    return b"\n".join(lines)


def _lines(content: dict[str, bytes], user: User, home: str, defaults: Defaults) -> dict[str, str]:
    """A new account's line in each file; of one that is there, those that it cannot do without."""
    name, day = user.name, int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()) // 86400
    known = _entry(content["passwd"], name, 2, 3)
    if known:
        own = known[2] == known[3] and not any(each[2] == known[3] for each in _entries(content["group"], 2))
        group = {"group": f"{name}:x:{known[3]}:", "gshadow": f"{name}:!::"} if own else {}
        return {"shadow": f"{name}:{NO_PASSWORD}:{day}:::::", **group}
    uid, gid = _numbers(content, name, defaults)
    password = "x" if "shadow" in content else NO_PASSWORD
    shell = user.shell or defaults.text("SHELL", "/bin/bash")
    ages = (defaults.text(age, "") for age in ("PASS_MIN_DAYS", "PASS_MAX_DAYS", "PASS_WARN_AGE", "INACTIVE"))
    days = ":".join([str(day), *(age if age.isdigit() else "" for age in ages)])
    lines = {"shadow": f"{name}:{NO_PASSWORD}:{days}::"}
    lines["passwd"] = f"{name}:{password}:{uid}:{gid}::{home}:{shell}"
    if defaults.text("USERGROUPS_ENAB", "no") == "yes":
        lines["group"] = f"{name}:{'x' if 'gshadow' in content else '!'}:{gid}:"
        lines["gshadow"] = f"{name}:!::"
    for kind in ("uid", "gid"):
        if f"sub{kind}" in content:
            low, high, count = (
                defaults.number(f"SUB_{kind.upper()}_{part}", otherwise)
                for part, otherwise in {"MIN": 100000, "MAX": 600100000, "COUNT": 65536}.items()
            )
            lines[f"sub{kind}"] = f"{name}:{_free_range(content[f'sub{kind}'], low, high, count)}:{count}"
    return lines


def _numbers(content: dict[str, bytes], name: str, defaults: Defaults) -> tuple[int, int]:
    """The new account's number, and that of its group: the one of its name, of all users, or a new one."""
    users, groups = ({int(each[2]) for each in _entries(content[file], 2)} for file in ("passwd", "group"))
    uid = _free(users, defaults.number("UID_MIN", 1000), defaults.number("UID_MAX", 60000))
    own = _entry(content["group"], name, 2)
    if own:
        return uid, int(own[2])
    if defaults.text("USERGROUPS_ENAB", "no") != "yes":
        shared = _entry(content["group"], defaults.text("GROUP", "100"), 2)
        return uid, int(shared[2]) if shared else defaults.number("GROUP", 100)
    low, high = defaults.number("GID_MIN", 1000), defaults.number("GID_MAX", 60000)
    return uid, uid if low <= uid <= high and uid not in groups else _free(groups, low, high)


def _free(taken: set[int], low: int, high: int) -> int:
    """The number behind the highest one that is taken between the two, or the lowest that is free."""
    behind = max((number for number in taken if low <= number <= high), default=low - 1) + 1
    for number in chain([behind], range(low, behind)):
        if number <= high and number not in taken:
            return number
    raise FirstkeyError(f"no number between {low} and {high} is free", reason=reasons.USER_CREATE_FAILED)


def _free_range(content: bytes, low: int, high: int, count: int) -> int:
    """Where the first range of so many subordinate numbers begins of which none is taken."""
    for start, length in sorted((int(each[1]), int(each[2])) for each in _entries(content, 1, 2)):
        if low + count <= start:
            break
        low = max(low, start + length)
    if low + count - 1 > high:
        message = f"no {count} subordinate numbers up to {high} are free"
        raise FirstkeyError(message, reason=reasons.USER_CREATE_FAILED)
    return low


def _entries(content: bytes, *numbers: int) -> Iterator[list[str]]:
    """The fields of each line; only of those where the fields of these places are numbers."""
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        fields = line.split(":")
        if all(re.fullmatch("[0-9]{1,10}", "".join(fields[number : number + 1])) for number in numbers):
            yield fields


def _entry(content: bytes, name: str, *numbers: int) -> list[str] | None:
    return next((fields for fields in _entries(content, *numbers) if fields[0] == name), None)


def _put(etc: Directory, name: str, file: File, content: bytes) -> None:
    looks = Looks(file.mode, (file.uid, file.gid), erase.label(etc, name))
    etc.replace(f"{name}-", file.content, looks)
    try:
        etc.replace(name, content, looks, expected=file)
    except Changed as error:
        message = f"{etc.join(name)} was changed by a program that ignores the locks"
        raise FirstkeyError(message, reason=reasons.CONCURRENT_CHANGE) from error


@contextmanager
def _locked(etc: Directory) -> Iterator[None]:
    """Hold the locks of shadow's tools: another step of the same build may be adding an account of its own.

    These are `.pwd.lock` (lckpwdf(3)) and, for `useradd --prefix`, one a file with the holder's number in it.
    That of passwd is taken first, as those tools do: else each would hold what the other one waits for.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    with ExitStack() as held:
        for name in (".pwd", *reversed(FILES)):
            while not _has_taken(etc, f"{name}.lock", held):
                if time.monotonic() > deadline:
                    message = f"{etc.join(name)}.lock is held by another program"
                    raise FirstkeyError(message, reason=reasons.CONCURRENT_CHANGE)
                time.sleep(0.05)
        yield


def _has_taken(etc: Directory, lock: str, held: ExitStack) -> bool:
    if lock == ".pwd.lock":
        with ExitStack() as opened, suppress(BlockingIOError, PermissionError):
            fd = etc.open_to_lock(lock)
            opened.callback(os.close, fd)
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.push(opened.pop_all())
            return True
        return False
    with suppress(Changed):
        etc.replace(lock, b"%d\0" % os.getpid(), Looks(0o600, durable=False), expected=None)
        held.callback(etc.remove, lock)
        return True
    file = etc.read(lock, limit=LIMIT)
    holder = file.content.strip(b"\0\n") if file else b""
    if holder.isdigit() and not os.path.exists(f"/proc/{int(holder)}"):
        etc.remove(lock)  # its holder was killed
    return False


# --- sudo -------------------------------------------------------------------------------------------


def sudoers(tree: Tree, added: Mapping[str, bytes]) -> str:
    """All that sudo reads, as one text without an include; `added` are files that are yet to come.

    A tree without a main file gets it with sudo, and every distribution's includes /etc/sudoers.d.
    """
    main = next(filter(tree.exists, SUDOERS_FILES), None)
    read: set[str] = set()

    def text_of(path: str, depth: int = 0) -> str:
        if path in read or depth > _DEEPEST:
            return ""
        read.add(path)
        content = added.get(path) or tree.read(path, limit=LIMIT) or b""
        return with_includes(path, content.decode("utf-8", "surrogateescape"), depth)

    def with_includes(path: str, text: str, depth: int) -> str:
        return _INCLUDE.sub(
            lambda named: "\n".join(text_of(inner, depth + 1) for inner in inside(path, named)), text
        )

    def inside(path: str, named: re.Match[str]) -> Iterator[str]:
        place = os.path.normpath(os.path.join(os.path.dirname(path), named[2]))
        if not named[1]:
            yield place
            return
        come = (os.path.basename(each) for each in added if os.path.dirname(each) == place)
        for name in sorted({*tree.names(place), *come}):
            if "." not in name and not name.endswith("~"):
                yield f"{place}/{name}"

    return text_of(main) if main else with_includes(SUDOERS_FILES[0], "@includedir /etc/sudoers.d\n", 0)
