"""`firstkey status`: what the last run did, and how things stand now."""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

from firstkey import reasons
from firstkey.boot import host_keys, ledger
from firstkey.boot.ledger import Ledger
from firstkey.boot.target import Target
from firstkey.cli import common, known_hosts, looking, render, screen, streams, timeline, usage
from firstkey.display import width_of
from firstkey.login import last_run
from firstkey.login_reasons import NO_REPORT
from firstkey.model import DISABLED, NO_KEY, OK, REPORT
from firstkey.reasons import FirstkeyError, Reason, Refusal
from firstkey.ssh import authorized_keys
from firstkey.system.sshd import Sshd
from firstkey.system.sshd_tree import sshd_of
from firstkey.text import visible

LIMIT = 4 * 1024 * 1024
PENDING = "being generated in the background, when this was reported"
USAGE = usage.Usage(
    (
        (
            usage.JSON,
            usage.flag("--timeline", words="draw the phases of the last run as bars"),
            usage.value("--svg", "FILE", "draw them as a picture; - is standard output"),
        ),
    ),
    """\
examples:
  firstkey status                    show it as text
  firstkey status --timeline         draw the phases of the last run
  firstkey status --svg boot.svg     draw them as a picture

exit status: 0 shown, whatever the state is; 1 there is no run to draw;
  2 usage error, or FILE cannot be written
""",
    without=("--imds", "--verbose"),
)


def main(args: argparse.Namespace) -> int:
    """Show the state of this system, as far as the caller may look; returns the exit status."""
    if args.svg in (None, "-"):
        return looking.command(args, _show)
    with redirect_stdout(io.StringIO()) as picture:  # what looks at a tree can write no file
        status = looking.command(args, _show)
    screen.save("--svg", args.svg, picture.getvalue())
    return status


def _show(args: argparse.Namespace, log: looking.Log) -> int:
    with common.opened(args, log) as target:
        if args.timeline or args.svg:
            last = last_run.report(target.tree) or {}
            found = timeline.bars(last)
            if not found:
                raise FirstkeyError(f"{REPORT} has no phases of a run", reason=NO_REPORT)
            if args.svg:
                name = last.get("instance_id") or "an unknown instance"
                title = visible(f"firstkey on {name}: {last.get('outcome')}")
                streams.show(*timeline.svg(found, title=title))
            else:
                streams.show(*timeline.text(found, width=width_of(1) or 80))
            return 0
        now = _standing(target)
    if args.json:
        streams.show_json(now)
    else:
        streams.show(*_lines(now, quiet=args.quiet))
    return 0


def _standing(target: Target) -> dict[str, Any]:
    known, damage = ledger.load(target.tree)
    try:
        last, unread = last_run.report(target.tree), None
    except FirstkeyError as error:
        last, unread = None, {"reason": error.reason.code, "detail": error.message}
    # The ledger is for root alone; every user may read the report.
    reported = last.get("instance_id") if last else None
    return {
        "version": 1,
        "instance_id": target.firmware_instance() or known.instance or reported,
        "last_run": last,
        "report": unread,
        "switched_off": common.switched_off(target),
        "users": [
            {**_user(target, name, known), "reported": last_run.part(last, "users", name=name) or None}
            for name in target.config.keys.users
        ],
        "host_keys": list(_host_keys(target, last)),
        "ledger": damage and damage.detail,
    }


def _user(target: Target, name: str, known: Ledger) -> dict[str, Any]:
    """The launch keys of one user: those that firstkey put there, and whether they still are."""
    entries = [key for key in known.keys if key.user == name]
    found = {file: _fingerprints(target, file) for file in dict.fromkeys(key.file for key in entries)}
    keys = [
        {
            "fingerprint": key.fingerprint,
            "state": key.state,
            "instance": key.instance,
            "file": key.file,
            "there": None if isinstance(found[key.file], str) else key.fingerprint in found[key.file],
        }
        for key in entries
    ]
    file = entries[-1].file if entries else None
    unknown = next((words for words in found.values() if isinstance(words, str)), None)
    return {"name": name, "file": file, "keys": keys, "unknown": unknown}


def _fingerprints(target: Target, file: str) -> list[str] | str:
    """Of the keys in a file, or why it cannot be read."""
    try:
        content = target.tree.read(file, limit=LIMIT) or b""
    except FirstkeyError as error:
        return error.message
    return [entry.key.fingerprint for _, entry in authorized_keys.keyed(content)]


