"""OpenSSH's programs: how sshd is started, what its configuration means, and what ssh-keygen says of a key.

On a running system sshd itself is asked, as its unit starts it. A tree's is in system/sshd_tree.py.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cached_property
from getopt import GetoptError, getopt

from firstkey import TYPE_CHECKING, NamedTuple, reasons
from firstkey.reasons import FirstkeyError
from firstkey.settings import PLACES, unit_settings
from firstkey.ssh import sshd_config
from firstkey.ssh.public_key import sha256
from firstkey.ssh.sshd_config import arguments, name_fits
from firstkey.system import command
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firstkey.reasons import Refusal
    from firstkey.ssh.sshd_config import Effective, Line

CONFIG = "/etc/ssh/sshd_config"
CONFIGS = (CONFIG, "/etc/openssh/sshd_config", "/usr/etc/ssh/sshd_config")
"""Where the main file is: OpenSSH's own place, ALT Linux's, and openSUSE's while there is none in /etc."""
LIMIT = 1024 * 1024
INCLUDE_FILES = 512
GLOB_WORK = 20_000
"""How many names patterns may be held against: `/*/../*/..` would take for ever, with `/nothing*` as well."""
SECONDS = 10.0
"""How long sshd may take to answer: it takes milliseconds, unless a name service that Match asks hangs."""

STAND_IN = "/dev/stdin"
_STAND_IN_KEY = (
    b"MHcCAQEEIMa9psj0Sg+FAVKZeJ+gC4VL1lREtj+T7VilLkXa3eUPoAoGCCqGSM49\n"
    b"AwEHoUQDQgAE6+/joGd+si9uj8oP1kGASSm1gUD1L55rfjekIA+5wYyWJGPqJDsX\n"
    b"5brf5zEhqn6foghDf7VdaXFK827G9jQZbA==\n"
)
"""A host key that is used nowhere: without any, `sshd -T` says nothing. Every sshd takes this type."""

_OLDER: set[str] = set()
"""Programs that said that they have no -G: they are not asked for it twice. A newer one takes -T too."""
PRIVSEP_DIRECTORY = "/run/sshd"
NO_PRIVSEP_DIRECTORY = f"Missing privilege separation directory: {PRIVSEP_DIRECTORY}"
"""Debian's old sshd wants it to exist even for -T. A configuration can have sshd print any words: they bring
about no other directory, and this one is its unit's too.
"""
_COMPLAINT = r"/.+? line \d+:? (?!Deprecated option|Unsupported option)"
"""How sshd begins what it says of one line of a file, unless that is a mere warning (servconf.c)."""


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
                pending[:0] = [file for _, line in sshd_config.lines(content) for file in self.included(line)]
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
                return str(sha256(repr((self.start.options, self.files)).encode()).hexdigest())
        return None

    def program_stamp(self) -> str:
        """What differs from one release of it to the next, whose defaults may be others."""
        with suppress(FirstkeyError), self.tree.opened("/usr/sbin") as directory:
            return str((found := directory.status("sshd")) and (found.st_size, int(found.st_mtime)))
        return ""

    # --- its answers --------------------------------------------------------------------------

    def meaning(self, user: str, client: str = sshd_config.ANY_CLIENT) -> Meaning:
        """The effective configuration when `user` logs in from `client` (as -C takes it); it is asked once.

        Without a Match block it is the same for all, so that then one answer serves them all.
        """
        alike = self._alike(user, client)
        if alike not in self._known:
            try:
                self._known[alike] = Meaning(self.ask(f"user={user},{client}"), None)
            except FirstkeyError as error:
                self._known[alike] = Meaning(sshd_config.DEFAULTS, error.refusal)
        return self._known[alike]

    def _alike(self, user: str, client: str) -> tuple[object, ...]:
        with suppress(FirstkeyError):
            if self.files and not sshd_config.has_blocks(self.files.values()):
                return ()
        return user, client  # whose groups only sshd knows for sure

    def depends_on_client(self) -> bool:
        """Whether a Match block may ask where a client comes from: what sshd says is then not for all."""
        asking = re.compile(rb'(?im)^[ \t"]*match.*(host|address|localport|rdomain)')
        with suppress(FirstkeyError):
            return not self.files or any(map(asking.search, self.files.values()))
        return True

    def ask(self, login: str) -> Effective:
        """What the configuration means for a login, as `sshd -C` takes it. Raises FirstkeyError."""
        return asked([*self.start.options, "-C", login], self._run)

    def _run(self, argv: Sequence[str], stdin: bytes) -> command.Outcome:
        outcome = command.run(argv, seconds=SECONDS, stdin=stdin)
        if outcome.status and NO_PRIVSEP_DIRECTORY.encode() in outcome.stderr:
            with Tree("/") as host:
                host.ensure(PRIVSEP_DIRECTORY, mode=0o755).__exit__()
            outcome = command.run(argv, seconds=SECONDS, stdin=stdin)
        return outcome

    @cached_property
    def reads_patterns(self) -> bool | None:
        """Whether it is an OpenSSH that looks for files of keys by patterns; None: not known."""
        program = command.find("sshd")
        with suppress(FirstkeyError):
            return knows_patterns(command.run([program, "-V"], seconds=SECONDS).stderr) if program else None
        return None


def knows_patterns(text: bytes) -> bool | None:
    """Whether that version of OpenSSH reads patterns in AuthorizedKeysFile (since 10); None: no version."""
    match = re.search(rb"OpenSSH_(\d{1,3})\.", text)
    return int(match[1]) >= 10 if match else None


