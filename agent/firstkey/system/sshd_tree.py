"""The sshd of a tree: this machine's is asked what its configuration means, about copies, in a box.

Whatever an image says, sshd may open nothing of the host's for it: each Include leads to copies, each HostKey
to a file that is not there, and what else would have sshd open something on the way is left out. Nor does it
go by the host's groups: Match Group names the members that the tree's groups have.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property

from firstkey import NamedTuple, reasons
from firstkey.model import Account
from firstkey.reasons import FirstkeyError
from firstkey.settings import unit_settings
from firstkey.ssh import access, restrictions, sshd_config
from firstkey.ssh.sshd_config import Effective, Line
from firstkey.system import command, inspector, walk
from firstkey.system.accounts import Accounts
from firstkey.system.sshd import (
    BY_SOCKET,
    CONFIG,
    CONFIGS,
    LISTENING,
    NO_PRIVSEP_DIRECTORY,
    SOCKETS,
    Sshd,
    Start,
    asked,
    knows_patterns,
    matching,
    started_by,
)
from firstkey.system.tree import Tree

PROGRAMS = ("/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd")
SESSIONS = ("/usr/lib/openssh/sshd-session", "/usr/libexec/openssh/sshd-session")
"""From OpenSSH 9.8 on, it is another program that deals with a connection."""
PROGRAM_LIMIT = 64 * 1024 * 1024
ALT_KEYS = "/etc/openssh/authorized_keys/%u /etc/openssh/authorized_keys2/%u"
"""Where ALT Linux's sshd looks before it looks in homes, unless AuthorizedKeysFile says otherwise."""
NOBODY = "firstkey:nobody"
"""A user name that no account can have."""

_TRUE = ("1", "yes", "true", "on", "y", "t")  # systemd.syntax(7)
_NO_NETWORK = ("vsock:", "/", "@")  # systemd.socket(5), ListenStream=
_ADDRESS = re.compile(r"[0-9.]+(?::[0-9]+)?\s*|\[?[0-9A-Fa-f:.]+\]?(?::[0-9]+)?\s*")
_OPENS_SOMETHING = ("hostcertificate", "securitykeyprovider")


def sshd_of(tree: Tree) -> Sshd:
    """The sshd of the running system, or of a tree."""
    return _LookingSshd(tree) if tree.is_running_system else TreeSshd(tree)


class _LookingSshd(Sshd):
    """The running system's sshd, for who makes no directory that an old one misses: a box has it."""

    def ask(self, login: str) -> Effective:
        try:
            return asked(
                [*self.start.options, "-C", login], lambda argv, stdin: command.run(argv, stdin=stdin)
            )
        except FirstkeyError as error:
            if NO_PRIVSEP_DIRECTORY not in error.message:
                raise
            return TreeSshd(self.tree).ask(login)


def program(tree: Tree) -> str | None:
    """The path of sshd in the tree, None where it has none."""
    return next(filter(tree.exists, PROGRAMS), None)


class Place(NamedTuple):
    """A line of a file of sshd's configuration."""

    path: str
    number: int
    line: str

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"


def where(sshd: Sshd, keyword: str, word: str = "") -> Place | None:
    """The first line with that keyword (and that word in it), for a person to change it."""
    for path, content in sshd.files.items():
        for number, line in sshd_config.lines(content):
            if line.keyword == keyword.lower() and (not word or word in line.words):
                return Place(path, number, content.split(b"\n")[number - 1].decode("utf-8", "replace"))
    return None


def key_files(sshd: Sshd, account: Account, patterns: Iterable[str]) -> list[str]:
    """The files that it reads for the user, in its order, by these patterns of AuthorizedKeysFile.

    Where its version is not known, a pattern of files stands for itself too. Looks into directories with
    the caller's rights. Raises FirstkeyError where a pattern is none, or matches too much.
    """
    found: list[str] = []
    for path in sshd_config.key_paths(patterns, account):
        reads = sshd.reads_patterns if sshd_config.looks_for(path) else False
        found += [] if reads else [path]
        found += [] if reads is False else matching(sshd.tree, path)
    return found


