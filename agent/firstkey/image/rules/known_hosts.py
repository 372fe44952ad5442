"""G9: no list of hosts that somebody logged in to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import leftovers
from firstkey.image.leftovers import Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import WARNING

if TYPE_CHECKING:
    from firstkey.image.rule import Builder

PLACES = (
    Place("~/.ssh/known_hosts*", "a list of hosts that somebody logged in to"),
    Place("~/.ssh/agent/*", "a leftover of an agent"),
    Place("~/.ssh/environment", "an environment for logins"),
    Place("~/.local/share/mosh/*", "a leftover of connections"),
    Place("~/.config/filezilla/*.xml", "a list of hosts, passwords perhaps included"),
)


def _failing(tree: Builder) -> None:
    tree.file("/root/.ssh/known_hosts", "host ssh-ed25519 AAAA\n", mode=0o600)


def _passing(tree: Builder) -> None:
    tree.file("/etc/ssh/ssh_known_hosts", "host ssh-ed25519 AAAA\n")


RULE = Rule(
    id="known-hosts",
    title="Nobody's known hosts are there",
    guideline="G9",
    severity=WARNING,
    prose=(
        "The list of hosts that somebody logged in to shows the inside of a network. Host keys that all "
        "instances are meant to know belong into /etc/ssh/ssh_known_hosts. Sockets and logs of SSH's "
        "agent and connections are checked as well. seal removes the lists."
    ),
    check=leftovers.checker(*PLACES),
    remedy=leftovers.remover(*PLACES),
    failing=_failing,
    passing=_passing,
)
