"""sshd's configuration: what `sshd -T` and `-G` print, and the lines of sshd_config(5).

Nobody but sshd can tell what its configuration means (the first value wins, Include, Match). Lines are read
here only to find out which files there are, whom to ask sshd about, and where a person has to change what.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from firstkey import TYPE_CHECKING, NamedTuple, reasons
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    from firstkey.model import Account

# Documentation addresses (RFC 5737), which no Match block names on purpose.
ANY_CLIENT = "host=client.invalid,addr=192.0.2.1,laddr=192.0.2.2,lport=22"
"""A client somewhere, as `sshd -C` takes it."""


# --- what it means --------------------------------------------------------------------------------


class Effective(NamedTuple):
    """What sshd printed. `settings` has the values of each lower-case keyword, a line each, in order."""

    settings: dict[str, tuple[str, ...]]

    def first(self, keyword: str, default: str | None = None) -> str | None:
        """The keyword's first value, or `default` where sshd printed none."""
        values = self.settings.get(keyword.lower())
        return values[0] if values else default

    @property
    def host_keys(self) -> tuple[str, ...]:
        """The paths of the private host keys. `sshd -T -h FILE` prints FILE first, and no defaults."""
        return self.settings.get("hostkey", ())

    @property
    def has_host_key_agent(self) -> bool:
        """Whether an agent may have the private halves (sshd_config(5): HostKeyAgent)."""
        return self.first("hostkeyagent", "none") != "none"

    @property
    def least_rsa_bits(self) -> int:
        """RequiredRSASize; 0 where sshd prints none (before OpenSSH 9.1)."""
        least = self.first("requiredrsasize") or ""
        return int(least) if least.isdigit() else 0

    def shows(self, kind: str) -> bool:
        """Whether a host key of that type (as in a public key line) is shown to any client."""
        algorithms = (self.first("hostkeyalgorithms") or kind).split(",")
        signatures = ("rsa-sha2-256", "rsa-sha2-512") if kind == "ssh-rsa" else ()
        return not {kind, *signatures}.isdisjoint(algorithms)

    @property
    def authorized_keys_files(self) -> tuple[str, ...]:
        """The patterns to `expand`, in order; none where sshd reads no such file.

        sshd prints them without quotes: a pattern with a blank in it comes out as two.
        """
        words = (self.first("authorizedkeysfile") or "").split()
        # Each pattern for itself may be "none" (auth2-pubkey.c: user_key_allowed).
        return tuple(word for word in words if word.lower() != "none")


DEFAULTS = Effective(
    {
        "authorizedkeysfile": (".ssh/authorized_keys .ssh/authorized_keys2",),
        "hostkey": tuple(f"/etc/ssh/ssh_host_{kind}_key" for kind in ("rsa", "ecdsa", "ed25519")),
    }
)
"""What sshd does without a word of configuration (sshd_config(5)): for where sshd cannot be asked."""


def parse(text: str) -> Effective:
    """The values out of the standard output of `sshd -T`, one "keyword value" a line. Takes anything."""
    settings: dict[str, list[str]] = {}
    for line in text.split("\n"):
        keyword, _, value = line.strip().partition(" ")
        if keyword:
            settings.setdefault(keyword.lower(), []).append(value.strip())
    return Effective({keyword: tuple(values) for keyword, values in settings.items()})


# --- where a user's keys are ----------------------------------------------------------------------

# A token is a percent sign and the character behind it; at the end of the pattern there is none.
_TOKEN = "(?s)%(.?)"  # noqa: S105 - a pattern
_TOKENS = {"%", "h", "u", "U"}


def with_tokens(text: str, account: Account) -> str:
    """The text with a user's tokens replaced; those that are none stay."""
    values = {"%": "%", "h": account.home, "u": account.name, "U": str(account.uid)}
    return re.sub(_TOKEN, lambda token: values.get(token[1], token[0]), text)


