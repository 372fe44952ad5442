"""`firstkey config`: the effective settings, each with the file and line it came from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from firstkey import NamedTuple, config, reasons, settings
from firstkey.boot.accounts import WriteSudoers
from firstkey.boot.target import Target
from firstkey.cli import common, looking, streams, usage
from firstkey.reasons import ConfigError, FirstkeyError, UsageError
from firstkey.settings import SECTIONS, unit_settings
from firstkey.system.tree import Tree

UNIT = "firstkey.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/50-endpoints.conf"
NETWORKS = {
    "any": ("0.0.0.0/0", "::/0"),
    "localhost": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/64"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
}
"""Names that stand for addresses in IPAddressAllow= (systemd.resource-control(5))."""
VENDORS = tuple(place for place in config.DIRECTORIES if place.startswith("/usr/"))
"""What is in /etc and /run is the administrator's."""
_DEFAULT = config.Origin("default", 0)
_UNCHECKED = (reasons.SUDO_MISSING, reasons.SUDO_UNCHECKED)
USAGE = usage.Usage(
    (
        (usage.JSON, usage.flag("--check", words="only validate: exit 78 on any mistake")),
        usage.flag("--diff", words="only settings that differ from the vendor's"),
    ),
    """\
examples:
  firstkey config            show every setting with its file and line
  firstkey config --diff     show settings that differ from the vendor's
  firstkey config --check    for CI: exit 78 on any mistake
  firstkey config --check --root /mnt/image --config own.conf

--check also finds the mistakes that a boot finds: a sudo rule that visudo
rejects, accounts, groups and shells that the system or tree lacks, and an
endpoint that the unit's sandbox blocks. With --config and without --root, only
the file is checked.

exit status: 0 no mistake, or without --check; 78 a mistake, or a file of
  --config that cannot be read; 2 usage error
""",
    without=("--imds", "--verbose"),
)


def main(args: argparse.Namespace) -> int:
    """Print the settings, or with --check only say what is wrong with them; returns the exit status."""
    if args.check and args.diff:
        raise UsageError("--check judges the settings, and --diff shows them: give one of them")
    return looking.command(args, _show)


def _show(args: argparse.Namespace, log: looking.Log) -> int:
    with common.tree_at(args.root) as tree:
        settled = common.configuration(tree, args)
        if args.check:
            return _check(tree, args, log)
        changes = list(_changes(settled, config.load(tree, VENDORS))) if args.diff else []
    for warning in settled.warnings:
        streams.complain(f"firstkey: {warning}")
    if args.json and args.diff:
        streams.show_json(
            [{**now.as_json(), "shipped": was, "replaced": replaced} for now, was, replaced in changes]
        )
    elif args.json:
        rows = [setting.as_json() for setting in describe(settled)]
        streams.show_json({"settings": rows, "warnings": [str(warning) for warning in settled.warnings]})
    elif not args.quiet:
        streams.show(*(_as_diff(changes) if args.diff else _as_text(settled)))
    return 0


class Effective(NamedTuple):
    """One setting as it stands, in words: `origins` is empty where no file mentions it."""

    section: str
    key: str
    value: str
    default: str
    origins: tuple[config.Origin, ...]

    @property
    def where(self) -> str:
        """The lines that it stands in."""
        return ", ".join(map(str, self.origins)) or "default"

    def as_json(self) -> dict[str, Any]:
        """With all lines that a list adds up from, and the last one."""
        origins = [str(origin) for origin in self.origins]
        return {**self._asdict(), "origin": origins[-1] if origins else None, "origins": origins}


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


def _changes(settled: config.Config, vendors: config.Config) -> Iterator[tuple[Effective, str, list[str]]]:
    """Each setting that the vendor's files alone make another, with its value then, and the lines that it
    came from and that do not count.
    """
    before = {(setting.section, setting.key): setting for setting in describe(vendors)}
    for now in describe(settled):
        was = before.get((now.section, now.key), now._replace(value=now.default, origins=()))
        if was.value != now.value:
            yield now, was.value, [str(origin) for origin in was.origins if origin not in now.origins]


def _as_diff(changes: list[tuple[Effective, str, list[str]]]) -> Iterator[str]:
    section = ""
    for now, was, replaced in changes:
        if now.section != section:
            section = now.section
            yield f"[{section}]"
        yield f"-{now.key}={was}"
        yield f"+{now.key}={now.value}"
        yield f"  ({now.where}{'; in place of ' if replaced else ''}{', '.join(replaced)})"
    if not changes:
        yield "Nothing differs from what was shipped."


