"""sshd: the files of its configuration, what it says that they mean, and where it looks for a user's keys.

On a running system sshd itself is asked, as its unit starts it. Of a tree, this machine's sshd is asked about
copies (system/sshd_copy.py).
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal
from firstkey.ssh import sshd_config
from firstkey.ssh.public_key import sha256
from firstkey.system import command
from firstkey.system.sshd_start import Start, start
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from firstkey.model import Account
    from firstkey.ssh.sshd_config import Effective
    from firstkey.system.sshd_copy import Copy

CONFIG = "/etc/ssh/sshd_config"
CONFIGS = (CONFIG, "/etc/openssh/sshd_config", "/usr/etc/ssh/sshd_config")
"""Where the main file is: OpenSSH's own place, ALT Linux's, and openSUSE's while there is none in /etc."""
PROGRAMS = ("/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd")
SESSIONS = ("/usr/lib/openssh/sshd-session", "/usr/libexec/openssh/sshd-session")
"""From OpenSSH 9.8 on, it is another program that deals with a connection."""
LIMIT = 1024 * 1024
PROGRAM_LIMIT = 64 * 1024 * 1024
INCLUDE_DEPTH = 16
"""sshd's own limit of nested Include (servconf.c: SERVCONF_MAX_DEPTH)."""
INCLUDE_FILES = 512
GLOB_WORK = 20_000
"""How many names patterns may be held against: `/*/../*/..` would take for ever."""
PATTERNS_SINCE = 10
"""The version of OpenSSH that first reads patterns in AuthorizedKeysFile."""
SECONDS = 10.0
"""How long sshd may take to tell: it takes milliseconds, unless a name service that Match asks hangs."""

STAND_IN = "/dev/stdin"
_STAND_IN_KEY = (
    b"MHcCAQEEIMa9psj0Sg+FAVKZeJ+gC4VL1lREtj+T7VilLkXa3eUPoAoGCCqGSM49\n"
    b"AwEHoUQDQgAE6+/joGd+si9uj8oP1kGASSm1gUD1L55rfjekIA+5wYyWJGPqJDsX\n"
    b"5brf5zEhqn6foghDf7VdaXFK827G9jQZbA==\n"
)
"""A host key that is used nowhere: without any, `sshd -T` says nothing. Every sshd takes this type."""

_NO_SUCH_OPTION = re.compile(rb"(?i)(unknown|illegal|invalid) option")
_NO_PRIVSEP_DIRECTORY = re.compile(
    rb"^Missing privilege separation directory: (/run/[A-Za-z0-9._-]+)\r?$", re.MULTILINE
)
"""Debian's old sshd wants its directory to exist even for -T. Only a whole line of sshd's own is believed,
and only one that a boot clears: a configuration can have sshd print any words.
"""
_COMPLAINT = re.compile(r"/.+? line \d+:? (?!Deprecated option|Unsupported option)")
"""How sshd begins what it says of one line of a file, unless that is a mere warning (servconf.c)."""
_VERSION = re.compile(rb"OpenSSH_(\d{1,3})\.")


class Meaning(NamedTuple):
    """What sshd's configuration means, and why it is only the default if it could not be asked."""

    effective: Effective
    refusal: Refusal | None


