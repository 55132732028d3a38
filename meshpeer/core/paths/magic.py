"""What begins each datagram of ours that goes to, or from, WireGuard's own port."""

from __future__ import annotations

MAGIC = b"mpP1"
"""No message type of WireGuard's, which drops it in silence."""
