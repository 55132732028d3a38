"""Probes through the tunnels: sends them, and answers those of others."""

from meshpeer.adapters.prober.udp import UdpProber

__all__ = ["UdpProber"]
