"""What must hold of a tree in which a job of firstkey's was interrupted: at once, and after the next run.

Every path that is neither firstkey's own state nor a host key is as it was before the job or as the job
leaves it when nothing interrupts it; so what the job has no business with is never touched.
"""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Union

import treestate
from crash_scenarios import Done, Scenario
from treestate import Entry, State

from firstkey.boot import ledger
from firstkey.boot.ledger import Ledger, MadeHostKey
from firstkey.ssh import public_key

OWN_TEMPORARY = re.compile(r".*/\.firstkey-[^/]+")
ACCOUNT_BACKUP = re.compile(r"/etc/(passwd|shadow|group|gshadow|subuid|subgid)-")
"""A file of accounts as it was; not firstkey's to judge."""
ACCOUNT_LOCK = re.compile(r"/etc/(passwd|shadow|group|gshadow|subuid|subgid)\.lock")
"""The lock of one; that of a killed run stays until somebody takes it over."""
ASIDE = re.compile(r"(/etc/ssh/ssh_host_\w+)\.broken\.[0-9TZ]+(\.\d+)?")
_ACCOUNT_FILES = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid")
_DAY = re.compile(rb":\d{5}:")

Looks = Union["tuple[int, int, int, bytes]", None]


class Judge:
    """The judge of one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self._old, self._new, self._wipes = scenario.old, scenario.new, scenario.wipes
        wanted = {path for path in scenario.new if re.fullmatch(r"/etc/ssh/ssh_host_\w+_key", path)}
        self._private = sorted(wanted)

    def at_once(self, state: State) -> list[str]:
        """What is wrong with the tree at the instant of the interruption."""
        return [
            *self._neither_old_nor_new(state),
            *(wrong for path in self._private for wrong in self._host_key(state, path)),
            *self._ledger_damage(state),
        ]

    def at_the_end(self, state: State, done: Done) -> list[str]:
        """What is wrong after the next run, which had nothing in its way."""
        trouble = [] if done.status == 0 else [f"the next run ends with {done.status}: {done.err[-2000:]}"]
        return [
            *trouble,
            *self._differences(state),
            *(wrong for path in self._private for wrong in self._final_host_key(state, path)),
            *self._ledger_damage(state),
            *self._forgotten(state),
        ]

    def undone(self, state: State) -> set[str]:
        """Which parts of the job are not done, each by a name; `state` is what firstkey keeps for itself."""
        files = {path for path in {**self._new, **state} if not _is_apart(path)}
        changed = {path for path in files if _looks(state, path) != _looks(self._new, path)}
        keys = {path for path in self._private if [*self._final_host_key(state, path)]}
        kept = {"state"} if [*self._forgotten(state)] else set()
        return {_part(path) for path in changed} | keys | kept

    def temporary(self, state: State) -> list[str]:
        """Firstkey's own temporary files and directories."""
        return [path for path in state if OWN_TEMPORARY.fullmatch(path)]

    # --- files ------------------------------------------------------------------------------------

    def _neither_old_nor_new(self, state: State) -> Iterator[str]:
        for path in {**self._old, **self._new, **state}:
            if _is_apart(path) or self._may_be_wiped(path):
                continue
            if self._wipes and path == "/etc/shadow" and self._is_line_by_line(state, path):
                continue
            found = _looks(state, path)
            if found not in (_looks(self._old, path), _looks(self._new, path)):
                yield f"{path} is neither old nor new: {found}"

    def _is_line_by_line(self, state: State, path: str) -> bool:
        """Several steps of a sealing change the same file, each another line of it."""
        if path not in state:
            return False
        lines = [tree[path].content.splitlines(keepends=True) for tree in (self._old, self._new, state)]
        return len(lines[2]) == len(lines[1]) and set(lines[2]) <= {*lines[0], *lines[1]}

    def _may_be_wiped(self, path: str) -> bool:
        return self._wipes and path in self._old and path not in self._new

    def _differences(self, state: State) -> Iterator[str]:
        for path in {**self._new, **state}:
            is_gone = self._wipes and path not in self._new
            if is_gone and _is_empty(state, path) and path in self._old:
                continue  # it was overwritten and emptied; whether it has a name left tells nobody anything
            if (is_gone or not _is_apart(path)) and _looks(state, path) != _looks(self._new, path):
                yield f"{path} is {_looks(state, path)}, not {_looks(self._new, path)}"
            if OWN_TEMPORARY.fullmatch(path) and path not in self._new:
                yield f"{path} was left lying about"
        for path in state:
            if path.startswith("/run/") and path not in self._new:
                yield f"{path} was left lying about"

    # --- host keys --------------------------------------------------------------------------------

    def _host_key(self, state: State, path: str) -> Iterator[str]:
        private, public = state.get(path), state.get(f"{path}.pub")
        if private is None:
            if _looks(state, f"{path}.pub") not in (None, _looks(self._old, f"{path}.pub")):
                yield f"{path}.pub is there alone"
            return
        if path in self._old and private.content == self._old[path].content and public is None:
            return
        if all(_looks(state, each) == _looks(self._old, each) for each in (path, f"{path}.pub")):
            return
        line = derived(private.content)
        if line is None or stat.S_IMODE(private.mode) != 0o600:
            yield f"{path} is no key: {private}"
        elif public is not None and public.content.split()[:2] != line.split()[:2]:
            yield f"{path}.pub is the half of another key"

    def _final_host_key(self, state: State, path: str) -> Iterator[str]:
        if path not in state or f"{path}.pub" not in state:
            if path in self._new:
                yield f"{path} is not there, or a half of it is missing"
            return
        yield from self._host_key(state, path)
        was_kept = path in self._old and self._old[path].content == self._new[path].content
        is_old = path in self._old and self._old[path].content == state[path].content
        if was_kept != is_old:
            yield f"{path} is {'still the old' if is_old else 'another'} key"
        yield from self._set_aside(state, path)

    def _set_aside(self, state: State, path: str) -> Iterator[str]:
        before, after = (
            [entry.content for name, entry in tree.items() if ASIDE.fullmatch(name) and name.startswith(path)]
            for tree in (self._new, state)
        )
        if before != after:
            yield f"set aside of {path} are {after}, not {before}"

    # --- the ledger -------------------------------------------------------------------------------

    def _ledger_damage(self, state: State) -> Iterator[str]:
        found = state.get(ledger.PATH)
        if found is None:
            if ledger.PATH in self._old and ledger.PATH in self._new:
                yield "the ledger is gone"
        elif _ledger(state) is None:
            yield f"the ledger is damaged: {found}"

    def _forgotten(self, state: State) -> Iterator[str]:
        """Whose each line and host key is must be known as if nothing had happened.

        That firstkey made a file may be forgotten: then its mode is reported, and not repaired.
        """
        now, wanted = _ledger(state), _ledger(self._new)
        if now is None or wanted is None:
            if wanted is not None:
                yield "there is no ledger"
            return
        for name, part in _memory(wanted).items():
            if _memory(now)[name] != part:
                yield f"the ledger's {name} are {_memory(now)[name]}, not {part}"
        if not set(now.made_files) <= set(wanted.made_files):
            yield f"the ledger's files are {now.made_files}, not {wanted.made_files}"
        for path in self._private:
            if _owner(now, state, path) != _owner(wanted, self._new, path):
                yield f"the ledger says of {path}: {_owner(now, state, path)}"


