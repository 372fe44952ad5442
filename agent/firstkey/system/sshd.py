"""OpenSSH's programs: how sshd is started, what it says that its configuration means, and ssh-keygen's word.

On a running system sshd itself is asked, as its unit starts it. A tree's is in system/sshd_tree.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import suppress
from functools import cached_property

from firstkey import TYPE_CHECKING, NamedTuple, reasons
from firstkey.reasons import FirstkeyError
from firstkey.ssh import sshd_config
from firstkey.ssh.public_key import sha256
from firstkey.system import command
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from firstkey.reasons import Refusal
    from firstkey.ssh.sshd_config import Effective, Line

CONFIG = "/etc/ssh/sshd_config"
CONFIGS = (CONFIG, "/etc/openssh/sshd_config", "/usr/etc/ssh/sshd_config")
"""Where the main file is: OpenSSH's own place, ALT Linux's, and openSUSE's while there is none in /etc."""
LIMIT = 1024 * 1024
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

_OLDER: set[str] = set()
"""Programs that said that they have no -G: they are not asked for it twice. A newer one takes -T too."""
_NO_SUCH_OPTION = re.compile(rb"(?i)(unknown|illegal|invalid) option")
PRIVSEP_DIRECTORY = "/run/sshd"
NO_PRIVSEP_DIRECTORY = f"Missing privilege separation directory: {PRIVSEP_DIRECTORY}"
"""Debian's old sshd wants it to exist even for -T. A configuration can have sshd print any words: they bring
about no other directory, and this one is its unit's too.
"""
_COMPLAINT = re.compile(r"/.+? line \d+:? (?!Deprecated option|Unsupported option)")
"""How sshd begins what it says of one line of a file, unless that is a mere warning (servconf.c)."""
_VERSION = re.compile(rb"OpenSSH_(\d{1,3})\.")


class Meaning(NamedTuple):
    """What sshd's configuration means, and why it is only the default if it could not be asked."""

    effective: Effective
    refusal: Refusal | None


