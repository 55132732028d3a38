"""Entries: peers on their way into the interface: who was told, when each is ready for an endpoint, and which
one it gets.

A peer enters the interface without an endpoint as soon as its record is known: so its packets are answered.
It gets endpoint and keepalive once it said that its interface holds this node's key (``Applied``), or after a
while without such a word, when no link carries one. Of two that both said so, the higher id waits a moment:
two initiations that cross each other lose both answers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.node.messages import Applied
from meshpeer.core.paths.endpoints import Candidate, EndpointChoice, Source
from meshpeer.core.wgconf.model import ObservedPeer

UNCONFIRMED_READY_S = 3.0
"""A peer that no link reaches is taken for ready after this long."""
EARLY_WORDS_MAX = 256
PRIVATE_WAITS_S = 2.5
"""A tunnel whose peer is known by private addresses of other networks alone waits so long for word of where
others see it: an initiation to nobody keeps WireGuard from the next for REKEY_TIMEOUT, 5 s."""
SECOND_WAITS_S = 0.3
"""How long the higher id leaves the first initiation to the lower: a long round trip. A side that gets an
initiation while its own is on the way answers it and forgets its own, so where both do, both wait for
REKEY_TIMEOUT (the WireGuard paper, section 6.1; measured: 3 of 10 fresh tunnels on one LAN)."""


@dataclass(slots=True)
class Entry:
    """One peer."""

    node: NodeId
    second_waits_s: float
    """How long this end leaves the first initiation to the other."""
    ready_at_s: float
    told: bool = False
    choice: EndpointChoice = field(default_factory=EndpointChoice)
    held_back: bool = False
    """It waited, or waits, for an endpoint that leads somewhere."""
    hastened: bool = False
    """Such a one came."""

    def is_ready(self, ranked: tuple[Candidate, ...], now: Instant) -> bool:
        """Says whether the peer is to have an endpoint. ``ranked``: those that are known, best first."""
        best = ranked[0].source if ranked else None
        if best is Source.PRIVATE and now.mono_s >= self.ready_at_s and not self.held_back:
            self.held_back = True
            self.ready_at_s = now.mono_s + PRIVATE_WAITS_S
        if best is Source.REFLECTED and not self.hastened:
            # What comes too early the peer's router drops, as it would later; it lets the peer's own in then.
            self.hastened = True
            self.ready_at_s = min(self.ready_at_s, now.mono_s + self.second_waits_s)
        if now.mono_s >= self.ready_at_s:
            return True
        self.choice.candidates = tuple(one.endpoint for one in ranked)
        return False

    def endpoint(
        self,
        candidates: tuple[str, ...],
        observed: ObservedPeer | None,
        now: Instant,
        *,
        mute: bool = False,
        idle: tuple[str, ...] = (),
    ) -> str | None:
        """Returns the endpoint to set: see ``EndpointChoice.update``."""
        if observed is None:
            return self.choice.update(candidates, 0, now, idle=idle)
        shaken_s = observed.latest_handshake_unix_s
        return self.choice.update(candidates, shaken_s, now, observed.endpoint, mute=mute, idle=idle)


class Entries:
    """Of one node. Sans-IO."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self._held: dict[WireGuardKey, Entry] = {}
        self._early: set[WireGuardKey] = set()
        """Whose word came before their record did: a joiner knows us first, and says so once."""

    def get(self, key: WireGuardKey) -> Entry | None:
        return self._held.get(key)

    @property
    def key_of(self) -> dict[NodeId, WireGuardKey]:
        """Returns the keys by node, in the order of keys."""
        return {entry.node: key for key, entry in sorted(self._held.items())}

    def enter(self, node: NodeId, key: WireGuardKey, now: Instant) -> Entry:
        """Returns the entry of a peer, from now on if it has none."""
        entry = self._held.get(key)
        if entry is None:
            second_waits_s = self._second_waits_s(node)
            wait_s = second_waits_s if key in self._early else UNCONFIRMED_READY_S
            self._early.discard(key)
            entry = self._held[key] = Entry(node, second_waits_s, now.mono_s + wait_s)
        return entry

    def keep(self, keys: Collection[WireGuardKey]) -> None:
        """Forgets all others."""
        for key in [key for key in self._held if key not in keys]:
            del self._held[key]

    def follow(self, before: WireGuardKey, key: WireGuardKey) -> None:
        """A peer went over to another key: it is the same peer."""
        entry = self._held.pop(before, None)
        if entry is not None:
            entry.told = False
            self._held[key] = entry
        self._early.discard(key)

    # --- words ----------------------------------------------------------------------------------------------

    def on_word(self, key: WireGuardKey, now: Instant) -> None:
        """A peer said that its interface holds this node's key."""
        entry = self._held.get(key)
        if entry is not None:
            entry.ready_at_s = min(entry.ready_at_s, now.mono_s + entry.second_waits_s)
        elif len(self._early) < EARLY_WORDS_MAX:
            self._early.add(key)

    def tell_again(self, node: NodeId | None = None) -> None:
        """A peer, or every one, is to be told anew."""
        for entry in self._held.values():
            if node in (None, entry.node):
                entry.told = False

    def words(
        self, there: Collection[WireGuardKey], own: WireGuardKey, now: Instant
    ) -> list[tuple[NodeId, Applied]]:
        """Returns what to tell peers whose keys the interface holds (``there``) and who have not been told.

        Who goes second waits from its own word on, too: the first begins when it hears that word, however
        late this interface was."""
        words: list[tuple[NodeId, Applied]] = []
        for key, entry in sorted(self._held.items()):
            if key in there and not entry.told:
                entry.told = True
                if entry.choice.chosen is None and self._me > entry.node:
                    entry.ready_at_s = max(entry.ready_at_s, now.mono_s + SECOND_WAITS_S)
                words.append((entry.node, Applied(receiver_key=key, sender_key=own)))
        return words

    # --- endpoints ------------------------------------------------------------------------------------------

    def take_moved(self) -> list[NodeId]:
        """Returns whose endpoints changed while their tunnels worked, since this was asked last."""
        moved = [entry.node for entry in self._held.values() if entry.choice.moved]
        for entry in self._held.values():
            entry.choice.moved = False
        return sorted(moved)

    def next_deadlines(self) -> list[Deadline | None]:
        waits = [
            Deadline(entry.ready_at_s, "a peer is ready for an endpoint")
            for entry in self._held.values()
            if entry.choice.chosen is None and entry.choice.candidates
        ]
        return [
            *waits,
            *(entry.choice.next_deadline() for entry in self._held.values() if entry.choice.chosen),
        ]

    def _second_waits_s(self, node: NodeId) -> float:
        return 0.0 if self._me < node else SECOND_WAITS_S
