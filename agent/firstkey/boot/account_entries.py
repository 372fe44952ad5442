"""The entries of an account in a tree: lines of passwd(5), group(5), shadow(5), gshadow(5) and subuid(5).

A program that is given the tree's paths would follow the links in it out to the host. So the lines are
written here, as useradd(8) and usermod(8) would: each file is replaced in one instant, with its backup beside
it, and locked as shadow's tools lock. The line of passwd comes last: whoever is in it has all the others.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.system import erase
from firstkey.system.files import Changed, Looks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from firstkey.boot.account_defaults import Defaults
    from firstkey.config import User
    from firstkey.system.files import Directory, File
    from firstkey.system.tree import Tree

LIMIT = 16 * 1024 * 1024
NO_PASSWORD = "*"  # noqa: S105 - matches no password, and unlike "!" is no lock that sshd heeds (shadow(5))
FILES = ("group", "gshadow", "shadow", "subuid", "subgid", "passwd")
LOCK_SECONDS = 15.0
"""How long shadow's tools wait for each other."""
DAY = 86400


def ensure(tree: Tree, user: User, groups: Iterable[str], home: str, defaults: Defaults) -> None:
    """Add the lines that the account lacks, and its name to those groups. Raises FirstkeyError."""
    with tree.opened("/etc") as etc, _locked(etc):
        etc.remove_stale()
        files = {name: etc.read(name, limit=LIMIT) for name in FILES}
        content = {name: file.content for name, file in files.items() if file}
        for name in {"passwd", "group"} - set(content):
            _fail(f"there is no /etc/{name}")
        for name, line in _lines(content, user, home, defaults).items():
            if name in content and _entry(content[name], user.name) is None:
                content[name] = with_line(content[name], line.encode())
        for group in groups:
            for name in {"group", "gshadow"} & set(content):
                content[name] = with_member(content[name], group.encode(), user.name.encode())
        for name, file in files.items():
            if file and content[name] != file.content:
                _put(etc, name, file, content[name])


def lacks_shadow(tree: Tree, name: str) -> bool:
    """Whether there is a /etc/shadow, and no line of the account in it."""
    content = tree.read("/etc/shadow", limit=LIMIT)
    return content is not None and _entry(content, name) is None


def with_line(content: bytes, line: bytes) -> bytes:
    """The file with one more line: before those of NIS, behind which nobody would look for it."""
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


def free_number(taken: Iterable[int], low: int, high: int) -> int:
    """The number behind the highest one that is taken between the two, or the lowest that is free."""
    within = {number for number in taken if low <= number <= high}
    behind = max(within, default=low - 1) + 1
    free = (
        behind
        if behind <= high
        else next((number for number in range(low, high) if number not in within), -1)
    )
    return free if free >= 0 else _fail(f"no number between {low} and {high} is free")


def free_range(content: bytes, low: int, high: int, count: int) -> int:
    """Where the first range of so many subordinate numbers begins of which none is anybody's."""
    taken = sorted((int(fields[1]), int(fields[2])) for fields in _entries(content, 1, 2))
    for start, length in taken:
        if low < start and low + count <= start:
            break
        low = max(low, start + length)
    return low if low + count - 1 <= high else _fail(f"no {count} subordinate numbers up to {high} are free")


