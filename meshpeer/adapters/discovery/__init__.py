"""Finds nodes on the local network by mDNS. Touches UDP 5353 through zeroconf; announces no secret."""

from __future__ import annotations

from meshpeer.adapters.discovery.silent import NoDiscovery
from meshpeer.runtime.ports import Discovery

__all__ = ["open_discovery"]


def open_discovery(*, mdns: bool) -> Discovery:
    """Returns what looks around by mDNS, or what does not look at all."""
    if not mdns:
        return NoDiscovery()
    # 3 MiB that a node without it does not need.
    from meshpeer.adapters.discovery.mdns import MdnsDiscovery

    return MdnsDiscovery()
