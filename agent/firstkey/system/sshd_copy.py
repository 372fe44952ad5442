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
from firstkey.system import inspector, sshd
from firstkey.system.accounts import Accounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from firstkey.ssh.sshd_config import Effective, Line
    from firstkey.system.sshd import Configuration
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


def copy(tree: Tree, configuration: Configuration, options: Sequence[str]) -> Copy:
    """The copies, with the options that sshd is started with at the top of the main file.

    Raises FirstkeyError where a line may mean what cannot be seen.
    """
    return _Copying(tree, configuration).done(options)


def ask(program: str, copy: Copy, connection: str) -> Effective:
    """What sshd says of the copies for a connection. Raises FirstkeyError."""
    argv = [program, "-C", connection, "-f", copy.main]
    outcome = sshd.question(argv, lambda argv, stdin: inspector.run(argv, files=copy.contents, stdin=stdin))
    return sshd.understood(outcome, copy.host_keys, {**copy.files, f"{inspector.HERE}/": ""})


class _Copying:
    def __init__(self, tree: Tree, configuration: Configuration) -> None:
        self._tree = tree
        self._configuration = configuration
        self._names = {path: f"{number}.conf" for number, path in enumerate(configuration.files)}
        self._host_keys: dict[str, str] = {}

    def done(self, options: Sequence[str]) -> Copy:
        contents: dict[str, bytes] = {}
        for path, content in self._configuration.files.items():
            raws = without_groups(content, self._members).split(b"\n")
            lines = [self._line(raw, f"{path}:{number}") for number, raw in enumerate(raws, 1)]
            contents[self._names[path]] = b"\n".join(lines) + b"\n"
        main = self._names[self._configuration.main or ""]
        # On the first line, so that the numbers of the others stay.
        first = [self._line(option.encode("utf-8", "surrogateescape"), "an option") for option in options]
        files = {f"{inspector.HERE}/{name}": path for path, name in self._names.items()}
        if first:
            contents["options.conf"] = b"\n".join(first) + b"\n"
            include = f'Include "{inspector.HERE}/options.conf" "{inspector.HERE}/{main}"\n'
            contents["main.conf"] = include.encode()
            main = "main.conf"
        return Copy(f"{inspector.HERE}/{main}", contents, self._host_keys, files)

    def _members(self, patterns: str) -> list[str]:
        accounts = Accounts(self._tree)
        names = {number: name for name, number in accounts.groups()}
        return [
            account.name
            for account in accounts.all()
            if access.any_matches([names.get(gid, "") for gid in accounts.group_ids(account)], patterns)
        ]

    def _line(self, raw: bytes, place: str) -> bytes:
        line = sshd_config.line_of(raw)
        if line is None:
            message = (
                f"{place}: the line does not begin with a plain keyword, so an image's sshd is not asked"
            )
            raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
        if line.keyword == "include":
            patterns = self._configuration.patterns(line)
            inner = [path for pattern in patterns for path in self._configuration.included.get(pattern, ())]
            copies = [f'"{inspector.HERE}/{self._names[path]}"' for path in inner if path in self._names]
            return f"Include {' '.join(copies)}".encode() if copies else b""
        if line.keyword in ("hostkey", "hostdsakey"):
            return f'HostKey "{self._stand_in(line, place)}"'.encode()
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


def connections(files: Iterable[bytes]) -> tuple[str, ...]:
    """The clients to ask sshd about, as -C takes them: any client, and one for each block that names some."""
    found = [sshd_config.connection()]
    for criteria in sshd_config.blocks(files):
        asked = sshd_config.CRITERIA
        named = {asked[name]: _sample(name, patterns) for name, patterns in criteria if name in asked}
        found.append(sshd_config.connection(None, **named))
    return tuple(dict.fromkeys(found))


def alike(files: Iterable[bytes], user: str) -> tuple[bool, ...]:
    """What the User criteria of all Match blocks say to the user: who is told the same is treated alike."""
    return tuple(
        access.matches_list(user, patterns)
        for criteria in sshd_config.blocks(files)
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


def _without_groups(raw: bytes, members: Callable[[str], list[str]]) -> bytes:
    line = sshd_config.line_of(raw)
    criteria = sshd_config.criteria(line) if line and line.keyword == "match" else []
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
    fallback = sshd_config.ANY_CLIENT[sshd_config.CRITERIA[name]]
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