class Sshd:
    """The running system's sshd. A directory in /run that an old one misses is made for it."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._looked_at: list[str] = []
        self._known: dict[object, Meaning] = {}

    # --- its files ----------------------------------------------------------------------------

    @cached_property
    def start(self) -> Start:
        """How the unit that listens starts it, or else the one that a socket starts."""
        return started_by(self.tree, LISTENING) or started_by(self.tree, BY_SOCKET) or Start()

    @property
    def options(self) -> list[str]:
        """The same, as the program takes them."""
        config = ["-f", self.start.config] if self.start.config else []
        return [*(word for line in self.start.lines for word in ("-o", line)), *config]

    @property
    def config(self) -> str | None:
        """The main file; None where it is in none of the usual places, which is not the same as empty."""
        return self.start.config or next(filter(self.tree.exists, CONFIGS), None)

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The files that the configuration consists of, the main one first, by path. Raises FirstkeyError."""
        files: dict[str, bytes] = {}
        pending = [self.config] if self.config else []
        while pending and len(files) < INCLUDE_FILES:
            path = pending.pop(0)
            content = None if path in files else self.tree.read(path, limit=LIMIT)
            if content is not None:
                files[path] = content
                pending[:0] = [
                    inner for _, line in sshd_config.lines(content) for inner in self.included(line)
                ]
        return files

    def included(self, line: Line) -> list[str]:
        """The paths that the line has sshd include. Raises FirstkeyError where these are too many."""
        # What is not named by its whole path is in sshd's own directory (sshd_config(5): Include).
        above = "/etc/openssh/" if self.config == CONFIGS[1] else "/etc/ssh/"
        words = filter(None, line.words if line.keyword == "include" else ())
        paths = (word if word.startswith("/") else above + word for word in words)
        return [found for path in paths for found in matching(self.tree, path, self._looked_at)]

    def digest(self) -> str | None:
        """One of the whole configuration, byte for byte; None where not all of it was found and read."""
        with suppress(FirstkeyError):
            if self.files and not self.start.unknown:
                return str(sha256(repr((self.start.lines, self.files)).encode()).hexdigest())
        return None

    # --- what it says -------------------------------------------------------------------------

    def meaning(self, user: str, client: str = sshd_config.ANY_CLIENT) -> Meaning:
        """The effective configuration when `user` logs in from `client` (as -C takes it); it is asked once.

        Without a Match block it is the same for all, so that then one answer serves them all.
        """
        alike = (self._alike(user), client) if self._may_have_blocks else ()
        if alike not in self._known:
            try:
                self._known[alike] = Meaning(self.ask(f"user={user},{client}"), None)
            except FirstkeyError as error:
                self._known[alike] = Meaning(sshd_config.DEFAULTS, error.refusal)
        return self._known[alike]

    def _alike(self, user: str) -> object:
        return user  # whose groups only sshd knows for sure

    def ask(self, login: str) -> Effective:
        """What the configuration means for a login, as `sshd -C` takes it. Raises FirstkeyError."""
        return asked([*self.options, "-C", login], self._run)

    def _run(self, argv: Sequence[str], stdin: bytes) -> command.Outcome:
        outcome = command.run(argv, seconds=SECONDS, stdin=stdin)
        if not (outcome.status and NO_PRIVSEP_DIRECTORY.encode() in outcome.stderr):
            return outcome
        with Tree("/") as host:
            host.ensure(PRIVSEP_DIRECTORY, mode=0o755).__exit__()
        return command.run(argv, seconds=SECONDS, stdin=stdin)

    @cached_property
    def _may_have_blocks(self) -> bool:
        try:
            return not self.files or sshd_config.has_blocks(self.files.values())
        except FirstkeyError:
            return True

    @cached_property
    def reads_patterns(self) -> bool | None:
        """Whether it is an OpenSSH that looks for files of keys by patterns; None: not known."""
        program = command.find("sshd")
        try:
            return knows_patterns(command.run([program, "-V"], seconds=SECONDS).stderr) if program else None
        except FirstkeyError:
            return None


def knows_patterns(text: bytes) -> bool | None:
    """Whether the version of OpenSSH in the text reads patterns in AuthorizedKeysFile; None: no version."""
    match = _VERSION.search(text)
    return int(match[1]) >= PATTERNS_SINCE if match else None


def asked(words: Sequence[str], run: Callable[[Sequence[str], bytes], command.Outcome]) -> Effective:
    """What sshd says with these arguments: -G (OpenSSH 9.3) needs no host key, an older -T gets a stand-in.

    Beside -G, -T is needed for -C. Raises FirstkeyError where there is no sshd to ask, or where it says that
    the configuration is wrong.
    """
    if (program := command.find("sshd")) is None:
        raise FirstkeyError("sshd is not installed", reason=reasons.SSHD_MISSING)
    if program not in _OLDER:
        outcome = run([program, "-G", "-T", *words], b"")
        if outcome.status and _NO_SUCH_OPTION.search(outcome.stderr):
            _OLDER.add(program)
    if program in _OLDER:
        # Put together here, so that this file does not look like one of a private key.
        ends = ((b"BEGIN", _STAND_IN_KEY), (b"END", b""))
        key = b"".join(b"-----%b EC PRIVATE KEY-----\n%b" % end for end in ends)
        outcome = run([program, "-T", "-h", STAND_IN, *words], key)
    if outcome.status:
        # The first thing that sshd says of a line of it: its last words only count such lines.
        said = (line.strip() for line in outcome.stderr.decode("utf-8", "replace").split("\n"))
        complaint = next(filter(_COMPLAINT.match, said), outcome.words)[:300]
        message = f"sshd rejects its configuration: {complaint}"
        raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
    effective = sshd_config.parse(outcome.stdout.decode("utf-8", "surrogateescape"))
    keys = tuple(path for path in effective.host_keys if path != STAND_IN)
    settings = {**effective.settings, "hostkey": keys or sshd_config.DEFAULTS.host_keys}
    return effective._replace(settings=settings)


