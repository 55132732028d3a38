"""Bindings: shows relays that lend ports to this node's pairs where it is, from WireGuard's own port, or asks
whether these ports are reached.

One endpoint of a relay at a time for each pair, named by its owner (``aim``). A question goes there again and
again, often at first; an answer vouches that the way leads there and back and, unless it was a check, that
the relay takes this end to be where it is. ``relay_binding`` has the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.probe_desk import ProbeHeard, SendProbe
from meshpeer.core.paths.probe_packets import join_endpoint, split_endpoint
from meshpeer.core.paths.probes import AGAIN_S, GAPS_S
from meshpeer.core.paths.relay_binding import (
    Binding,
    BindingKind,
    is_binding,
    read_binding,
    write_binding,
)

PEERS_MAX = 64
"""Pairs at once; who comes later waits."""
OPEN_MAX = 4
"""Questions of one pair that may still be answered."""


class Place(NamedTuple):
    """A port that a relay lends to an end, what that one seals with, and what it asks."""

    endpoint: str
    secret: bytes
    kind: BindingKind = BindingKind.QUESTION


@dataclass(slots=True)
class _Aim:
    place: Place
    source: str
    """Its endpoint, as it is written of what comes from there."""
    due_s: float
    sent: int = 0
    open: tuple[int, ...] = ()
    """Stamps of questions that were not answered."""
    answered_s: float | None = None


class Bindings:
    """Of one node. Sans-IO."""

    def __init__(self) -> None:
        self.has_news = False
        """A relay answered for the first time since somebody took this back."""
        self._aims: dict[NodeId, _Aim] = {}
        self._stamp = 0

    def has_room(self, peer: NodeId) -> bool:
        """Says whether a relay of the pair with a peer can be asked now."""
        return peer in self._aims or len(self._aims) < PEERS_MAX

    def aim(self, peer: NodeId, place: Place | None, now: Instant) -> None:
        """Asks a relay of the pair with a peer from now on; None: it is left alone."""
        if place is None:
            self._aims.pop(peer, None)
            return
        held = self._aims.get(peer)
        if held is not None and held.place == place:
            return
        parts = split_endpoint(place.endpoint)
        if parts is not None and self.has_room(peer):
            self._aims[peer] = _Aim(place, join_endpoint(*parts), now.mono_s)

    def answered(self, peer: NodeId) -> tuple[str, float] | None:
        """Returns the endpoint that answered, and when it did so last (monotonic)."""
        aim = self._aims.get(peer)
        if aim is None or aim.answered_s is None:
            return None
        return aim.place.endpoint, aim.answered_s

    def on_heard(self, event: ProbeHeard, now: Instant) -> bool:
        """Takes a datagram; says whether it is one of these, be it good for something or not."""
        if not is_binding(event.data):
            return False
        for aim in self._aims.values():
            if aim.source != event.source:
                continue
            binding = read_binding(event.data, aim.place.secret)
            if binding is None or binding.kind is not BindingKind.ANSWER or binding.stamp not in aim.open:
                continue
            self.has_news = self.has_news or aim.answered_s is None
            aim.answered_s = now.mono_s
            aim.open = tuple(one for one in aim.open if one > binding.stamp)
        return True

    def tick(self, now: Instant) -> list[SendProbe]:
        """Returns the questions that are due."""
        sent: list[SendProbe] = []
        for aim in self._aims.values():
            if now.mono_s < aim.due_s:
                continue
            self._stamp = max(self._stamp + 1, int(now.unix_s * 1_000_000))
            aim.open = (*aim.open, self._stamp)[-OPEN_MAX:]
            often = aim.answered_s is None and aim.sent < len(GAPS_S)
            aim.due_s = now.mono_s + (GAPS_S[aim.sent] if often else AGAIN_S)
            aim.sent += 1
            data = write_binding(Binding(aim.place.kind, self._stamp), aim.place.secret)
            sent.append(SendProbe(endpoint=aim.source, data=data))
        return sent

    def next_deadline(self) -> Deadline | None:
        """Returns when a question is due; None where none will be."""
        due_s = min((one.due_s for one in self._aims.values()), default=None)
        return Deadline(due_s, "show a relay where this node is") if due_s is not None else None
