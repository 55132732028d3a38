"""Which endpoints machines elsewhere can reach, and what a person does about those that they can't."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

_LOCAL = [
    ipaddress.ip_network(one)
    for one in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
]
"""RFC 1918, 6598, 1122, 3927, 4193, 4291: each means another machine elsewhere, or none."""


def local_only(endpoints: Iterable[str]) -> bool:
    """Says whether all of these (``host:port``) are addresses that only their own network knows; a DNS name
    is none.
    """
    return all(_is_local(one) for one in endpoints)


def ports_to_open(control_port: int, wireguard_port: int) -> str:
    """Returns the ports that a router or a firewall has to let through, in words."""
    return f"TCP {control_port}" + (f" and UDP {wireguard_port}" if wireguard_port else "")


def _is_local(endpoint: str) -> bool:
    try:
        address = ipaddress.ip_address(endpoint.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return any(address.version == one.version and address in one for one in _LOCAL)
