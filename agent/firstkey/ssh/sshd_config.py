"""sshd's effective configuration, out of what `sshd -T` prints.

Nobody but sshd can tell what its configuration means (the first value wins, Include, Match), so
sshd_config itself is never read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple

PATH_LIMIT = 4095
"""Bytes of a path without its NUL (limits.h: PATH_MAX); sshd ends the connection over a longer one."""


class Login(NamedTuple):
    """Who logs in, as far as a pattern can ask (passwd(5))."""

    name: str
    uid: int
    home: str


class Effective(NamedTuple):
    """What `sshd -T` printed. `settings` has the values of each lower-case keyword, a line each, in order."""

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
    def authorized_keys_files(self) -> tuple[str, ...]:
        """The patterns to `expand`, in order; none where sshd reads no such file.

        sshd prints them without quotes: a pattern with a blank in it comes out as two.
        """
        words = (self.first("authorizedkeysfile") or "").split()
        # Each pattern for itself may be "none" (auth2-pubkey.c: user_key_allowed).
        return tuple(word for word in words if word.lower() != "none")

    @property
    def strict_modes(self) -> bool:
        """Whether sshd ignores files that others could have written (the default)."""
        return self.first("strictmodes", "yes") != "no"

    @property
    def permit_root_login(self) -> str:
        """One of yes, no, prohibit-password and forced-commands-only."""
        value = self.first("permitrootlogin", "prohibit-password") or ""
        # sshd prints the old name, and the manual has only the new one.
        return "prohibit-password" if value == "without-password" else value

    @property
    def use_pam(self) -> bool:
        """Whether sshd asks PAM. Upstream's default is no; distributions set yes."""
        return self.first("usepam", "no") == "yes"


DEFAULTS = Effective(
    {
        "authorizedkeysfile": (".ssh/authorized_keys .ssh/authorized_keys2",),
        "hostkey": (
            "/etc/ssh/ssh_host_rsa_key",
            "/etc/ssh/ssh_host_ecdsa_key",
            "/etc/ssh/ssh_host_ed25519_key",
        ),
        "permitrootlogin": ("prohibit-password",),
        "strictmodes": ("yes",),
        "usepam": ("no",),
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


def expand(pattern: str, login: Login) -> str:
    """The path that `pattern` means for a user (sshd_config(5): AuthorizedKeysFile, TOKENS).

    A relative one is taken below the home. Raises FirstkeyError(sshd-config-invalid) over an
    unknown token or a path that is too long, over which sshd would end the connection.
    """
    values = {"%": "%", "h": login.home, "u": login.name, "U": str(login.uid)}

    def value(token: re.Match[str]) -> str:
        if token[1] not in values:
            raise _invalid(pattern, f"{token[0]!a} means nothing there")
        return values[token[1]]

    path = re.sub(_TOKEN, value, pattern)
    if not path.startswith("/"):
        path = f"{login.home}/{path}"
    if len(path.encode("utf-8", "surrogateescape")) > PATH_LIMIT:
        raise _invalid(pattern, f"the path is longer than {PATH_LIMIT} bytes")
    return path


def with_blanks(printed: Sequence[str], texts: Iterable[bytes]) -> tuple[str, ...]:
    """The patterns that sshd printed as these words, put together again where a blank belongs to a pattern.

    `texts` are the files of its configuration. Only a line that comes out as the very same words can be the
    one that sshd printed; which of them holds is sshd's business, as ever.
    """
    for text in texts:
        for line in text.decode("utf-8", "surrogateescape").split("\n"):
            match = re.fullmatch(_KEYS_FILE_LINE, line, re.IGNORECASE)
            patterns = arguments(match[1]) if match else ()
            named = tuple(pattern for pattern in patterns if pattern.lower() != "none")
            if " ".join(named).split() == list(printed):
                return named
    return tuple(printed)


_KEYS_FILE_LINE = r"\s*authorizedkeysfile(?:\s*=\s*|\s+)(.*)"
# Inside of quotes there is one way to read each character: a line without an end could take years otherwise.
_PIECE = r"""\\(["'\\])|(["'])((?:\\["'\\]|(?!\2|\\["'\\]).)*)\2|(\\ )|(\s)|(.)"""


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


def is_shared(pattern: str) -> bool:
    """Whether all users have one and the same file: an absolute path that depends on nothing of theirs."""
    return pattern.startswith("/") and not {"h", "u", "U"}.intersection(re.findall(_TOKEN, pattern))


def _invalid(pattern: str, why: str) -> FirstkeyError:
    message = f"AuthorizedKeysFile {pattern[:80]!a}: {why}"
    return FirstkeyError(message, reason=reasons.SSHD_CONFIG_INVALID, hint="See: man sshd_config, TOKENS")
