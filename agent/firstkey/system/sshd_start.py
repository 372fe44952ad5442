"""With which options a system's units start sshd: what they set counts before any line of a file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.system import units

if TYPE_CHECKING:
    from firstkey.system.tree import Tree

# The service that listens, as Debian and others call it, and the one that a socket starts for a connection.
LISTENING = ("ssh.service", "sshd.service")
SOCKETS = ("ssh.socket", "sshd.socket")
BY_SOCKET = ("ssh@.service", "sshd@.service")
OPTIONS = "46deDf:C:b:c:E:g:Gh:ik:o:p:qrtTu:V"  # sshd(8)
LONGEST = 16 * 1024
"""Characters of a line that is taken apart: shlex takes the square of a word's length."""

_PREFIXES = "-@:+!|"  # systemd.service(5), ExecStart=
_KEYWORDS = {"-o": "", "-h": "HostKey ", "-p": "Port "}
_NO_NETWORK = ("vsock:", "/", "@")  # systemd.socket(5), ListenStream=


class Start(NamedTuple):
    """The options as lines of sshd_config, which mean the same at its very top; or why they are not known.

    `config` is the main file, where an option names it (-f). `place` is the file that gives the options;
    `unknown` is a sentence.
    """

    lines: tuple[str, ...] = ()
    config: str | None = None
    place: str = ""
    unknown: str | None = None

    def sets(self, keyword: str) -> bool:
        """Whether an option sets it."""
        return any(re.split(r"[\s=]", line, maxsplit=1)[0].lower() == keyword.lower() for line in self.lines)


def start(tree: Tree) -> Start:
    """What all units that start sshd have in common; where they differ, nothing is known."""
    try:
        names = [LISTENING] if _is_one_process(tree) else [LISTENING, BY_SOCKET]
        known = [one for one in (_of(tree, each) for each in names) if one is not None]
    except FirstkeyError as error:
        return Start(unknown=error.message)
    if len({one._replace(place="") for one in known}) > 1:
        return _unknown(_file(tree, LISTENING), "the units that start sshd do so with different options")
    return known[0] if known else Start()


def _is_one_process(tree: Tree) -> bool:
    """Whether sshd has sockets, and none gives connections to services of their own (Accept=yes)."""
    there = [socket for socket in SOCKETS if units.values(tree, "Socket", "ListenStream", socket)]
    return bool(there) and not any(_starts_services(tree, socket) for socket in there)


def _starts_services(tree: Tree, socket: str) -> bool:
    accept = units.values(tree, "Socket", "Accept", socket)[-1:]
    streams = units.values(tree, "Socket", "ListenStream", socket)
    is_on = accept and accept[0].lower() in ("1", "yes", "true", "on", "y", "t")
    return bool(is_on) and not all(stream.startswith(_NO_NETWORK) for stream in streams)


def _of(tree: Tree, names: tuple[str, ...]) -> Start | None:
    commands = units.values(tree, "Service", "ExecStart", *names)
    if not commands:
        return None
    import getopt  # few boots ask sshd

    place = _file(tree, names)
    try:
        given, place = _expanded(_words(commands[-1]), _environment(tree, names), place)
        options, rest = getopt.getopt(given[1:], OPTIONS)
    except (ValueError, getopt.GetoptError) as error:
        return _unknown(place, f"how sshd is started cannot be read: {error}")
    if given[0].lstrip(_PREFIXES).rpartition("/")[2] != "sshd" or rest:
        return _unknown(place, f"{given[0]} is started, and not sshd with its options alone")
    lines = tuple(_KEYWORDS[option] + value.strip() for option, value in options if option in _KEYWORDS)
    odd = next((line for line in lines if re.match(r"match|include", line, re.IGNORECASE)), None)
    config = next((value for option, value in reversed(options) if option == "-f"), None)
    return _unknown(place, f"sshd is started with {odd}") if odd else Start(lines, config, place)


def _words(text: str) -> list[str]:
    """The words of a line, as a shell tells them apart. Raises ValueError; also where shlex took too long."""
    import shlex

    if len(text) > LONGEST:
        raise ValueError(f"a line has more than {LONGEST} characters")
    return shlex.split(text)


def _environment(tree: Tree, names: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """The variables of the unit, each with the file that sets it, if any; files come after Environment=."""
    found: dict[str, tuple[str, str]] = {}
    for line in units.values(tree, "Service", "Environment", *names):
        found.update({name: (value, "") for name, _, value in (word.partition("=") for word in _words(line))})
    for path in (file.lstrip("-") for file in units.values(tree, "Service", "EnvironmentFile", *names)):
        content = tree.read(path, limit=units.LIMIT) or b""
        for line in content.decode("utf-8", "surrogateescape").split("\n"):
            name, equals, value = line.strip().partition("=")
            if equals and name[:1] not in "#;":
                found[name] = (" ".join(_words(value)), path)
    return found


def _expanded(words: list[str], variables: dict[str, tuple[str, str]], place: str) -> tuple[list[str], str]:
    """The words with their variables, as systemd has it: `$X` comes apart, `${X}` does not."""
    expanded: list[str] = []
    for word in words:
        if re.fullmatch(r"\$\w+", word):
            value, path = variables.get(word[1:], ("", ""))
            expanded += _words(value)
            place = path if value and path else place
        else:
            value = re.sub(r"\$\{(\w+)\}", lambda match: variables.get(match[1], ("", ""))[0], word)
            expanded.append(value)
    return expanded, place


def _file(tree: Tree, names: tuple[str, ...]) -> str:
    paths = [f"{place}/{name}" for name in names for place in units.PLACES]
    return next((path for path in paths if tree.exists(path)), paths[0])


def _unknown(place: str, detail: str) -> Start:
    return Start((), None, place, f"{place}: {detail}")
