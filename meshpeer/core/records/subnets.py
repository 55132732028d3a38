"""Which IPv4 subnet a mesh can have: what a person may ask for, and the wider range of what a charter may
name."""

from __future__ import annotations

import ipaddress

from meshpeer.core.errors import LocalFault

SUBNET_PREFIX_WIDEST = 16
SUBNET_PREFIX_NARROWEST = 29
USABLE_PREFIX_WIDEST, USABLE_PREFIX_NARROWEST = 8, 30
"""What is no sensible wish may still come from a later version; fewer than two hosts are no mesh."""
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")
"""Carriers' own addresses (RFC 6598): free to use inside a mesh."""
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
"""No host has an address of it (RFC 1122, section 3.2.1.3), and kernels refuse them."""


def check_subnet(text: str) -> ipaddress.IPv4Network:
    """Parses a mesh's subnet: private IPv4, /16 to /29, no host bits; else raises ``LocalFault``."""
    hint = (
        f"use private IPv4 addresses, /{SUBNET_PREFIX_WIDEST} to /{SUBNET_PREFIX_NARROWEST}, "
        "for example 10.10.0.0/24"
    )
    try:
        subnet = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise LocalFault(f"{text!r} is no subnet: {error}", hint) from error
    if not SUBNET_PREFIX_WIDEST <= subnet.prefixlen <= SUBNET_PREFIX_NARROWEST:
        wide = subnet.prefixlen < SUBNET_PREFIX_WIDEST
        raise LocalFault(f"{text} is too {'wide' if wide else 'narrow'} for a mesh", hint)
    if not is_usable(subnet):
        raise LocalFault(f"{text} is not for private use", hint)
    return subnet


def is_usable(subnet: ipaddress.IPv4Network) -> bool:
    """Says whether members can have addresses of it that nobody else on the internet has."""
    if not USABLE_PREFIX_WIDEST <= subnet.prefixlen <= USABLE_PREFIX_NARROWEST:
        return False
    special = subnet.is_loopback or subnet.is_link_local or subnet.is_multicast
    private = subnet.is_private or subnet.subnet_of(_SHARED)
    return private and not special and not subnet.overlaps(_THIS_NETWORK)
