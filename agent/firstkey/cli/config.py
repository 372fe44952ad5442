"""`firstkey config`: the effective settings, each with the file and line it came from."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from firstkey import config
from firstkey.cli import common
from firstkey.errors import ConfigError
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def main(argv: Sequence[str]) -> int:
    """Print the settings, or with --check only say what is wrong with them; returns the exit status."""
    made = common.with_json(common.parser("config", "Show the effective settings, each with its origin."))
    made.add_argument("--check", action="store_true", help="only validate: exit 78 if anything is wrong")
    args = made.parse_args(argv)
    with Tree(args.root) as tree:
        settled = common.configuration(tree, args)
    for warning in settled.warnings:
        print(f"firstkey: {warning}", file=sys.stderr)
    if args.check:
        return _checked(settled)
    print(_as_json(settled) if args.json else "\n".join(_as_text(settled)))
    return 0


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
        yield f"# {setting.origin or 'default'}"
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
