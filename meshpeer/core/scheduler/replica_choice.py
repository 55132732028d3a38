"""Who is to keep a new job besides the node that it is submitted at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from meshpeer.core.ids import JobId, NodeId

REPLICAS_WANTED = 3


def choose_replicas(
    job: JobId, me: NodeId, region: str, able: Mapping[NodeId, str], *, least: int = REPLICAS_WANTED - 1
) -> tuple[NodeId, ...]:
    """Returns this node and two others, one of its own region and one of another where there are such; this
    node alone where fewer than ``least`` others can.

    Rendezvous hashing (D. Thaler, C. Ravishankar, "A name-based mapping scheme for rendezvous", 1996): each
    job has an order of its own, so that jobs spread over nodes. ``able`` are the candidates' regions.
    """
    order = sorted((node for node in able if node != me), key=lambda node: _weight(job, node))
    if len(order) < least:
        return (me,)
    near = next((node for node in order if able[node] == region), None)
    far = next((node for node in order if able[node] != region), None)
    chosen = [node for node in (near, far) if node is not None]
    chosen += [node for node in order if node not in chosen]
    return (me, *chosen[: REPLICAS_WANTED - 1])


def _weight(job: JobId, node: NodeId) -> bytes:
    return hashlib.sha256(job.encode() + node).digest()
