"""Liveness: who seems alive, as opinions with reasons.

Any frame proves life. Of a linked pair the lower id pings after 4 s of silence and the higher id after 6 s,
every second while in
doubt, with the time-out of RFC 6298 (srtt + 4 rttvar, at least 500 ms). A closed link is redialled at once by
``links``;
if nobody answers there the peer is suspected, and dead 3 s later (8 s where it just fell silent). A peer that
we have no
link to is alive as long as a linked peer vouches for it (``Sight``): that is said, with the voucher's name.

An opinion changes hubs, relays and steal victims. It never removes a WireGuard peer: only leave, expiry and
revocation do.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.messages import Ping, Pong, Sight

PING_AFTER_LOWER_S = 4.0
PING_AFTER_HIGHER_S = 6.0
PING_IN_DOUBT_S = 1.0
TIMEOUT_MIN_S = 0.5
TIMEOUT_FIRST_S = 1.0
"""Time-out before the first round trip is measured (RFC 6298, section 2.1)."""
CLOSED_DEAD_AFTER_S = 3.0
SILENT_DEAD_AFTER_S = 8.0
SIGHT_FRESH_S = 15.0
"""A voucher's word counts this long after it was last given; it is repeated every 5 s."""
SIGHT_INTERVAL_S = 5.0


class State(enum.StrEnum):
    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What this node thinks of a peer, since when, and why (or who says so)."""

    state: State
    since_unix_s: float
    because: str
    voucher: NodeId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PingPeer:
    """Effect: send this to the peer over its link."""

    peer: NodeId
    message: Ping | Pong | Sight


@dataclass(frozen=True, slots=True, kw_only=True)
class OpinionChanged:
    peer: NodeId
    opinion: Opinion


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkIsSilent:
    """Effect: the peer of this link answers no ping; close the link and dial anew."""

    peer: NodeId


LivenessEffect = PingPeer | OpinionChanged | LinkIsSilent


@dataclass(slots=True)
class _Peer:
    node: NodeId
    opinion: Opinion
    linked: bool = False
    heard_at_s: float = 0.0
    ping_at_s: float = 0.0
    """When the ping was sent that has no answer yet; 0 for none."""
    ping_number: int = 0
    missed: int = 0
    srtt_s: float = 0.0
    rttvar_s: float = 0.0
    doubt_at_s: float | None = None
    """When doubt began (link gone or a ping missed) and nothing has settled it."""
    dead_after_s: float = SILENT_DEAD_AFTER_S

    @property
    def timeout_s(self) -> float:
        return max(TIMEOUT_MIN_S, self.srtt_s + 4 * self.rttvar_s) if self.srtt_s else TIMEOUT_FIRST_S

    @property
    def awaited(self) -> bool:
        """Nothing at all was heard since the ping: under a bulk transfer its answer comes late, other frames
        don't."""
        return self.ping_at_s > 0 and self.ping_at_s >= self.heard_at_s