class Copy(NamedTuple):
    """The copies, by their names: which is the main file, which HostKey the stand-ins stand for, and which of
    the tree's files each copy is of.
    """

    main: str
    contents: dict[str, bytes]
    host_keys: dict[str, str]
    files: dict[str, str]


class TreeSshd(Sshd):
    """A tree's sshd. With `replaced`, as it would be with these files in place of its own (or none)."""

    def __init__(self, tree: Tree, replaced: Mapping[str, bytes] | None = None) -> None:
        super().__init__(_Replaced(tree, replaced) if replaced else tree)

    @cached_property
    def start(self) -> Start:
        """What all units that start sshd have in common; where they differ, nothing is known."""
        try:
            units = [LISTENING] if _is_one_process(self.tree) else [LISTENING, BY_SOCKET]
        except FirstkeyError as error:
            return Start(unknown=error.message)
        known = [one for one in (started_by(self.tree, names) for names in units) if one is not None]
        first = next((one for one in known if one.unknown), known[0] if known else Start())
        # An option may not begin what the files go on with, nor open one of the host's.
        odd = next(
            (line for line in option_lines(first) if re.match("match|include", line, re.IGNORECASE)), None
        )
        detail = f"sshd is started with {odd}" if odd else ""
        if len({one._replace(files=()) for one in known}) > 1:
            detail = "the units that start sshd do so with different options"
        if first.unknown or not detail:
            return first
        return Start(files=first.files, unknown=f"{first.files[0]}: {detail}")

    def _alike(self, user: str, client: str) -> tuple[object, ...]:
        login = super()._alike(user, client)
        with suppress(FirstkeyError):
            return (alike(self._copy.contents.values(), user), client) if login and self.files else login
        return login

    def ask(self, login: str) -> Effective:
        """The same, by copies and in a box."""
        if self.start.unknown:
            raise FirstkeyError(self.start.unknown, reason=reasons.SSHD_CONFIG_INVALID)
        if not self.files:
            if self.config:
                message = f"sshd is started with -f {self.config}, which does not exist"
                raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
            message = f"{CONFIG} does not exist, nor another that is known"
            raise FirstkeyError(message, reason=reasons.SSHD_MISSING)
        copy = self._copy
        try:
            effective = asked(
                ["-C", login, "-f", copy.main],
                lambda argv, stdin: inspector.run(argv, files=copy.contents, stdin=stdin),
            )
        except FirstkeyError as error:
            words = error.message
            for name, path in (*copy.files.items(), (f"{inspector.HERE}/", "")):
                words = words.replace(name, path)
            raise FirstkeyError(words, reason=error.reason) from None
        keys = tuple(copy.host_keys.get(path, path) for path in effective.host_keys)
        settings = {**effective.settings, "hostkey": keys}
        if self.config == CONFIGS[1]:  # what is not written is built in, and this machine's sshd is another
            lines = (line for content in copy.contents.values() for _, line in sshd_config.lines(content))
            written = {line.keyword for line in lines}
            if "hostkey" not in written:
                settings["hostkey"] = tuple(key.replace("/etc/ssh/", "/etc/openssh/") for key in keys)
            if "authorizedkeysfile" not in written:
                settings["authorizedkeysfile"] = (" ".join((ALT_KEYS, *effective.authorized_keys_files)),)
        return effective._replace(settings=settings)

    @cached_property
    def _copy(self) -> Copy:
        """The copies, the options that sshd is started with before the main one.

        Raises FirstkeyError where a line may mean what cannot be seen.
        """
        names = {path: f"{number}.conf" for number, path in enumerate(self.files)}
        copy = Copy(f"{inspector.HERE}/{names[next(iter(names))]}", {}, {}, {})
        for path, content in self.files.items():
            raws = enumerate(content.split(b"\n"), 1)
            lines = [self._line(copy, names, raw, f"{path}:{number}") for number, raw in raws]
            copy.contents[names[path]] = b"\n".join(lines) + b"\n"
            copy.files[f"{inspector.HERE}/{names[path]}"] = path
        if not option_lines(self.start):
            return copy
        options = (option.encode("utf-8", "surrogateescape") for option in option_lines(self.start))
        first = [self._line(copy, names, option, "an option") for option in options]
        copy.contents["options.conf"] = b"\n".join(first) + b"\n"
        copy.contents["main.conf"] = f'Include "{inspector.HERE}/options.conf" "{copy.main}"\n'.encode()
        return copy._replace(main=f"{inspector.HERE}/main.conf")

    def _line(self, copy: Copy, names: Mapping[str, str], raw: bytes, place: str) -> bytes:
        line = sshd_config.line_of(raw)
        if line is None:
            message = f"{place}: the line has no plain keyword, so an image's sshd is not asked"
            raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
        if line.keyword == "include":
            copies = [f'"{inspector.HERE}/{names[path]}"' for path in self.included(line) if path in names]
            return f"Include {' '.join(copies)}".encode() if copies else b""
        if line.keyword in ("hostkey", "hostdsakey"):
            if len(line.words) != 1 or not {'"', "'", "\\"}.isdisjoint(line.words[0]):
                message = f"{place}: the HostKey is not one plain path"
                raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
            stand_in = f"{inspector.HERE}/absent.{len(copy.host_keys)}"
            copy.host_keys[stand_in] = line.words[0]
            return f'HostKey "{stand_in}"'.encode()
        if line.keyword == "hostkeyagent" and line.words != ("none",):
            # That there is one matters; the image's own socket is not this machine's to connect to.
            return f'HostKeyAgent "{inspector.HERE}/absent.agent"'.encode()
        if line.keyword == "listenaddress" and not _ADDRESS.fullmatch(line.rest):
            return b""  # a name, which this machine's name service would be asked for
        if line.keyword in _OPENS_SOMETHING:
            return b""
        return without_groups(raw, self._members) if line.keyword == "match" else raw

    def _members(self, patterns: str) -> list[str]:
        """The accounts whose groups match."""
        accounts = Accounts(self.tree)
        names = {number: name for name, number, _ in accounts.groups()}
        return [
            account.name
            for account in accounts.all()
            if access.any_matches([names.get(gid, "") for gid in accounts.group_ids(account)], patterns)
        ]

    @cached_property
    def reads_patterns(self) -> bool | None:
        """Whether it looks for files of keys by patterns, as its program's version does; None: not known."""
        paths = filter(None, (program(self.tree), *SESSIONS))
        try:
            texts = [self.tree.read(path, limit=PROGRAM_LIMIT) or b"" for path in paths]
        except FirstkeyError:
            return None
        return next((known for known in map(knows_patterns, texts) if known is not None), None)


