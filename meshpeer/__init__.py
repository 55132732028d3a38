"""meshpeer: one private WireGuard network and one job scheduler over your own machines, with no controller.

Floors, from high to low (imports go down only): ``app``, ``adapters`` and ``sim``, ``runtime``, ``core``.
"""

__version__ = "0.1.0"