# --- ssh-keygen -------------------------------------------------------------------------------------


def public_half(private: bytes) -> tuple[bytes, bool]:
    """The public key line of a private key, empty where ssh-keygen cannot load it.

    And whether that wants a passphrase: ssh-keygen then says so, and not that the key is invalid.
    """
    outcome = ask_keygen("-y", "-P", "", "-f", "/dev/stdin", stdin=private)
    line = b"" if outcome.status else outcome.stdout.strip()
    return line, b"incorrect passphrase" in outcome.stderr


def knows_key(public: bytes) -> bool:
    """Whether ssh-keygen takes that public key: its type, and for ECDSA that its point is on the curve."""
    return ask_keygen("-l", "-f", "/dev/stdin", stdin=public).status == 0


def ask_keygen(*words: str, stdin: bytes = b"") -> command.Outcome:
    """Ask ssh-keygen. Raises FirstkeyError where it is missing or killed, which says nothing of a key."""
    outcome = command.run([keygen(), *words], stdin=stdin)
    if outcome.status < 0:
        message = f"ssh-keygen was ended by signal {-outcome.status}"
        raise FirstkeyError(message, reason=reasons.KEYGEN_FAILED)
    return outcome


def keygen() -> str:
    """The program's path. Raises FirstkeyError where it is not installed."""
    if (program := command.find("ssh-keygen")) is None:
        raise FirstkeyError("ssh-keygen is not installed", reason=reasons.KEYGEN_MISSING)
    return program


# --- patterns of files ----------------------------------------------------------------------------


def matching(tree: Tree, pattern: str, looked_at: list[str] | None = None) -> list[str]:
    """The paths in the tree that a pattern stands for (glob(7)), sorted, as sshd reads them.

    `looked_at` gets all names that it was held against, and may be shared by patterns. Raises FirstkeyError
    where these are too many.
    """
    paths, looked_at = [""], [] if looked_at is None else looked_at
    for part in filter(None, pattern.split("/")):
        if not sshd_config.looks_for(part):
            paths = [f"{path}/{part}" for path in paths]
            continue
        above, paths = paths, []
        for path in above:
            names: list[str] = []
            with suppress(FirstkeyError):  # what is no directory has none
                names = tree.names(path or "/")
            paths += [f"{path}/{name}" for name in names if sshd_config.name_fits(name, part)]
            looked_at += [path, *names]
            if len(looked_at) > GLOB_WORK:
                message = f"the patterns in sshd's configuration match too much ({path:.60})"
                raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
    return sorted(filter(tree.exists, paths))


# --- the unit that starts it: its options count before any line of a file ---------------------------