def option_lines(start: Start) -> list[str]:
    """The options as lines of sshd_config, which mean the same at its very top."""
    keywords = {"-o": "", "-h": "HostKey ", "-p": "Port "}
    pairs = zip(start.options[::2], start.options[1::2])
    return [keywords[option] + value.strip() for option, value in pairs if option in keywords]


def _is_one_process(tree: Tree) -> bool:
    """Whether sshd has sockets, and none gives connections to services of their own (Accept=yes)."""
    sockets = [unit_settings(tree, socket) for socket in SOCKETS]
    there = [(socket["Socket", "ListenStream"], socket["Socket", "Accept"][-1:]) for socket in sockets]
    return any(streams for streams, _ in there) and not any(
        accept
        and accept[0].lower() in _TRUE
        and not all(stream.startswith(_NO_NETWORK) for stream in streams)
        for streams, accept in there
        if streams
    )


class _Replaced(Tree):
    """A tree with these files in place of its own, or beside them."""

    def __init__(self, tree: Tree, files: Mapping[str, bytes]) -> None:
        vars(self).update(vars(tree))  # the same root
        self._files = {self._real(path): content for path, content in files.items()}

    def _real(self, path: str) -> str:
        """The path without a link in it, as seal has those that it writes to."""
        with suppress(FirstkeyError):
            above, name = os.path.split(path)
            found = walk.follow(self, path)
            return found.path if found else os.path.join(self._real(above), name)
        return path

    def exists(self, path: str) -> bool:
        return self._real(path) in self._files or super().exists(path)

    def read(self, path: str, *, limit: int) -> bytes | None:
        content = self._files.get(self._real(path))
        return super().read(path, limit=limit) if content is None else content

    def names(self, path: str) -> list[str]:
        inside = {name for above, name in map(os.path.split, self._files) if above == self._real(path)}
        return [*inside.union(super().names(path))]


