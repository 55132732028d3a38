"""Successors: what this node makes of the next WireGuard keys that its peers announce.

A next key counts where nobody else has it, so that no member gets at the tunnel of another by announcing that
one's key. The interface lets it in, the peer is told so, and from the moment on at which it shakes hands with
the next key, or its record shows it as its own, both keys are one tunnel to everybody who looks at it: the
last handshake of either, the sum of what they carried. So nothing that watches tunnels sees an end of one and
the beginning of another.

While a peer changes over the interface is looked at often, in order to follow it at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.node.messages import Applied
from meshpeer.core.node.roster import Listed
from meshpeer.core.node.rotation import KeyTurns
from meshpeer.core.wgconf.model import ObservedDevice, ObservedPeer
from meshpeer.core.wgconf.succession import has_taken_over, joined_peer

LOOK_S = 0.5
"""How often the interface is looked at while a peer has announced a next key,"""
LOOKS_FOR_S = 60.0
"""for so long after that was heard. The regular looks go on,"""
LOOKS_EVERY_S = 600.0
"""and a peer that announces another key within so long has no more of these looks."""
TURN_LOOK_S = 0.08
"""And how often while a peer said that it is changing over,"""
TURN_AHEAD_S, TURN_LOOKS_FOR_S = 0.05, 3.0
"""from so long before its instant, for so long."""
TURN_MS_MAX = 5_000
TURN_EVERY_S = 10.0
"""A peer's word that it changes over counts at most so often."""
TELL_EVERY_S = 2.0
BRIDGE_S = 10.0
"""So long the last handshake of the key before vouches for one that has not shaken hands yet."""


@dataclass(slots=True)
class _Span:
    """What a peer makes others look, whatever keys it announces meanwhile."""

    since_s: float
    """When it announced the first of them."""
    heard_s: float = float("-inf")
    """When its word that it changes over last counted."""


@dataclass(slots=True)
class _Heir:
    """A peer's next key, as it was announced."""

    key: WireGuardKey
    span: _Span
    told_s: float = float("-inf")
    """When the peer was last told that it is let in."""
    turns_at_s: float = float("-inf")
    """When it said that it changes over."""


@dataclass(slots=True)
class _Base:
    """What the key before the present one has carried."""

    seen: ObservedPeer
    until_s: float


