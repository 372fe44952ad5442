"""Beyond the guide: no mail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import leftovers
from firstkey.image.leftovers import Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import WARNING

if TYPE_CHECKING:
    from firstkey.image.rule import Builder

PLACES = (
    Place("/var/mail/*", "mail"),
    Place("/var/spool/mail/*", "mail"),
    Place("/var/spool/exim4/*/*", "mail in a queue"),
    Place("/var/spool/mqueue/*", "mail in a queue"),
    Place("/var/spool/clientmqueue/*", "mail in a queue"),
    Place("/var/spool/nullmailer/queue/*", "mail in a queue"),
    Place("/var/spool/postfix/active", "mail in a queue"),
    Place("/var/spool/postfix/bounce", "mail in a queue"),
    Place("/var/spool/postfix/corrupt", "mail in a queue"),
    Place("/var/spool/postfix/defer", "mail in a queue"),
    Place("/var/spool/postfix/deferred", "mail in a queue"),
    Place("/var/spool/postfix/hold", "mail in a queue"),
    Place("/var/spool/postfix/incoming", "mail in a queue"),
    Place("/var/spool/postfix/maildrop", "mail in a queue"),
    Place("~/mbox", "mail"),
    Place("~/dead.letter", "mail that was not sent"),
    Place("~/Maildir/*/*", "mail"),
    Place("~/Mail/*", "mail"),
)


def _failing(tree: Builder) -> None:
    tree.file("/var/mail/root", "From cron\n\n")


def _passing(tree: Builder) -> None:
    tree.file("/var/mail/root", "")


RULE = Rule(
    id="mail",
    title="There is no mail",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "Cron and other services send mail to root, and it stays where it was put. Checked are the boxes "
        "of all accounts, the queues of mail programs, and mail in homes. seal removes it."
    ),
    check=leftovers.checker(*PLACES),
    remedy=leftovers.remover(*PLACES),
    failing=_failing,
    passing=_passing,
)
