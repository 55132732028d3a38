"""The line of a mesh's roots: the founding one, whose key the mesh id is made of, and those that followed it.

A root follows another by being signed by it, so the line proves itself to whoever knows the mesh id: an
invite carries it, every greeting does, and a node that was away while roots changed needs nobody's word.
All roots of the line are believed side by side until one is retired (``records.revocation``).

A root has one follower. Where somebody signed two (two people with copies of one key, say), every node
takes the one whose certificate has the lower digest, in whatever order they come; but once a root is retired
its follower stands: whoever has the key of a retired root can't put another line in its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.certificates import mesh_id_of, public_key_of
from meshpeer.core.identity.chains import ChainFault, Rule, verify_follower, verify_founding_root
from meshpeer.core.ids import MeshId

ROOTS_MAX = 8
"""Of one mesh, ever: a root lasts 30 years, and follows another when a person wants it to."""

Line = tuple[bytes, ...]


def check_line(roots: Sequence[bytes], mesh: MeshId) -> None:
    """Raises ``PeerFault`` where certificates are not a line of this mesh, founding root first."""
    if not 1 <= len(roots) <= ROOTS_MAX:
        raise ChainFault(Rule.ROOT, f"a line of {len(roots)} roots, not 1 to {ROOTS_MAX}")
    if mesh_id_of(verify_founding_root(roots[0], mesh)) != mesh:
        raise ChainFault(Rule.ROOT, "the first root is not the one that founded this mesh")
    line: Line = (roots[0],)
    for one in roots[1:]:
        longer = with_follower(line, one, mesh)
        if longer != (*line, one):
            raise ChainFault(Rule.ROOT, "the roots are no line: each one must be signed by the one before")
        line = longer


def with_follower(line: Line, certificate: bytes, mesh: MeshId, *, settled: int = 0) -> Line:
    """Returns the line with one more root, or with another end; the same line for one that is known, or comes
    too late.

    ``settled``: how many roots of the line are retired, whose followers stand. Raises ``PeerFault`` for what
    no root of the line signed.
    """
    if certificate in line:
        return line
    place = verify_follower(certificate, line, mesh)
    if public_key_of(certificate) in map(public_key_of, line[: place + 1]):
        raise ChainFault(Rule.ROOT, "a root follows itself")
    if place + 1 < len(line):
        if place < settled or _digest(line[place + 1]) < _digest(certificate):
            return line
        return (*line[: place + 1], certificate)
    if len(line) >= ROOTS_MAX:
        raise PeerFault(f"the mesh has had {ROOTS_MAX} roots, and takes no more")
    return (*line, certificate)


def _digest(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest()