def _as_text(settled: config.Config) -> Iterator[str]:
    """As a file that could be read back, with the origin as a comment above each value."""
    section = ""
    for setting in describe(settled):
        if setting.section != section:
            yield from ("",) if section else ()
            yield f"[{setting.section}]"
            section = setting.section
        yield f"# {setting.where}"
        yield f"{setting.key}={setting.value}"


# --- what a boot of the tree would find wrong: --check ---------------------------------------------


def _check(tree: Tree, args: argparse.Namespace, log: looking.Log) -> int:
    """Name every mistake, and raise ConfigError where there is one."""
    args.dry_run = True  # rules of sudo are validated, and not tried
    target = common.target_of(tree, args, log, warn=False)
    of_tree = tree.root != "/" or not args.config  # else the file is of an image that is not here
    found = [*target.config.warnings, *_mistakes(target, of_tree=of_tree)]
    streams.complain(*(f"firstkey: {mistake}" for mistake in found))
    if found:
        raise ConfigError(
            f"the configuration has {len(found)} {'mistake' if len(found) == 1 else 'mistakes'}"
        )
    return 0


def _mistakes(target: Target, *, of_tree: bool) -> Iterator[config.ConfigWarning]:
    """Rules of sudo that visudo rejects; `of_tree`: what the tree lacks, too.

    These are accounts, groups, shells, a sudo that reads rules, a sandbox for the endpoints. Nothing is said
    of accounts where the tree has none at all: it is no system yet.
    """
    has_accounts = of_tree and target.tree.exists("/etc/passwd")
    for user in map(target.config.user, target.config.keys.users):
        section, rule = f"User {user.name}", WriteSudoers(user)
        if has_accounts:
            yield from _of_account(target, user, section)
        checks = (rule.validate, *([rule.require_effect] if has_accounts else []))
        for check in checks if user.sudo else ():
            try:
                check(target)
            except FirstkeyError as error:  # noqa: PERF203 - users are few
                if error.reason in _UNCHECKED:  # nothing here can check it
                    detail = f"the rule of {user.name} was not checked: {error.message}"
                    streams.complain(f"firstkey: {_mistake(target, section, 'Sudo', detail)}")
                else:
                    yield _mistake(target, section, "Sudo", f"[{section}] Sudo=: {error.message}")
    if of_tree:
        yield from _kept_out(target)


def _of_account(target: Target, user: config.User, section: str) -> Iterator[config.ConfigWarning]:
    exists = target.accounts.find(user.name) is not None
    if not exists and not user.create:
        detail = f"there is no account {user.name}, and [{section}] does not have Create=yes"
        yield _mistake(target, "Keys", "Users", detail)
    for group in user.groups:
        if target.accounts.group_id(group) is None:
            yield _mistake(target, section, "Groups", f"[{section}] Groups=: there is no group {group}")
    if user.create and not exists and not target.tree.exists(user.shell):
        detail = f"[{section}] Shell=: there is no {user.shell}, with which {user.name} would log in"
        yield _mistake(target, section, "Shell", detail)


def _kept_out(target: Target) -> Iterator[config.ConfigWarning]:
    """Endpoints to which the unit's sandbox lets nothing through."""
    import ipaddress
    from urllib.parse import urlsplit

    unit = unit_settings(target.tree, UNIT)
    denied, words = (
        [word for value in unit["Service", f"IPAddress{which}"] for word in value.split()]
        for which in ("Deny", "Allow")
    )
    allowed = []
    for word in words:
        with suppress(ValueError):  # systemd ignores a word that is no address either
            allowed += [ipaddress.ip_network(each, strict=False) for each in NETWORKS.get(word, (word,))]
    for endpoint in target.config.imds.endpoints if "any" in denied else ():
        address = ipaddress.ip_address(str(urlsplit(endpoint).hostname).partition("%")[0])
        if not any(address in network for network in allowed):
            detail = (
                f"Endpoints={endpoint} is out of reach of {UNIT}, whose sandbox lets only some addresses "
                f"through. Put [Service] and IPAddressAllow={address} into a drop-in: {DROP_IN}"
            )
            yield _mistake(target, "IMDS", "Endpoints", detail)


def _mistake(target: Target, section: str, key: str, detail: str) -> config.ConfigWarning:
    """A mistake in the last line that sets the key, or in the default."""
    return config.ConfigWarning(target.config.origins.get((section, key), (_DEFAULT,))[-1], detail)
