"""Which endpoints the sandbox of firstkey.service keeps firstkey from: systemd itself is asked.

A connection that IPAddressDeny= holds back looks like one that nobody answers, so it has to be told before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.errors import FirstkeyError
from firstkey.system import command

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LET_THROUGH = ("169.254.169.254", "fd00:ec2::254", "127.0.0.0/8", "::1")
"""What the unit as it is shipped lets through (`localhost` are the last two, systemd.resource-control(5))."""
SECONDS = 2.0
"""How long systemd may take to tell; it takes milliseconds."""

_SHOW = ("show", "--property=IPAddressAllow", "--property=IPAddressDeny", "firstkey.service")


def kept_out(endpoints: Iterable[str]) -> list[str]:
    """Those of the endpoints (`http://IP[:PORT]`) that the unit may not speak to; none if that is unknown."""
    # The usual ones cost no boot a look: neither a program nor the module that knows networks.
    unusual = [endpoint for endpoint in endpoints if _address(endpoint) not in LET_THROUGH]
    others = [endpoint for endpoint in unusual if not _within(endpoint, LET_THROUGH)]
    if not others:
        return []
    rules = _rules()
    allowed, denied = rules.get("IPAddressAllow", []), rules.get("IPAddressDeny", [])
    return [other for other in others if _within(other, denied) and not _within(other, allowed)]


def _rules() -> dict[str, list[str]]:
    """The unit's networks by setting, its drop-ins included; empty where systemd does not run."""
    systemctl = command.find("systemctl")
    if systemctl is None:
        return {}
    try:
        shown = command.run([systemctl, *_SHOW], seconds=SECONDS)
    except FirstkeyError:
        return {}
    lines = shown.stdout.decode("ascii", "replace").splitlines()
    pairs = [line.partition("=") for line in lines]
    return {name: value.split() for name, _, value in pairs}


def _within(endpoint: str, networks: Sequence[str]) -> bool:
    import ipaddress

    address = ipaddress.ip_address(_address(endpoint))
    return any(address in ipaddress.ip_network(network, strict=False) for network in networks)


def _address(endpoint: str) -> str:
    host = endpoint.partition("://")[2]
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
