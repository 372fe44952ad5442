"""Targets: what firstkey keeps of itself, the ledger and the report, after a bad disk or somebody had it."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

from fuzz_keys import COMMAND, NEW, OLD, REDIRECTED
from fuzz_oracle import Scratch, Target, or_refused, shown

from firstkey.boot import ledger
from firstkey.boot.ledger import INSTALLED, PENDING, PRESENT, InstalledKey, Ledger, MadeHostKey, Served
from firstkey.cli import status, timeline
from firstkey.login import last_run
from firstkey.model import REPORT
from firstkey.ssh import authorized_keys
from firstkey.text import visible

FILE = "/home/deploy/.ssh/authorized_keys"


def _installed(fingerprint: str, options: str, comment: str, state: str) -> InstalledKey:
    return InstalledKey("deploy", FILE, fingerprint, options, comment, "i-1", state)


KNOWN = Ledger(
    instance="i-1",
    firmware="i-1",
    served=(Served("deploy", FILE, "x"),),
    keys=(
        _installed(OLD.fingerprint, "", "old", INSTALLED),
        _installed(REDIRECTED.fingerprint, COMMAND, "root", PENDING),
        _installed(NEW.fingerprint, "", "new", PRESENT),
    ),
    host_keys=(MadeHostKey("/etc/ssh/ssh_host_rsa_key", "SHA256:x", "d", None, "b", made=True),),
    made_files=(FILE,),
    sshd_digest="d",
)
PERSONS = (
    f"{NEW.line}\n", f"restrict {OLD.line}\n", f"{OLD.line} and mine\n", f"{REDIRECTED.line}\n",
    "# a person's\n", "\n", f"cert-authority {OLD.line}\n",
)  # fmt: skip
OWN = (f"{OLD.line}\n", f"{COMMAND} {REDIRECTED.line}\n")
CONTENT = "".join((PERSONS[0], OWN[0], *PERSONS[1:4], OWN[1], *PERSONS[4:])).encode()


def check_ledger(data: bytes) -> None:
    """Anything is a ledger or none, which is read as it was written and takes away what it names alone."""
    found = ledger.parsed(data)
    if found is not None:
        assert ledger.parsed(ledger.rendered(found)) == found
        _check_revoked(found)
    _check_damaged(data)


def _check_damaged(edits: bytes) -> None:
    """The input as changes to a good ledger, three bytes each: it is believed only if it says the same."""
    content = bytearray(ledger.rendered(KNOWN))
    for place in range(0, len(edits) - 2, 3):
        where = int.from_bytes(edits[place : place + 2], "big") % (len(content) + 1)
        content[where : where + 1] = edits[place + 2 : place + 3]
    damaged = ledger.parsed(bytes(content))
    assert damaged in (None, KNOWN)
    _check_revoked(damaged or Ledger())


def _check_revoked(known: Ledger) -> None:
    """Every line goes that the ledger has as firstkey's own on another instance, and no other one."""
    gone = [key.written for key in known.of_other_instances("i-2")]
    left = list(BytesIO(authorized_keys.merge(CONTENT, revoke=gone).content))
    named = set(gone)
    entries = dict(authorized_keys.keyed(CONTENT))
    for number, raw in enumerate(BytesIO(CONTENT), start=1):
        entry = entries.get(number)
        line = (entry.key.fingerprint, entry.options, entry.key.comment) if entry else None
        assert (raw in left) or line in named, raw
    if known == KNOWN:
        assert [line.decode() for line in left] == list(PERSONS)


def check_report(data: bytes) -> None:
    """`firstkey status` shows what it can of any report, in lines that a terminal can show."""
    tree: Any = Scratch({REPORT: data})
    last = or_refused(lambda: last_run.report(tree))
    for line in status._last_run_lines(last, None):
        shown(visible(line), status.LIMIT * 4)
    logged = last_run.part(last, "users", name="deploy")
    for line in status._user_lines({"name": "deploy", "file": None, "keys": [], "reported": logged}):
        shown(visible(line), status.LIMIT * 4)
    bars = timeline.bars(last or {})
    if bars:
        for line in timeline.text(bars, width=80):
            shown(line)
        assert list(timeline.svg(bars, title="x"))[-1] == "</svg>"
    json.dumps(last)


LEDGER_WORDS = (
    b'{"version":1,"check":', b',"ledger":', b'"instance":', b'"keys":[', b'"state":"installed"', b"null",
    b'"host_keys":', b'"made_files":', b'"served":', b"[[[[", b"{}", b"1e999", b"NaN", b'"\\ud800"', b"true",
)  # fmt: skip
REPORT_WORDS = (
    b'{"timeline":[', b'{"phase":"metadata","start_ms":', b',"end_ms":', b"1e999", b"Infinity", b"NaN", b"-1",
    b"9" * 30, b'"users":[{"name":"deploy"', b'"result":', b'"imds":{"version":', b'"outcome":', b"[[[[",
    b"]}", b'"\\u001b[2J"', b'"\\u202e"', b"null",
)  # fmt: skip

TARGETS = {
    "ledger": Target(check_ledger, LEDGER_WORDS),
    "report": Target(check_report, REPORT_WORDS),
}
