"""A look at one tunnel of this node: what was tried to get it going, and what came of it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.endpoints import Candidate, EndpointChoice, Source
from meshpeer.core.wgconf.model import ObservedPeer, handshake_is_fresh


class TriedState(enum.Enum):
    """Where an endpoint of a peer stands."""

    WORKING = "working"
    TRYING = "trying"
    GIVEN_UP = "given_up"
    """It had its turn without a handshake; it gets another."""
    REPLACED = "replaced"
    """It was taken up, and then the peer was heard from elsewhere."""
    UNTRIED = "untried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One endpoint of a peer."""

    endpoint: str
    source: Source | None
    """None for one that is no candidate (any more): the peer came from there, or once had it."""
    state: TriedState
    since_unix_s: float | None
    """Since when it works or is tried, or when it was given up; None where it was never tried."""
    handshake_unix_s: float | None
    """The last one there, as far as this agent has seen."""
    known_unix_s: float | None = None
    """Since when this agent has it as a candidate; None for one that is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelLook:
    """What one node knows of its own tunnel to a member."""

    node: NodeId
    installed: bool
    """The interface holds the peer."""
    ready: bool
    """The peer said that its interface holds this node's key, or no word of it could be had for long."""
    handshake_unix_s: int
    """0 for never."""
    works: bool
    silent_since_unix_s: float | None = None
    """Since when nothing answers; None where it works, or nobody has looked."""
    endpoint: str | None
    candidates: tuple[Tried, ...]
    """Best first, then those that are no candidates."""
    mute: bool = False
    """It shook hands lately and answers nothing: the peer is looked for elsewhere."""
    apart: bool = False
    """All that the peer says of itself is of a family that this machine has no address of."""


def look_at(
    node: NodeId,
    *,
    observed: ObservedPeer | None,
    candidates: Sequence[Candidate],
    choice: EndpointChoice,
    ready: bool,
    silent_since_unix_s: float | None = None,
    now: Instant,
    apart: bool = False,
) -> TunnelLook:
    """Puts together what is known of a tunnel."""
    handshake = observed.latest_handshake_unix_s if observed else 0
    shaken = handshake_is_fresh(handshake, now.unix_s)
    works = shaken and not choice.mute and silent_since_unix_s is None
    sources = {one.endpoint: one.source for one in candidates}
    others = [one.endpoint for one in choice.history if one.endpoint not in sources]
    return TunnelLook(
        node=node,
        installed=observed is not None,
        ready=ready,
        handshake_unix_s=handshake,
        works=works,
        silent_since_unix_s=silent_since_unix_s,
        endpoint=observed.endpoint if observed else None,
        candidates=tuple(
            _tried(endpoint, sources.get(endpoint), choice, works) for endpoint in (*sources, *others)
        ),
        mute=shaken and choice.mute,
        apart=apart,
    )


def _tried(endpoint: str, source: Source | None, choice: EndpointChoice, works: bool) -> Tried:
    held = choice.history.of(endpoint)
    state, since = TriedState.UNTRIED, None
    if held is not None:
        state, since = TriedState.REPLACED, held.since_unix_s
        if endpoint == choice.chosen and works:
            state, since = TriedState.WORKING, held.works_since_unix_s
        elif endpoint == choice.chosen:
            state = TriedState.TRYING
        elif held.given_up_unix_s is not None:
            state, since = TriedState.GIVEN_UP, held.given_up_unix_s
    return Tried(
        endpoint=endpoint,
        source=source,
        state=state,
        since_unix_s=since,
        handshake_unix_s=held.handshake_unix_s if held else None,
        known_unix_s=choice.known.get(endpoint),
    )
