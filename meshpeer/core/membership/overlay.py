"""The overlay: which links to keep. Links are few, the ledger is whole.

Up to nine nodes everybody is linked to everybody. Above that a node wants its first living neighbour on
either side of each ring, and two random members that change slowly: degree 8 to 10, which keeps a thousand
nodes within four hops. A neighbour that can't be dialled or is dead is stepped over, and tried again later:
it may dial itself. Both ends of a ring link derive it, so nobody closes what the other end wants.

Links outside this are kept for whoever asked lately (jobs, probes on behalf of others), and cost no place.
What is beyond the cap and wanted by neither end is closed once it is not young any more: a seed is dialled
by everyone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.ids import MeshId, NodeId
from meshpeer.core.membership.rings import RINGS, Rings, rings_of

FULL_MESH_MAX = 9
"""Nodes, this one included, that are all linked to each other."""
RANDOM_LINKS = 2
RANDOM_FIRST_S = 10.0
"""Random members are drawn once this node has had time to hear of all: those that it hears of first are the
same few for everybody."""
RANDOM_EVERY_S = 300.0
"""One random link is exchanged for another this often."""
DEGREE_MAX = 16
"""Links beyond it are closed, unless an end wants them or asked for them lately."""
YOUNG_S = 10.0
"""A link younger than this is left alone: who dialled a seed needs it until it has others."""
CLOSING_S = 2.0
"""How long it takes at most until a link that may be closed is."""
NEEDED_S = 60.0
"""A link on demand is kept so long after its last use."""
TRIED_S = 5.0
"""The same where it only serves to see whether somebody answers."""
NEEDED_MAX = 64
DECLINED_S = 120.0
"""Who closed a link because it has enough is not drawn again for this long."""
SKIP_FIRST_S = 5.0
SKIP_MAX_S = 300.0
"""A neighbour that can't be dialled is stepped over for this long at first, and at most."""
HEAL_EVERY_S = 10.0
"""How often a dead member is dialled, in case it is a partition that ended."""
SKIPS_MAX = 4_096


class Dice(Protocol):
    def random(self) -> float: ...


@dataclass(slots=True)
class _Skip:
    """A member that could not be dialled: until when it is stepped over, and how often in a row."""

    until_s: float
    times: int


