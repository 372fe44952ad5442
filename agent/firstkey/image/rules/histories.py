"""G9: no histories."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.image import changes, leftovers, secrets
from firstkey.image.leftovers import Place
from firstkey.image.rule import HISTORIES, Rule
from firstkey.image.verdict import ERROR, Finding, Verdict
from firstkey.image.watches import Named

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

KIND = "history"
WHAT = "a history of what somebody typed"

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
    "~/.*history",
    "~/.*history[-.~]*",  # what editors, logrotate and a shell that was cut off leave beside one
    "~/.*_hist",
    "~/.aws/cli/history/*",
    "~/.config/*/*history",
    "~/.config/nushell/history.*",
    "~/.config/lftp/rl_history",
    "~/.local/share/lftp/rl_history",
    "~/.local/share/nano/*",
    "~/.local/share/nvim/shada/*",
    "~/.local/state/nvim/shada/*",
    "~/.local/state/*history",
    "~/.local/state/*/*history",
    "~/.local/share/*/*history",
    "~/.local/share/atuin/history.db*",
    "~/.local/share/mc/history",
    "~/.mongodb/mongosh/*",
    "~/.subversion/auth/*/*",
    "~/.vim/.netrwhist",
    "~/.zsh_sessions/*",
)
PLACES = tuple(Place(pattern, WHAT) for pattern in PATTERNS)


# Where shells are told to keep it elsewhere; what a variable stands for there is not known, so anything fits.
PROFILES = (
    "/etc/profile", "/etc/profile.d/*.sh", "/etc/bash.bashrc", "/etc/bashrc", "/etc/environment",
    "/etc/zsh/*", "/etc/zshrc", "/etc/ksh.kshrc",
    "~/.bashrc", "~/.bash_profile", "~/.bash_login", "~/.profile", "~/.zshrc", "~/.zshenv", "~/.kshrc",
)  # fmt: skip
HISTFILE = re.compile(rb"^[^#\n]*\bHISTFILE=([\"']?)([^\"'\s;&|]+)\1", re.MULTILINE)
VARIABLE = re.compile(r"\$\(.*|\$\{[^}]*\}?|\$\w+|`.*")
HOME = re.compile(r"^(?:~|\$HOME|\$\{HOME\})/")


def elsewhere(image: Image) -> list[Place]:
    """Where the shells' own configuration says that histories are kept."""
    found: dict[str, None] = {}
    for pattern in PROFILES:
        for path in image.glob(pattern, []):
            content = image.read(path) if image.file(path, []) else None
            for match in HISTFILE.finditer(content or b""):
                place = HOME.sub("~/", match[2].decode("utf-8", "surrogateescape"))
                found[VARIABLE.sub("*", place)] = None
    return [Place(place, WHAT) for place in found if place.startswith(("/", "~/")) and len(place) > 2]


def check(image: Image) -> Verdict:
    """Every history with something in it."""
    seen = leftovers.survey(image, (*PLACES, *elsewhere(image)))
    paths = {spot.path for spot in seen.spots}
    doubts = list(seen.doubts)
    for sighting in image.sightings(KIND):
        file = image.file(sighting.path, doubts)
        if file and file.status.st_size:
            paths.add(file.path)
    return Verdict(tuple(_finding(path) for path in sorted(paths)), tuple(dict.fromkeys(doubts)))


def _finding(path: str) -> Finding:
    return Finding(
        path, f"This is {WHAT}, access keys perhaps included.", f"shred -u -- {changes.quoted(path)}"
    )


def remedy(image: Image) -> list[Change]:
    """Overwrite and remove each."""
    return secrets.removals(image, (finding.path for finding in check(image).findings), WHAT)


def _failing(tree: Builder) -> None:
    tree.file("/etc/passwd", "root:x:0:0::/root:/bin/bash\nsvc:x:990:990::/srv/svc:/bin/sh\n")
    tree.file("/root/.bash_history", "export AWS_SECRET_ACCESS_KEY=...\n", mode=0o600)
    tree.file("/srv/svc/.local/share/fish/fish_history", "- cmd: ls\n", mode=0o600)
    tree.file("/home/gone/.some_new_shell_history", "ls\n", mode=0o600)
    tree.file("/etc/profile.d/history.sh", 'export HISTFILE="/var/lib/history/$USER"\n')
    tree.file("/var/lib/history/ann", "ls\n", mode=0o600)


def _passing(tree: Builder) -> None:
    tree.file("/etc/passwd", "root:x:0:0::/root:/bin/bash\n")
    tree.file("/root/.bash_history", "", mode=0o600)
    tree.link("/root/.python_history", "/dev/null")


RULE = Rule(
    id="histories",
    title="There are no shell or program histories",
    guideline="G9",
    severity=ERROR,
    prose=(
        "Who uploads an image again and again leaves access keys in the history of a shell. Checked are the "
        "histories of all common shells, databases, languages, editors and pagers, in the home of every "
        "account, in homes that nobody has any more, where HISTFILE says, and by name in every other place, "
        "with the copies that editors and log rotation leave beside them. seal overwrites and removes them "
        "as its very last step. A shell writes its history when it ends, so on the running system seal "
        "first ends every interactive shell in a way that keeps it from doing so, its own last of all."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
    watches=(Named(KIND, NAMES),),
    stage=HISTORIES,
)