class Sshd:
    """The tree's sshd. With `replaced`, as it would be with these files in place of its own (or none).

    `may_prepare`: a directory in /run that an old sshd misses is made for it.
    """

    def __init__(
        self, tree: Tree, replaced: Mapping[str, bytes] | None = None, *, may_prepare: bool = False
    ) -> None:
        self._tree = tree
        self._replaced = replaced or {}
        self._asks_itself = tree.is_running_system and replaced is None
        self._may_prepare = may_prepare
        self._known: dict[tuple[object, str], Meaning] = {}

    # --- its files ----------------------------------------------------------------------------

    @cached_property
    def start(self) -> Start:
        """The options that it is started with."""
        return start(self._tree)

    @property
    def options(self) -> list[str]:
        """The same, as the program takes them."""
        config = ["-f", self.start.config] if self.start.config else []
        return [*(word for line in self.start.lines for word in ("-o", line)), *config]

    @property
    def config(self) -> str | None:
        """The main file; None where it is in none of the usual places, which is not the same as empty."""
        if self.start.config:
            return self.start.config
        there = (path for path in CONFIGS if path in self._replaced or self._tree.exists(path))
        return next(there, None)

    @property
    def program(self) -> str | None:
        """Sshd in the tree, None where it has none."""
        return next((path for path in PROGRAMS if self._tree.exists(path)), None)

    @cached_property
    def configuration(self) -> Configuration:
        """The files, read once. Raises FirstkeyError."""
        return Configuration(self.config, self._read, self._names)

    @property
    def files(self) -> dict[str, bytes]:
        """Every file that the configuration consists of, Include followed inside the tree, by path."""
        return self.configuration.files

    def digest(self) -> str | None:
        """One of the whole configuration, byte for byte; None where it cannot be read."""
        try:
            files = self.files
        except FirstkeyError:
            return None
        if (self._asks_itself and not files) or self.start.unknown:
            return None
        whole = sha256("\0".join(self.start.lines).encode("utf-8", "surrogateescape"))
        for path, content in files.items():
            whole.update(f"{path}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
            whole.update(content)
        digest: str = whole.hexdigest()
        return digest

    def where(self, keyword: str, word: str = "") -> str | None:
        """FILE:LINE of the first line with that keyword (and that word in it), for a person to change it."""
        for path, content in self.files.items():
            for number, line in sshd_config.lines(content):
                if line.keyword == keyword.lower() and (not word or word in line.words):
                    return f"{path}:{number}"
        return None

    def _read(self, path: str) -> bytes | None:
        content = self._replaced.get(path)
        return self._tree.read(path, limit=LIMIT) if content is None else content

    def _names(self, path: str) -> list[str]:
        inside = {name.rpartition("/")[2] for name in self._replaced if name.rpartition("/")[0] == path}
        return sorted(inside.union(self._tree.names(path)))

    # --- what it says -------------------------------------------------------------------------

    def meaning(self, user: str, client: str | None = None) -> Meaning:
        """The effective configuration when `user` logs in from `client` (as -C takes it); it is asked once.

        Without a Match block it is the same for all, so that then one answer serves them all.
        """
        client = client or sshd_config.connection()
        login = (self._alike(user), client) if self._may_have_blocks() else ("", "")
        if login not in self._known:
            self._known[login] = self._meaning(user, client)
        return self._known[login]

    def _meaning(self, user: str, client: str) -> Meaning:
        program = command.find("sshd")
        if program is None:
            return Meaning(sshd_config.DEFAULTS, Refusal(reasons.SSHD_MISSING, "sshd is not installed"))
        try:
            if self._asks_itself:
                return Meaning(self._ask(program, user, client), None)
            return Meaning(self._ask_about_copies(program, user, client), None)
        except FirstkeyError as error:
            return Meaning(sshd_config.DEFAULTS, error.refusal)

    def _ask(self, program: str, user: str, client: str) -> Effective:
        argv = [program, *self.options, "-C", f"user={user},{client}"]
        return understood(question(argv, self._run), {}, {})

    def _run(self, argv: Sequence[str], stdin: bytes) -> command.Outcome:
        outcome = command.run(argv, seconds=SECONDS, stdin=stdin)
        missing = _NO_PRIVSEP_DIRECTORY.search(outcome.stderr) if outcome.status else None
        if missing and self._may_prepare:
            with Tree("/") as host:
                host.ensure(missing.group(1).decode(), mode=0o755).__exit__()
            return command.run(argv, seconds=SECONDS, stdin=stdin)
        if missing:
            from firstkey.system import inspector  # a boot makes the directory

            return inspector.run(argv, stdin=stdin)  # which gives it one
        return outcome

    def _ask_about_copies(self, program: str, user: str, client: str) -> Effective:
        from firstkey.system import inspector  # a boot works on the running system

        if self.start.unknown:
            raise FirstkeyError(self.start.unknown, reason=reasons.SSHD_CONFIG_INVALID)
        if not self.files:
            if self.config:
                message = f"sshd is started with -f {self.config}, which does not exist"
                raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
            message = f"{CONFIG} does not exist, nor another that is known; OpenSSH's defaults are assumed"
            raise FirstkeyError(message, reason=reasons.SSHD_MISSING)
        copy = self._copy
        argv = [program, "-C", f"user={user},{client}", "-f", copy.main]
        outcome = question(argv, lambda argv, stdin: inspector.run(argv, files=copy.contents, stdin=stdin))
        return understood(outcome, copy.host_keys, {**copy.files, f"{inspector.HERE}/": ""})

    @cached_property
    def _copy(self) -> Copy:
        from firstkey.system import sshd_copy  # as above

        configuration = self.configuration
        return sshd_copy.copy(self._tree, configuration.files, configuration.included, self.start.lines)

    def _may_have_blocks(self) -> bool:
        try:
            return not self.files or sshd_config.has_blocks(self.files.values())
        except FirstkeyError:
            return True

    def _alike(self, user: str) -> object:
        """What is the same for users whom no Match block tells apart: a tree may have thousands."""
        if self._asks_itself:
            return user  # whose groups only sshd knows for sure
        from firstkey.system import sshd_copy  # as above

        try:
            return sshd_copy.alike(self._copy.contents.values(), user) if self.files else user
        except FirstkeyError:
            return user

    # --- where it looks for keys --------------------------------------------------------------

    def key_files(self, account: Account, patterns: Iterable[str]) -> list[str]:
        """The files that it reads for the user, in its order, by these patterns of AuthorizedKeysFile.

        Where its version is not known, a pattern of files stands for itself too. Looks into directories with
        the caller's rights. Raises FirstkeyError where a pattern is none, or matches too much.
        """
        found: list[str] = []
        for path in sshd_config.key_paths(patterns, account):
            reads = self.reads_patterns if sshd_config.looks_for(path) else False
            found += [] if reads else [path]
            found += [] if reads is False else matching(self._tree, path)
        return found

    @cached_property
    def reads_patterns(self) -> bool | None:
        """Whether it is an OpenSSH that looks for files by patterns; None where nobody knows its version.

        That is asked of a running system's, and read in a tree's program.
        """
        program = command.find("sshd") if self._asks_itself else self.program
        try:
            if program is None:
                return None
            if self._asks_itself:
                texts = [command.run([program, "-V"], seconds=SECONDS).stderr]
            else:
                texts = [self._tree.read(path, limit=PROGRAM_LIMIT) or b"" for path in (program, *SESSIONS)]
        except FirstkeyError:
            return None
        match = next(filter(None, map(_VERSION.search, texts)), None)
        return int(match[1]) >= PATTERNS_SINCE if match else None


def question(argv: Sequence[str], run: Callable[[Sequence[str], bytes], command.Outcome]) -> command.Outcome:
    """Ask sshd with these arguments: -G (OpenSSH 9.3) needs no host key, -T of an older one gets a stand-in.

    Beside -G, -T is needed for -C.
    """
    outcome = run([argv[0], "-G", "-T", *argv[1:]], b"")
    if outcome.status and _NO_SUCH_OPTION.search(outcome.stderr):
        # Put together here, so that this file does not look like one of a private key.
        ends = ((b"BEGIN", _STAND_IN_KEY), (b"END", b""))
        key = b"".join(b"-----%b EC PRIVATE KEY-----\n%b" % end for end in ends)
        outcome = run([argv[0], "-T", "-h", STAND_IN, *argv[1:]], key)
    return outcome


def understood(outcome: command.Outcome, stand_ins: Mapping[str, str], files: Mapping[str, str]) -> Effective:
    """What sshd says. `stand_ins` are the host keys that some of it stand for, `files` what copies are of.

    Raises FirstkeyError where it says that the configuration is wrong.
    """
    if outcome.status:
        # The first thing that sshd says of a line of it: its last words only count such lines.
        said = (line.strip() for line in outcome.stderr.decode("utf-8", "replace").split("\n"))
        words = next(filter(_COMPLAINT.match, said), outcome.words)[:300]
        for copy, path in files.items():
            words = words.replace(copy, path)
        message = f"sshd rejects its configuration: {words}"
        raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
    effective = sshd_config.parse(outcome.stdout.decode("utf-8", "surrogateescape"))
    keys = tuple(stand_ins.get(path, path) for path in effective.host_keys if path != STAND_IN)
    settings = {**effective.settings, "hostkey": keys or sshd_config.DEFAULTS.host_keys}
    return effective._replace(settings=settings)


class Configuration:
    """One pass over the files, the main one first; `included` has the paths that each Include stands for, by
    file and line.
    """

    def __init__(
        self, main: str | None, read: Callable[[str], bytes | None], names: Callable[[str], list[str]]
    ) -> None:
        self.files: dict[str, bytes] = {}
        self.included: dict[tuple[str, int], list[str]] = {}
        self._read = read
        self._names = _limited(names)
        # What is not named by its whole path is in sshd's own directory (sshd_config(5): Include).
        self._above = "/etc/openssh/" if main == CONFIGS[1] else "/etc/ssh/"
        if main:
            self._collect(main, 0)

    def _collect(self, path: str, depth: int) -> None:
        if path in self.files or depth > INCLUDE_DEPTH or len(self.files) >= INCLUDE_FILES:
            return
        content = self._read(path)
        if content is None:
            return
        self.files[path] = content
        for number, line in sshd_config.lines(content):
            words = filter(None, line.words if line.keyword == "include" else ())
            for pattern in (word if word.startswith("/") else self._above + word for word in words):
                found = _glob(self._names, pattern)
                self.included.setdefault((path, number), []).extend(found)
                for inner in found:
                    self._collect(inner, depth + 1)


def matching(tree: Tree, pattern: str) -> list[str]:
    """The paths in the tree that a pattern stands for, as sshd reads them. Raises FirstkeyError."""
    return [path for path in _glob(_limited(tree.names), pattern) if tree.exists(path)]


def _glob(names: Callable[[str], list[str]], pattern: str) -> list[str]:
    """glob(7): the paths that match, sorted; a last part without a wildcard may not be there."""
    paths = [""]
    for part in filter(None, pattern.split("/")):
        if sshd_config.looks_for(part):
            found = ((path, name) for path in paths for name in names(path or "/"))
            paths = [f"{path}/{name}" for path, name in found if sshd_config.name_fits(name, part)]
        else:
            paths = [f"{path}/{part}" for path in paths]
    return sorted(paths)


def _limited(names: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """The names in a directory, up to a limit over all; none in what is no directory."""
    work = 0

    def counted(path: str) -> list[str]:
        nonlocal work
        try:
            found = names(path)
        except FirstkeyError:
            found = []
        work += 1 + len(found)
        if work > GLOB_WORK:
            message = f"the patterns in sshd's configuration match too much ({path:.60})"
            raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
        return found

    return counted
