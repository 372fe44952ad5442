"""G9: no histories."""

from __future__ import annotations

import posixpath
import re
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey import image_reasons
from firstkey.image import changes, places, secrets, whose
from firstkey.image.rule import HISTORIES, Rule
from firstkey.image.verdict import ERROR, Doubt, Finding, Verdict
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.system import walk
from firstkey.system.mounts import is_at_or_below

if TYPE_CHECKING:
    from firstkey.image.subject import Home, Image

WHAT = "a history of typed commands"

NAMES = frozenset({
    # shells
    ".ash_history", ".bash_history", ".fish_history", ".histfile", ".history", ".ksh_history",
    ".mksh_history", ".sh_history", ".tcsh_history",
    ".zhistory", ".zsh_history", "fish_history", "ConsoleHost_history.txt",
    # databases
    ".clickhouse-client-history", ".cqlsh_history", ".dbshell", ".influx_history", ".mariadb_history",
    ".mongosh_history",
    ".mycli-history", ".mysql_history", ".psql_history", ".rediscli_history", ".sqlite_history",
    ".usql_history", ".valkeycli_history",
    # languages
    ".ghci_history", ".irb-history", ".irb_history", ".julia_history", ".lua_history",
    ".node_repl_history",
    ".octave_hist", ".php_history", ".pry_history", ".python_history", ".Rhistory", ".scala_history",
    ".ts_node_repl_history", "history.sqlite",  # IPython's
    # editors, pagers and others that remember what was done
    ".gdb_history", ".lesshst", ".lftp_history", ".nano_history", ".netrwhist", ".units_history",
    ".viminfo", ".viminfo.tmp", ".wget-hsts", "viminfo",
})  # fmt: skip

# What is not known by its name alone, below each home.
PATTERNS = (
    "~/.*{history,_hist}",
    "~/.*history[-.~]*",  # what editors, logrotate and a shell that was cut off leave beside one
    "~/.{config/*/*,local/share/*/*,local/state/*,local/state/*/*}history",
    "~/.config/nushell/history.*",
    "~/.local/share/{nano/*,atuin/history.db*}",
    "~/.local/{share,state}/nvim/shada/*",
    "~/.{aws/cli/history,mongodb/mongosh,subversion/auth/*,zsh_sessions}/*",
)
PLACES = places.places(WHAT, *(f"*/{name}" for name in sorted(NAMES)), *PATTERNS)


# Where shells are told to keep it elsewhere.
PROFILES = (
    "/etc/profile", "/etc/profile.d/*.sh", "/etc/bash.bashrc", "/etc/bashrc", "/etc/environment",
    "/etc/zsh/*", "/etc/zshrc", "/etc/ksh.kshrc",
)  # fmt: skip
OWN_PROFILES = (".bashrc", ".bash_profile", ".bash_login", ".profile", ".zshrc", ".zshenv", ".kshrc")
"""In each home: these name files of its owner's in it, and nothing else (image/whose)."""
HISTFILE = re.compile(rb"^[^#\n]*\bHISTFILE=([\"']?)([^\"'\s;&|]+)\1", re.MULTILINE)
VARIABLE = re.compile(r"\$\(.*|\$\{[^}]*\}?|\$\w+|`.*")
ACCOUNT = re.compile(r"\$\{?(?:USER|LOGNAME)\b\}?|\$\((?:whoami|id -un)\)|`(?:whoami|id -un)`")
"""What stands for the name of whoever types. What any other variable stands for is not known."""
HOME = re.compile(r"^(?:~|\$HOME|\$\{HOME\})/")


def check(image: Image) -> Verdict:
    """Every history with something in it, and each link in the place of one, of which only the link goes."""
    seen = places.survey(image, PLACES)
    links = {doubt.path for doubt in seen.doubts if _is_to_another(image, doubt.path)}
    doubts = [doubt for doubt in seen.doubts if doubt.path not in links]
    paths = {match.path for match in seen.matches}
    paths.update(_named(image, doubts))
    findings = (*(_finding(image, path) for path in sorted(paths)), *map(_link, sorted(links)))
    return Verdict(findings, tuple(dict.fromkeys(doubts)))


def _finding(image: Image, path: str) -> Finding:
    reason = f"This is {WHAT}, access keys perhaps included."
    return Finding(path, reason, changes=(secrets.removal(image, path, WHAT),))


def _link(path: str) -> Finding:
    reason = "This has the name of a history, and is a link to something else."
    removal = changes.Remove(path, "a link in the place of a history")
    return Finding(path, reason, changes=(removal,))


def _is_to_another(image: Image, path: str) -> bool:
    """Whether it is a link that leads to no file of its owner's, or goes round: no history itself."""
    name = posixpath.basename(path)
    status = image.status(path) if name in NAMES or "hist" in name else None
    if status is None or not stat.S_ISLNK(status.st_mode):
        return False
    try:
        found = walk.follow(image.tree, path)
    except FirstkeyError:
        return True
    if found is None or not stat.S_ISREG(found.status.st_mode):
        return False
    # Its owner's own file somewhere else may well be the history: that is for a person to look at.
    return whose.is_systems(found.path) or found.status.st_uid != status.st_uid


