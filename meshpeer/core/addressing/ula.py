"""IPv6: derived, never allocated. The prefix comes from the mesh id, the interface id from the node's key.

RFC 4193, section 3.2, wants 40 random bits in the prefix; the mesh id is a hash of a random key, so a hash
of it serves. 64 bits of a hash of the node's key don't meet by chance (birthday bound: 2^-33 for 65,000
nodes), and finding a key that hashes to another's address takes 2^64 tries; so the address is usable before
anybody was asked.
"""

from __future__ import annotations

import hashlib
import ipaddress

from meshpeer.core.ids import MeshId, NodeId

_PREFIX_LABEL = b"meshpeer/ula/v1\0"
_INTERFACE_LABEL = b"meshpeer/interface-id/v1\0"


def mesh_prefix(mesh: MeshId) -> ipaddress.IPv6Network:
    """Returns the mesh's ULA /64 (subnet 0 of its /48)."""
    global_id = hashlib.sha256(_PREFIX_LABEL + mesh).digest()[:5]
    return ipaddress.IPv6Network((b"\xfd" + global_id + bytes(10), 64))


def ula_address(mesh: MeshId, node: NodeId) -> ipaddress.IPv6Address:
    """Returns the node's overlay address."""
    interface_id = hashlib.sha256(_INTERFACE_LABEL + node).digest()[:8]
    return ipaddress.IPv6Address(mesh_prefix(mesh).network_address.packed[:8] + interface_id)
