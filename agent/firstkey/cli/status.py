"""`firstkey status`: what the last run did, and how things stand now."""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from firstkey import reasons
from firstkey.boot import host_key_files, host_keys, ledger
from firstkey.cli import common, looking, parsers, screen, streams, timeline
from firstkey.login_reasons import NO_REPORT
from firstkey.model import DISABLED, NO_KEY, OK, REPORT
from firstkey.reasons import FirstkeyError
from firstkey.ssh import authorized_keys, public_key
from firstkey.system.sshd_tree import sshd_of
from firstkey.text import visible

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from firstkey.boot.ledger import Ledger
    from firstkey.boot.site import Site
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.sshd import Sshd

LIMIT = 4 * 1024 * 1024
PENDING = "being generated in the background, when this was reported"
EPILOG = """\
examples:
  firstkey status                       show it as text
  firstkey status --timeline            draw the phases of the last run
  firstkey status --svg boot.svg        draw them as a picture
"""


def main(argv: Sequence[str]) -> int:
    """Show the state of this system, as far as the caller may look; returns the exit status."""
    args = _parser().parse_args(argv)
    if args.svg in (None, "-"):
        return looking.command(args, _show)
    path, args.svg = args.svg, "-"
    picture = io.StringIO()
    with redirect_stdout(picture):
        status = looking.command(args, _show)
    screen.save("--svg", path, picture.getvalue())
    return status


def _show(args: argparse.Namespace, say: looking.Say) -> int:
    with common.opened(args, say) as site:
        if args.timeline or args.svg:
            return _draw(_last_run(site) or {}, args)
        now = _standing(site)
    if args.json:
        streams.show_json(now)
    else:
        streams.show(*(_troubles(now) if args.quiet else _lines(now)))
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parsers.command(
        "status",
        "Show the last run, and the present state of the keys.",
        epilog=EPILOG,
        without=("--imds", "--verbose"),
    )
    forms = parsers.with_forms(made)
    forms.add_argument("--timeline", action="store_true", help="draw the phases of the last run as bars")
    forms.add_argument("--svg", metavar="FILE", help="draw them as a picture; - is standard output")
    return made


def _draw(last: dict[str, Any], args: argparse.Namespace) -> int:
    """The phases of the last run. Raises FirstkeyError(no-report) where there was none."""
    found = timeline.bars(last)
    if not found:
        raise FirstkeyError(f"{REPORT} has no phases of a run", reason=NO_REPORT)
    if args.timeline:
        streams.show(*timeline.text(found, width=_width()))
    if args.svg:
        title = f"firstkey on {last.get('instance_id') or 'an unknown instance'}: {last.get('outcome')}"
        streams.show(*timeline.svg(found, title=visible(title)).removesuffix("\n").split("\n"))
    return 0


def _width() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 80


def _standing(site: Site) -> dict[str, Any]:
    known = ledger.load(site.tree)
    try:
        last, unread = _last_run(site), None
    except FirstkeyError as error:
        last, unread = None, {"reason": error.reason.code, "detail": error.message}
    # The ledger is for root alone; every user may read the report.
    reported = last.get("instance_id") if last else None
    return {
        "version": 1,
        "instance_id": site.firmware_instance() or known.ledger.instance or reported,
        "last_run": last,
        "report": unread,
        "switched_off": common.switched_off(site),
        "users": [
            {**_user(site, name, known.ledger), "reported": _reported(last, "users", name=name)}
            for name in site.config.keys.users
        ],
        "host_keys": _host_keys(site, last),
        "ledger": None if known.refusal is None else known.refusal.detail,
    }


def _last_run(site: Site) -> dict[str, Any] | None:
    """Its report, None where there is none. Raises FirstkeyError where what is there cannot be read."""
    content = site.tree.read(REPORT, limit=LIMIT)
    if content is None:
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and isinstance(found.get("outcome"), str):
        return found
    raise FirstkeyError(f"{REPORT} does not hold what firstkey wrote there", reason=NO_REPORT)


