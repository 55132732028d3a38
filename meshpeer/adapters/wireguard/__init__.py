"""One WireGuard interface of this machine, through ``wg`` and ``ip``. Touches that interface only, and only if it made it."""

from meshpeer.adapters.wireguard.backends import CommandWireGuard, NoWireGuard, open_wireguard

__all__ = ["CommandWireGuard", "NoWireGuard", "open_wireguard"]