def expand(pattern: str, account: Account) -> str:
    """The path that `pattern` means for a user (sshd_config(5): AuthorizedKeysFile, TOKENS).

    A relative one is taken below the home. Raises FirstkeyError(sshd-config-invalid) over an unknown token,
    over which sshd would end the connection.
    """
    for token in re.finditer(_TOKEN, pattern):
        if token[1] not in _TOKENS:
            message = f"AuthorizedKeysFile {pattern[:80]!a}: {token[0]!a} means nothing there"
            hint = "See: man sshd_config, TOKENS"
            raise FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID, hint=hint)
    path = with_tokens(pattern, account)
    return path if path.startswith("/") else f"{account.home}/{path}"


def key_paths(patterns: Iterable[str], account: Account) -> tuple[str, ...]:
    """The files that the patterns mean for a user, in sshd's order, each once. Raises as `expand` does."""
    return tuple(dict.fromkeys(re.sub("/+", "/", expand(pattern, account)) for pattern in patterns))


def looks_for(path: str) -> bool:
    """Whether OpenSSH 10 takes it for a pattern of files to look into (glob(7)), and for no name to write to.

    An earlier one takes it as it stands.
    """
    return not {"*", "?", "["}.isdisjoint(path)


def fits(path: str, pattern: str) -> bool:
    """Whether a pattern of files stands for the path, part by part (glob(7))."""
    names, parts = path.split("/"), pattern.split("/")
    return len(names) == len(parts) and all(map(name_fits, names, parts))


def name_fits(name: str, part: str) -> bool:
    """Whether a part of a pattern stands for a name; a dot in front has to be there in both."""
    import fnmatch

    return fnmatch.fnmatchcase(name, part) and (part[:1] == "." or name[:1] != ".")


def is_shared(pattern: str) -> bool:
    """Whether all users have one and the same file: an absolute path that depends on nothing of theirs."""
    return pattern.startswith("/") and not {"h", "u", "U"}.intersection(re.findall(_TOKEN, pattern))


# --- the lines of a file --------------------------------------------------------------------------

_LINE = re.compile(rb"[ \t\r]*(?:(?:#.*)?|([A-Za-z0-9]+)(?:[ \t\r]*=[ \t\r]*|[ \t\r]+)(.*))")
# Inside of quotes there is one way to read each character: a line without an end could take years otherwise.
_PIECE = r"""\\(["'\\])|(["'])((?:\\["'\\]|(?!\2|\\["'\\]).)*)\2|(\\ )|(\s)|(.)"""


class Line(NamedTuple):
    """A line that sets something: its keyword in lower case (none where it sets nothing), and the rest."""

    keyword: str
    rest: str

    @property
    def words(self) -> tuple[str, ...]:
        """The values of the keyword."""
        return arguments(self.rest)


def line_of(raw: bytes) -> Line | None:
    """The line, if its keyword is plain to see.

    sshd takes one in quotes and behind a `=` too (misc.c: strdelim), but a configuration that hides
    nothing has no such line.
    """
    match = _LINE.fullmatch(raw)
    if match is None:
        return None
    rest = (match[2] or b"").decode("utf-8", "surrogateescape")
    return Line((match[1] or b"").decode("ascii").lower(), rest)


def lines(content: bytes) -> Iterator[tuple[int, Line]]:
    """The lines that set something, with their numbers from 1."""
    for number, raw in enumerate(content.split(b"\n"), 1):
        line = line_of(raw)
        if line and line.keyword:
            yield number, line


def arguments(text: str) -> tuple[str, ...]:
    """The words of a line, as sshd tells them apart (misc.c: argv_split): quotes, and blanks in them."""
    words: list[str] = []
    word: list[str] | None = None
    for match in re.finditer(_PIECE, text.rstrip()):
        escaped, quote, quoted, blank, gap, other = match.groups()
        if gap:
            words += [] if word is None else ["".join(word)]
            word = None
        elif word is None and other == "#":
            break
        else:
            inside = re.sub(r"""\\(["'\\])""", r"\1", quoted) if quote else ""
            word = word or []
            word.append(inside or escaped or (blank and " ") or other or "")
    return tuple(words if word is None else [*words, "".join(word)])


def has_blocks(files: Iterable[bytes]) -> bool:
    """Whether there may be a Match block: a line whose keyword is not plain may begin one."""
    read = (line_of(raw) for content in files for raw in content.split(b"\n"))
    return any(line is None or line.keyword == "match" for line in read)
