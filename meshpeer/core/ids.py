"""Identifiers, one NewType each, and their text forms.

A node *is* its Ed25519 public key (RFC 8032, 32 bytes); names, addresses and certificates only describe it.
People see keys as lower-case base32 without padding (52 characters), which survives file names, DNS and a
phone call.
"""

from __future__ import annotations

import base64
from typing import NewType

NodeId = NewType("NodeId", bytes)
"""A node's Ed25519 public key, 32 bytes."""
MeshId = NewType("MeshId", bytes)
"""The first 16 bytes of the SHA-256 of the first root's public key; fixed at founding, kept when roots
rotate."""
WireGuardKey = NewType("WireGuardKey", bytes)
"""A WireGuard (Curve25519) public key, 32 bytes."""
Digest = NewType("Digest", bytes)
"""A SHA-256 of content, 32 bytes."""
JobId = NewType("JobId", str)
"""Made by the client: ``j`` and 19 base32 characters (95 random bits)."""
TaskIndex = NewType("TaskIndex", int)
"""A task's 0-based position in its job's expanded graph."""
LinkId = NewType("LinkId", int)
"""One link for as long as it is open; never used again in one run of an agent."""
Ticket = NewType("Ticket", int)
"""A promise to be on disk: effects that name a ticket wait for its write."""

NODE_ID_BYTES = 32
MESH_ID_BYTES = 16


def key_text(key: bytes) -> str:
    """Returns the text form of a key or id: lower-case base32, no padding."""
    return base64.b32encode(key).decode("ascii").rstrip("=").lower()


def wireguard_key_text(key: WireGuardKey) -> str:
    """Returns the base64 form that ``wg`` prints and takes."""
    return base64.b64encode(key).decode("ascii")
