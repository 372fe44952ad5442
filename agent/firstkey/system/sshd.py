"""OpenSSH's programs: how sshd is started, what it says that its configuration means, and ssh-keygen's word.

On a running system sshd itself is asked, as its unit starts it. A tree's is in system/sshd_tree.py.
"""

from __future__ import annotations

import re
from functools import cached_property

from firstkey import TYPE_CHECKING, NamedTuple, reasons
from firstkey.reasons import FirstkeyError
from firstkey.ssh import sshd_config
from firstkey.ssh.public_key import sha256
from firstkey.system import command
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from firstkey.reasons import Refusal
    from firstkey.ssh.sshd_config import Effective

CONFIG = "/etc/ssh/sshd_config"
CONFIGS = (CONFIG, "/etc/openssh/sshd_config", "/usr/etc/ssh/sshd_config")
"""Where the main file is: OpenSSH's own place, ALT Linux's, and openSUSE's while there is none in /etc."""
LIMIT = 1024 * 1024
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

_OLDER: set[str] = set()
"""Programs that said that they have no -G: they are not asked for it twice. A newer one takes -T too."""
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
    """The running system's sshd. A directory in /run that an old one misses is made for it."""

    _may_have_no_files = False  # where there are none, they are in a place that is not known

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
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
        return self.start.config or next(filter(self._exists, CONFIGS), None)

    @property
    def files(self) -> dict[str, bytes]:
        """The files that the configuration consists of, the main one first, by path. Raises FirstkeyError."""
        return self._read_files[0]

    @cached_property
    def _read_files(self) -> tuple[dict[str, bytes], dict[tuple[str, int], list[str]]]:
        """The same, read once; and the paths that each Include stands for, by file and line."""
        files: dict[str, bytes] = {}
        included: dict[tuple[str, int], list[str]] = {}
        names = _limited(self._names)
        # What is not named by its whole path is in sshd's own directory (sshd_config(5): Include).
        above = "/etc/openssh/" if self.config == CONFIGS[1] else "/etc/ssh/"

        def collect(path: str, depth: int) -> None:
            done = path in files or depth > INCLUDE_DEPTH or len(files) >= INCLUDE_FILES
            content = None if done else self._read(path)
            if content is None:
                return
            files[path] = content
            for number, line in sshd_config.lines(content):
                for word in filter(None, line.words if line.keyword == "include" else ()):
                    found = _glob(names, word if word.startswith("/") else above + word)
                    included.setdefault((path, number), []).extend(found)
                    for inner in found:
                        collect(inner, depth + 1)

        if self.config:
            collect(self.config, 0)
        return files, included

    def digest(self) -> str | None:
        """One of the whole configuration, byte for byte; None where not all of it was found and read."""
        try:
            is_known = not self.start.unknown and (self.files or self._may_have_no_files)
        except FirstkeyError:
            return None
        return str(sha256(repr((self.start.lines, self.files)).encode()).hexdigest()) if is_known else None

    def _exists(self, path: str) -> bool:
        return self.tree.exists(path)

    def _read(self, path: str) -> bytes | None:
        return self.tree.read(path, limit=LIMIT)

    def _names(self, path: str) -> list[str]:
        return sorted(self.tree.names(path))

    # --- what it says -------------------------------------------------------------------------

    def meaning(self, user: str, client: str = sshd_config.ANY_CLIENT) -> Meaning:
        """The effective configuration when `user` logs in from `client` (as -C takes it); it is asked once.

        Without a Match block it is the same for all, so that then one answer serves them all.
        """
        alike = (self._alike(user), client) if self._may_have_blocks() else ()
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
        return understood(question([*self.options, "-C", login], self._run))

    def _run(self, argv: Sequence[str], stdin: bytes) -> command.Outcome:
        outcome = command.run(argv, seconds=SECONDS, stdin=stdin)
        missing = missing_directory(outcome)
        if missing is None:
            return outcome
        with Tree("/") as host:
            host.ensure(missing, mode=0o755).__exit__()
        return command.run(argv, seconds=SECONDS, stdin=stdin)

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


def missing_directory(outcome: command.Outcome) -> str | None:
    """The directory for which sshd said nothing, where it misses one."""
    match = _NO_PRIVSEP_DIRECTORY.search(outcome.stderr) if outcome.status else None
    return match[1].decode() if match else None


def knows_patterns(text: bytes) -> bool | None:
    """Whether the version of OpenSSH in the text reads patterns in AuthorizedKeysFile; None: no version."""
    match = _VERSION.search(text)
    return int(match[1]) >= PATTERNS_SINCE if match else None


def question(words: Sequence[str], run: Callable[[Sequence[str], bytes], command.Outcome]) -> command.Outcome:
    """Ask sshd with these arguments: -G (OpenSSH 9.3) needs no host key, -T of an older one gets a stand-in.

    Beside -G, -T is needed for -C. Raises FirstkeyError where there is no sshd to ask.
    """
    if (program := command.find("sshd")) is None:
        raise FirstkeyError("sshd is not installed", reason=reasons.SSHD_MISSING)
    if program not in _OLDER:
        outcome = run([program, "-G", "-T", *words], b"")
        if not (outcome.status and _NO_SUCH_OPTION.search(outcome.stderr)):
            return outcome
        _OLDER.add(program)
    # Put together here, so that this file does not look like one of a private key.
    ends = ((b"BEGIN", _STAND_IN_KEY), (b"END", b""))
    key = b"".join(b"-----%b EC PRIVATE KEY-----\n%b" % end for end in ends)
    return run([program, "-T", "-h", STAND_IN, *words], key)


