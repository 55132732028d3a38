"""Why the path between two members is what it is, as one node can tell: from the facts for any two, and for
its own tunnels from what it saw.

What only others know (handshakes, endpoints that they tried, pairs that they hold back) is named as unknown,
never guessed.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from meshpeer.core.ids import NodeId
from meshpeer.core.membership.opinions import Opinion, State
from meshpeer.core.node.looks import TriedState, TunnelLook
from meshpeer.core.paths.endpoints import TRY_S
from meshpeer.core.topology.moves import Stay
from meshpeer.core.topology.plan import NOTHING_HELD, Held, MeshPlan, Routes
from meshpeer.core.topology.reasons import PathReason, follow, path_reasons
from meshpeer.core.topology.shape import Shape


class Verdict(enum.StrEnum):
    """What a path comes to, as far as it is known here."""

    DIRECT = "direct"
    """A tunnel of their own, with a fresh handshake."""
    HUBS = "hubs"
    """By hubs, and every tunnel on the way that is this node's own works."""
    PLANNED = "planned"
    """None of the tunnels is this node's own: only the plan is known here."""
    RELAY = "relay"
    """A tunnel of their own, whose packets a relay passes on."""
    LINK = "link"
    """No tunnel that works, but a control link."""
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoTunnelsReason:
    """A member has no tunnels at all."""

    node: NodeId
    key_taken: bool
    """It shows the WireGuard key of a member that was admitted before it; else it has no interface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StayReason:
    """A pair of this node is not where the plan wants it."""

    node: NodeId
    stay: Stay
    idle_s: int
    """For how long its own tunnel must have carried nothing before it moves to hubs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateReason:
    """A member on the way is not alive, in this node's opinion."""

    node: NodeId
    opinion: Opinion


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayReason:
    """A tunnel of this node goes by a relay, or is to; or would, if there were one."""

    node: NodeId
    relay: NodeId | None
    """The one in use."""
    asked: NodeId | None
    """The one that both ends have to ask for."""
    hopeless: bool
    """The routers of the two are why, as both records tell; else direct tries failed."""
    lenders: int
    """Relays that this node could ask."""
    shut: tuple[NodeId, ...] = ()
    """Those of them whose ports did not answer this node of late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkReason:
    """The control link of a pair does not go straight."""

    node: NodeId
    carrier: NodeId | None
    """The member that carries it; None for one through a port that a program of the user's forwards."""


Reason = PathReason | NoTunnelsReason | StayReason | StateReason | RelayReason | LinkReason


class Advice(enum.Enum):
    """What to do about a tunnel that does not work."""

    START = "start"
    """The peer seems to be down."""
    INTERFACE = "interface"
    """The interface does not hold the peer."""
    AWAIT_PEER = "await peer"
    """The peer has not said that it knows this node's key."""
    AWAIT_TRY = "await try"
    """The first endpoint has not had its time yet."""
    NAME_ENDPOINT = "name endpoint"
    """There is nothing to try."""
    OTHER_FAMILY = "other family"
    """One has IPv4 alone, the other IPv6 alone: no path is common to both."""
    PING = "ping"
    """It worked, and nothing keeps an idle tunnel going in this mesh."""
    OPEN_PORT = "open port"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer."""

    source: NodeId
    target: NodeId
    verdict: Verdict
    path: tuple[NodeId, ...]
    """From the source as far as the plans lead; empty where one of the two has no tunnels."""
    reasons: tuple[Reason, ...]
    looks: tuple[TunnelLook, ...]
    """This node's own tunnels on the way, and one to the other end that is still to come."""
    broken: NodeId | None
    """The far end of this node's own tunnel on the way that does not work."""
    advice: Advice | None
    unknown: tuple[tuple[NodeId, NodeId], ...]
    """The tunnels on the way that this node is no end of."""
    foreign: bool
    """This node is neither end: what they tried, and where they hold the pair for now, only they know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What one node knows at a moment."""

    me: NodeId
    shape: Shape
    plan: MeshPlan
    """Its own, derived from that."""
    shown_keys: frozenset[NodeId]
    """The members that show a WireGuard key; who of them is not in the view shows another's."""
    look: Callable[[NodeId], TunnelLook | None]
    stay: Callable[[NodeId], Stay | None]
    linked: Callable[[NodeId], bool]
    opinion: Callable[[NodeId], Opinion]
    idle_s: int
    unix_s: float
    relayed: Callable[[NodeId], RelayReason | None] = lambda _: None
    """Of this node's own tunnels."""
    carrier_of: Callable[[NodeId], NodeId | None] = lambda _: None
    """The member that carries this node's link to another."""
    forwarded: Callable[[NodeId], bool] = lambda _: False


