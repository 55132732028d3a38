"""Moves: how a pair that has traffic goes from its own tunnel to hubs, or from hubs to a tunnel of its own.

An address has one owner per interface, checked on receive, too: while two ends disagree, both directions
drop. So where the plan gives a pair another path than the one it is on, the pair stays, and both ends move
within one message of each other:

- Each end says when it is *ready* (``MoveOffered``). From a tunnel to hubs: the hub's tunnel works, and the
  pair's own has carried nothing for a while, so what is in use stays where it is. From hubs to a tunnel: that
  tunnel has a handshake.
- Of two that are ready, the one with the higher id moves when it hears so, and says so (``Moved``); the other
  moves when it hears that. What is on its way in between is lost, nothing else.

Pairs of a hub go first, whatever they carry: others' traffic is to pass there. Back to tunnels they go last.
Nothing is held where there is nothing to lose: a peer that is new, doubted, or restarted, or whose path
carries nothing any more, has what the plan gives it at once.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.topology.mode import REGIONAL
from meshpeer.core.topology.plan import NOTHING_HELD, Held, Routes
from meshpeer.core.topology.view import MemberView
from meshpeer.core.wgconf.model import ObservedPeer, tunnel_works

MOVES_AT_ONCE = 16
"""So many pairs ask for a link to settle their move at a time."""
OFFER_EVERY_S = 10.0
SETTLE_S = 2.0
"""A plan that was derived just now may be derived anew with the next fact."""
LOOK_EVERY_S = 2.0
"""How often a pair that is not ready is looked at."""
TELL_S = 60.0
"""How long an end that moved a held pair alone says so."""
KEEPALIVE_BYTES, HANDSHAKE_BYTES = 64, 300
"""What an idle tunnel carries, both ways: an empty packet each way per interval; 148, 92 and 32 bytes each
way every two minutes (WireGuard whitepaper, section 5.4)."""
HANDSHAKE_EVERY_S = 120.0


class MoveOffered(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="move"):
    """The sender's plan moves this pair, and whether it could do so now."""

    direct: bool
    """To a tunnel of its own; else to hubs."""
    ready: bool


class Moved(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="moved"):
    """The sender has this pair where the receiver's plan wants it."""

    direct: bool


MoveMessage = MoveOffered | Moved
MOVE_FRAMES = (MoveOffered, Moved)


class Waits(enum.Enum):
    """What a pair waits for before it moves."""

    SETTLING = "settling"
    """The plan is a moment old."""
    HUB = "hub"
    """The tunnel to the hub that shall carry it does not work yet."""
    TUNNEL = "tunnel"
    """The pair's own tunnel has no handshake yet."""
    PAIR_OF_HUB = "pair of hub"
    """Another pair goes first, of which the hub is one end."""
    TRAFFIC = "traffic"
    """Its tunnel carried something a moment ago."""
    OTHER_END = "other end"
    """Nothing here: the other end has not agreed yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """A pair of this node that is not where the plan wants it."""

    direct: bool
    """It goes to a tunnel of its own; else to hubs."""
    waits: Waits
    idle_s: float | None
    """For how long its own tunnel has carried nothing; None where nobody has looked."""


@dataclass(slots=True)
class _Pair:
    """One pair that is not where the plan wants it."""

    direct: bool
    """Where it goes."""
    incarnation: int
    since_s: float
    waits: Waits = Waits.SETTLING
    offered: bool | None = None
    """What was said last of being ready."""
    offered_at_s: float = float("-inf")
    idle_since_s: float = float("-inf")
    bytes_then: int = 0

    @property
    def ready(self) -> bool:
        return self.waits is Waits.OTHER_END


@dataclass(slots=True)
class _Alone:
    """A pair that was held, and that this end moved by itself."""

    direct: bool
    until_s: float
    said_at_s: float = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What moves depend on besides the routes."""

    tunnel: Callable[[NodeId], ObservedPeer | None]
    """What the interface shows of a member's tunnel."""
    keepalive_s: int
    idle_s: int


