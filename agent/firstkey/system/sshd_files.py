"""The files of a tree's sshd configuration: which there are, and copies that the host's sshd may read.

sshd is asked what an image's configuration means (system/inspector.py). Whatever that image says, sshd may
open nothing of the host's for it: each Include leads to copies, each HostKey to a file that is not there, and
what else would have sshd open something on the way is left out. Nor does it go by the host's groups: Match
Group names the members that the tree's groups have.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple

if TYPE_CHECKING:
    from firstkey.system.tree import Tree

CONFIG = "/etc/ssh/sshd_config"
LIMIT = 1024 * 1024
INCLUDE_DEPTH = 16
"""sshd's own limit of nested Include (servconf.c: SERVCONF_MAX_DEPTH)."""
INCLUDE_FILES = 512
INCLUDE_WORK = 20_000
"""How many names the patterns of all Include lines may be held against: `/*/../*/..` would take for ever."""

_LINE = re.compile(rb"[ \t\r]*(?:(?:#.*)?|([A-Za-z0-9]+)(?:[ \t\r]*=[ \t\r]*|[ \t\r]+)(.*))")
"""A line whose keyword is plain to see. sshd takes one in quotes and behind a `=` too (misc.c: strdelim),
but nobody writes it like that who has nothing to hide.
"""
_ONE_WORD = re.compile(rb'(?:"([^"\\]+)"|([^\s"\'\\#]+))\s*(?:#.*)?')
_WORD = re.compile(rb'"([^"\\]*)"|([^\s"\'\\#]+)')
_ADDRESS = re.compile(rb"[0-9.]+(?::[0-9]+)?\s*|\[?[0-9A-Fa-f:.]+\]?(?::[0-9]+)?\s*")
_OPENS_SOMETHING = (b"hostcertificate", b"securitykeyprovider")


class Copy(NamedTuple):
    """The copies, by their names: which is the main file, which HostKey the stand-ins stand for, and which of
    the tree's files each copy is of.
    """

    main: str
    contents: dict[str, bytes]
    host_keys: dict[str, str]
    files: dict[str, str]


def collect(tree: Tree) -> dict[str, bytes]:
    """Every file that the configuration consists of, Include followed inside the tree, by path."""
    return _Collecting(tree).done()


def copy(tree: Tree, where: str) -> Copy:
    """The copies, for a directory `where`. Raises FirstkeyError where a line may mean what cannot be seen."""
    return _Copying(tree, where).done()


class _Copying:
    def __init__(self, tree: Tree, where: str) -> None:
        self._tree = tree
        self._where = where
        collecting = _Collecting(tree)
        self._files = collecting.done()
        self._included = collecting.included
        self._names = {path: f"{number}.conf" for number, path in enumerate(self._files)}
        self._host_keys: dict[str, str] = {}

    def done(self) -> Copy:
        from firstkey.ssh import sshd_match  # a running system's sshd is asked without a copy

        contents: dict[str, bytes] = {}
        for path, content in self._files.items():
            own = sshd_match.without_groups(content, self._members)
            lines = [self._line(line, f"{path}:{number}") for number, line in enumerate(own.split(b"\n"), 1)]
            contents[self._names[path]] = b"\n".join(lines) + b"\n"
        files = {f"{self._where}/{name}": path for path, name in self._names.items()}
        return Copy(f"{self._where}/{self._names[CONFIG]}", contents, self._host_keys, files)

    def _members(self, patterns: str) -> list[str]:
        from firstkey.ssh import sshd_match
        from firstkey.system.accounts import Accounts

        accounts = Accounts(self._tree)
        names = {number: name for name, number in accounts.groups()}
        return [
            account.name
            for account in accounts.all()
            if sshd_match.matches(patterns, [names.get(gid, "") for gid in accounts.group_ids(account)])
        ]

    def _line(self, line: bytes, place: str) -> bytes:
        keyword, rest = _split(line, place)
        if keyword == b"include":
            inner = [path for pattern in _patterns(rest) for path in self._included.get(pattern, ())]
            copies = [f'"{self._where}/{self._names[path]}"' for path in inner if path in self._names]
            return f"Include {' '.join(copies)}".encode() if copies else b""
        if keyword in (b"hostkey", b"hostdsakey"):
            return f'HostKey "{self._stand_in(rest, place)}"'.encode()
        if keyword == b"hostkeyagent" and _words(rest) != ["none"]:
            # That there is one matters; the image's own socket is not this machine's to connect to.
            return f'HostKeyAgent "{self._where}/absent.agent"'.encode()
        if keyword == b"listenaddress" and not _ADDRESS.fullmatch(rest):
            return b""  # a name, which this machine's name service would be asked for
        return b"" if keyword in _OPENS_SOMETHING else line

    def _stand_in(self, rest: bytes, place: str) -> str:
        match = _ONE_WORD.fullmatch(rest)
        if match is None:
            message = f"{place}: the HostKey is not one plain path"
            raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
        stand_in = f"{self._where}/absent.{len(self._host_keys)}"
        self._host_keys[stand_in] = (match.group(1) or match.group(2)).decode("utf-8", "surrogateescape")
        return stand_in