ADMINISTRATOR = "/etc/systemd/system"
# systemd.unit(5), UNIT FILE LOAD PATH; /lib is /usr/lib except on systems that are older.
PLACES = (ADMINISTRATOR, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
# The service that listens, as Debian and others call it, and the one that a socket starts for a connection.
LISTENING = ("ssh.service", "sshd.service")
BY_SOCKET = ("ssh@.service", "sshd@.service")
_OPTION = re.compile(r"-[46DdeGiqrTtV]*(?:([CEbcfghkopu])(.*))?")  # sshd(8)
_KEYWORDS = {"o": "", "h": "HostKey ", "p": "Port "}


class Start(NamedTuple):
    """The options as lines of sshd_config, which mean the same at its very top; or why they are not known.

    `config` is the main file, where an option names it (-f). `files` may give options: the unit, and those
    with its variables. `unknown` is a sentence.
    """

    lines: tuple[str, ...] = ()
    config: str | None = None
    files: tuple[str, ...] = ()
    unknown: str | None = None


def started_by(tree: Tree, names: tuple[str, ...]) -> Start | None:
    """What the unit of one of these names has; None where there is none that starts anything."""
    place = next(filter(tree.exists, _paths(names)), "")
    try:
        unit = unit_settings(tree, *names)
        commands = unit["Service", "ExecStart"]
        if not commands:
            return None
        environment = [file.lstrip("-") for file in unit["Service", "EnvironmentFile"]]
        variables: dict[str, str] = {}
        for line in unit["Service", "Environment"]:
            variables.update(word.partition("=")[::2] for word in sshd_config.arguments(line))
        for path in environment:  # which come after Environment=
            for line in _lines(tree.read(path, limit=LIMIT) or b""):
                name, equals, value = line.strip().partition("=")
                if equals and name[:1] not in "#;":
                    variables[name] = " ".join(sshd_config.arguments(value))
        words: list[str] = []
        for word in sshd_config.arguments(commands[-1]):
            # Of a variable in a word of its own, the value comes apart (systemd.service(5), COMMAND LINES).
            is_variable = re.fullmatch(r"\$\w+", word)
            words += sshd_config.arguments(variables.get(word[1:], "")) if is_variable else [word]
        return _given(words)._replace(files=(place, *environment))
    except (FirstkeyError, ValueError) as error:
        return Start(files=(place,), unknown=f"{place}: how sshd is started cannot be read: {error}")


def _given(words: Sequence[str]) -> Start:
    """What these words have sshd start with. Raises ValueError where they are not understood."""
    program, *rest = words or [""]
    if program.lstrip("-@:+!|").rpartition("/")[2] != "sshd":  # systemd.service(5), ExecStart=
        raise ValueError(f"{program} is started, and not sshd")
    lines: list[str] = []
    config, options = None, iter(rest)
    for word in options:
        match = _OPTION.fullmatch(word)
        if match is None:
            raise ValueError(f"{word} is no option of sshd's")
        value = match[2] or next(options, "") if match[1] else ""
        config = value if match[1] == "f" else config
        lines += [_KEYWORDS[match[1]] + value.strip()] if match[1] in _KEYWORDS else []
    return Start(tuple(lines), config)


def unit_settings(tree: Tree, *names: str) -> defaultdict[tuple[str, str], list[str]]:
    """What each setting of a unit (of any of these names) comes to, by section and key: systemd.syntax(7).

    Drop-ins count, and an empty value takes back those before it.
    """
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for section, key, value in assignments(tree, *names):
        found[section, key].append(value)
        if not value:
            found[section, key].clear()
    return found


def assignments(tree: Tree, *names: str) -> Iterator[tuple[str, str, str]]:
    """Each section, key and value of the unit and its drop-ins, in their order."""
    for text in _texts(tree, names):
        section = ""
        for line in _lines(re.sub(rb"\\\n", b" ", text)):
            key, equals, value = line.strip().partition("=")
            if line.startswith("["):
                section = line.strip().strip("[]")
            elif equals:
                yield section, key.rstrip(), value.strip()


def _texts(tree: Tree, names: tuple[str, ...]) -> Iterator[bytes]:
    """The first of the unit's files that there is, then its drop-ins by name, each from the first place."""
    files = (tree.read(path, limit=LIMIT) for path in _paths(names))
    yield next((content for content in files if content is not None), b"")
    directories = [f"{place}/{name}.d" for place in PLACES for name in names]
    drop_ins = {file: f"{where}/{file}" for where in reversed(directories) for file in tree.names(where)}
    for file, path in sorted(drop_ins.items()):
        if file.endswith(".conf"):
            yield tree.read(path, limit=LIMIT) or b""


def _paths(names: tuple[str, ...]) -> list[str]:
    return [f"{place}/{name}" for name in names for place in PLACES]


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", "surrogateescape").split("\n")
