"""Asking this machine's sshd what a tree's configuration means: about copies, with a box around it.

Whatever an image says, sshd may open nothing of the host's for it: each Include leads to copies, each HostKey
to a file that is not there, and what else would have sshd open something on the way is left out. Nor does it
go by the host's groups: Match Group names the members that the tree's groups have.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.ssh import access, sshd_config
from firstkey.system import inspector
from firstkey.system.accounts import Accounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from firstkey.ssh.sshd_config import Line
    from firstkey.system.tree import Tree

NOBODY = "firstkey:nobody"
"""A user name that no account can have."""

_ADDRESS = re.compile(r"[0-9.]+(?::[0-9]+)?\s*|\[?[0-9A-Fa-f:.]+\]?(?::[0-9]+)?\s*")
_OPENS_SOMETHING = ("hostcertificate", "securitykeyprovider")


class Copy(NamedTuple):
    """The copies, by their names: which is the main file, which HostKey the stand-ins stand for, and which of
    the tree's files each copy is of.
    """

    main: str
    contents: dict[str, bytes]
    host_keys: dict[str, str]
    files: dict[str, str]


def copy(
    tree: Tree,
    files: Mapping[str, bytes],
    included: Mapping[tuple[str, int], Sequence[str]],
    options: Sequence[str],
) -> Copy:
    """The copies of the files, the main one first, with the options that sshd is started with before it.

    `included` has what each Include stands for, by file and line. Raises FirstkeyError where a line may mean
    what cannot be seen.
    """
    return _Copying(tree, files, included).done(options)


class _Copying:
    def __init__(
        self,
        tree: Tree,
        files: Mapping[str, bytes],
        included: Mapping[tuple[str, int], Sequence[str]],
    ) -> None:
        self._tree = tree
        self._files = files
        self._included = included
        self._names = {path: f"{number}.conf" for number, path in enumerate(files)}
        self._host_keys: dict[str, str] = {}

    def done(self, options: Sequence[str]) -> Copy:
        contents: dict[str, bytes] = {}
        for path, content in self._files.items():
            raws = without_groups(content, self._members).split(b"\n")
            lines = [self._line(raw, path, number) for number, raw in enumerate(raws, 1)]
            contents[self._names[path]] = b"\n".join(lines) + b"\n"
        main = next(iter(contents))
        files = {f"{inspector.HERE}/{name}": path for path, name in self._names.items()}
        if options:
            first = [self._line(option.encode("utf-8", "surrogateescape"), "", 0) for option in options]
            contents["options.conf"] = b"\n".join(first) + b"\n"
            include = f'Include "{inspector.HERE}/options.conf" "{inspector.HERE}/{main}"\n'
            contents[main := "main.conf"] = include.encode()
        return Copy(f"{inspector.HERE}/{main}", contents, self._host_keys, files)

    def _members(self, patterns: str) -> list[str]:
        accounts = Accounts(self._tree)
        names = {number: name for name, number, _ in accounts.groups()}
        return [
            account.name
            for account in accounts.all()
            if access.any_matches([names.get(gid, "") for gid in accounts.group_ids(account)], patterns)
        ]

    def _line(self, raw: bytes, path: str, number: int) -> bytes:
        line = sshd_config.line_of(raw)
        if line is None:
            message = f"{path}:{number}: the line has no plain keyword, so an image's sshd is not asked"
            raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
        if line.keyword == "include":
            inner = self._included.get((path, number), ())
            copies = [f'"{inspector.HERE}/{self._names[path]}"' for path in inner if path in self._names]
            return f"Include {' '.join(copies)}".encode() if copies else b""
        if line.keyword in ("hostkey", "hostdsakey"):
            return f'HostKey "{self._stand_in(line, f"{path}:{number}")}"'.encode()
        if line.keyword == "hostkeyagent" and line.words != ("none",):
            # That there is one matters; the image's own socket is not this machine's to connect to.
            return f'HostKeyAgent "{inspector.HERE}/absent.agent"'.encode()
        if line.keyword == "listenaddress" and not _ADDRESS.fullmatch(line.rest):
            return b""  # a name, which this machine's name service would be asked for
        return b"" if line.keyword in _OPENS_SOMETHING else raw

    def _stand_in(self, line: Line, place: str) -> str:
        if len(line.words) != 1 or not {'"', "'", "\\"}.isdisjoint(line.words[0]):
            message = f"{place}: the HostKey is not one plain path"
            raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
        stand_in = f"{inspector.HERE}/absent.{len(self._host_keys)}"
        self._host_keys[stand_in] = line.words[0]
        return stand_in


# --- Match blocks: whom to ask about ----------------------------------------------------------------

CRITERIA = {"host": "host", "address": "addr", "localaddress": "laddr", "localport": "lport"}
"""What a block can ask of a connection, and what `sshd -C` calls it."""


def depends_on_client(files: Iterable[bytes]) -> bool:
    """Whether a block asks where the client comes from."""
    names = {name for criteria in _blocks(files) for name, _ in criteria}
    return not names.isdisjoint({*CRITERIA, "rdomain"})


def connections(files: Iterable[bytes]) -> tuple[str, ...]:
    """The clients to ask sshd about, as -C takes them: any client, and one for each block that names some."""
    found = [sshd_config.connection()]
    for criteria in _blocks(files):
        named = {CRITERIA[name]: _sample(name, patterns) for name, patterns in criteria if name in CRITERIA}
        found.append(sshd_config.connection(None, **named))
    return tuple(dict.fromkeys(found))


def alike(files: Iterable[bytes], user: str) -> tuple[bool, ...]:
    """What the User criteria of all Match blocks say to the user: who is told the same is treated alike."""
    return tuple(
        access.matches_list(user, patterns)
        for criteria in _blocks(files)
        for name, patterns in criteria
        if name == "user"
    )


def without_groups(content: bytes, members: Callable[[str], list[str]]) -> bytes:
    """The same with `Group PATTERNS` put as `User NAMES`: another host's groups say nothing of this tree's.

    `members` tells the accounts whose groups match a list of patterns.
    """
    if b"roup" not in content.lower():
        return content
    return b"\n".join(_without_groups(raw, members) for raw in content.split(b"\n"))


def _blocks(files: Iterable[bytes]) -> Iterator[list[tuple[str, str]]]:
    lines = (line for content in files for _, line in sshd_config.lines(content))
    yield from (_criteria(line) for line in lines if line.keyword == "match")


def _criteria(line: Line) -> list[tuple[str, str]]:
    """The pairs of a Match line; `all` has no partner."""
    words = sshd_config.arguments(line.rest.replace("=", " "))
    return [(name.lower(), patterns) for name, patterns in zip(words[::2], words[1::2])]


def _without_groups(raw: bytes, members: Callable[[str], list[str]]) -> bytes:
    line = sshd_config.line_of(raw)
    criteria = _criteria(line) if line and line.keyword == "match" else []
    if not any(name == "group" for name, _ in criteria):
        return raw
    words = ["Match"]
    for name, patterns in criteria:
        if name == "group":
            words += ["User", ",".join(members(patterns)) or NOBODY]
        else:
            words += [name, f'"{patterns}"']
    return " ".join(words).encode("utf-8", "surrogateescape")


def _sample(name: str, patterns: str) -> str:
    """Something that the first pattern takes that is no negation."""
    pattern = next((part for part in patterns.split(",") if not part.startswith("!")), "*")
    fallback = sshd_config.ANY_CLIENT[CRITERIA[name]]
    if name in ("address", "localaddress"):
        return _sample_address(pattern) or sshd_config.ANY_CLIENT["addr"]
    return fallback if pattern == "*" else pattern.replace("*", "x").replace("?", "1")


def _sample_address(pattern: str) -> str | None:
    if "/" in pattern:
        import ipaddress

        try:
            network = ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            return None
        return str(network[1] if network.num_addresses > 2 else network[0])
    if ":" in pattern:
        return pattern.replace("*", "1").replace("?", "1")
    parts = pattern.replace("*", "1").replace("?", "1").split(".")
    return ".".join([*parts, "1", "1", "1"][:4]) if pattern != "*" else None
