"""`firstkey config`: the effective settings, each with the file and line it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firstkey import NamedTuple, config, settings
from firstkey.cli import common, looking, parsers, streams
from firstkey.reasons import ConfigError
from firstkey.settings import SECTIONS
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

EPILOG = """\
examples:
  firstkey config            show every setting with its file and line
  firstkey config --diff     show settings that differ from the defaults
  firstkey config --check    for CI: exit 78 over any mistake
  firstkey config --check --root /mnt/image --config own.conf

--check also finds the mistakes that a boot finds: a sudo rule that visudo
rejects, accounts, groups and shells that the system or tree lacks, and an
endpoint that the unit's sandbox blocks. With --config and without --root, only
the file is checked.
"""


def main(argv: Sequence[str]) -> int:
    """Print the settings, or with --check only say what is wrong with them; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.check and args.diff:
        parser.error("argument --diff: not allowed with argument --check")
    if args.check:
        from firstkey.cli import config_check  # noqa: F401 - before the box is shut
    return looking.command(args, _show)


def _show(args: argparse.Namespace, say: looking.Say) -> int:
    with common.tree_at(args.root) as tree:
        settled = common.configuration(tree, args)
        shipped = config.load(_Vendors(tree)) if args.diff else settled
        if args.check:
            return _check(tree, args, say)
    for warning in settled.warnings:
        streams.complain(f"firstkey: {warning}")
    changes = list(_changes(settled, shipped))
    if args.json:
        streams.show_json([_change_as_json(change) for change in changes] if args.diff else _as_json(settled))
    elif not args.quiet:
        streams.show(*(_as_diff(changes, settled) if args.diff else _as_text(settled)))
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parsers.command(
        "config",
        "Show the effective settings, each with its origin.",
        epilog=EPILOG,
        without=("--imds", "--verbose"),
    )
    forms = parsers.with_forms(made)
    forms.add_argument("--check", action="store_true", help="only validate: exit 78 over any mistake")
    made.add_argument(
        "--diff", action="store_true", help="only settings that differ from the shipped defaults"
    )
    return made


class _Vendors:
    """The files that came with the system: what is in /etc and /run is the administrator's."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def read(self, path: str, *, limit: int) -> bytes | None:
        return self._tree.read(path, limit=limit) if path.startswith("/usr/") else None

    def names(self, path: str) -> list[str]:
        return self._tree.names(path) if path.startswith("/usr/") else []


class Effective(NamedTuple):
    """One setting as it stands, in words: `origins` is empty where no file mentions it."""

    section: str
    key: str
    value: str
    default: str
    origins: tuple[config.Origin, ...]


def describe(settled: config.Config) -> list[Effective]:
    """Every setting with the value that holds, its default and where it was set, in the table's order.

    A `[User NAME]` section is there for each of the configured users, whether a file has it or not.
    """
    users = dict.fromkeys((*settled.keys.users, *settled.users))
    values: list[tuple[str, tuple[Any, ...]]] = [
        ("IMDS", settled.imds),
        ("Keys", settled.keys),
        ("HostKeys", settled.host_keys),
        *((f"User {name}", settled.user(name)) for name in users),
        ("Image", settled.image),
    ]
    return [
        Effective(
            section, key, settings.text_of(getattr(value, setting.field)),
            settings.text_of(setting.default), settled.origins.get((section, key), ()),
        )
        for section, value in values
        for key, setting in SECTIONS[section.partition(" ")[0]].items()
    ]  # fmt: skip


class _Change(NamedTuple):
    """A setting that would be another one without the administrator's files.

    `replaced` are the vendor's files that set it and are not read.
    """

    now: Effective
    shipped: str
    replaced: tuple[str, ...]


def _changes(settled: config.Config, shipped: config.Config) -> Iterator[_Change]:
    before = {(setting.section, setting.key): setting for setting in describe(shipped)}
    for now in describe(settled):
        was = before.get((now.section, now.key), now._replace(value=now.default, origins=()))
        if was.value != now.value:
            files = dict.fromkeys(origin.path for origin in was.origins)
            yield _Change(now, was.value, tuple(path for path in files if path not in settled.sources))


def _change_as_json(change: _Change) -> dict[str, Any]:
    now = change.now
    row = {"section": now.section, "key": now.key, "shipped": change.shipped, "value": now.value}
    return {**row, **_origins_as_json(now), "replaced": list(change.replaced)}


def _as_diff(changes: list[_Change], settled: config.Config) -> Iterator[str]:
    if not changes:
        yield "Nothing differs from what was shipped."
    section = None
    for change in changes:
        if change.now.section != section:
            section = change.now.section
            yield f"[{section}]"
        yield f"-{change.now.key}={change.shipped}"
        yield f"+{change.now.key}={change.now.value}"
        why = [_where(change.now), *(_instead(path, settled.sources) for path in change.replaced)]
        yield f"  ({'; '.join(why)})"


def _instead(path: str, sources: Sequence[str]) -> str:
    """Why the vendor's file does not count: there is another one of its name, or only one is read."""
    another = next((source for source in sources if _name(source) == _name(path)), None)
    return f"{another} takes the place of {path}" if another else f"{path} is not read"


def _name(path: str) -> str:
    """The file's path inside a directory of configuration."""
    directory = next((each for each in config.DIRECTORIES if path.startswith(f"{each}/")), "")
    return path[len(directory) :]


def _where(setting: Effective) -> str:
    return ", ".join(map(str, setting.origins)) or "default"


def _origins_as_json(setting: Effective) -> dict[str, Any]:
    """All lines that a list adds up from, and the last one."""
    origins = [str(origin) for origin in setting.origins]
    return {"origin": origins[-1] if origins else None, "origins": origins}


def _check(tree: Tree, args: argparse.Namespace, say: looking.Say) -> int:
    """Name every mistake, and raise ConfigError where there is one."""
    from firstkey.cli import config_check  # the other forms need none of it

    args.dry_run = True  # rules of sudo are validated, and not tried
    site = common.site_of(tree, args, say, warn=False)
    mistakes = [*site.config.warnings, *config_check.of_rules(site, streams.complain)]
    if tree.root != "/" or not args.config:  # else the file is of an image that is not here
        mistakes += config_check.of_tree(site)
    for mistake in mistakes:
        streams.complain(f"firstkey: {mistake}")
    if mistakes:
        count = len(mistakes)
        raise ConfigError(f"the configuration has {count} {'mistake' if count == 1 else 'mistakes'}")
    return 0


def _as_text(settled: config.Config) -> Iterator[str]:
    """As a file that could be read back, with the origin as a comment above each value."""
    section = ""
    for setting in describe(settled):
        if setting.section != section:
            yield from ("",) if section else ()
            yield f"[{setting.section}]"
            section = setting.section
        yield f"# {_where(setting)}"
        yield f"{setting.key}={setting.value}"


def _as_json(settled: config.Config) -> dict[str, Any]:
    rows = [
        {
            "section": setting.section,
            "key": setting.key,
            "value": setting.value,
            "default": setting.default,
            **_origins_as_json(setting),
        }
        for setting in describe(settled)
    ]
    return {"settings": rows, "warnings": [str(warning) for warning in settled.warnings]}