def _lines(content: dict[str, bytes], user: User, home: str, defaults: Defaults) -> dict[str, str]:
    name, there = user.name, _entry(content["passwd"], user.name)
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    today = int(epoch) if epoch.isdigit() else int(time.time())
    ages = [defaults.field(f"PASS_{age}") for age in ("MIN_DAYS", "MAX_DAYS", "WARN_AGE")]
    shadow = ":".join((name, NO_PASSWORD, str(today // DAY), *ages, *defaults.end_of_accounts, ""))
    if there:
        return {"shadow": shadow}
    uid, gid = _numbers(content, name, defaults)
    password = "x" if "shadow" in content else NO_PASSWORD
    lines = {
        "passwd": f"{name}:{password}:{uid}:{gid}::{home}:{user.shell or defaults.shell}",
        "shadow": shadow,
    }
    if defaults.has_own_groups:
        lines["group"] = f"{name}:{'x' if 'gshadow' in content else '!'}:{gid}:"
        lines["gshadow"] = f"{name}:!::"
    for kind in ("UID", "GID"):
        file, count = f"sub{kind.lower()}", defaults.number(f"SUB_{kind}_COUNT", 65536)
        if file in content and count:
            low, high = (
                defaults.number(f"SUB_{kind}_MIN", 100000),
                defaults.number(f"SUB_{kind}_MAX", 600100000),
            )
            lines[file] = f"{name}:{free_range(content[file], low, high, count)}:{count}"
    return lines


def _numbers(content: dict[str, bytes], name: str, defaults: Defaults) -> tuple[int, int]:
    """The new account's number, and that of its group: the one of its name, of all users, or a new one."""
    users, groups = (
        [int(fields[2]) for fields in _entries(content[file], 2)] for file in ("passwd", "group")
    )
    uid = free_number(users, defaults.number("UID_MIN", 1000), defaults.number("UID_MAX", 60000))
    own = _entry(content["group"], name, 2)
    if own:
        return uid, int(own[2])
    if not defaults.has_own_groups:
        shared = _entry(content["group"], defaults.group, 2)
        return uid, int(shared[2] if shared else defaults.group)
    low, high = defaults.number("GID_MIN", 1000), defaults.number("GID_MAX", 60000)
    return uid, uid if low <= uid <= high and uid not in groups else free_number(groups, low, high)


def _entries(content: bytes, *numbers: int) -> Iterator[list[str]]:
    """The fields of each line; only of those where the fields of these places are numbers."""
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        fields = line.split(":")
        if all(re.fullmatch("[0-9]{1,10}", "".join(fields[number : number + 1])) for number in numbers):
            yield fields


def _entry(content: bytes, name: str, *numbers: int) -> list[str] | None:
    return next((fields for fields in _entries(content, *numbers) if fields[0] == name), None)


def _put(etc: Directory, name: str, file: File, content: bytes) -> None:
    looks = Looks(file.mode, (file.uid, file.gid), erase.label(etc, name), etc.attributes(name))
    etc.replace(f"{name}-", file.content, looks)
    try:
        etc.replace(name, content, looks, expected=file)
    except Changed as error:
        message = f"{etc.join(name)} was changed by a program that heeds no lock"
        raise FirstkeyError(message, reason=reasons.CONCURRENT_CHANGE) from error


@contextmanager
def _locked(etc: Directory) -> Iterator[None]:
    """Hold the locks of shadow's tools: another step of the same build may be adding an account of its own.

    These are `.pwd.lock` (lckpwdf(3)) and, for `useradd --prefix`, one a file with the holder's number in it.
    That of passwd is taken first, as those tools do: else each would hold what the other one waits for.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    with ExitStack() as held:
        common = etc.open_to_lock(".pwd.lock")
        held.callback(os.close, common)
        _wait(partial(_has_locked, common), etc.join(".pwd.lock"), deadline)
        for name in reversed(FILES):
            lock = f"{name}.lock"
            _wait(partial(_has_made, etc, lock), etc.join(lock), deadline)
            held.callback(etc.remove, lock)
        yield


def _wait(is_ours: Callable[[], bool], lock: str, deadline: float) -> None:
    while not is_ours():
        if time.monotonic() > deadline:
            message = f"{lock} is held by another program"
            raise FirstkeyError(message, reason=reasons.CONCURRENT_CHANGE)
        time.sleep(0.05)


def _has_locked(fd: int) -> bool:
    with suppress(BlockingIOError, PermissionError):
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _has_made(etc: Directory, lock: str) -> bool:
    with suppress(Changed):
        etc.replace(lock, b"%d\0" % os.getpid(), Looks(0o600, durable=False), expected=None)
        return True
    file = etc.read(lock, limit=LIMIT)
    holder = file.content.strip(b"\0\n") if file else b""
    if holder.isdigit() and not os.path.exists(f"/proc/{int(holder)}"):
        etc.remove(lock)  # its holder was killed
    return False


def _fail(message: str) -> NoReturn:
    raise FirstkeyError(message, reason=reasons.USER_CREATE_FAILED)
