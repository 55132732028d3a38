"""What this machine's network looks like: its addresses and routes. Reads only."""

from meshpeer.adapters.network.observe import Network, observe_network

__all__ = ["Network", "observe_network"]
