"""What this machine's network looks like: its addresses and routes. Reads only."""

from meshpeer.adapters.network.changes import NetworkChanges
from meshpeer.adapters.network.observe import Network, observe_network

__all__ = ["Network", "NetworkChanges", "observe_network"]
