"""What work on the builder leaves behind: histories, logs, temporary files; and what could not be read."""

from __future__ import annotations

import posixpath
import re
import stat
from collections.abc import Iterator

from firstkey.image import changes, in_use, places, whose
from firstkey.image.places import Place
from firstkey.image.rule import HISTORIES, LOGS, Rule
from firstkey.image.scan import Headed
from firstkey.image.subject import Home, Image, noted
from firstkey.image.verdict import ERROR, Finding, Part, Unknown, Verdict, not_looked_at
from firstkey.reasons import FirstkeyError
from firstkey.system import walk

# --- histories ------------------------------------------------------------------------------------

HISTORY = "a history of typed commands"
BY_NAME = places.unbraced(
    # shells
    ".{ash,bash,fish,ksh,mksh,sh,tcsh,zsh}_history",
    "{.histfile,.history,.zhistory,fish_history,ConsoleHost_history.txt}",
    # databases
    ".{cqlsh,influx,mariadb,mongosh,mysql,psql,rediscli,sqlite,usql,valkeycli}_history",
    ".{clickhouse-client-history,dbshell,mycli-history}",
    # languages
    ".{ghci,irb,julia,lua,node_repl,php,pry,python,scala,ts_node_repl}_history",
    "{.irb-history,.octave_hist,.Rhistory,history.sqlite,repl_history.jl}",  # the last is IPython's
    # editors, pagers and others that remember what was done
    ".{gdb,lftp,nano,units}_history",
    "{.joe_state,.lesshst,.netrwhist,.viminfo,.viminfo.tmp,lesshst,viminfo,.wget-hsts}",
)
BELOW_HOMES = (
    "~/.*{history,_hist}",
    "~/.*history[-.~]*",  # what editors, logrotate and a shell that was cut off leave beside one
    "~/.{aws/shell,beeline,cassandra,emacs.d/eshell,ghc}/*history",
    "~/.{config/*/*,local/share/*/*,local/state/*,local/state/*/*}history",
    "~/.config/nushell/history.*",
    "~/.local/share/{nano/*,atuin/history.db*,xonsh/{,history_json/}xonsh-*.json}",
    "~/.{elvish/db,local/state/elvish/db.bolt,cache/erlang-history/*,lldb/lldb-widehistory}",
    "~/.local/{share,state}/nvim/shada/*",
    "~/.{aws/cli/history,mongodb/mongosh,subversion/auth/*,zsh_sessions}/*",
)
HISTORY_PLACES = tuple(Place(path, HISTORY) for path in (*(f"*/{name}" for name in BY_NAME), *BELOW_HOMES))

# Where a setting of the shell's names another place.
PROFILES = places.unbraced("/etc/{profile{,.d/*.sh},bash.bashrc,bashrc,environment,zsh/*,zshrc,ksh.kshrc}")
OWN_PROFILES = (".bashrc", ".bash_profile", ".bash_login", ".profile", ".zshrc", ".zshenv", ".kshrc")
"""In each home: these name files of its owner's in it, and nothing else (image/whose)."""
HISTFILE = re.compile(rb"^[^#\n]*\bHISTFILE=([\"']?)([^\"'\s;&|]+)\1", re.MULTILINE)
VARIABLE = re.compile(r"\$\(.*|\$\{[^}]*\}?|\$\w+|`.*")
ACCOUNT = re.compile(r"\$\{?(?:USER|LOGNAME)\b\}?|\$\(whoami\)|`whoami`")
"""What stands for the name of the user who types. What any other variable stands for is not known."""
HOME = re.compile(r"^(?:~|\$HOME|\$\{HOME\})/")


def _check_histories(image: Image) -> Iterator[Part]:
    """Every history with something in it, and each link in the place of one, of which only the link goes."""
    seen = places.survey(image, HISTORY_PLACES)
    links = {unknown.path for unknown in seen.unknowns if _is_to_another(image, unknown.path)}
    unknowns = [unknown for unknown in seen.unknowns if unknown.path not in links]
    for path in sorted({*(match.path for match in seen.matches), *_named(image, unknowns)}):
        reason = f"This is {HISTORY}, access keys perhaps included."
        yield places.finding(image, path, HISTORY, reason, places.WIPE)
    for path in sorted(links):
        reason = "This has the name of a history, and is a link to something else."
        yield places.finding(image, path, "a link in the place of a history", reason)
    yield from unknowns


def _is_to_another(image: Image, path: str) -> bool:
    """Whether it is a link that leads to no file of its owner's, or goes round: no history itself."""
    name = posixpath.basename(path)
    status = image.status(path) if name in BY_NAME or "hist" in name else None
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


