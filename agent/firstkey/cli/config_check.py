"""What a boot of the tree would find wrong with a configuration that can be read: `config --check`."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from firstkey import reasons
from firstkey.boot.accounts import WriteSudoers
from firstkey.config import ConfigWarning, Origin
from firstkey.reasons import FirstkeyError
from firstkey.system.sshd import unit_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from firstkey.boot.site import Site
    from firstkey.config import User

UNIT = "firstkey.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/50-endpoints.conf"
NETWORKS = {
    "any": ("0.0.0.0/0", "::/0"),
    "localhost": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/64"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
}
"""Names that stand for addresses in IPAddressAllow= (systemd.resource-control(5))."""
DEFAULT = Origin("default", 0)
_UNCHECKED = (reasons.SUDO_MISSING, reasons.SUDO_UNCHECKED)


def of_rules(site: Site, say: Callable[[str], None]) -> Iterator[ConfigWarning]:
    """Rules of sudo that visudo rejects. `say` hears of those that nothing here can check."""
    for user in _with_sudo(site):
        error = _error_of(WriteSudoers(user).prove, site)
        if error and error.reason in _UNCHECKED:
            where = _origin(site, user, "Sudo")
            say(f"firstkey: {where}: the rule of {user.name} was not checked: {error.message}")
        elif error:
            yield _warning(site, user, "Sudo", error.message)


def of_tree(site: Site) -> Iterator[ConfigWarning]:
    """What the tree lacks: accounts, groups, shells, a sudo that reads rules, a sandbox for the endpoints.

    Nothing is said of accounts where the tree has none at all: it is no system yet.
    """
    yield from _kept_out(site)
    if not site.tree.exists("/etc/passwd"):
        return
    for name in site.config.keys.users:
        user = site.config.user(name)
        exists = site.accounts.find(name) is not None
        if not exists and not user.create:
            where = site.config.origins.get(("Keys", "Users"), (DEFAULT,))[-1]
            detail = f"there is no account {name}, and [User {name}] does not have Create=yes"
            yield ConfigWarning(*where, detail)
        for group in user.groups:
            if site.accounts.group_id(group) is None:
                yield _warning(site, user, "Groups", f"there is no group {group}")
        if user.create and not exists and not site.tree.exists(user.shell):
            yield _warning(site, user, "Shell", f"there is no {user.shell}, with which {name} would log in")
    for user in _with_sudo(site):
        error = _error_of(WriteSudoers(user).require_effect, site)
        if error:
            yield _warning(site, user, "Sudo", error.message)


def _error_of(check: Callable[[Site], None], site: Site) -> FirstkeyError | None:
    try:
        check(site)
    except FirstkeyError as error:
        return error
    return None


def _with_sudo(site: Site) -> list[User]:
    users = map(site.config.user, site.config.keys.users)
    return [user for user in users if user.sudo]


def _kept_out(site: Site) -> Iterator[ConfigWarning]:
    """Endpoints to which the unit's sandbox lets nothing through."""
    if "any" not in _words(site, "IPAddressDeny"):
        return
    allowed = []
    for word in _words(site, "IPAddressAllow"):
        with suppress(ValueError):  # systemd ignores a word that is no address either
            allowed += [ipaddress.ip_network(each, strict=False) for each in NETWORKS.get(word, (word,))]
    for endpoint in site.config.imds.endpoints:
        address = ipaddress.ip_address(str(urlsplit(endpoint).hostname).partition("%")[0])
        if not any(address in network for network in allowed):
            where = site.config.origins.get(("IMDS", "Endpoints"), (DEFAULT,))[-1]
            detail = (
                f"Endpoints={endpoint} is out of reach of {UNIT}, whose sandbox lets only some addresses "
                f"through. Put [Service] and IPAddressAllow={address} into a drop-in: {DROP_IN}"
            )
            yield ConfigWarning(*where, detail)


def _words(site: Site, key: str) -> list[str]:
    return [word for value in unit_settings(site.tree, UNIT)["Service", key] for word in value.split()]


def _warning(site: Site, user: User, key: str, detail: str) -> ConfigWarning:
    return ConfigWarning(*_origin(site, user, key), f"[User {user.name}] {key}=: {detail}")


def _origin(site: Site, user: User, key: str) -> Origin:
    return site.config.origins.get((f"User {user.name}", key), (DEFAULT,))[-1]
