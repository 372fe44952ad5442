"""What options change: the configuration (--config, --imds and --user), and published remedies (--root)."""

from __future__ import annotations

import argparse
import os
import re

from firstkey import config, display, reasons, settings
from firstkey.reasons import ConfigError, FirstkeyError, UsageError
from firstkey.system.tree import Tree, resolved

_FIRSTKEY = re.compile(r"(?<!on the instance: )\bfirstkey [a-z-]+")
_PROGRAMS = re.compile(
    r"(?<![\w-])((apt-get|ch(age|attr|mod|own)|chronyc|df|dnf|getent|groupadd|journalctl|mkhomedir_helper|namei|"
    r"restorecon|ssh-keygen|systemctl|timedatectl|useradd|usermod|visudo)(?![\w-])|(ss|sshd|su|sudo) -)"
)
"""Programs in remedies that act on what they run on, or tell of it, and have no --root of ours."""


def adapt_remedies(args: argparse.Namespace) -> None:
    """Let every published remedy be for the tree of --root: what is pasted must not act on the host."""
    args.root = resolved(args.root)
    for reason in reasons.ALL.values():
        reason.remedy = on_tree(reason.remedy, args)


def on_tree(remedy: str, args: argparse.Namespace) -> str:
    """The remedy for what --root names; one that is adapted stays as it is."""
    named = args.config and os.path.abspath(args.config)
    given = display.options(root=args.root, config=named, imds=args.imds)
    adapted = _FIRSTKEY.sub(lambda own: own[0] + given, remedy)
    # The program that is missing may be the host's: no other is run about a tree.
    where = "or on this host if it has none" if " install " in remedy else "not on this host"
    beside = ", except firstkey" if adapted != remedy else ""
    place = f"In {display.quoted(args.root)}, "
    if args.root == "/" or given in remedy or remedy.startswith(place):
        return remedy
    return f"{place}{where}{beside}: {adapted}" if _PROGRAMS.search(remedy) else adapted


def named_configuration(args: argparse.Namespace) -> config.Config | None:
    """What is in the file of --config, which is the host's; None without that option. Raises ConfigError."""
    if args.config is None:
        return None
    hint = "Give --config the path of a file that you can read."
    if not args.config:  # as of a script's unset variable: it is no name of this directory
        raise ConfigError("--config '': that is no file", hint=hint)
    path = os.path.abspath(args.config)
    try:
        with Tree("/") as host:
            text = host.read(path, limit=config.LIMIT)
    except FirstkeyError as error:
        raise ConfigError(error.message, hint=hint) from error
    if text is None:
        raise ConfigError(f"{path} does not exist", hint=hint)
    return config.read([config.Source(path, text)])


def configuration(tree: Tree, args: argparse.Namespace) -> config.Config:
    """The settings, with what the options say in their place. Raises UsageError and ConfigError."""
    if not hasattr(args, "named"):  # else it is done: in a box, paths are not the host's
        adapt_remedies(args)
    settled: config.Config = getattr(args, "named", None) or named_configuration(args) or config.load(tree)
    if args.imds is not None:
        imds = settled.imds._replace(endpoints=(_endpoint(args.imds),))
        said = {**settled.origins, ("IMDS", "Endpoints"): (config.Origin("--imds on the command line", 0),)}
        settled = settled._replace(imds=imds, origins=said)
    if getattr(args, "user", None):
        settled = settled._replace(keys=settled.keys._replace(users=_names(args.user)))
    return settled


def endpoints(args: argparse.Namespace) -> tuple[str, ...]:
    """The addresses of the metadata service without a word of a tree's: the options', or the defaults."""
    if args.imds is not None:
        return (_endpoint(args.imds),)
    return (args.named or config.read([])).imds.endpoints


def _endpoint(url: str) -> str:
    try:
        return settings.endpoint(url)
    except ValueError as error:
        raise UsageError(
            f"--imds {url!a}: that is no endpoint of the metadata service",
            hint="Give a literal address, such as http://127.0.0.1:1338 or http://[fd00:ec2::254].",
        ) from error


def _names(given: list[str]) -> tuple[str, ...]:
    for name in given:
        try:
            settings.account_name(name)
        except ValueError as error:  # noqa: PERF203 - names are few
            raise UsageError(f"--user {name!a}: that is no name of an account") from error
    return tuple(dict.fromkeys(given))