def _named(image: Image, unknowns: list[Unknown]) -> Iterator[str]:
    """The files that shells are set to: by the system, anywhere; by a user, that user's own in the home."""
    profiles: list[tuple[str, Home | None]] = [
        *((path, None) for pattern in PROFILES for path in image.glob(pattern, [])),
        *((home.join(name), home) for home in image.homes for name in OWN_PROFILES),
    ]
    for path, owner in profiles:
        file = image.file(path, [])
        uid = file.status.st_uid if file else -1
        # Root writes the system's, and everybody's own.
        if file is None or not (whose.is_roots(uid) or (owner and owner.uid == uid)):
            continue
        for place in _places(image, file.path, owner, unknowns):
            is_home = place.startswith("~/")
            for home in image.homes if is_home and not owner else (owner,):
                pattern = home.join(place[2:]) if home and is_home else place
                if home or "*" not in place.split("/")[1]:
                    yield from _theirs(image, file.path, pattern, home, unknowns)


def _places(image: Image, profile: str, owner: Home | None, unknowns: list[Unknown]) -> list[str]:
    """Where the start-up file keeps histories: absolute, or in the home; `owner`: whose file it is."""
    found: dict[str, None] = {}
    content = b""
    with noted(profile, unknowns):
        content = image.read(profile) or b""
    for match in HISTFILE.finditer(content):
        place = HOME.sub("~/", match[2].decode("utf-8", "surrogateescape"))
        names = (account.name for account in image.accounts.all()) if ACCOUNT.search(place) else ("",)
        for pattern in (VARIABLE.sub("*", name.join(ACCOUNT.split(place))) for name in names):
            if "*" not in pattern or "hist" in posixpath.basename(pattern):
                found[pattern] = None
            elif owner is None or pattern.startswith("~/"):  # it would fit whatever else is there
                why = f"{profile} keeps histories in {place}, and where that is cannot be known"
                unknowns.append(not_looked_at(profile, why))
    return [place for place in found if place.startswith(("/", "~/")) and len(place) > 2]


def _theirs(
    image: Image, profile: str, place: str, home: Home | None, unknowns: list[Unknown]
) -> Iterator[str]:
    """Those of the files that may be named there; `home`: only its owner's own in it."""
    others = []
    for path in image.glob(posixpath.normpath(place), []):
        found = walk.end_of(image.tree, path)  # a link to what is another's counts for nothing
        if found is None or not (stat.S_ISREG(found.status.st_mode) and found.status.st_size):
            continue
        # The home that it lies in, but for that of the system itself.
        holder = home or next(image.holding(found.path), None)
        is_theirs = whose.is_users(image, found, holder) if holder else whose.is_unclaimed(image, found)
        is_others = home and (whose.is_systems(found.path) or home.uid != found.status.st_uid)
        if is_theirs and (home or not found.links):
            yield found.path
        elif not is_others:
            others.append(found.path)
    unknowns += (whose.not_taken(profile, other) for other in others[:1])


# --- logs -----------------------------------------------------------------------------------------

DIRECTORY = "/var/log"
CLAIMED = re.compile(
    DIRECTORY + r"/(?:wtmp|btmp|lastlog|faillog|tallylog|cloud-init"
    r"|sudo-io/|account/|faillock/|anaconda/|installer/|dump/|session-recording/)"
)
"""What other rules claim."""
ROTATED = re.compile(r".*\.(?:gz|xz|bz2|zst|old|journal~?|\d+)|.*-\d{8}")


def _check_logs(image: Image) -> Iterator[Part]:
    """Old ones go; those that are written to are emptied, and keep the owner that lets a service write."""
    seen = places.survey(image, (Place(DIRECTORY, "a log"),))
    for match in seen.matches:
        if not CLAIMED.match(match.name):
            how = places.REMOVE if ROTATED.fullmatch(match.path) else places.EMPTY
            yield places.finding(image, match.path, "a log", "This is a log of the work on the builder.", how)
    yield from seen.unknowns


# --- temporary files ------------------------------------------------------------------------------

SWAP_FILE = "swap-file"
PATTERNS = places.unbraced("/{,var/}tmp/{,.}*")
LEFT_BY_EDITORS = places.unbraced("~/{*~,.#*,#*#,.*.sw[op]}", "/etc/{,ssh/}{*~,.*.sw[op]}")
TOPS = ("/tmp/", "/var/tmp/")  # noqa: S108 - what is looked at, not written
EMPTY_DIRECTORIES = (".X11-unix", ".ICE-unix", ".XIM-unix", ".font-unix", ".Test-unix")  # tmpfiles.d/x11.conf
# Of services that run now; on the running system they go when it stops.
IN_USE = ("systemd-private-", "snap-private-tmp", ".X11-unix", ".ICE-unix")


def _check_temporary(image: Image) -> Iterator[Part]:
    """One finding for each name at the top, and for each file of an editor's."""
    unknowns: list[Unknown] = []
    used = []
    for path in dict.fromkeys(_left(image, unknowns)):
        if in_use.is_used(path, image.used):
            used.append(path)
        else:
            removal = changes.Remove(path, "a temporary file")
            yield Finding(path, "A user or program left this file.", changes=(removal,))
    yield from unknowns
    if used:
        yield Verdict(remark="Left out, since running programs use it: " + ", ".join(sorted(used)))


