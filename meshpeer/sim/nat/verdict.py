"""The verdict on a mix: whether pairs reach each other by the best way that theory allows, how soon they
settle, and whether they stay.

What counts is where the packets of a tunnel come from, as each end sees it: that is the path, whatever
anybody believes. A *change* is a packet from somewhere else than the one before it. Around what happens (the
boot, a router's reboot, ...) pairs that it touches may change for a bounded time, and each so many times;
beyond that any change is a violation, and so is a pair that has another way than theory allows, or none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from meshpeer.sim.nat.hosts import Host
from meshpeer.sim.nat.mixes import Way, best_way
from meshpeer.sim.nat.routers import End, text_of
from meshpeer.sim.nat.world import MixWorld

BOOT_BOUND_S, EVENT_BOUND_S = 150.0, 150.0
"""Within which pairs have settled."""
CHANGES_MAX = 6
"""How often one end may hear its peer from another place after one event, and as often again once that is
over: to a relay, to another one or back, and on to a way of the pair's own, each with a packet that was still
on its way from the place before."""
HEARD_S = 75.0
"""A tunnel that works is heard within this, by both ends; or once the other end is asked to send
something. Of two whose keepalives have one interval the one whose timer ends first sends all of them, for as
long as a session lasts: what it sends puts off the other's (WireGuard's timer counts packets of both
directions)."""
ASKS, ASK_S = 3, 1.0
"""How often, and how long an answer may take."""
RELAY_PORTS = range(51830, 51930)
HOPS_MAX = 3
"""Two that have no tunnel reach each other over one or two hubs."""
VIOLATIONS_KEPT = 200

Place = tuple[int, int]
"""Who hears whom, by index."""


@dataclass(slots=True)
class Trouble:
    """Something that happened, and whose pairs it touches."""

    name: str
    at_s: float
    hosts: frozenset[int]
    until_s: float = 0.0
    """When it ended; it touches pairs until then, and for as long as they may need."""
    places: frozenset[Place] = frozenset()
    """Pairs that went through one of these hosts."""
    changes: dict[Place, int] = field(default_factory=dict)
    """How often each changed that this excuses."""

    def touches(self, place: Place) -> bool:
        return place[0] in self.hosts or place[1] in self.hosts or place in self.places


@dataclass(slots=True)
class Settled:
    """How one pair's one end came to rest after something."""

    place: Place
    after: str
    took_s: float