def _user(site: Site, name: str, known: Ledger) -> dict[str, Any]:
    """The launch keys of one user: those that firstkey put there, and whether they still are."""
    entries = [key for key in known.keys if key.user == name]
    found = {file: _fingerprints(site, file) for file in dict.fromkeys(key.file for key in entries)}
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


def _fingerprints(site: Site, file: str) -> list[str] | str:
    """Of the keys in a file, or why it cannot be read."""
    try:
        content = site.tree.read(file, limit=LIMIT) or b""
    except FirstkeyError as error:
        return error.message
    return [entry.key.fingerprint for _, entry in authorized_keys.keyed(content)]


def _host_keys(site: Site, last: dict[str, Any] | None) -> list[dict[str, Any]]:
    """All of them. One that is not there is perhaps on its way, as the last run said."""
    sshd = sshd_of(site.tree)
    wanted = host_keys.wanted(site.config.host_keys, sshd.meaning("root").effective.host_keys)
    found = [_host_key(site, sshd, file) for file in wanted]
    for key in found:
        reported = _reported(last, "host_keys", file=key["file"]) or {}
        if key["state"] == host_keys.MISSING and reported.get("reason") == reasons.HOST_KEY_PENDING.code:
            key["state"] = PENDING
    return found


def _host_key(site: Site, sshd: Sshd, file: str) -> dict[str, Any]:
    """One host key: by both halves where the caller may read them, else by the public one."""
    try:
        found = host_key_files.inspect(site, sshd, file)
        state = "readable by others" if found.is_loose else found.condition
        public = found.public
    except FirstkeyError as error:
        state = "there" if (public := _public_half(site, file)) else error.message
    shown = {"type": host_keys.kind_of(file) or (public.short_type if public else None), "file": file}
    return {**shown, "state": state, "fingerprint": public.fingerprint if public else None}


def _public_half(site: Site, file: str) -> PublicKey | None:
    try:
        content = site.tree.read(f"{file}.pub", limit=LIMIT)
    except FirstkeyError:
        return None
    return public_key.read_host_key(content.strip()) if content else None


def _reported(last: dict[str, Any] | None, part: str, **named: str) -> dict[str, Any] | None:
    """What the last run reported of that user or host key; every user may read it."""
    listed = (last or {}).get(part)
    parts = (each for each in listed if isinstance(each, dict)) if isinstance(listed, list) else ()
    return next((each for each in parts if named.items() <= each.items()), None)


def _lines(now: dict[str, Any]) -> Iterator[str]:
    yield f"Instance:  {now['instance_id'] or 'unknown'}"
    yield from _last_run_lines(now["last_run"], now["report"])
    if now["switched_off"]:
        yield f"Switched off: {now['switched_off']}"
    if now["ledger"]:
        yield f"Ledger:    {now['ledger']}"
    yield "Users:"
    for user in now["users"]:
        yield from _user_lines(user)
    yield "Host keys:"
    for key in now["host_keys"]:
        shown = f"  {key['fingerprint']}" if key["fingerprint"] else ""
        yield f"  {key['type'] or 'unknown':8} {key['file']}  {key['state']}{shown}"


def _troubles(now: dict[str, Any]) -> Iterator[str]:
    """What -q leaves: what is not as it should be, or cannot be known."""
    last = now["last_run"]
    if now["report"] or (last and last["outcome"] not in (OK, NO_KEY, DISABLED)):
        yield from _last_run_lines(last, now["report"])
    if now["ledger"]:
        yield f"Ledger:    {now['ledger']}"
    for user in now["users"]:
        if (user["reported"] or {}).get("reason"):
            yield from _user_lines(user)
    for key in now["host_keys"]:
        if key["state"] not in (host_keys.GOOD, host_keys.IN_AGENT, PENDING, "there"):
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
        there = {True: "in place", False: "removed since", None: "not readable for you"}[key["there"]]
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
    code = report.get("reason")
    if not code:
        return
    known = reasons.ALL.get(str(code))
    detail = report.get("detail") or (known.meaning if known else "it does not say more")
    yield f"    {when}{detail} ({code})"
    if known:
        yield f"    What to do: {known.remedy}"