def understood(outcome: command.Outcome) -> Effective:
    """What sshd says. Raises FirstkeyError where it says that the configuration is wrong."""
    if outcome.status:
        # The first thing that sshd says of a line of it: its last words only count such lines.
        said = (line.strip() for line in outcome.stderr.decode("utf-8", "replace").split("\n"))
        words = next(filter(_COMPLAINT.match, said), outcome.words)[:300]
        message = f"sshd rejects its configuration: {words}"
        raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
    effective = sshd_config.parse(outcome.stdout.decode("utf-8", "surrogateescape"))
    keys = tuple(path for path in effective.host_keys if path != STAND_IN)
    settings = {**effective.settings, "hostkey": keys or sshd_config.DEFAULTS.host_keys}
    return effective._replace(settings=settings)


# --- ssh-keygen -------------------------------------------------------------------------------------


def public_half(private: bytes) -> bytes | None:
    """The public key line of an unencrypted private key; None where ssh-keygen cannot load it."""
    outcome = ask_keygen("-y", "-P", "", "-f", "/dev/stdin", stdin=private)
    return outcome.stdout.strip() if outcome.status == 0 else None


def is_encrypted(private: bytes) -> bool:
    """Whether the private key wants a passphrase: ssh-keygen then says so, and not that it is invalid."""
    return b"incorrect passphrase" in ask_keygen("-y", "-P", "", "-f", "/dev/stdin", stdin=private).stderr


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

    `config` is the main file, where an option names it (-f). `place` is the file that gives the options;
    `unknown` is a sentence.
    """

    lines: tuple[str, ...] = ()
    config: str | None = None
    place: str = ""
    unknown: str | None = None


def started_by(tree: Tree, names: tuple[str, ...]) -> Start | None:
    """What the unit of one of these names has; None where there is none that starts anything."""
    place = next(filter(tree.exists, _paths(names)), "")
    try:
        commands = values(tree, "Service", "ExecStart", *names)
        return _given(tree, names, commands[-1], place) if commands else None
    except (FirstkeyError, ValueError) as error:
        return Start((), None, place, f"{place}: how sshd is started cannot be read: {error}")


def _given(tree: Tree, names: tuple[str, ...], line: str, place: str) -> Start:
    words, place = _expanded(sshd_config.arguments(line), _environment(tree, names), place)
    if not words or words[0].lstrip("-@:+!|").rpartition("/")[2] != "sshd":  # systemd.service(5), ExecStart=
        raise ValueError(f"{' '.join(words[:1])} is started, and not sshd")
    lines: list[str] = []
    config, rest = None, iter(words[1:])
    for word in rest:
        match = _OPTION.fullmatch(word)
        if match is None:
            raise ValueError(f"{word} is no option of sshd's")
        value = match[2] or next(rest, "") if match[1] else ""
        config = value if match[1] == "f" else config
        lines += [_KEYWORDS[match[1]] + value.strip()] if match[1] in _KEYWORDS else []
    return Start(tuple(lines), config, place)


def _environment(tree: Tree, names: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """The variables of the unit, each with the file that sets it, if any; files come after Environment=."""
    found: dict[str, tuple[str, str]] = {}
    for line in values(tree, "Service", "Environment", *names):
        words = (word.partition("=") for word in sshd_config.arguments(line))
        found.update({name: (value, "") for name, _, value in words})
    for path in (file.lstrip("-") for file in values(tree, "Service", "EnvironmentFile", *names)):
        for line in _lines(tree.read(path, limit=LIMIT) or b""):
            name, equals, value = line.strip().partition("=")
            if equals and name[:1] not in "#;":
                found[name] = (" ".join(sshd_config.arguments(value)), path)
    return found


def _expanded(
    words: Iterable[str], variables: dict[str, tuple[str, str]], place: str
) -> tuple[list[str], str]:
    """The words with their variables, as systemd has it: `$X` comes apart, `${X}` does not."""
    expanded: list[str] = []
    for word in words:
        if re.fullmatch(r"\$\w+", word):
            value, path = variables.get(word[1:], ("", ""))
            expanded += sshd_config.arguments(value)
            place = path if value and path else place
        else:
            value = re.sub(r"\$\{(\w+)\}", lambda match: variables.get(match[1], ("", ""))[0], word)
            expanded.append(value)
    return expanded, place


def values(tree: Tree, section: str, key: str, *names: str) -> list[str]:
    """What a setting of a unit (of any of these names) comes to with its drop-ins: systemd.syntax(7).

    An empty value takes back those before it.
    """
    found: list[str] = []
    for text in _texts(tree, names):
        current = ""
        for line in _lines(re.sub(rb"\\\n", b" ", text)):
            name, equals, value = line.strip().partition("=")
            if line.startswith("["):
                current = line.strip()
            elif equals and current == f"[{section}]" and name.rstrip() == key:
                found.append(value.strip())
                if not value.strip():
                    found.clear()
    return found


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
