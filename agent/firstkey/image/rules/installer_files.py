"""Beyond the guide: nothing of an installer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import leftovers
from firstkey.image.leftovers import Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import WARNING

if TYPE_CHECKING:
    from firstkey.image.rule import Builder

PLACES = (
    Place("/root/anaconda-ks.cfg", "a kickstart file, passwords perhaps included"),
    Place("/root/original-ks.cfg", "a kickstart file, passwords perhaps included"),
    Place("/root/initial-setup-ks.cfg", "a kickstart file, passwords perhaps included"),
    Place("/root/ks-*.log", "the log of an installation"),
    Place("/root/install.log*", "the log of an installation"),
    Place("/root/preseed.cfg", "a preseed file, passwords perhaps included"),
    Place("/preseed.cfg", "a preseed file, passwords perhaps included"),
    Place("/root/autoinst.xml", "an AutoYaST file, passwords perhaps included"),
    Place("/var/adm/autoinstall", "data of AutoYaST", whole=True),
    Place("/var/log/anaconda", "the log of an installation", whole=True),
    Place("/var/log/installer", "the log of an installation, passwords perhaps included", whole=True),
    Place("/autoinstall.yaml", "an autoinstall file, passwords perhaps included"),
    Place("/var/lib/vagrant", "a leftover of Vagrant", whole=True),
    Place("/var/cache/debconf/passwords.dat-old", "passwords that debconf asked for"),
)


def _failing(tree: Builder) -> None:
    tree.file("/root/anaconda-ks.cfg", "rootpw --iscrypted $6$salt$hash\n", mode=0o600)


def _passing(tree: Builder) -> None:
    tree.file("/root/README", "Welcome.\n")


RULE = Rule(
    id="installer-files",
    title="There are no leftovers of an installer",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "Installers keep what they were told, hashed or clear passwords included: kickstart and preseed "
        "files, autoinstall and AutoYaST data, debconf's old passwords, and the logs of the installation. "
        "seal removes them."
    ),
    check=leftovers.checker(*PLACES),
    remedy=leftovers.remover(*PLACES),
    failing=_failing,
    passing=_passing,
)