# --- Match blocks: whom to ask about ----------------------------------------------------------------

CRITERIA = {"host": "host", "address": "addr", "localaddress": "laddr", "localport": "lport"}
"""What a block can ask of a connection, and what `sshd -C` calls it."""


def depends_on_client(files: Iterable[bytes]) -> bool:
    """Whether a block asks where the client comes from."""
    names = {name for criteria in _blocks(files) for name, _ in criteria}
    return not names.isdisjoint({*CRITERIA, "rdomain"})


def connections(files: Iterable[bytes]) -> tuple[str, ...]:
    """The clients to ask sshd about, as -C takes them: any client, and one for each block that names some."""
    found = [restrictions.connection()]
    for criteria in _blocks(files):
        named = {CRITERIA[name]: _sample(name, patterns) for name, patterns in criteria if name in CRITERIA}
        found.append(restrictions.connection(None, **named))
    return tuple(dict.fromkeys(found))


def alike(files: Iterable[bytes], user: str) -> tuple[bool, ...]:
    """What the User criteria of all Match blocks say to the user; with the same answers, two are alike."""
    return tuple(
        access.matches_list(user, patterns)
        for criteria in _blocks(files)
        for name, patterns in criteria
        if name == "user"
    )


def without_groups(raw: bytes, members: Callable[[str], list[str]]) -> bytes:
    """A line with `Group PATTERNS` put as `User NAMES`: another host's groups say nothing of this tree's.

    `members` returns the accounts whose groups match a list of patterns.
    """
    line = sshd_config.line_of(raw)
    criteria = _criteria(line) if line and line.keyword == "match" else []
    if not any(name == "group" for name, _ in criteria):
        return raw
    words = ["Match"]
    for name, patterns in criteria:
        is_group = name == "group"
        words += ["User", ",".join(members(patterns)) or NOBODY] if is_group else [name, f'"{patterns}"']
    return " ".join(words).encode("utf-8", "surrogateescape")


def _blocks(files: Iterable[bytes]) -> Iterator[list[tuple[str, str]]]:
    lines = (line for content in files for _, line in sshd_config.lines(content))
    yield from (_criteria(line) for line in lines if line.keyword == "match")


def _criteria(line: Line) -> list[tuple[str, str]]:
    """The pairs of a Match line; `all` has no partner."""
    words = sshd_config.arguments(line.rest.replace("=", " "))
    return [(name.lower(), patterns) for name, patterns in zip(words[::2], words[1::2])]


def _sample(name: str, patterns: str) -> str:
    """Something that the first pattern takes that is no negation."""
    pattern = next((part for part in patterns.split(",") if not part.startswith("!")), "*")
    if pattern == "*" or name not in ("address", "localaddress"):
        fallback = restrictions.ANYWHERE["addr" if "address" in name else CRITERIA[name]]
        return fallback if pattern == "*" else pattern.replace("*", "x").replace("?", "1")
    if "/" in pattern:
        import ipaddress

        try:
            network = ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            return restrictions.ANYWHERE["addr"]
        return str(network[min(1, network.num_addresses - 1)])
    filled = pattern.replace("*", "1").replace("?", "1")
    return filled if ":" in filled else ".".join([*filled.split("."), "1", "1", "1"][:4])