def _split(line: bytes, place: str) -> tuple[bytes, bytes]:
    """The keyword in lower case, and what follows it; two times nothing for a comment."""
    match = _LINE.fullmatch(line)
    if match is None:
        message = f"{place}: the line does not begin with a plain keyword, so an image's sshd is not asked"
        raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
    return (match.group(1) or b"").lower(), match.group(2) or b""


class _Collecting:
    """One pass over the files; `included` has the paths that each pattern of an Include stands for."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._found: dict[str, bytes] = {}
        self._work = 0
        self.included: dict[str, list[str]] = {}

    def done(self) -> dict[str, bytes]:
        self._collect(CONFIG, 0)
        return self._found

    def _collect(self, path: str, depth: int) -> None:
        if path in self._found or depth > INCLUDE_DEPTH or len(self._found) >= INCLUDE_FILES:
            return
        content = self._tree.read(path, limit=LIMIT)
        if content is None:
            return
        self._found[path] = content
        for line in content.split(b"\n"):
            match = _LINE.fullmatch(line)
            if match and (match.group(1) or b"").lower() == b"include":
                for pattern in _patterns(match.group(2)):
                    if pattern not in self.included:
                        self.included[pattern] = self._glob(pattern)
                    for inner in self.included[pattern]:
                        self._collect(inner, depth + 1)

    def _glob(self, pattern: str) -> list[str]:
        """glob(7) inside the tree: the paths that match, sorted, as sshd reads them. Raises FirstkeyError."""
        import fnmatch

        paths = [""]
        for part in [part for part in pattern.split("/") if part]:
            if any(character in part for character in "*?["):
                paths = [
                    f"{path}/{name}"
                    for path in paths
                    for name in self._names(path or "/", pattern)
                    if fnmatch.fnmatchcase(name, part) and (part[0] == "." or name[0] != ".")
                ]
            else:
                paths = [f"{path}/{part}" for path in paths]
        return sorted(paths)

    def _names(self, path: str, pattern: str) -> list[str]:
        """The names in a directory; a pattern that leads through something else matches nothing."""
        try:
            names = self._tree.names(path)
        except FirstkeyError:
            names = []
        self._work += 1 + len(names)
        if self._work > INCLUDE_WORK:
            message = f"{CONFIG}: the patterns of its Include lines match too much ({pattern:.60})"
            raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
        return names


def _words(rest: bytes) -> list[str]:
    """The words, quoted or bare, up to a comment or to what is neither."""
    words = []
    position = 0
    while match := _WORD.match(rest, position):
        quoted, plain = match.groups()
        words.append((plain if quoted is None else quoted).decode("utf-8", "surrogateescape"))
        position = match.end()
        while rest[position : position + 1].isspace():
            position += 1
    return words


def _patterns(rest: bytes) -> list[str]:
    """The patterns of an Include line, relative ones below /etc/ssh (sshd_config(5))."""
    return [word if word.startswith("/") else f"/etc/ssh/{word}" for word in _words(rest) if word]