@dataclass(slots=True)
class Successors:
    """Of one node. Sans-IO."""

    heirs: dict[NodeId, _Heir] = field(default_factory=dict)
    followed: dict[WireGuardKey, WireGuardKey] = field(default_factory=dict)
    """The key before, by the present one, of peers that changed over."""
    _members: tuple[Listed, ...] = ()
    _own: Set[WireGuardKey] = frozenset()
    _announced: dict[NodeId, WireGuardKey] = field(default_factory=dict)
    """The next keys that count, of these members beside these keys of this node."""
    _keys: dict[NodeId, WireGuardKey] = field(default_factory=dict)
    _spans: dict[NodeId, _Span] = field(default_factory=dict)
    """Of members that announced a next key lately, whether they still do or not."""
    _bases: dict[WireGuardKey, _Base] = field(default_factory=dict)
    _raw: dict[WireGuardKey, ObservedPeer] | None = None
    """What the interface holds, by the keys that it has; None where there is none."""
    _olds: dict[WireGuardKey, ObservedPeer] = field(default_factory=dict)
    """The same by the keys that records show, without what next keys carried."""
    _looked_s: float = float("-inf")

    def of(self, node: NodeId) -> WireGuardKey | None:
        """Returns the next key of a member, where it counts."""
        heir = self.heirs.get(node)
        return heir.key if heir else None

    def in_use(self, node: NodeId, key: WireGuardKey) -> WireGuardKey:
        """Returns the key by which the interface knows a member's tunnel: its next one from the first
        handshake on, before the record says so; else ``key``, which the record shows."""
        heir = self.heirs.get(node)
        taken = heir is not None and has_taken_over((self._raw or {}).get(heir.key))
        return heir.key if heir is not None and taken else key

    # --- events ---------------------------------------------------------------------------------------------

    def follow(
        self,
        members: tuple[Listed, ...],
        peers: Mapping[NodeId, WireGuardKey],
        own: Set[WireGuardKey],
        now: Instant,
    ) -> list[tuple[WireGuardKey, WireGuardKey]]:
        """Takes what members show; ``peers`` are those with a tunnel, with their keys, and ``own`` this
        node's keys. Returns who changed over, as the key before and the one now."""
        if members is not self._members or own != self._own:
            self._members, self._own = members, frozenset(own)
            self._announced = next_keys(members, own)
        moved: list[tuple[WireGuardKey, WireGuardKey]] = []
        for node, key in peers.items():
            before, heir = self._keys.get(node), self.heirs.get(node)
            if before is not None and before != key and heir is not None and heir.key == key:
                moved.append((before, key))
                self.followed[key] = before
                if before in self._olds:
                    self._bases[key] = _Base(self._olds[before], now.mono_s + BRIDGE_S)
        self._keys = dict(peers)
        present = set(peers.values())
        self._bases = {key: base for key, base in self._bases.items() if key in present}
        self.followed = {key: before for key, before in self.followed.items() if key in present}
        self._spans = {
            node: span for node, span in self._spans.items() if now.mono_s < span.since_s + LOOKS_EVERY_S
        }
        heirs: dict[NodeId, _Heir] = {}
        for node, key in self._announced.items():
            if node in peers:
                held = self.heirs.get(node)
                if held is None or held.key != key:
                    held = _Heir(key, self._spans.setdefault(node, _Span(now.mono_s)))
                heirs[node] = held
        self.heirs = heirs
        return moved

    def on_observed(self, device: ObservedDevice | None, now: Instant) -> None:
        """Takes what the interface holds; None: there is none."""
        self._looked_s = now.mono_s
        self._raw = {peer.public_key: peer for peer in device.peers} if device else None
        if device is None:
            self._bases.clear()
            for heir in self.heirs.values():
                heir.told_s = float("-inf")

    def held(self, now: Instant) -> dict[WireGuardKey, ObservedPeer]:
        """Returns the peers of the interface by the keys that records show, two that are one tunnel
        joined."""
        raw = self._raw or {}
        held = dict(raw)
        for key, base in self._bases.items():
            peer = raw.get(key)
            if peer is not None and (has_taken_over(peer) or now.mono_s < base.until_s):
                held[key] = joined_peer(base.seen, peer)
        self._olds = dict(held)
        for node, heir in self.heirs.items():
            mine, peer = self._keys.get(node), raw.get(heir.key)
            if mine is not None and mine in held and peer is not None and has_taken_over(peer):
                held[mine] = joined_peer(held[mine], peer)
        return held

    def on_link(self, node: NodeId) -> None:
        """A new link: tell the peer again that its next key is let in."""
        if node in self.heirs:
            self.heirs[node].told_s = float("-inf")

    def on_turns(self, node: NodeId, message: KeyTurns, now: Instant) -> None:
        """A peer says that it is about to change over."""
        heir = self.heirs.get(node)
        if heir is None or heir.key != message.key or now.mono_s < heir.span.heard_s + TURN_EVERY_S:
            return
        heir.span.heard_s = now.mono_s
        heir.turns_at_s = now.mono_s + min(max(message.in_ms, 0), TURN_MS_MAX) / 1000

    def words(self, mine: WireGuardKey, now: Instant) -> list[tuple[NodeId, Applied]]:
        """Returns whom to tell that the interface holds its next key: again and again, since a link may
        break under the word."""
        words: list[tuple[NodeId, Applied]] = []
        for node, heir in self.heirs.items():
            if now.mono_s >= heir.told_s + TELL_EVERY_S and heir.key in (self._raw or {}):
                heir.told_s = now.mono_s
                words.append((node, Applied(receiver_key=heir.key, sender_key=mine)))
        return words

    # --- when to look ---------------------------------------------------------------------------------------

    def is_due(self, now: Instant) -> bool:
        """Says whether the interface is to be looked at; that counts as done then."""
        at_s = self._next_look_s(now)
        if at_s is None or now.mono_s < at_s:
            return False
        self._looked_s = now.mono_s
        return True

    def next_deadline(self, now: Instant) -> Deadline | None:
        at_s = self._next_look_s(now)
        return None if at_s is None else Deadline(at_s, "a peer changes its WireGuard key")

    def _next_look_s(self, now: Instant) -> float | None:
        times_s = [at_s for heir in self.heirs.values() if (at_s := self._look_of(heir, now)) is not None]
        return min(times_s, default=None)

    def _look_of(self, heir: _Heir, now: Instant) -> float | None:
        if has_taken_over((self._raw or {}).get(heir.key)):
            return None
        begins_s = heir.turns_at_s - TURN_AHEAD_S
        if now.mono_s < heir.turns_at_s + TURN_LOOKS_FOR_S:
            return max(begins_s, self._looked_s + TURN_LOOK_S)
        if now.mono_s < heir.span.since_s + LOOKS_FOR_S:
            return self._looked_s + LOOK_S
        return None


def next_keys(members: Collection[Listed], own: Collection[WireGuardKey]) -> dict[NodeId, WireGuardKey]:
    """Returns the next keys that count, by node: those that nobody has, of several who announce one key that
    of whoever was admitted first."""
    announcing = [one for one in members if one.record.next_wireguard_key and one.record.wireguard_port]
    if not announcing:
        return {}
    taken = {one.record.wireguard_key for one in members}.union(own)
    found: dict[NodeId, WireGuardKey] = {}
    for one in sorted(announcing, key=lambda one: one.rank):
        key = WireGuardKey(one.record.next_wireguard_key)
        if key not in taken:
            taken.add(key)
            found[one.node] = key
    return {node: found[node] for node in sorted(found)}
