"""TCP wrappers: whether /etc/hosts.allow and /etc/hosts.deny let a client through to sshd (hosts_access(5)).

Only Debian's and Ubuntu's sshd asks them today. The first rule that fits decides, `allow` before `deny`;
where none fits, the client is let through.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey import NamedTuple
from firstkey.system.sshd_tree import PROGRAM_LIMIT, SESSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from firstkey.ssh.restrictions import Client
    from firstkey.system.tree import Tree

ALLOW, DENY = "/etc/hosts.allow", "/etc/hosts.deny"
LIMIT = 1024 * 1024
_FIELDS = re.compile(r":(?![^\[\]]{0,64}\])")  # not the colons of an IPv6 address in brackets
_WORDS = re.compile(r"[\s,]+")


class Decision(NamedTuple):
    """`lets` is None where it depends on the client; `place` is the rule that decides, as FILE:LINE."""

    lets: bool | None
    place: str | None = None


class _Rule(NamedTuple):
    place: str
    daemons: list[str]
    clients: list[str]
    lets: bool


def decide(tree: Tree, client: Client | None) -> Decision:
    """Whether the client gets through to sshd."""
    doubtful = []
    decisive: _Rule | None = None
    for rule in [*_rules(tree, ALLOW, lets=True), *_rules(tree, DENY, lets=False)]:
        fits = _both(_in(rule.daemons, _is_sshd), _in(rule.clients, lambda word: _is_client(word, client)))
        if fits:
            decisive = rule
            break
        if fits is None:
            doubtful.append(rule)
    lets = decisive.lets if decisive else True
    contrary = [rule.place for rule in doubtful if rule.lets != lets]
    return Decision(None, contrary[0]) if contrary else Decision(lets, decisive.place if decisive else None)


def are_asked(tree: Tree, program: str) -> bool:
    """Whether sshd has the library that reads the two files, and there is anything to read."""
    if not any(_rules(tree, DENY, lets=False)):
        return False
    return any(
        b"libwrap.so" in (tree.read(path, limit=PROGRAM_LIMIT) or b"") for path in (program, *SESSIONS)
    )


def _rules(tree: Tree, path: str, *, lets: bool) -> Iterator[_Rule]:
    text = (tree.read(path, limit=LIMIT) or b"").decode("utf-8", "replace")
    lines = text.replace("\\\n", "\0").split("\n")
    number = 1
    for line in lines:
        place, number = f"{path}:{number}", number + 1 + line.count("\0")
        fields = [field.strip() for field in _FIELDS.split(line.replace("\0", " "))]
        if len(fields) < 2 or line.lstrip().startswith("#"):
            continue
        options = [word.lower() for field in fields[2:] for word in field.split()]
        verdict = "deny" not in options if lets else "allow" in options
        yield _Rule(place, _split(fields[0]), _split(fields[1]), verdict)


def _split(text: str) -> list[str]:
    return [word for word in _WORDS.split(text) if word]


def _in(words: list[str], fits: Callable[[str], bool | None]) -> bool | None:
    """Whether the list fits; `a EXCEPT b` fits where a does and b does not, and b may have an EXCEPT too."""
    answers: list[bool | None] = []
    excepted: bool | None = False
    for word in reversed(["EXCEPT", *words]):
        if word != "EXCEPT":
            answers.append(fits(word))
            continue
        found = True if True in answers else None if None in answers else False
        excepted = _both(found, None if excepted is None else not excepted)
        answers = []
    return excepted


def _both(*answers: bool | None) -> bool | None:
    return False if False in answers else None if None in answers else True


def _is_sshd(word: str) -> bool | None:
    name, at, _ = word.partition("@")
    return None if at and name in ("sshd", "ALL") else word in ("sshd", "ALL")


def _is_client(word: str, client: Client | None) -> bool | None:
    if word == "ALL":
        return True
    if client is None or word.startswith(("@", "/")) or "@" in word:
        return None
    address = word.replace("[", "").replace("]", "")
    if re.fullmatch(r"[0-9.]+\.", address):
        return client.address.startswith(address)
    if re.fullmatch(r"[0-9a-fA-F.:]+(/[0-9.]+)?", address) and re.search(r"[.:]", address):
        return _in_block(client.address, address)
    return None  # a name, which only a look-up could tell


def _in_block(address: str, block: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(block, strict=False)
    except ValueError:
        return False
