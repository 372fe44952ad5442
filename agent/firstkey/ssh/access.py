"""Which users sshd lets in, by its four lists and the patterns in them (ssh_config(5), PATTERNS).

What depends on the client is answered for one client, or with "it depends" where no client is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from firstkey import NamedTuple


class Client(NamedTuple):
    """A client's place, as sshd knows it: the name is the address where it looks up none."""

    address: str
    name: str


class BadPattern(ValueError):  # noqa: N818 - what a pattern is, not what happened
    """A pattern over which sshd ends the connection: an address whose mask cuts off bits of it."""


def matches(text: str, pattern: str) -> bool:
    """Whether `*` (any characters) and `?` (any one) make the pattern fit all of the text.

    In one pass: a pattern out of a user's own file must not cost more than its length.
    """
    first, *others = re.split(r"\*+", pattern)
    if not others:
        return _fits(text, pattern)
    *middle, last = others
    position, end = len(first), len(text) - len(last)
    if position > end or not _fits(text[:position], first) or not _fits(text[end:], last):
        return False
    for part in middle:
        starts = range(position, end - len(part) + 1)
        start = next((start for start in starts if _fits(text[start : start + len(part)], part)), None)
        if start is None:
            return False
        position = start + len(part)
    return True


def _fits(text: str, part: str) -> bool:
    return len(text) == len(part) and all(wanted in ("?", char) for char, wanted in zip(text, part))


def matches_list(text: str, patterns: str) -> bool:
    """Whether one of the comma-separated patterns fits and none with `!` does (the refusal wins)."""
    return _verdict(text, patterns, matches) == 1


def any_matches(names: Sequence[str], patterns: str) -> bool:
    """Whether the list takes one of the names and forbids none, as `Match Group` has it."""
    verdicts = [_verdict(name, patterns, matches) for name in names]
    return 1 in verdicts and -1 not in verdicts


def _verdict(text: str, patterns: str, fits: Callable[[str, str], bool]) -> int:
    """1 where a pattern fits, 0 where none does, -1 where one with `!` does."""
    found = 0
    for pattern in patterns.split(","):
        if fits(text, pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return -1
            found = 1
    return found


def host_matches(client: Client | None, patterns: str) -> bool | None:
    """Whether the list of names, addresses and CIDR blocks fits the client; None: it depends on the client.

    Raises BadPattern where sshd could not read the list.
    """
    if client is None:
        return True if set(patterns.split(",")) == {"*"} else None
    by_address = _verdict(client.address, patterns, _address_matches)
    by_name = _verdict(client.name.lower(), patterns.lower(), matches)
    return -1 not in (by_address, by_name) and 1 in (by_address, by_name)


def user_matches(user: str, client: Client | None, pattern: str) -> bool | None:
    """Whether a word of AllowUsers or DenyUsers, `USER` or `USER@HOSTS`, fits; None: it depends."""
    name, at, hosts = pattern.partition("@")
    if not matches(user, name):
        return False
    return host_matches(client, hosts) if at else True


def _address_matches(address: str, pattern: str) -> bool:
    # ipaddress costs more than a boot that has nothing to do can spend.
    import ipaddress

    block, _, bits = pattern.partition("/")
    try:
        # sshd reads /8 and not /255.0.0.0.
        network = ipaddress.ip_network(f"{block}/{int(bits)}" if bits else block, strict=False)
        given = ipaddress.ip_address(address)
    except ValueError:
        # What is no block of addresses to sshd is a pattern of characters.
        return matches(address, pattern)
    if ipaddress.ip_address(block) != network.network_address:
        raise BadPattern(f"{pattern} has address bits behind its mask")
    return given in network


# --- allowed users and groups ---------------------------------------------------------------------


class Listing(NamedTuple):
    """One of sshd's four lists that is set, and what it says of a user (auth.c: allowed_user).

    `fits` is None where it depends on the client; `word` is the pattern that decides, `group` the group that
    it is about.
    """

    keyword: str
    words: tuple[str, ...]
    fits: bool | None
    word: str = ""
    group: str = ""

    @property
    def refuses(self) -> bool | None:
        """Whether sshd turns the user away for it; None: from some places only."""
        return None if self.fits is None else self.fits == self.keyword.startswith("Deny")


def listings(
    words: Callable[[str], Sequence[str]], user: str, groups: Sequence[str], client: Client | None
) -> Iterator[Listing]:
    """Each list that is set, in sshd's order. `words` gives the effective words of a keyword."""
    for keyword in ("DenyUsers", "AllowUsers", "DenyGroups", "AllowGroups"):
        patterns = tuple(words(keyword.lower()))
        if patterns and keyword.endswith("Users"):
            yield _user_listing(keyword, patterns, user, client)
        elif patterns:
            pairs = ((group, word) for group in groups for word in patterns if matches(group, word))
            group, word = next(pairs, ("", ""))
            yield Listing(keyword, patterns, bool(word), word, group)


def _user_listing(keyword: str, patterns: tuple[str, ...], user: str, client: Client | None) -> Listing:
    depends = ""
    for pattern in patterns:
        try:
            fits = user_matches(user, client, pattern)
        except BadPattern:
            # sshd ends the connection over it, whatever the list is for.
            return Listing(keyword, patterns, keyword == "DenyUsers", pattern)
        if fits:
            return Listing(keyword, patterns, fits=True, word=pattern)
        depends = pattern if fits is None else depends
    return Listing(keyword, patterns, None if depends else False, depends)