def explain(known: Known, source: NodeId, target: NodeId) -> Explanation:
    """Explains the path between two different members."""
    there = {one.node for one in known.shape.view.members}
    ends = (source, target)
    without = [one for one in ends if one not in there]
    path = () if without else _path(known, source, target)
    legs = list(itertools.pairwise(path))
    mine = [_other(leg, known.me) for leg in legs if known.me in leg]
    looks = {node: known.look(node) for node in mine}
    broken = next((node for node in mine if not _works(looks[node])), None)
    peer = _other(ends, known.me) if known.me in ends else None
    stays = [(node, known.stay(node)) for node in dict.fromkeys([*mine, *([peer] if peer else [])])]
    relayed = [one for node in mine if (one := known.relayed(node)) is not None]
    held = [StayReason(node=node, stay=stay, idle_s=known.idle_s) for node, stay in stays if stay is not None]
    to_come = [one.node for one in held if one.stay.direct and one.node not in looks]
    shown = (*looks.values(), *(known.look(node) for node in to_come))
    complete = bool(path) and path[-1] == target and path[0] == source
    return Explanation(
        source=source,
        target=target,
        verdict=_verdict(
            known, ends, path, bool(mine), broken is None and complete, any(one.relay for one in relayed)
        ),
        path=path,
        reasons=(
            *(NoTunnelsReason(node=node, key_taken=node in known.shown_keys) for node in without),
            *(() if without else path_reasons(known.shape, source, target)),
            *held,
            *relayed,
            *_links(known, peer),
            *_states(known, path or ends),
        ),
        looks=tuple(look for look in shown if look is not None),
        broken=broken,
        advice=_advice(known, broken, looks[broken]) if broken is not None else None,
        unknown=tuple(leg for leg in legs if known.me not in leg),
        foreign=known.me not in ends,
    )


def _path(known: Known, source: NodeId, target: NodeId) -> tuple[NodeId, ...]:
    """Follows the plans, from this node where it is an end: its own is known with all exceptions."""
    held = known.plan.held or NOTHING_HELD
    mine = frozenset({known.me})

    def plan_of(node: NodeId) -> MeshPlan:
        if node == known.me:
            return known.plan
        both = Held(
            direct=mine if node in held.direct else frozenset(),
            carried=mine if node in held.carried else frozenset(),
        )
        return Routes(known.shape, node).plan(both, forwarded=bool(held.carried))

    if target != known.me:
        return follow(known.shape.view, source, target, plan_of)
    return tuple(reversed(follow(known.shape.view, target, source, plan_of)))


def _verdict(
    known: Known,
    ends: tuple[NodeId, NodeId],
    path: tuple[NodeId, ...],
    own_legs: bool,
    whole: bool,
    relayed: bool,
) -> Verdict:
    if whole and own_legs:
        if relayed and len(path) == 2:
            return Verdict.RELAY
        return Verdict.DIRECT if len(path) == 2 else Verdict.HUBS
    if whole:
        return Verdict.PLANNED
    linked = known.me in ends and known.linked(_other(ends, known.me))
    return Verdict.LINK if linked else Verdict.NONE


def _links(known: Known, peer: NodeId | None) -> list[LinkReason]:
    if peer is None:
        return []
    carrier = known.carrier_of(peer)
    odd = carrier is not None or known.forwarded(peer)
    return [LinkReason(node=peer, carrier=carrier)] if odd else []


def _states(known: Known, nodes: tuple[NodeId, ...]) -> list[StateReason]:
    opinions = [(node, known.opinion(node)) for node in nodes if node != known.me]
    return [StateReason(node=node, opinion=one) for node, one in opinions if one.state is not State.ALIVE]


def _advice(known: Known, peer: NodeId, look: TunnelLook | None) -> Advice:
    if known.opinion(peer).state is not State.ALIVE:
        return Advice.START
    if look is None or not look.installed:
        return Advice.INTERFACE
    if not look.ready:
        return Advice.AWAIT_PEER
    if look.apart:
        return Advice.OTHER_FAMILY
    if not look.candidates:
        return Advice.NAME_ENDPOINT
    if look.handshake_unix_s and not known.shape.view.keepalive_s:
        return Advice.PING
    tried = [one for one in look.candidates if one.state is not TriedState.UNTRIED]
    begun = [one.since_unix_s for one in tried if one.state is TriedState.TRYING and one.since_unix_s]
    first = len(tried) == len(begun) and all(known.unix_s - since < TRY_S for since in begun)
    return Advice.AWAIT_TRY if first and not look.handshake_unix_s else Advice.OPEN_PORT


def _works(look: TunnelLook | None) -> bool:
    return look is not None and look.works


def _other(pair: tuple[NodeId, NodeId], me: NodeId) -> NodeId:
    return pair[1] if pair[0] == me else pair[0]
