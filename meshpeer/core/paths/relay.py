"""The desk of a relay: who has a reservation of two ports, for how long, and who gets none.

A reservation is for exactly two members, with the WireGuard keys that their records show. Either may ask
first, both get the same one, each its own port. It lasts as long as one of the two renews it and something
crosses, and ends at once when one of them leaves or changes its key. Nothing survives a restart: the ends
ask again. A relay that is to go, or may not go on, says so to all pairs, takes no new ones, and ends each
once it left, all after a while.

What crosses is decided by ``relay_crossing``; whether a pair uses a relay, by the pair. Ports that were given
back go to the end of the queue, so that what is still on its way to them meets nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import Send, Tick
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import NODE_ID_BYTES, NodeId, WireGuardKey
from meshpeer.core.paths.relay_binding import NO_BINDS, binding_secret
from meshpeer.core.paths.relay_bucket import Bucket
from meshpeer.core.paths.relay_messages import (
    CloseRelay,
    FreezeRelay,
    OpenRelay,
    Pair,
    RelayAsked,
    RelayCarried,
    RelayEffect,
    RelayEnd,
    RelayEvent,
    RelayFreed,
    RelayFreezeAsked,
    RelayLost,
    RelayMembersShown,
    RelayOpened,
    RelayRefusal,
    RelayRefused,
    RelayRenewed,
    RelayRequested,
    RelayWakeAsked,
    RelayWilling,
    RelayWoken,
    WakeRelay,
)
from meshpeer.core.paths.relay_states import RelayState
from meshpeer.core.paths.reservation import FREEZE_AHEAD_S, LEASE_S, Reservation
from meshpeer.core.paths.upgrade import MUTE_S

RETIRE_S_MAX = 10.0
"""How long a relay that retires serves those that don't leave it."""
LEFT_S = MUTE_S + 2.0
"""How long it keeps those that left: an end that missed the instant asks again every second, and one that
finds the new way mute has it woken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """What a relay gives away."""

    ports: tuple[int, ...] = tuple(range(51830, 51930))
    """UDP, two for each pair. None: it relays for nobody."""
    pairs_max: int = 50
    pairs_per_member_max: int = 8
    new_per_member_per_minute: int = 6


class RelayDesk:
    """Keeps the reservations of one relay. Two doors: ``handle`` and ``next_deadline``."""

    def __init__(self, me: NodeId, limits: RelayLimits, counters: Counters, *, bind_key: bytes = b"") -> None:
        """``bind_key``: 32 random bytes, from which the secrets follow that ends bind with; without, none
        can."""
        self._me = me
        self._bind_key = bind_key
        self._made = 0
        """Reservations, ever."""
        self._retires_s: float | None = None
        """When all that is left ends; None while this node lends."""
        self._limits = limits
        self._counters = counters
        self._free: deque[int] = deque(dict.fromkeys(limits.ports))
        self._members: dict[NodeId, WireGuardKey] = {}
        self._coming: dict[NodeId, WireGuardKey] = {}
        self._held: dict[Pair, Reservation] = {}
        self._asking: dict[NodeId, Bucket] = {}
        """How many new reservations a member may still make; only of those that made some of late."""

    @property
    def reservations(self) -> Sequence[Reservation]:
        """All that are held, for ``status``."""
        return tuple(self._held.values())

    def handle(self, event: RelayEvent, now: Instant) -> list[RelayEffect]:
        match event:
            case RelayRequested(peer=peer, message=message):
                return self._on_requested(peer, message, now)
            case RelayMembersShown(members=members, coming=coming):
                return self._on_members(members, coming)
            case RelayWilling(willing=willing):
                return self._on_willing(willing, now)
            case RelayOpened(ports=ports):
                return self._on_opened(ports, now)
            case RelayLost(ports=ports):
                return self._on_lost(ports)
            case RelayCarried():
                return self._on_carried(event, now)
            case Tick():
                return self._on_tick(now)
            case _:
                assert_never(event)

    def next_deadline(self) -> Deadline | None:
        """Returns when the next reservation runs out."""
        return earliest(*(Deadline(self._ends_s(one), "free a relay's ports") for one in self._held.values()))

    def check(self) -> None:
        """Raises ``InvariantBroken`` where ports are lost or lent twice, or a quota is exceeded."""
        lent = [port for one in self._held.values() for port in one.ports]
        if sorted([*lent, *self._free]) != sorted(set(self._limits.ports)):
            raise InvariantBroken(f"ports lent {lent}, free {list(self._free)}")
        if len(self._held) > self._limits.pairs_max:
            raise InvariantBroken(f"{len(self._held)} reservations")
        for pair, one in self._held.items():
            if tuple(self._members.get(end) for end in pair) != one.keys:
                raise InvariantBroken(f"ports {one.ports} are lent to who is no member")
            if max(map(self._share, pair)) > self._limits.pairs_per_member_max:
                raise InvariantBroken(f"an end of ports {one.ports} has too many")

    # --- what ends say --------------------------------------------------------------------------------------

    def _on_requested(
        self,
        peer: NodeId,
        message: RelayAsked | RelayRenewed | RelayFreezeAsked | RelayWakeAsked | RelayFreed,
        now: Instant,
    ) -> list[RelayEffect]:
        pair = message.pair
        if not is_pair(pair) or peer not in pair or self._me in pair:
            # The name of no pair is not repeated to who sent it: it has any length.
            return [] if not is_pair(pair) else self._refuse(peer, pair, RelayRefusal.PAIR)
        held = self._held.get(pair)
        if isinstance(message, RelayAsked):
            return self._on_asked(peer, message, held, now)
        if held is None:
            # An end that gives back what it has no more is content.
            return [] if isinstance(message, RelayFreed) else self._refuse(peer, pair, RelayRefusal.UNKNOWN)
        match message:
            case RelayRenewed():
                return self._renew(peer, held, now)
            case RelayFreed(reason=reason):
                other = pair[0] if peer == pair[1] else pair[1]
                if reason == RelayEnd.WITHDRAWN and held.is_wanted_by(other, now):
                    held.asked.pop(peer, None)
                    return [] if held.state is RelayState.OPENING else [self._grant(held, other, now)]
                return self._end(held, RelayEnd.ASKED, tell=(other,))
            case RelayFreezeAsked(to=to):
                return self._on_freeze_asked(peer, held, to, now)
            case RelayWakeAsked():
                return self._on_wake_asked(held, now)
            case _:
                assert_never(message)

    def _on_asked(
        self, peer: NodeId, message: RelayAsked, held: Reservation | None, now: Instant
    ) -> list[RelayEffect]:
        pair = message.pair
        if held is not None:
            held.planned = held.planned or message.planned
            held.asked[peer] = now.mono_s
            held.expires_s = now.mono_s + LEASE_S
            # Who begins asks, the other end follows: both hear of it each time.
            return [] if held.state is RelayState.OPENING else self._grant_both(held, now)
        refusal = self._refusal(peer, pair, now)
        if refusal is not None:
            return self._refuse(peer, pair, refusal)
        ports = (self._free.popleft(), self._free.popleft())
        keys = (self._members[pair[0]], self._members[pair[1]])
        self._made += 1
        binds = NO_BINDS
        if self._bind_key:
            first, second = (binding_secret(self._bind_key, self._made, side) for side in (0, 1))
            binds = (first, second)
        held = self._held[pair] = Reservation(
            pair=pair,
            keys=keys,
            ports=ports,
            state=RelayState.OPENING,
            expires_s=now.mono_s + LEASE_S,
            used_s=now.mono_s,
            coming=self._coming_of(pair),
            binds=binds,
            asked={peer: now.mono_s},
            planned=message.planned,
        )
        more = [held.rekey()] if held.coming != (None, None) else []
        return [OpenRelay(ports=ports, keys=keys, binds=binds), *more]

    def _refusal(self, peer: NodeId, pair: Pair, now: Instant) -> RelayRefusal | None:
        limits = self._limits
        if not limits.ports:
            return RelayRefusal.CLOSED
        if self._retires_s is not None:
            return RelayRefusal.RETIRING
        if not all(one in self._members for one in pair):
            return RelayRefusal.MEMBER
        if len(self._held) >= limits.pairs_max or len(self._free) < 2:
            return RelayRefusal.FULL
        if max(map(self._share, pair)) >= limits.pairs_per_member_max:
            return RelayRefusal.SHARE
        self._asking = {
            node: bucket
            for node, bucket in self._asking.items()
            if node in self._members and not bucket.is_full(now.mono_s)
        }
        burst = limits.new_per_member_per_minute
        bucket = self._asking.setdefault(peer, Bucket(burst / 60.0, burst))
        return None if bucket.take(1.0, now.mono_s) else RelayRefusal.OFTEN

    def _renew(self, peer: NodeId, held: Reservation, now: Instant) -> list[RelayEffect]:
        held.expires_s = now.mono_s + LEASE_S
        if peer in held.asked:
            held.asked[peer] = now.mono_s
        # Both ends are told once the ports are open.
        return [] if held.state is RelayState.OPENING else [self._grant(held, peer, now)]

    def _on_freeze_asked(self, peer: NodeId, held: Reservation, to: bytes, now: Instant) -> list[RelayEffect]:
        if held.state is RelayState.FROZEN:
            return [held.frozen(peer, now)]
        if len(to) not in (0, NODE_ID_BYTES):
            return []
        held.ready[peer] = (now.mono_s, to)
        if held.state is not RelayState.OPEN or not held.are_ready(to, now):
            return []
        held.move_to(RelayState.FROZEN)
        held.ready.clear()
        held.used_s, held.frozen_at_s, held.frozen_to = now.mono_s, now.mono_s + FREEZE_AHEAD_S, to
        told = [held.frozen(end, now) for end in held.pair]
        return [FreezeRelay(ports=held.ports, at_s=held.frozen_at_s), *told]

    def _on_wake_asked(self, held: Reservation, now: Instant) -> list[RelayEffect]:
        if held.state is not RelayState.FROZEN:
            return []
        held.move_to(RelayState.OPEN)
        held.used_s = now.mono_s
        told = [Send(peer=end, message=RelayWoken(pair=held.pair)) for end in held.pair]
        return [WakeRelay(ports=held.ports), *told]

    # --- what else happens ----------------------------------------------------------------------------------

    def _on_members(
        self,
        members: Iterable[tuple[NodeId, WireGuardKey]],
        coming: Iterable[tuple[NodeId, WireGuardKey]],
    ) -> list[RelayEffect]:
        self._members = {node: key for node, key in members if node != self._me}
        self._coming = dict(coming)
        effects: list[RelayEffect] = []
        for held in list(self._held.values()):
            left = [end for end in held.pair if end not in self._members]
            if left:
                here = [end for end in held.pair if end not in left]
                effects += self._end(held, RelayEnd.LEFT, tell=here)
            else:
                effects += self._follow_keys(held)
        return effects

    def _follow_keys(self, held: Reservation) -> list[RelayEffect]:
        """Lets an end change over to the key that it announced; one that shows another key begins anew."""
        keys = (self._members[held.pair[0]], self._members[held.pair[1]])
        ends = zip(held.keys, keys, held.coming, strict=True)
        if any(key not in (before, announced) for before, key, announced in ends):
            return self._end(held, RelayEnd.KEY, tell=held.pair)
        coming = self._coming_of(held.pair)
        if (held.keys, held.coming) == (keys, coming):
            return []
        held.keys, held.coming = keys, coming
        return [held.rekey()]

    def _coming_of(self, pair: Pair) -> tuple[WireGuardKey | None, WireGuardKey | None]:
        return (self._coming.get(pair[0]), self._coming.get(pair[1]))

    def _on_willing(self, willing: bool, now: Instant) -> list[RelayEffect]:
        if willing == (self._retires_s is None):
            return []
        self._retires_s = None if willing else now.mono_s + RETIRE_S_MAX
        effects: list[RelayEffect] = []
        for held in list(self._held.values()):
            if held.state is not RelayState.OPENING:
                effects += self._grant_both(held, now)
            elif not willing:
                effects += self._end(held, RelayEnd.RETIRED, tell=())
                for end in held.pair:
                    effects += self._refuse(end, held.pair, RelayRefusal.RETIRING)
        return effects

    def _on_opened(self, ports: tuple[int, int], now: Instant) -> list[RelayEffect]:
        held = self._by_ports(ports)
        if held is None or held.state is not RelayState.OPENING:
            return []
        held.move_to(RelayState.OPEN)
        held.used_s = now.mono_s
        self._counters.add(Counter.RELAYS_GRANTED)
        return self._grant_both(held, now)

    def _on_lost(self, ports: tuple[int, int]) -> list[RelayEffect]:
        held = self._by_ports(ports)
        if held is None:
            return []
        if held.state is not RelayState.OPENING:
            return self._end(held, RelayEnd.LOST, tell=held.pair)
        effects = self._end(held, RelayEnd.LOST, tell=())
        for end in held.pair:
            effects += self._refuse(end, held.pair, RelayRefusal.PORT)
        return effects

    def _on_carried(self, event: RelayCarried, now: Instant) -> list[RelayEffect]:
        held = self._by_ports(event.ports)
        if held is None:
            return []
        if event.packets > held.packets:
            held.packets, held.used_s = event.packets, now.mono_s
        if event.drops > held.drops:
            self._counters.add(Counter.RELAY_DROPS, event.drops - held.drops)
            held.drops = event.drops
        return []

    def _on_tick(self, now: Instant) -> list[RelayEffect]:
        effects: list[RelayEffect] = []
        for held in list(self._held.values()):
            if now.mono_s >= held.expires_s:
                effects += self._end(held, RelayEnd.EXPIRED, tell=held.pair)
            elif now.mono_s >= held.ends_s:
                effects += self._end(held, RelayEnd.IDLE, tell=held.pair)
            elif now.mono_s >= self._ends_s(held):
                effects += self._end(held, RelayEnd.RETIRED, tell=held.pair)
        return effects

    # --- steps ----------------------------------------------------------------------------------------------

    def _end(self, held: Reservation, reason: RelayEnd, *, tell: Iterable[NodeId]) -> list[RelayEffect]:
        held.move_to(RelayState.CLOSED)
        del self._held[held.pair]
        self._free.extend(held.ports)
        said = RelayFreed(pair=held.pair, reason=reason.value)
        return [CloseRelay(ports=held.ports), *(Send(peer=end, message=said) for end in tell)]

    def _ends_s(self, held: Reservation) -> float:
        """Returns when a reservation ends, unless something happens before."""
        if self._retires_s is None:
            return held.ends_s
        left_s = held.frozen_at_s + LEFT_S if held.state is RelayState.FROZEN else float("inf")
        return min(held.ends_s, self._retires_s, left_s)

    def _grant(self, held: Reservation, end: NodeId, now: Instant) -> Send:
        return held.grant(end, now, retires=self._retires_s is not None)

    def _grant_both(self, held: Reservation, now: Instant) -> list[RelayEffect]:
        return [self._grant(held, end, now) for end in held.pair]

    def _refuse(self, peer: NodeId, pair: Pair, reason: RelayRefusal) -> list[RelayEffect]:
        self._counters.add(Counter.RELAYS_REFUSED)
        return [Send(peer=peer, message=RelayRefused(pair=pair, reason=reason.value))]

    def _share(self, node: NodeId) -> int:
        return sum(node in pair for pair in self._held)

    def _by_ports(self, ports: tuple[int, int]) -> Reservation | None:
        return next((one for one in self._held.values() if one.ports == ports), None)


def is_pair(pair: Pair) -> bool:
    """Says whether these are the names of two members, in the order in which a pair has them."""
    return len(pair[0]) == len(pair[1]) == NODE_ID_BYTES and pair[0] < pair[1]
