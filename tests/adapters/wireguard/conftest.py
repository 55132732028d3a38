"""Which backend the contract runs against: those in memory, or a real one where the environment names it.

A real one makes interfaces, so it belongs into a network namespace:
``tests/netns/test_wireguard_interface.py`` runs this folder again inside one, with
``MESHPEER_TEST_WIREGUARD=userspace``.
"""

from __future__ import annotations

import os

REAL_BACKEND = os.environ.get("MESHPEER_TEST_WIREGUARD", "")

collect_ignore = [] if REAL_BACKEND else ["test_wireguard_real.py"]