class Moves:
    """Keeps, for each member, by whose tunnel it is reached. Sans-IO."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self._carriers: dict[NodeId, NodeId | None] = {}
        """Whose tunnel leads to each member; itself where it has its own."""
        self._pairs: dict[NodeId, _Pair] = {}
        self._alone: dict[NodeId, _Alone] = {}
        """Pairs that this end moved without the other's word: it may hold them still."""

    @property
    def pending(self) -> Collection[NodeId]:
        """Returns the members whose pair with this node has not moved yet."""
        return self._pairs.keys()

    def stay(self, node: NodeId, now: Instant) -> Stay | None:
        """Returns why a member's pair with this node has not moved; None where it has."""
        pair = self._pairs.get(node)
        if pair is None:
            return None
        idle_s = now.mono_s - pair.idle_since_s if pair.idle_since_s > float("-inf") else None
        return Stay(direct=pair.direct, waits=pair.waits, idle_s=idle_s)

    def update(self, routes: Routes, around: Surroundings, now: Instant) -> Held:
        """Takes new routes; returns which pairs stay where they are."""
        members = {one.node: one for one in routes.members}
        for node in [node for node in self._carriers if node not in members]:
            del self._carriers[node]
            self._pairs.pop(node, None)
        self._alone = {
            node: one
            for node, one in self._alone.items()
            if node in members and node not in self._pairs and now.mono_s < one.until_s
        }
        for member in members.values():
            self._place(member, routes, around, now)
        held = self._held()
        for node, pair in self._pairs.items():
            pair.waits = self._waits_for(members[node], pair, members, routes, around, now)
        self._follow(routes, held)
        return held

    def offers(self, linked: Callable[[NodeId], bool], now: Instant) -> list[tuple[NodeId, MoveMessage]]:
        """Returns what to say to whom: what changed, and from time to time again."""
        said: list[tuple[NodeId, MoveMessage]] = []
        for node, pair in self._pairs.items():
            due = pair.offered is not pair.ready or now.mono_s >= pair.offered_at_s + OFFER_EVERY_S
            if due and linked(node):
                said.append((node, self._offer(pair, now)))
        for node, one in self._alone.items():
            if now.mono_s >= one.said_at_s + OFFER_EVERY_S and linked(node):
                one.said_at_s = now.mono_s
                said.append((node, Moved(direct=one.direct)))
        return said

    def links_wanted(self) -> list[NodeId]:
        """Returns whom a link is needed to; those that waited longest."""
        ready = [(pair.offered_at_s, node) for node, pair in self._pairs.items() if pair.ready]
        return [*self._alone, *(node for _, node in sorted(ready))][:MOVES_AT_ONCE]

    def on_link(self, node: NodeId) -> None:
        """A new link: the peer may have moved meanwhile."""
        if node in self._pairs:
            self._pairs[node].offered = None
        if node in self._alone:
            self._alone[node].said_at_s = float("-inf")

    def on_message(self, peer: NodeId, message: MoveMessage, now: Instant) -> MoveMessage | None:
        """Returns the answer. Where a pair moved (``pending`` has it no more), the plan is to be made
        anew."""
        pair = self._pairs.get(peer)
        if pair is None:
            here = peer in self._carriers and (self._carriers[peer] == peer) is message.direct
            if here:
                self._alone.pop(peer, None)
            return Moved(direct=message.direct) if here and isinstance(message, MoveOffered) else None
        if pair.direct is not message.direct:
            return None
        match message:
            case Moved():
                self._move(peer)
                return None
            case MoveOffered(ready=ready):
                if not (ready and pair.ready):
                    return None
                if self._me > peer:
                    self._move(peer)
                    return Moved(direct=pair.direct)
                return self._offer(pair, now)

    def next_deadline(self, now: Instant) -> Deadline | None:
        waits = self._pairs or self._alone
        return Deadline(now.mono_s + LOOK_EVERY_S, "a pair has to move") if waits else None

    # --- rules ----------------------------------------------------------------------------------------------

    def _place(self, member: MemberView, routes: Routes, around: Surroundings, now: Instant) -> None:
        """Lets one pair have what the plan gives it, or holds it where it is."""
        node, known = member.node, member.node in self._carriers
        carrier = self._carriers.get(node)
        to_direct = node in routes.adjacent
        wanted = routes.carriers()[node]
        if not known or carrier == wanted or (carrier != node and not to_direct):
            self._settle(node, wanted)
            return
        pair = self._pairs.get(node)
        if pair is None or pair.direct is not to_direct:
            pair = _Pair(direct=to_direct, incarnation=member.incarnation, since_s=now.mono_s)
        works = tunnel_works(around.tunnel(node), now.unix_s)
        kept = self._is_carried(member, carrier, routes) if to_direct else works
        if member.doubted or member.incarnation != pair.incarnation or not kept:
            if node in self._pairs:
                # The other end may be well, and hold the pair still: both directions drop until it hears.
                self._alone[node] = _Alone(to_direct, now.mono_s + TELL_S)
            self._settle(node, wanted)
        else:
            self._pairs[node] = pair

    def _is_carried(self, member: MemberView, carrier: NodeId | None, routes: Routes) -> bool:
        """Says whether hubs still carry a pair that is to have a tunnel, as both its ends see it: in a
        regional mesh another takes over, in a full one nobody does; and nobody stands between two hubs."""
        if routes.mine is None:
            return False
        hub = routes.by_hub(member)
        if hub in (None, member.node, self._me) or all(map(routes.carries, (self._me, member.node))):
            return False
        return routes.mode == REGIONAL or hub == carrier

    def _settle(self, node: NodeId, carrier: NodeId | None) -> None:
        self._carriers[node] = carrier
        self._pairs.pop(node, None)

    def _move(self, node: NodeId) -> None:
        pair = self._pairs.pop(node)
        self._carriers[node] = node if pair.direct else None

    def _held(self) -> Held:
        direct = frozenset(node for node, pair in self._pairs.items() if not pair.direct)
        carried = frozenset(node for node, pair in self._pairs.items() if pair.direct)
        return Held(direct=direct, carried=carried) if self._pairs else NOTHING_HELD

    def _follow(self, routes: Routes, held: Held) -> None:
        """Remembers the hubs that carry what has no tunnel now."""
        for node, carrier in routes.carriers(held).items():
            if self._carriers.get(node) != node:
                self._carriers[node] = carrier

    def _waits_for(
        self,
        member: MemberView,
        pair: _Pair,
        members: dict[NodeId, MemberView],
        routes: Routes,
        around: Surroundings,
        now: Instant,
    ) -> Waits:
        if now.mono_s < pair.since_s + SETTLE_S:
            return Waits.SETTLING
        own = around.tunnel(member.node)
        if pair.direct:
            waiting = {
                routes.home(members[node])
                for node, one in self._pairs.items()
                if one.direct and not routes.carries(node)
            }
            if not tunnel_works(own, now.unix_s):
                return Waits.TUNNEL
            return Waits.PAIR_OF_HUB if member.node in waiting else Waits.OTHER_END
        hub = routes.by_hub(member)
        if hub is None or not tunnel_works(around.tunnel(hub), now.unix_s):
            return Waits.HUB
        if routes.carries(self._me) or routes.carries(member.node):
            return Waits.OTHER_END
        there = self._pairs.get(routes.home(member) or member.node)
        if there is not None and there is not pair:
            return Waits.PAIR_OF_HUB
        return Waits.OTHER_END if self._is_idle(pair, own, around, now) else Waits.TRAFFIC

    @staticmethod
    def _is_idle(pair: _Pair, own: ObservedPeer | None, around: Surroundings, now: Instant) -> bool:
        """Says whether a tunnel has carried nothing but its own upkeep for a while."""
        if own is None:
            return True
        carried = own.rx_bytes + own.tx_bytes
        for_s = now.mono_s - pair.idle_since_s
        upkeep = HANDSHAKE_BYTES * (1 + for_s / HANDSHAKE_EVERY_S)
        if around.keepalive_s:
            upkeep += KEEPALIVE_BYTES * (1 + for_s / around.keepalive_s)
        if carried < pair.bytes_then or carried - pair.bytes_then > upkeep or for_s == float("inf"):
            pair.idle_since_s, pair.bytes_then = now.mono_s, carried
            return around.idle_s == 0
        return for_s >= around.idle_s

    @staticmethod
    def _offer(pair: _Pair, now: Instant) -> MoveOffered:
        pair.offered, pair.offered_at_s = pair.ready, now.mono_s
        return MoveOffered(direct=pair.direct, ready=pair.ready)
