"""`firstkey config`: the effective settings, each with the file and line it came from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from firstkey import config, reasons
from firstkey.boot import sandbox
from firstkey.cli import common, streams
from firstkey.errors import ConfigError
from firstkey.events import visibly
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

EPILOG = """\
examples:
  firstkey config            every setting, and the file and line it came from
  firstkey config --diff     what was changed from what was shipped
  firstkey config --check    for CI: exit 78 over any mistake
"""


def main(argv: Sequence[str]) -> int:
    """Print the settings, or with --check only say what is wrong with them; returns the exit status."""
    args = _parser().parse_args(argv)
    with common.tree_at(args.root) as tree:
        settled = common.configuration(tree, args)
        if tree.is_running_system and not args.imds:
            settled = settled._replace(warnings=(*settled.warnings, *_kept_out(settled)))
        shipped = config.load(_Vendors(tree)) if args.diff else settled
    for warning in settled.warnings:
        streams.complain(f"firstkey: {visibly(str(warning))}")
    if args.check:
        return _checked(settled)
    if args.diff:
        changes = _changes(settled, shipped)
        text = json.dumps(changes, indent=1) if args.json else "\n".join(_as_diff(changes))
        print(text or "Nothing differs from what was shipped.")
        return 0
    print(_as_json(settled) if args.json else "\n".join(_as_text(settled)))
    return 0


def _parser() -> argparse.ArgumentParser:
    made = common.with_json(
        common.parser("config", "Show the effective settings, each with its origin.", epilog=EPILOG)
    )
    what = made.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only validate: exit 78 if anything is wrong")
    what.add_argument("--diff", action="store_true", help="only what differs from what was shipped")
    return made


def _kept_out(settled: config.Config) -> Iterator[config.ConfigWarning]:
    """Endpoints that work by hand, and not at boot; only the running system's systemd can tell."""
    where = settled.origins.get(("IMDS", "Endpoints"), config.Origin("default", 0))
    reason = reasons.ENDPOINT_KEPT_OUT
    for endpoint in sandbox.kept_out(settled.imds.endpoints):
        detail = f"Endpoints={endpoint} is out of reach for firstkey.service ({reason.code}). {reason.remedy}"
        yield config.ConfigWarning(*where, detail)


class _Vendors:
    """The files that came with the system: what is in /etc and /run is the administrator's."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def read(self, path: str, *, limit: int) -> bytes | None:
        return self._tree.read(path, limit=limit) if path.startswith("/usr/") else None

    def names(self, path: str) -> list[str]:
        return self._tree.names(path) if path.startswith("/usr/") else []


def _changes(settled: config.Config, shipped: config.Config) -> list[dict[str, str | None]]:
    """Each setting that would be another one without the administrator's files."""
    before = {(setting.section, setting.key): setting.value for setting in config.describe(shipped)}
    found = []
    for setting in config.describe(settled):
        was = before.get((setting.section, setting.key), setting.default)
        if was != setting.value:
            origin = str(setting.origin) if setting.origin else None
            row = {"section": setting.section, "key": setting.key, "shipped": was, "value": setting.value}
            found.append({**row, "origin": origin})
    return found


def _as_diff(changes: list[dict[str, str | None]]) -> Iterator[str]:
    section = None
    for change in changes:
        if change["section"] != section:
            section = change["section"]
            yield f"[{section}]"
        yield f"-{change['key']}={change['shipped']}"
        yield f"+{change['key']}={change['value']}"
        yield f"  ({visibly(change['origin'] or 'the command line')})"


def _checked(settled: config.Config) -> int:
    if settled.warnings:
        count = len(settled.warnings)
        raise ConfigError(f"the configuration has {count} {'mistake' if count == 1 else 'mistakes'}")
    return 0


def _as_text(settled: config.Config) -> Iterator[str]:
    """As a file that could be read back, with the origin as a comment above each value."""
    section = ""
    for setting in config.describe(settled):
        if setting.section != section:
            yield f"[{setting.section}]" if not section else f"\n[{setting.section}]"
            section = setting.section
        yield f"# {visibly(str(setting.origin or 'default'))}"
        yield f"{setting.key}={setting.value}"


def _as_json(settled: config.Config) -> str:
    rows = [
        {
            "section": setting.section,
            "key": setting.key,
            "value": setting.value,
            "default": setting.default,
            "origin": str(setting.origin) if setting.origin else None,
        }
        for setting in config.describe(settled)
    ]
    return json.dumps(
        {"settings": rows, "warnings": [str(warning) for warning in settled.warnings]}, indent=1
    )
