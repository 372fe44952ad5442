"""The Match blocks of sshd's configuration: for which logins they could mean something else.

What a block means is for sshd to say (`sshd -T -C`); here it is only found out whom to ask it about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from firstkey.ssh.patterns import matches as fits
from firstkey.ssh.patterns import matches_list

_MATCH = re.compile(rb"\s*match(?:\s*=\s*|\s+)(.*)", re.IGNORECASE | re.DOTALL)
_WORD = re.compile(r'"([^"]*)"|(\S+)')
_KEYWORD = re.compile(rb"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*)", re.DOTALL)

# Documentation addresses (RFC 5737), which no block names on purpose.
_CLIENT = {"host": "client.invalid", "addr": "192.0.2.1", "laddr": "192.0.2.2", "lport": "22"}
_CRITERIA = {"host": "host", "address": "addr", "localaddress": "laddr", "localport": "lport"}

NOBODY = "firstkey:nobody"
"""A user name that no account can have."""


def clients(files: Iterable[bytes]) -> tuple[str, ...]:
    """The clients to ask sshd about, as -C takes them: any client, and one for each block that names some."""
    specs = [_spec(_CLIENT)]
    for content in files:
        for criteria in _blocks(content):
            wanted = dict(_CLIENT)
            for name, patterns in criteria:
                if name in _CRITERIA:
                    wanted[_CRITERIA[name]] = _sample(name, patterns)
            specs.append(_spec(wanted))
    return tuple(dict.fromkeys(specs))


def has_blocks(files: Iterable[bytes]) -> bool:
    """Whether there is any Match block."""
    return any(_MATCH.fullmatch(line) for content in files for line in content.split(b"\n"))


def without_groups(content: bytes, members: Callable[[str], list[str]]) -> bytes:
    """The same with `Group PATTERNS` put as `User NAMES`: another host's groups say nothing of this tree's.

    `members` tells the accounts whose groups match a list of patterns.
    """
    if b"roup" not in content.lower():
        return content
    lines = [_without_groups(line, members) for line in content.split(b"\n")]
    return b"\n".join(lines)


def settings(content: bytes) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Line number (from 0), keyword in lower case and the values of each line that sets something."""
    for number, line in enumerate(content.split(b"\n")):
        match = _KEYWORD.match(line)
        if match:
            yield number, match[1].decode().lower(), tuple(_words(match[2]))


def matches(patterns: str, names: Iterable[str]) -> bool:
    """Whether a list of patterns (ssh_config(5): PATTERNS) takes one of the names, and forbids none."""
    return any(matches_list(name, patterns) for name in names) and not any(
        _is_refused(name, patterns) for name in names
    )


def _is_refused(name: str, patterns: str) -> bool:
    refusing = (pattern[1:] for pattern in patterns.split(",") if pattern.startswith("!"))
    return any(fits(name, pattern) for pattern in refusing)


def alike(files: Iterable[bytes], user: str) -> tuple[bool, ...]:
    """What the User criteria of all Match blocks say to the user: who is told the same is treated alike."""
    return tuple(
        matches_list(user, patterns)
        for content in files
        for criteria in _blocks(content)
        for name, patterns in criteria
        if name == "user"
    )


def _blocks(content: bytes) -> Iterator[list[tuple[str, str]]]:
    for line in content.split(b"\n"):
        match = _MATCH.fullmatch(line)
        if match:
            yield _criteria(match[1])


def _criteria(words: bytes) -> list[tuple[str, str]]:
    """The pairs of a Match line; `all` has no partner."""
    found = _words(words.replace(b"=", b" "))
    pairs = zip(found[::2], found[1::2])
    return [(name.lower(), patterns) for name, patterns in pairs]


def _words(line: bytes) -> list[str]:
    text = line.decode("utf-8", "surrogateescape").partition("#")[0]
    return [quoted or bare for quoted, bare in _WORD.findall(text)]


def _without_groups(line: bytes, members: Callable[[str], list[str]]) -> bytes:
    match = _MATCH.fullmatch(line)
    criteria = _criteria(match[1]) if match else []
    if not any(name == "group" for name, _ in criteria):
        return line
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
    if name in ("address", "localaddress"):
        return _sample_address(pattern) or _CLIENT["addr"]
    if pattern == "*":
        return _CLIENT[_CRITERIA[name]]
    return pattern.replace("*", "x").replace("?", "1")


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


def _spec(client: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in client.items())