@dataclass(slots=True)
class Verdict:
    """Watches one world; fed by ``heard``, asked by ``look``."""

    world: MixWorld = field(init=False)
    sources: dict[Place, End] = field(default_factory=dict)
    heard_s: dict[Place, float] = field(default_factory=dict)
    changed_s: dict[Place, float] = field(default_factory=dict)
    """When each was last heard from another place than before, or for the first time."""
    late: dict[Place, int] = field(default_factory=dict)
    """Changes that nothing excuses."""
    troubles: list[Trouble] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    ways: dict[tuple[Way, Way | None], int] = field(default_factory=dict)
    """At the last look: pairs by what theory allows and what they have."""
    carried: int = 0
    """At the last look: ordered pairs without a tunnel of their own, whose packets go by hubs."""
    violations: list[str] = field(default_factory=list)

    def heard(self, host: Host, peer: Host, source: End) -> None:
        place, now_s = (host.index, peer.index), self.world.heap.now_s
        before, self.sources[place] = self.sources.get(place), source
        self.heard_s[place] = now_s
        if before == source:
            return
        self.changed_s[place] = now_s
        if before is not None and not self._excused(place, now_s):
            self.late[place] = self.late.get(place, 0) + 1
            self._violate(f"{self._name(place)}: from {text_of(before)} to {text_of(source)}")

    def happened(self, trouble: Trouble) -> None:
        """Something happens now. What went through its hosts' relays is touched, too."""
        lent = {(self.world.hosts[index].machine.v4 or (None, ""))[1] for index in trouble.hosts} | {
            (self.world.hosts[index].machine.v6 or (None, ""))[1] for index in trouble.hosts
        }
        through = {
            place for place, end in self.sources.items() if end.port in RELAY_PORTS and end.host in lent
        }
        trouble.places = frozenset(through | {(peer, host) for host, peer in through})
        self.troubles.append(trouble)

    def ask(self) -> bool:
        """Has all send something whom their peers have not heard of late; says whether there was anybody."""
        asked = False
        for host in self.world.hosts:
            for other in self.world.planned(host):
                place, sender = (host.index, other.index), other.interface
                if sender is not None and not self._is_heard(place, self.world.heap.now_s):
                    sender.keep_alive(host.key)
                    asked = True
        return asked

    def look(self, after: Trouble) -> None:
        """Judges all pairs, once what happened is to be over."""
        now_s = self.world.heap.now_s
        hosts = self.world.hosts
        lenders = [one.machine for one in hosts if one.seat.lends and not one.machine.asleep]
        self.ways = {}
        for host in hosts:
            for other in self.world.planned(host):
                place = (host.index, other.index)
                if host.machine.asleep or other.machine.asleep:
                    continue
                best = best_way(host.machine, other.machine, lenders)
                way = self._way(place, now_s)
                self.ways[best, way] = self.ways.get((best, way), 0) + 1
                if (way or Way.LINK) is not best:
                    has = way or "nothing"
                    self._violate(f"{self._name(place)}: has {has}, could have {best}, after {after.name}")
                changed_s = self.changed_s.get(place)
                if changed_s is not None and changed_s >= after.at_s and after.touches(place):
                    self._settle(place, after, changed_s)
        self._look_over_hubs(after, now_s)

    def _look_over_hubs(self, after: Trouble, now_s: float) -> None:
        """Follows packets of all who have no tunnel to each other, from interface to interface: each pair
        that is out of reach is a violation."""
        up = [one for one in self.world.hosts if one.interface is not None and one.machine.udp]
        up = [one for one in up if not one.machine.asleep]
        self.carried = 0
        for host in up:
            own = {one.index for one in self.world.planned(host)}
            for other in up:
                if other is host or other.index in own:
                    continue
                self.carried += 1
                if not self._is_reached(host, other, now_s):
                    self._violate(f"{self._name((other.index, host.index))} by no hub, after {after.name}")

    def _is_reached(self, host: Host, other: Host, now_s: float) -> bool:
        """Says whether routes lead there, by tunnels that both ends heard of late."""
        address = f"10.10.0.{other.index + 2}/32"
        for _ in range(HOPS_MAX):
            peer = host.interface.routes.get(address) if host.interface is not None else None
            if peer is None:
                return False
            following = self.world.by_key[peer.key]
            if self._way((host.index, following.index), now_s) is None:
                return False
            if following is other:
                return True
            host = following
        return False

    def _settle(self, place: Place, after: Trouble, changed_s: float) -> None:
        """Notes how long a pair took; one of a host that was away, since that was back."""
        away = after.until_s if place[0] in after.hosts or place[1] in after.hosts else 0.0
        since_s = max(after.at_s, away if changed_s >= away else 0.0)
        self.settled.append(Settled(place, after.name, changed_s - since_s))

    def _way(self, place: Place, now_s: float) -> Way | None:
        if not all(self._is_heard(one, now_s) for one in (place, (place[1], place[0]))):
            return None
        return Way.RELAY if self.sources[place].port in RELAY_PORTS else Way.DIRECT

    def _is_heard(self, place: Place, now_s: float) -> bool:
        return now_s < self.heard_s.get(place, float("-inf")) + HEARD_S

    def _excused(self, place: Place, now_s: float) -> bool:
        """Counts a change for what happened last of what excuses it; says whether that may excuse it."""
        for one in reversed(self.troubles):
            if now_s < max(one.at_s, one.until_s) + EVENT_BOUND_S and one.touches(place):
                one.changes[place] = one.changes.get(place, 0) + 1
                ends = 2 if one.until_s > one.at_s else 1
                return one.changes[place] <= CHANGES_MAX * ends
        return False

    def _violate(self, what: str) -> None:
        if len(self.violations) < VIOLATIONS_KEPT:
            self.violations.append(f"{self.world.heap.now_s:.1f} s: {what}")

    def _name(self, place: Place) -> str:
        host, peer = (self.world.hosts[index] for index in place)
        return (
            f"{host.seat.machine.name} ({host.seat.kind}) hears {peer.seat.machine.name} ({peer.seat.kind})"
        )
