"""Finds nodes on the local network by mDNS. Touches UDP 5353 through zeroconf; announces no secret."""

from meshpeer.adapters.discovery.mdns import MdnsDiscovery, NoDiscovery

__all__ = ["MdnsDiscovery", "NoDiscovery"]