def _left(image: Image, unknowns: list[Unknown]) -> Iterator[str]:
    for path in (path for pattern in PATTERNS for path in image.glob(pattern, unknowns)):
        name = posixpath.basename(path)
        is_services = image.tree.is_running_system and name.startswith(IN_USE)
        is_usual = name in EMPTY_DIRECTORIES and image.is_directory(path) and not image.tree.names(path)
        if image.status(path) and not (is_services or is_usual or image.is_elsewhere(path)):
            yield path
    for pattern in LEFT_BY_EDITORS:
        yield from (path for path in image.glob(pattern, unknowns) if image.is_file(path, least=1))
    seen = image.sightings(SWAP_FILE)
    yield from (sighting.path for sighting in seen if not sighting.path.startswith(TOPS))


# --- what could not be looked at ------------------------------------------------------------------


def _check_seen(image: Image) -> Iterator[Part]:
    yield from image.scan.unknowns
    if image.homes:  # which are looked for when they are asked for
        yield from image.home_unknowns
    left_out = ", ".join(f"{mount.path} ({mount.kind})" for mount in image.scan.left_out)
    if left_out:
        yield Verdict(remark=f"Not looked into, since it is mounted from elsewhere: {left_out}.")


RULES = (
    Rule(
        id="histories",
        title="There are no shell or program histories",
        guideline="G9",
        severity=ERROR,
        prose="""A person who uploads an image again and again leaves access keys in the history of a shell.
        The rule checks the histories of all common shells, databases, languages, editors and pagers, with the
        copies beside them, in every home, in the files of HISTFILE, and by name in every other place. A file
        that a user's start-up files and links name counts only if it is that user's own, in the home and
        without another name; a link in the place of a history that leads to anything else is removed itself.
        seal overwrites and removes them as its very last step. On the running system it first ends every
        interactive shell in a way that keeps it from writing its history, its own last of all.""",
        check=_check_histories,
        failing={
            "/etc/passwd": "svc:x:990:990::/srv/svc:/bin/sh\nann:x:1000:1000::/:/bin/sh\n",
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
        watches=places.watches(HISTORY_PLACES),
        stage=HISTORIES,
    ),
    Rule(
        id="logs",
        title="There are no logs",
        prose="""Logs and the journal show the builder of the image, the place and the steps, and now and then
        a password that was typed in the wrong place. Near its end, seal removes journals and old logs, and
        empties those that services write to: on the running system, a service may write again until it is
        stopped.""",
        check=_check_logs,
        finds_files=True,
        failing={
            "/var/log/auth.log": "sshd: Accepted publickey for root from 203.0.113.7\n",
            "/var/log/syslog.2.gz": b"\x1f\x8b\x08",
            f"{DIRECTORY}/journal/0123456789abcdef0123456789abcdef/system.journal": b"LPKSHHRH",
        },
        passing={"/var/log/auth.log": ""},
        stage=LOGS,
    ),
    Rule(
        id="temporary-files",
        title="There are no temporary files",
        prose="""Build scripts leave archives, scripts with their secrets, and copies of configuration in /tmp
        and /var/tmp, and editors leave copies beside the files (vim's swap files are found in every place).
        seal removes them all. On the running system, files in use stay and are named: a file that a program
        has open or mapped, a directory that one works in, a socket that one listens on, and the directory at
        the top that holds it.""",
        check=_check_temporary,
        failing={f"{TOPS[0]}build-1234/setup.sh": "export TOKEN=...\n", f"{TOPS[1]}.hidden": "x"},
        passing={f"{TOPS[0]}.X11-unix": None, TOPS[1]: None},
        # Vim's swap files start so (vim: memline.c): they have the file that was edited in them.
        watches=(Headed(SWAP_FILE, (b"b0VIM ",), lambda _: "a swap file of vim's"),),
    ),
    Rule(
        id="everything-seen",
        title="Everything could be read",
        severity=ERROR,
        prose="""An unread file is no proof of a clean image. A file or directory without read permission, a
        home behind a link that goes round, a file so large that only its ends were read, directories that lie
        too deep, a packed file that is broken, encrypted or larger than the limit: each makes the verdict
        unknown, with its reason. Network and kernel file systems in the tree are no part of an image, nor are
        the host's own files: a file system that is mounted outside of the tree as well, or a directory that
        is bound into it. They are left out, and named.""",
        check=_check_seen,
        finds_files=True,
        by_hand=True,
        failing={"/etc/passwd": "ann:x:1000:1000::/srv/ann:/bin/sh\n", "/srv/ann": "->ann"},
        passing={"/etc/passwd": "ann:x:1000:1000::/srv/ann:/bin/sh\n", "/srv/ann": None},
    ),
)