def _host_keys(target: Target, last: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """All of them. One that is not there is perhaps on its way, as the last run said, or not asked for."""
    sshd = sshd_of(target.tree)
    wanted = host_keys.wanted(target.config.host_keys, sshd.meaning("root").effective.host_keys)
    for file, is_asked_for in wanted.items():
        key = _host_key(target, sshd, file)
        if key["state"] != host_keys.MISSING:
            yield key
        elif is_asked_for:
            reason = last_run.part(last, "host_keys", file=file).get("reason")
            yield {**key, "state": PENDING} if reason == reasons.HOST_KEY_PENDING.code else key


def _host_key(target: Target, sshd: Sshd, file: str) -> dict[str, Any]:
    """One host key, as far as the caller may look."""
    try:
        state, public = known_hosts.seen(target, sshd, file)
    except FirstkeyError as error:
        state, public = error.message, None
    shown = {"type": host_keys.kind_of(file) or (public.short_type if public else None), "file": file}
    return {**shown, "state": state, "fingerprint": public.fingerprint if public else None}


def _lines(now: dict[str, Any], *, quiet: bool) -> Iterator[str]:
    """All of it; -q leaves what is not as it should be, or is unknown."""
    last = now["last_run"]
    if not quiet:
        yield f"Instance:  {now['instance_id'] or 'unknown'}"
    if not quiet or now["report"] or (last and last["outcome"] not in (OK, NO_KEY, DISABLED)):
        yield from _last_run_lines(last, now["report"])
    if now["switched_off"] and not quiet:
        yield f"Switched off: {now['switched_off']}"
    if now["ledger"]:
        yield f"Ledger:    {now['ledger']}"
    yield from () if quiet else ("Users:",)
    for user in now["users"]:
        if not quiet or (user["reported"] or {}).get("reason"):
            yield from _user_lines(user)
    yield from () if quiet else ("Host keys:",)
    for key in now["host_keys"]:
        if not quiet:
            shown = f"  {key['fingerprint']}" if key["fingerprint"] else ""
            yield f"  {key['type'] or 'unknown':8} {key['file']}  {key['state']}{shown}"
        elif key["state"] not in (host_keys.GOOD, host_keys.IN_AGENT, PENDING, "there"):
            yield f"Host key:  {key['file']}  {key['state']}"


def _last_run_lines(last: dict[str, Any] | None, unread: dict[str, str] | None) -> Iterator[str]:
    if unread:
        yield "Last run:  unknown"
        yield from _why(unread)
    elif last is None:
        yield f"Last run:  none in this boot ({REPORT} is not there)"
    else:
        yield f"Last run:  {last['outcome']}{_asked(last)} ({REPORT})"
        if isinstance(last.get("started"), str):  # the report of an older version has none
            yield f"Began:     {last['started'].replace('T', ' ').replace('Z', ' UTC')}"
        yield from _why(last)


def _asked(last: dict[str, Any]) -> str:
    """How the metadata service was asked; where it gave no answer, the run's own reason says more."""
    imds = last.get("imds")
    version = imds.get("version") if isinstance(imds, dict) else None
    if version:
        return f"; IMDSv{version}"
    return "" if last.get("reason") else "; the metadata service was not asked"


def _user_lines(user: dict[str, Any]) -> Iterator[str]:
    reported = user["reported"] or {}
    for key in user["keys"]:
        gone = "not written yet" if key["state"] == ledger.PENDING else "removed since"
        there = {True: "in place", False: gone, None: "not readable for you"}[key["there"]]
        where = f"{key['file']} (instance {key['instance']})"
        yield f"  {user['name']}: {key['fingerprint']} {there}, {where}"
    if user["keys"]:
        yield from _why(reported, when="at the last run: ")
    elif reported:
        file = f", {reported['file']}" if reported.get("file") else ""
        yield f"  {user['name']}: {reported.get('result')} at the last run{file}"
        yield from _why(reported)
    else:
        yield f"  {user['name']}: no launch key known" + (" (root sees more)" if os.geteuid() else "")


def _why(report: dict[str, Any], *, when: str = "") -> Iterator[str]:
    """The reason that a report gives, if it gives one, and what to do about it."""
    if code := report.get("reason"):
        unknown = Reason(str(code), "it does not say more", "Look at the journal: journalctl -u firstkey")
        why = reasons.ALL.get(str(code), unknown)
        refused = Refusal(why, f"{when}{report.get('detail') or why.meaning}")
        yield from render.refusal(refused)
