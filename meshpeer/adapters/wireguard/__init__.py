"""One WireGuard interface of this machine, through ``wg`` and ``ip``.

``calls`` (pure) turns steps into the fewest command lines, ``tools`` runs them, ``userspace`` keeps the
process of a userspace implementation, ``backends`` has the port's implementations, ``choose`` picks one;
``forwarding`` lets a hub pass on what is not its own. None of it touches an interface that meshpeer did not
make.
"""

from meshpeer.adapters.wireguard.backends import CommandWireGuard, DryRunWireGuard, NoWireGuard
from meshpeer.adapters.wireguard.choose import open_wireguard
from meshpeer.adapters.wireguard.forwarding import Forwarding
from meshpeer.adapters.wireguard.userspace import UNIT_VARIABLE, UserspaceProcess, request_file, unit_script

__all__ = [
    "UNIT_VARIABLE",
    "CommandWireGuard",
    "DryRunWireGuard",
    "Forwarding",
    "NoWireGuard",
    "UserspaceProcess",
    "open_wireguard",
    "request_file",
    "unit_script",
]