def asked(words: Sequence[str], run: Callable[[Sequence[str], bytes], command.Outcome]) -> Effective:
    """What sshd says with these arguments: -G (OpenSSH 9.3) needs no host key, an older -T gets a stand-in.

    Beside -G, -T is needed for -C. Raises FirstkeyError where there is no sshd to ask, or where it says that
    the configuration is wrong.
    """
    if (program := command.find("sshd")) is None:
        raise FirstkeyError("sshd is not installed", reason=reasons.SSHD_MISSING)
    if program not in _OLDER:
        outcome = run([program, "-G", "-T", *words], b"")
        if outcome.status and re.search(b"(?i)(unknown|illegal|invalid) option", outcome.stderr):
            _OLDER.add(program)
    if program in _OLDER:
        # Put together here, so that this file does not look like one of a private key.
        ends = ((b"BEGIN", _STAND_IN_KEY), (b"END", b""))
        key = b"".join(b"-----%b EC PRIVATE KEY-----\n%b" % end for end in ends)
        outcome = run([program, "-T", "-h", STAND_IN, *words], key)
    if outcome.status:
        # The first thing that sshd says of a line of it: its last words only count such lines.
        said = (line.strip() for line in outcome.stderr.decode("utf-8", "replace").split("\n"))
        complaint = next((line for line in said if re.match(_COMPLAINT, line)), outcome.words)[:300]
        message = f"sshd rejects its configuration: {complaint}"
        raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
    effective = sshd_config.parse(outcome.stdout.decode("utf-8", "surrogateescape"))
    keys = tuple(path for path in effective.host_keys if path != STAND_IN)
    effective.settings["hostkey"] = keys or sshd_config.DEFAULTS.host_keys
    return effective


# --- ssh-keygen -------------------------------------------------------------------------------------


def public_half(private: bytes) -> tuple[bytes, bool]:
    """The public key line of a private key, empty where ssh-keygen cannot load it.

    And whether that wants a passphrase: ssh-keygen then says so, and not that the key is invalid.
    """
    outcome = ask_keygen("-y", "-P", "", "-f", "/dev/stdin", stdin=private)
    return b"" if outcome.status else outcome.stdout.strip(), b"incorrect passphrase" in outcome.stderr


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

    `looked_at` gets all names that it was held against. Raises FirstkeyError where these are too many.
    """
    paths, looked_at = [""], [] if looked_at is None else looked_at
    for part in filter(None, pattern.split("/")):
        if not sshd_config.looks_for(part):
            paths = [f"{path}/{part}" for path in paths]
            continue
        above, paths = paths, []
        for path in above:
            with suppress(FirstkeyError):  # what is no directory has none
                looked_at += (names := tree.names(path or "/"))
                paths += [f"{path}/{name}" for name in names if name_fits(name, part)]
            if len(looked_at) > GLOB_WORK:
                message = f"the patterns in sshd's configuration match too much ({path:.60})"
                raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID)
    return sorted(filter(tree.exists, paths))


# --- the unit that starts it: its options count before any line of a file ---------------------------

# The service that listens, as Debian and others call it, and the one that a socket starts for a connection.
LISTENING = ("ssh.service", "sshd.service")
BY_SOCKET = ("ssh@.service", "sshd@.service")
SOCKETS = ("ssh.socket", "sshd.socket")
_OPTIONS = "46DdeGiqrTtVC:E:b:c:f:g:h:k:o:p:u:"  # sshd(8)
_CONFIGURING = {"-f", "-h", "-o", "-p"}


class Start(NamedTuple):
    """Those options, each with its value behind it, that count like lines of its configuration; or why they
    are not known.

    `config` is the main file, where an option names it (-f). `files` may give options: the unit, and those
    with its variables. `unknown` is a sentence.
    """

    options: tuple[str, ...] = ()
    config: str | None = None
    files: tuple[str, ...] = ()
    unknown: str | None = None


def started_by(tree: Tree, names: tuple[str, ...]) -> Start | None:
    """What the unit of one of these names has; None where there is none that starts anything."""
    place = next(filter(tree.exists, (f"{where}/{name}" for name in names for where in PLACES)), "")
    try:
        unit = unit_settings(tree, *names)
        if not unit["Service", "ExecStart"]:
            return None
        files = [file.lstrip("-") for file in unit["Service", "EnvironmentFile"]]
        variables = [word for line in unit["Service", "Environment"] for word in arguments(line)]
        for path in files:  # which come after Environment=, each line with one variable
            lines = (tree.read(path, limit=LIMIT) or b"").decode("utf-8", "surrogateescape").split("\n")
            variables += [" ".join(arguments(line)) for line in lines]
        values = {f"${name}": value for name, _, value in (each.partition("=") for each in variables)}
        # Of a variable in a word of its own, the value comes apart (systemd.service(5), COMMAND LINES).
        words = (
            inner
            for word in arguments(unit["Service", "ExecStart"][-1])
            for inner in (arguments(values.get(word, "")) if re.fullmatch(r"\$\w+", word) else (word,))
        )
        return _given(*words)._replace(files=(place, *files))
    except (FirstkeyError, ValueError, GetoptError) as error:
        return Start(files=(place,), unknown=f"{place}: how sshd is started cannot be read: {error}")


def _given(program: str = "", *words: str) -> Start:
    """What these words have sshd start with. Raises ValueError or GetoptError where they mean nothing."""
    if program.lstrip("-@:+!|").rpartition("/")[2] != "sshd":  # systemd.service(5), ExecStart=
        raise ValueError(f"{program} is started, and not sshd")
    options, others = getopt(words, _OPTIONS)
    if others:
        raise ValueError(f"{others[0]} is no option of sshd's")
    configuring = (word for pair in options if pair[0] in _CONFIGURING for word in pair)
    return Start(tuple(configuring), dict(options).get("-f"))
