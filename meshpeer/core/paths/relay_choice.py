"""Which two members relay a pair: the same for both ends, as long as they know the same. What one end alone
knows, that its own tunnel to a member does not work, puts that one last.

Rendezvous hashing (D. Thaler, C. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998)
spreads pairs over relays, and one relay's coming or going moves few. Round trips come first, in bands that
double, so that a millisecond of jitter changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from meshpeer.core.ids import NodeId

RELAYS_PER_PAIR = 2
NEAR_MS = 20
"""Round trips up to this are alike; each band above is twice as wide."""
UNKNOWN_MS = 200
"""What a round trip is taken for that nobody measured."""
_BAND_MAX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayCandidate:
    """What both ends know of a member that could relay them."""

    node: NodeId
    permitted: bool
    """Its certificate has capability ``relay``."""
    accepts: bool
    """Its record says that it lends ports."""
    public: bool = False
    """It can be reached from anywhere, or nobody knows otherwise."""
    seen: bool = False
    """Others have seen that it can, or its addresses say so. Who lets no UDP through is seen by nobody."""
    silent: bool = False
    """This end has a tunnel of its own with it, which does not work."""
    reached: tuple[bool, bool] = (False, False)
    """Whether the end with the lower id reaches it, and the one with the higher."""
    spans: bool = True
    """Each end has an address of a family that it has one of, too."""
    doubted: bool = False
    rtts_ms: tuple[int | None, int | None] = (None, None)
    """From the end with the lower id, and from the other, as each told the other."""


def choose_relays(
    pair: tuple[NodeId, NodeId], candidates: Iterable[RelayCandidate], count: int = RELAYS_PER_PAIR
) -> tuple[NodeId, ...]:
    """Returns up to ``count`` relays for a pair (in whichever order), the first to be asked first."""
    low, high = sorted(pair)
    fit = [one for one in candidates if _is_fit(one) and one.node not in pair]
    ranked = sorted(
        fit, key=lambda one: (one.silent, not one.seen, _band(one), _weight(low + high, one.node), one.node)
    )
    return tuple(dict.fromkeys(one.node for one in ranked))[:count]


def _is_fit(one: RelayCandidate) -> bool:
    lends = one.permitted and one.accepts and one.spans and not one.doubted
    return lends and (one.public or all(one.reached))


def _band(one: RelayCandidate) -> int:
    way_ms = sum(UNKNOWN_MS if rtt is None else max(0, rtt) for rtt in one.rtts_ms)
    return min(_BAND_MAX, (max(0, way_ms - 1) // NEAR_MS).bit_length())


def _weight(of: bytes, candidate: bytes) -> bytes:
    return hashlib.sha256(of + candidate).digest()