@dataclass(slots=True)
class Liveness:
    """Holds one opinion per member. Sans-IO."""

    me: NodeId
    _peers: dict[NodeId, _Peer] = field(default_factory=dict)
    _sights: dict[NodeId, tuple[float, frozenset[NodeId]]] = field(default_factory=dict)
    _sight_at_s: float = 0.0

    # --- reading --------------------------------------------------------------------------------------------

    def opinion(self, node: NodeId) -> Opinion | None:
        peer = self._peers.get(node)
        return peer.opinion if peer else None

    def rtt_s(self, node: NodeId) -> float | None:
        """Returns the smoothed round trip of the link, or None before the first measure."""
        peer = self._peers.get(node)
        return peer.srtt_s if peer and peer.linked and peer.srtt_s else None

    def heard_at_s(self, node: NodeId) -> float | None:
        peer = self._peers.get(node)
        return peer.heard_at_s if peer and peer.heard_at_s else None

    # --- events ---------------------------------------------------------------------------------------------

    def watch(self, nodes: list[NodeId], now: Instant) -> list[LivenessEffect]:
        """Sets whom to hold opinions of; a new one is doubted until something is heard of it.

        A peer whose link came before its record is kept for as long as the link is up.
        """
        for node in [
            peer.node for peer in self._peers.values() if peer.node not in nodes and not peer.linked
        ]:
            del self._peers[node]
        for node in nodes:
            if node not in self._peers and node != self.me:
                opinion = Opinion(
                    state=State.SUSPECT,
                    since_unix_s=now.unix_s,
                    because="not heard of since this agent started",
                )
                self._peers[node] = _Peer(node, opinion, doubt_at_s=now.mono_s)
        return self._judge_all(now)

    def on_up(self, node: NodeId, now: Instant) -> list[LivenessEffect]:
        peer = self._ensure(node, now)
        peer.linked = True
        effects = self._heard(peer, now, "linked")
        effects.append(self._ping(peer, now))
        return [*effects, *self._share_sight(now)]

    def on_down(self, node: NodeId, reason: str, now: Instant) -> list[LivenessEffect]:
        peer = self._peers.get(node)
        if peer is None:
            return []
        peer.linked = False
        peer.ping_at_s = 0.0
        peer.missed = 0
        self._sights.pop(node, None)
        if peer.doubt_at_s is None:
            peer.doubt_at_s = now.mono_s
            peer.dead_after_s = SILENT_DEAD_AFTER_S
        return [
            *self._judge(peer, now, f"link closed: {reason}"),
            *self._share_sight(now),
            *self._judge_all(now),
        ]

    def on_dial_failed(self, node: NodeId, refused: bool, now: Instant) -> list[LivenessEffect]:
        """A redial found nobody: a refusal says the host is there and the agent is not."""
        peer = self._peers.get(node)
        if peer is None or peer.linked:
            return []
        if refused:
            peer.dead_after_s = CLOSED_DEAD_AFTER_S
        return self._judge(peer, now, "redial refused" if refused else "redial unanswered")

    def on_heard(self, node: NodeId, now: Instant) -> list[LivenessEffect]:
        peer = self._peers.get(node)
        return self._heard(peer, now, "linked") if peer else []

    def on_ping(self, node: NodeId, ping: Ping) -> list[LivenessEffect]:
        return [PingPeer(peer=node, message=Pong(number=ping.number))]

    def on_pong(self, node: NodeId, pong: Pong, now: Instant) -> list[LivenessEffect]:
        peer = self._peers.get(node)
        if peer is None or pong.number != peer.ping_number or not peer.ping_at_s:
            return []
        _measure(peer, now.mono_s - peer.ping_at_s)
        peer.ping_at_s = 0.0
        return []

    def on_sight(self, node: NodeId, sight: Sight, now: Instant) -> list[LivenessEffect]:
        self._sights[node] = (now.mono_s, frozenset(sight.linked))
        return self._judge_all(now)

    def tick(self, now: Instant) -> list[LivenessEffect]:
        effects: list[LivenessEffect] = []
        for peer in list(self._peers.values()):
            if peer.linked:
                effects += self._probe(peer, now)
        for witness in [
            one for one, (said_at, _) in self._sights.items() if now.mono_s >= said_at + SIGHT_FRESH_S
        ]:
            del self._sights[witness]
        if now.mono_s >= self._sight_at_s + SIGHT_INTERVAL_S:
            effects += self._share_sight(now)
        return [*effects, *self._judge_all(now)]

    def next_deadline(self) -> Deadline | None:
        deadlines = (
            [Deadline(self._sight_at_s + SIGHT_INTERVAL_S, "share whom we see")] if self._peers else []
        )
        for peer in self._peers.values():
            if peer.linked:
                deadlines.append(Deadline(self._probe_at(peer), "ping"))
            elif peer.opinion.state is not State.DEAD and peer.doubt_at_s is not None:
                deadlines.append(Deadline(peer.doubt_at_s + peer.dead_after_s, "a suspicion ends"))
        for said_at, _ in self._sights.values():
            deadlines.append(Deadline(said_at + SIGHT_FRESH_S, "a voucher's word ends"))
        return min(deadlines, key=lambda one: one.at_s, default=None)

    # --- rules ----------------------------------------------------------------------------------------------

    def _probe_at(self, peer: _Peer) -> float:
        if peer.awaited:
            return peer.ping_at_s + (
                peer.timeout_s if peer.missed == 0 else max(PING_IN_DOUBT_S, peer.timeout_s)
            )
        return peer.heard_at_s + (PING_AFTER_LOWER_S if self.me < peer.node else PING_AFTER_HIGHER_S)

    def _probe(self, peer: _Peer, now: Instant) -> list[LivenessEffect]:
        if now.mono_s < self._probe_at(peer):
            return []
        if not peer.awaited:
            return [self._ping(peer, now)]
        peer.missed += 1
        if peer.doubt_at_s is None:
            peer.doubt_at_s = now.mono_s
            peer.dead_after_s = SILENT_DEAD_AFTER_S
        effects = [*self._judge(peer, now, "a ping went unanswered"), self._ping(peer, now)]
        if now.mono_s >= peer.doubt_at_s + peer.dead_after_s:
            effects.append(LinkIsSilent(peer=peer.node))
        return effects

    def _ping(self, peer: _Peer, now: Instant) -> PingPeer:
        peer.ping_number += 1
        peer.ping_at_s = now.mono_s
        return PingPeer(peer=peer.node, message=Ping(number=peer.ping_number))

    def _heard(self, peer: _Peer, now: Instant, because: str) -> list[LivenessEffect]:
        peer.heard_at_s = now.mono_s
        peer.doubt_at_s = None
        peer.missed = 0
        if peer.opinion.state is State.ALIVE and peer.opinion.voucher is None:
            return []
        return self._set(peer, State.ALIVE, now, because)

    def _judge_all(self, now: Instant) -> list[LivenessEffect]:
        return [effect for peer in list(self._peers.values()) for effect in self._judge(peer, now)]

    def _judge(self, peer: _Peer, now: Instant, because: str = "") -> list[LivenessEffect]:
        if peer.doubt_at_s is None:
            if peer.linked:
                return []
            peer.doubt_at_s = now.mono_s
        voucher = None if peer.linked else self._voucher(peer.node, now)
        if voucher is not None:
            peer.doubt_at_s = None
            if peer.opinion.state is State.ALIVE and peer.opinion.voucher == voucher:
                return []
            return self._set(peer, State.ALIVE, now, "another member has a link to it", voucher)
        if now.mono_s >= peer.doubt_at_s + peer.dead_after_s:
            if peer.opinion.state is State.DEAD:
                return []
            return self._set(peer, State.DEAD, now, because or peer.opinion.because)
        if peer.opinion.state is State.ALIVE:
            return self._set(peer, State.SUSPECT, now, because or "nobody has a link to it any more")
        return []

    def _voucher(self, node: NodeId, now: Instant) -> NodeId | None:
        for witness in sorted(self._sights):
            said_at, linked = self._sights[witness]
            if node in linked and now.mono_s < said_at + SIGHT_FRESH_S and witness != node:
                return witness
        return None

    def _share_sight(self, now: Instant) -> list[LivenessEffect]:
        self._sight_at_s = now.mono_s
        linked = sorted(peer.node for peer in self._peers.values() if peer.linked and peer.doubt_at_s is None)
        message = Sight(linked=tuple(linked))
        return [PingPeer(peer=peer.node, message=message) for peer in self._peers.values() if peer.linked]

    def _ensure(self, node: NodeId, now: Instant) -> _Peer:
        if node not in self._peers:
            opinion = Opinion(state=State.SUSPECT, since_unix_s=now.unix_s, because="not heard of before")
            self._peers[node] = _Peer(node, opinion)
        return self._peers[node]

    def _set(
        self, peer: _Peer, state: State, now: Instant, because: str, voucher: NodeId | None = None
    ) -> list[LivenessEffect]:
        since = peer.opinion.since_unix_s if state is peer.opinion.state else now.unix_s
        peer.opinion = Opinion(state=state, since_unix_s=since, because=because, voucher=voucher)
        return [OpinionChanged(peer=peer.node, opinion=peer.opinion)]


def _measure(peer: _Peer, sample_s: float) -> None:
    """Smooths the round trip as RFC 6298, section 2 does."""
    sample_s = max(sample_s, 1e-6)
    if not peer.srtt_s:
        peer.srtt_s, peer.rttvar_s = sample_s, sample_s / 2
        return
    peer.rttvar_s += (abs(peer.srtt_s - sample_s) - peer.rttvar_s) / 4
    peer.srtt_s += (sample_s - peer.srtt_s) / 8
