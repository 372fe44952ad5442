"""With which options the image's units start sshd: what they set counts before any line of a file."""

from __future__ import annotations

import getopt
import os
import re
import shlex
from typing import TYPE_CHECKING

from firstkey import image_reasons
from firstkey.errors import FirstkeyError
from firstkey.image import units
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal
from firstkey.system.sshd_files import CONFIG

if TYPE_CHECKING:
    from firstkey.system.tree import Tree

# The service that listens, then the one that a socket starts for each connection, as Debian and others say.
UNITS = (("ssh.service", "sshd.service"), ("ssh@.service", "sshd@.service"))
OPTIONS = "46deDf:C:b:c:E:g:Gh:ik:o:p:qrtTu:V"  # sshd(8)
LIMIT = 1024 * 1024
LONGEST = 16 * 1024
"""Characters of a line that is taken apart: shlex takes the square of a word's length."""

_PREFIXES = "-@:+!|"  # systemd.service(5), ExecStart=


class Start(NamedTuple):
    """The options as lines of sshd_config, which mean the same at its very top; or why they are not known."""

    lines: tuple[str, ...] = ()
    place: str = ""
    """The file that gives them."""
    refusal: Refusal | None = None

    def sets(self, keyword: str) -> bool:
        """Whether an option sets it."""
        return any(re.split(r"[\s=]", line, maxsplit=1)[0].lower() == keyword.lower() for line in self.lines)


def start(tree: Tree) -> Start:
    """What all units that start sshd have in common; where they differ, nothing is known."""
    try:
        known = [one for one in (_of(tree, names) for names in UNITS) if one is not None]
    except FirstkeyError as error:
        return Start(refusal=error.refusal)
    if len({(one.lines, one.refusal) for one in known}) > 1:
        return _unknown(_file(tree, UNITS[0]), "the units that start sshd do so with different options")
    return known[0] if known else Start()


def _of(tree: Tree, names: tuple[str, str]) -> Start | None:
    commands = units.values(tree, "Service", "ExecStart", *names)
    if not commands:
        return None
    place = _file(tree, names)
    try:
        words = _words(commands[-1])
        given, place = _expanded(words, _environment(tree, names), place)
        options, rest = getopt.getopt(given[1:], OPTIONS)
    except (ValueError, getopt.GetoptError) as error:
        return _unknown(place, f"how sshd is started cannot be read: {error}")
    if os.path.basename(given[0].lstrip(_PREFIXES)) != "sshd" or rest:
        return _unknown(place, f"{given[0]} is started, and not sshd with its options alone")
    lines = tuple(line for option, value in options for line in _line(option, value))
    odd = next((line for line in lines if re.match(r"-f|match|include", line, re.IGNORECASE)), None)
    return _unknown(place, f"sshd is started with {odd}") if odd else Start(lines, place if lines else "")


def _words(text: str) -> list[str]:
    """The words of a line, as a shell tells them apart. Raises ValueError; also where shlex took too long."""
    if len(text) > LONGEST:
        raise ValueError(f"a line has more than {LONGEST} characters")
    return shlex.split(text)


def _line(option: str, value: str) -> list[str]:
    """The line of sshd_config that the option amounts to, if any; -f has none, and stays what it is."""
    if option == "-f":
        return [] if value == CONFIG else [f"-f {value}"]
    keyword = {"-o": "", "-h": "HostKey ", "-p": "Port "}.get(option)
    return [] if keyword is None else [keyword + value.strip()]


def _environment(tree: Tree, names: tuple[str, str]) -> dict[str, tuple[str, str | None]]:
    """The variables of the unit, each with the file that sets it; files come after Environment=."""
    found: dict[str, tuple[str, str | None]] = {}
    for line in units.values(tree, "Service", "Environment", *names):
        pairs = (word.partition("=") for word in _words(line))
        found.update({name: (value, None) for name, _, value in pairs})
    for file in units.values(tree, "Service", "EnvironmentFile", *names):
        path = file.lstrip("-")
        for line in (tree.read(path, limit=LIMIT) or b"").decode("utf-8", "surrogateescape").split("\n"):
            name, equals, value = line.strip().partition("=")
            if equals and name[:1] not in "#;":
                found[name] = (" ".join(_words(value)), path)
    return found


def _expanded(
    words: list[str], variables: dict[str, tuple[str, str | None]], place: str
) -> tuple[list[str], str]:
    """The words with their variables, as systemd has it: `$X` comes apart, `${X}` does not."""
    expanded: list[str] = []
    for word in words:
        name = word[1:] if re.fullmatch(r"\$\w+", word) else None
        value, path = variables.get(name or "", ("", None))
        if name is None:
            expanded.append(
                re.sub(r"\$\{(\w+)\}", lambda match: variables.get(match[1], ("", None))[0], word)
            )
        elif value:
            expanded += _words(value)
            place = path or place
    return expanded, place


def _file(tree: Tree, names: tuple[str, str]) -> str:
    paths = [f"{place}/{name}" for name in names for place in units.PLACES]
    return next((path for path in paths if tree.exists(path)), paths[0])


def _unknown(place: str, detail: str) -> Start:
    return Start((), place, Refusal(image_reasons.NOT_LOOKED_AT, f"{place}: {detail}"))
