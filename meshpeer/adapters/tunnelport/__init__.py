"""WireGuard's own UDP port, used beside WireGuard: raw sockets send from it and hear what is not
WireGuard's."""

from meshpeer.adapters.tunnelport.raw import RawTunnelPort

__all__ = ["RawTunnelPort"]