def _named(image: Image, doubts: list[Doubt]) -> Iterator[str]:
    """What shells are told: by the system, of files anywhere; by a user, of that user's own in the home."""
    for profile, home in _profiles(image):
        for place in _places(image, profile, home, doubts):
            if place.startswith("~/"):
                for each in (home,) if home else image.homes:
                    yield from _theirs(image, profile, each.join(place[2:]), each, doubts)
            elif home or "*" not in place.split("/")[1]:
                yield from _theirs(image, profile, place, home, doubts)


def _profiles(image: Image) -> Iterator[tuple[str, Home | None]]:
    """The start-up files, with whose they are: root writes the system's, and everybody's own."""
    named = [(path, None) for pattern in PROFILES for path in image.glob(pattern, [])]
    own = [(home.join(name), home) for home in image.homes for name in OWN_PROFILES]
    for path, home in (*named, *own):
        file = image.file(path, [])
        uid = file.status.st_uid if file else -1
        if file and (whose.is_roots(uid) or (home and whose.owns_home(image, uid, home))):
            yield file.path, home


def _places(image: Image, profile: str, home: Home | None, doubts: list[Doubt]) -> list[str]:
    """Where the shell's configuration keeps histories: absolute, or in the home; `home`: whose it is."""
    found: dict[str, None] = {}
    try:
        content = image.read(profile) or b""
    except FirstkeyError as error:
        doubts.append(Doubt(profile, error.refusal))
        return []
    for match in HISTFILE.finditer(content):
        place = HOME.sub("~/", match[2].decode("utf-8", "surrogateescape"))
        names = (account.name for account in image.accounts.all()) if ACCOUNT.search(place) else ("",)
        for name in names:
            pattern = VARIABLE.sub("*", name.join(ACCOUNT.split(place)))
            if "*" not in pattern or "hist" in posixpath.basename(pattern):
                found[pattern] = None
            elif home is None or pattern.startswith("~/"):  # it would fit whatever else is there
                detail = f"{profile} keeps histories in {place}, and where that is cannot be known"
                doubts.append(Doubt(profile, Refusal(image_reasons.NOT_LOOKED_AT, detail)))
    return [place for place in found if place.startswith(("/", "~/")) and len(place) > 2]


def _theirs(image: Image, profile: str, place: str, home: Home | None, doubts: list[Doubt]) -> Iterator[str]:
    """Those of the files that may be named there; `home`: only its owner's own in it."""
    others = []
    for path in image.glob(posixpath.normpath(place), []):
        try:
            found = walk.follow(image.tree, path)
        except FirstkeyError:
            continue  # a link to what is another's: it counts for nothing
        if found is None or not (stat.S_ISREG(found.status.st_mode) and found.status.st_size):
            continue
        # The home that it lies in, but for that of the system itself.
        homes = (each for each in image.homes if each.path != "/" and is_at_or_below(found.path, each.path))
        holder = home or next(homes, None)
        is_theirs = whose.is_users(image, found, holder) if holder else whose.is_nobodys(image, found)
        if is_theirs and (home or not found.links):
            yield found.path
        elif home is None or (
            whose.owns_home(image, found.status.st_uid, home) and not whose.is_systems(found.path)
        ):
            others.append(found.path)
    if others:
        doubts.append(whose.not_taken(profile, others[0]))


RULES = (
    Rule(
        id="histories",
        title="There are no shell or program histories",
        guideline="G9",
        severity=ERROR,
        prose=(
            "A person who uploads an image again and again leaves access keys in the history of a "
            "shell. The rule checks the histories of all common shells, databases, languages, editors "
            "and pagers, in the home of every account, in homes without an account, in the files of "
            "HISTFILE, and by name in every other place, with the copies that editors and log "
            "rotation leave beside them. A file that a user's start-up files and links name counts "
            "only if it is that user's own, in the home and without another name; a link in the place "
            "of a history that leads to anything else is removed itself. seal overwrites and removes "
            "them as its very last step. A shell writes its history when it ends. So on the running "
            "system seal first ends every interactive shell in a way that keeps it from doing so, its "
            "own last of all."
        ),
        check=check,
        failing={
            "/etc/passwd": (
                "root:x:0:0::/root:/bin/bash\nsvc:x:990:990::/srv/svc:/bin/sh\nann:x:1000:1000::/:/bin/sh\n"
            ),
            "/root/.bash_history": "export AWS_SECRET_ACCESS_KEY=...\n",
            "/srv/svc/.local/share/fish/fish_history": "- cmd: ls\n",
            "/home/gone/.some_new_shell_history": "ls\n",
            "/etc/profile.d/history.sh": 'export HISTFILE="/var/lib/history/$USER"\n',
            "/var/lib/history/ann": "ls\n",
        },
        passing={
            "/etc/passwd": "root:x:0:0::/root:/bin/bash\n",
            "/root/.bash_history": "",
            "/root/.python_history": "->/dev/null",
        },
        watches=places.watches(PLACES),
        stage=HISTORIES,
    ),
)