def _memory(known: Ledger) -> dict[str, object]:
    return {
        "instance": known.instance,
        "keys": set(known.keys),
        "users": {served.name for served in known.served},
    }


def _owner(known: Ledger, state: State, path: str) -> tuple[str | None, bool] | None:
    entry = state.get(f"{path}.pub")
    key = public_key.read_key(entry.content.strip()) if entry else None
    found: MadeHostKey | None = known.host_key(key.fingerprint) if key else None
    return (found.instance, found.made) if found else None


def _ledger(state: State) -> Ledger | None:
    entry = state.get(ledger.PATH)
    return ledger.parsed(entry.content) if entry else None


@cache
def derived(private: bytes) -> bytes | None:
    """The public half by ssh-keygen's own word, or None where it takes the private one for none."""
    with treestate.private_file(private) as path:
        done = subprocess.run(["ssh-keygen", "-y", "-P", "", "-f", path], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _part(path: str) -> str:
    """Which part of the job a path belongs to: all that makes up an account is one."""
    is_account = path.startswith(("/home/deploy", "/etc/sudoers.d", *_ACCOUNT_FILES))
    return "the account" if is_account else path


def _is_apart(path: str) -> bool:
    """What is judged by rules of its own, or not at all."""
    return (
        path.startswith(("/run", "/proc", "/etc/ssh/ssh_host_", "/var/lib/firstkey"))
        or bool(OWN_TEMPORARY.match(path))
        or bool(ACCOUNT_BACKUP.fullmatch(path) or ACCOUNT_LOCK.fullmatch(path))
    )


def _is_empty(state: State, path: str) -> bool:
    return path in state and not state[path].is_directory and not state[path].content


def _looks(state: State, path: str) -> Looks:
    entry: Entry | None = state.get(path)
    if entry is None:
        return None
    mode, uid, gid, content = entry.looks
    if path == "/etc/shadow":
        content = _DAY.sub(b":DAY:", content)
    return mode, uid, gid, content