@dataclass(slots=True)
class Overlay:
    """Decides whom to keep links to. Sans-IO."""

    me: NodeId
    mesh: MeshId
    dice: Dice
    _members: tuple[NodeId, ...] = ()
    _rings: Rings = field(default_factory=lambda: Rings(MeshId(b""), ()))
    _up: dict[NodeId, float] = field(default_factory=dict)
    """Since when there is a link."""
    _dead: dict[NodeId, None] = field(default_factory=dict)
    _skips: dict[NodeId, _Skip] = field(default_factory=dict)
    _needed: dict[NodeId, float] = field(default_factory=dict)
    _random: list[NodeId] = field(default_factory=list)
    _declined: dict[NodeId, float] = field(default_factory=dict)
    _draw_from_s: float | None = None
    _exchange_at_s: float | None = None
    _heal_at_s: float | None = None
    _healing: NodeId | None = None
    _next_s: float | None = None
    """When what ``wanted`` or ``surplus`` last said may change by time alone."""

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Members known, this node among them or not yet."""
        return len(self._members)

    def observers(self, subject: NodeId) -> tuple[NodeId, ...]:
        """Returns who may observe a member, in id order."""
        return self._rings.observers(subject)

    def entitled(self, observer: NodeId, subject: NodeId) -> bool:
        return self._rings.entitled(observer, subject)

    def settled(self, now: Instant) -> int:
        """Counts the links that the cap is about: past their youth, and not kept for anybody's sake."""
        late_s = now.mono_s - YOUNG_S - CLOSING_S
        return sum(1 for peer, since_s in self._up.items() if since_s <= late_s and peer not in self._needed)

    def next_deadline(self) -> Deadline | None:
        return earliest(
            Deadline(self._next_s, "look at links") if self._next_s is not None else None,
            Deadline(self._exchange_at_s, "exchange a random link") if self._exchange_at_s else None,
            Deadline(self._heal_at_s, "dial a dead member") if self._heal_at_s else None,
        )

    # --- events ---------------------------------------------------------------------------------------------

    def set_members(self, members: tuple[NodeId, ...], now: Instant) -> None:
        """Sets who is in, in id order, this node among them. Cheap where it is the same tuple."""
        if members is self._members:
            return
        self._members = members
        self._rings = rings_of(self.mesh, members)
        for gone in [one for one in (*self._dead, *self._skips, *self._random) if not self._is_in(one)]:
            self._dead.pop(gone, None)
            self._skips.pop(gone, None)
            if gone in self._random:
                self._random.remove(gone)
        if self._heal_at_s is None:
            self._heal_at_s = now.mono_s + HEAL_EVERY_S * self.dice.random()
            self._exchange_at_s = now.mono_s + RANDOM_EVERY_S * (0.5 + self.dice.random())
            self._draw_from_s = now.mono_s + RANDOM_FIRST_S * (0.75 + 0.5 * self.dice.random())

    def on_up(self, peer: NodeId, now: Instant) -> None:
        self._up[peer] = now.mono_s
        self._skips.pop(peer, None)
        self._declined.pop(peer, None)
        self._dead.pop(peer, None)
        if self._healing == peer:
            self._healing = None

    def on_down(self, peer: NodeId) -> None:
        self._up.pop(peer, None)

    def on_declined(self, peer: NodeId, now: Instant) -> None:
        """The other end has enough links, and does not want this one: another random member takes its place.

        A neighbour closes no link unless it has nearer ones: whoever was stepped over for it is tried again.
        """
        self._declined[peer] = now.mono_s + DECLINED_S
        if peer in self._random:
            self._random.remove(peer)
            return
        for skip in self._skips.values():
            skip.until_s = min(skip.until_s, now.mono_s)

    def on_unreachable(self, node: NodeId, now: Instant) -> None:
        """A dial failed: the next on the ring takes its place for a while."""
        self._needed.pop(node, None)
        if self._healing == node:
            self._healing = None
        if len(self._skips) >= SKIPS_MAX and node not in self._skips:
            return
        times = self._skips[node].times + 1 if node in self._skips else 0
        pause_s = min(SKIP_MAX_S, SKIP_FIRST_S * 2.0**times) * (0.75 + 0.5 * self.dice.random())
        self._skips[node] = _Skip(now.mono_s + pause_s, times)

    def on_opinion(self, node: NodeId, *, dead: bool) -> None:
        if dead:
            self._dead[node] = None
        else:
            self._dead.pop(node, None)

    def need(self, node: NodeId, now: Instant, for_s: float = NEEDED_S) -> None:
        """Keeps (or opens) a link for a while, outside the degree."""
        if node != self.me and (node in self._needed or len(self._needed) < NEEDED_MAX):
            self._needed[node] = max(self._needed.get(node, 0.0), now.mono_s + for_s)

    def workers(self) -> list[NodeId]:
        """Returns the members that an owner of jobs links to, nearest on the first ring first: another owner
        takes others."""
        found: list[NodeId] = []
        for node in self._rings.after(0, self.me):
            if node not in self._dead:
                found.append(node)
            if len(found) >= NEEDED_MAX:
                break
        return found

    def tick(self, now: Instant) -> bool:
        """Lets time pass; says whether it changed whom to be linked to."""
        changed = self._next_s is not None and now.mono_s >= self._next_s
        if changed:
            self._next_s = None
        if self._exchange_at_s is not None and now.mono_s >= self._exchange_at_s:
            self._exchange_at_s = now.mono_s + RANDOM_EVERY_S * (0.5 + self.dice.random())
            if self._random:
                self._random.pop(0)
                changed = True
        if self._heal_at_s is not None and now.mono_s >= self._heal_at_s:
            self._heal_at_s = now.mono_s + HEAL_EVERY_S * (0.75 + 0.5 * self.dice.random())
            changed = self._heal() or changed
        return changed

    # --- decisions ------------------------------------------------------------------------------------------

    def wanted(self, now: Instant) -> tuple[NodeId, ...]:
        """Returns whom to keep or open links to, in id order."""
        self._needed = {node: until for node, until in self._needed.items() if until > now.mono_s}
        self._declined = {node: until for node, until in self._declined.items() if until > now.mono_s}
        self._expire_skips(now)
        self._draw(now)
        chosen = {**self._neighbours(now), **dict.fromkeys(self._random), **self._needed}
        if self._healing is not None:
            chosen[self._healing] = None
        self._plan_look(now)
        return tuple(sorted(node for node in chosen if node != self.me and self._is_in(node)))

    def surplus(self, now: Instant) -> list[NodeId]:
        """Returns whose links to close: beyond the cap, not young, wanted by neither end."""
        excess = len(self._up) - DEGREE_MAX
        if excess <= 0 or len(self._members) <= FULL_MESH_MAX:
            return []
        wanted = self._neighbours(now)
        spare = [
            peer
            for peer, since_s in self._up.items()
            if peer not in wanted
            and peer not in self._random
            and peer not in self._needed
            and now.mono_s >= since_s + YOUNG_S
        ]
        return sorted(spare, key=lambda peer: (self._up[peer], peer))[:excess]

    # --- rules ----------------------------------------------------------------------------------------------

    def _neighbours(self, now: Instant) -> dict[NodeId, object]:
        if len(self._members) <= FULL_MESH_MAX:
            return dict.fromkeys(self._members)
        chosen: dict[NodeId, object] = {}
        for ring in range(RINGS):
            for walk in (self._rings.after(ring, self.me), self._rings.before(ring, self.me)):
                first = next((node for node in walk if self._is_usable(node, now)), None)
                if first is not None:
                    chosen[first] = None
        return chosen

    def _is_usable(self, node: NodeId, now: Instant) -> bool:
        if node in self._up:
            return True
        if self._declined.get(node, now.mono_s) > now.mono_s:
            return False
        skip = self._skips.get(node)
        return node not in self._dead and (skip is None or now.mono_s >= skip.until_s)

    def _expire_skips(self, now: Instant) -> None:
        """A neighbour is tried again after its pause; how often it failed is remembered while it is tried."""
        for node, skip in list(self._skips.items()):
            if now.mono_s >= skip.until_s + SKIP_MAX_S or node in self._up:
                del self._skips[node]

    def _draw(self, now: Instant) -> None:
        if self._draw_from_s is None or now.mono_s < self._draw_from_s:
            return
        self._random = [one for one in self._random if one not in self._dead and one not in self._skips]
        usable = len(self._members) - len(self._dead)
        tries = 0
        while len(self._random) < RANDOM_LINKS and usable > FULL_MESH_MAX and tries < 16:
            tries += 1
            node = self._members[int(self.dice.random() * len(self._members))]
            taken = (self.me, *self._random, *self._declined)
            if node not in taken and node not in self._dead and node not in self._skips:
                self._random.append(node)

    def _heal(self) -> bool:
        """Picks a dead member to dial with probability min(1, dead/alive): a partition that ended is found
        within seconds, and a mesh with one dead member hardly notices."""
        dead = sorted(one for one in self._dead if self._is_in(one))
        self._healing = None
        if not dead:
            return False
        alive = max(1, len(self._members) - len(dead))
        if self.dice.random() >= len(dead) / alive:
            return False
        self._healing = dead[int(self.dice.random() * len(dead))]
        self._skips.pop(self._healing, None)
        return True

    def _plan_look(self, now: Instant) -> None:
        waits = [skip.until_s for skip in self._skips.values() if skip.until_s > now.mono_s]
        waits += (*self._needed.values(), *self._declined.values())
        if self._draw_from_s is not None and now.mono_s < self._draw_from_s:
            waits.append(self._draw_from_s)
        if len(self._up) > DEGREE_MAX and len(self._members) > FULL_MESH_MAX:
            young = [since_s + YOUNG_S for since_s in self._up.values() if since_s + YOUNG_S > now.mono_s]
            waits += young
        self._next_s = min(waits, default=None)

    def _is_in(self, node: NodeId) -> bool:
        return self._rings.holds(node)
