"""Mixes: which machines stand behind which routers, drawn by a seed, and what theory allows for a pair of
them.

Machines are open to the internet, behind routers of their own that map and filter one way or another, several
behind one, behind two, behind a carrier's, on IPv6 alone or on both, or where no UDP gets out. A mix draws
how many of each there are, and always has open ones enough to lend ports and to be hubs.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, field

from meshpeer.sim.nat.routers import Filtering, Machine, Mapping, Network, Router


class Kind(enum.StrEnum):
    OPEN = "open"
    OPEN_BOTH = "open, v4 and v6"
    KEEPING = "port-keeping"
    CONE = "lets all in"
    SYMMETRIC = "symmetric"
    SHARED = "one LAN"
    SHARED_SYMMETRIC = "one LAN, symmetric"
    DOUBLE = "double NAT"
    CARRIER = "carrier NAT"
    BOTH = "NAT and v6 firewall"
    V6_OPEN = "v6 only"
    V6_HOME = "v6 only, firewall"
    NO_UDP = "no UDP"


class Way(enum.StrEnum):
    """How two reach each other."""

    DIRECT = "direct"
    RELAY = "relay"
    LINK = "link"


WEIGHTS = {
    Kind.OPEN: 14,
    Kind.OPEN_BOTH: 8,
    Kind.KEEPING: 22,
    Kind.CONE: 6,
    Kind.SYMMETRIC: 12,
    Kind.SHARED: 8,
    Kind.SHARED_SYMMETRIC: 4,
    Kind.DOUBLE: 5,
    Kind.CARRIER: 7,
    Kind.BOTH: 7,
    Kind.V6_OPEN: 2,
    Kind.V6_HOME: 2,
    Kind.NO_UDP: 3,
}
OPEN_MIN, OPEN_BOTH_MIN = 3, 3
SMALL = 20
"""A mix of fewer has one and two of them."""
SILENT_SHARE = 0.1
"""Of mixes that are not small, those with a machine (one) where no UDP gets out."""
REGION_MEMBERS = 12
MAP_S = 0.08
"""Regions lie on a square of this side, in seconds of delay."""
LASTS_S = (60.0, 120.0, 300.0)
"""Of mappings; a keepalive goes every 25 s (RFC 4787 asks for two minutes at least)."""
LANS = ("192.168.0", "192.168.1", "192.168.178", "10.0.0")


@dataclass(slots=True, eq=False)
class Seat:
    """One machine of a mix."""

    kind: Kind
    machine: Machine
    region: str
    lends: bool = False
    router: Router | None = None
    """The one before it, of IPv4."""


@dataclass(slots=True)
class Mix:
    """All machines, and the internet between them."""

    seats: list[Seat] = field(default_factory=list)
    internet: Network = field(default_factory=lambda: Network("24"))
    internet6: Network = field(default_factory=lambda: Network("64"))
    dice: random.Random = field(default_factory=random.Random)
    _addresses: int = 0

    def public(self) -> str:
        """Returns an IPv4 address that nobody has, each on a network of its own."""
        self._addresses += 1
        return f"11.{self._addresses // 250}.{self._addresses % 250}.7"

    def public6(self) -> str:
        self._addresses += 1
        return f"2a0a:{self._addresses:x}::7"

    def home(
        self,
        mapping: Mapping,
        filtering: Filtering = Filtering.PORT,
        *,
        outside: Network | None = None,
        address: str = "",
        isolates: bool = False,
    ) -> Router:
        """Makes a router with a network behind it."""
        return Router(
            inside=Network("24", isolates=isolates),
            outside=outside or self.internet,
            address=address or self.public(),
            mapping=mapping,
            filtering=filtering,
            lasts_s=self.dice.choice(LASTS_S),
            hairpins=self.dice.random() < 0.3,
            draw=self.dice.random,
        )

    def firewall(self) -> Router:
        return Router(
            inside=Network("64"),
            outside=self.internet6,
            address="",
            mapping=Mapping.KEPT,
            filtering=Filtering.PORT,
            lasts_s=self.dice.choice(LASTS_S),
            hairpins=False,
            draw=self.dice.random,
        )


def draw_mix(seed: int, count: int) -> Mix:
    """Returns a mix of so many machines; one seed is one mix."""
    dice = random.Random(f"mix {seed}")
    mix = Mix(dice=dice)
    kinds = list(Kind)
    weights = [WEIGHTS[kind] * (0.3 + 1.4 * dice.random()) for kind in kinds]
    least = (1, 2) if count < SMALL else (OPEN_MIN, OPEN_BOTH_MIN)
    drawn = [Kind.OPEN] * least[0] + [Kind.OPEN_BOTH] * least[1]
    silent = count < SMALL or dice.random() < SILENT_SHARE
    if count >= SMALL:
        # Drawn by itself: one of them is enough, and the pairs of one never rest.
        weights[kinds.index(Kind.NO_UDP)] = 0.0
        drawn += [Kind.NO_UDP] * silent
    drawn += dice.choices(kinds, weights, k=count - len(drawn))
    dice.shuffle(drawn)
    regions = [
        (f"r{number}", MAP_S * dice.random(), MAP_S * dice.random())
        for number in range(max(1, round(count / REGION_MEMBERS)))
    ]
    shared: dict[Kind, list[Router]] = {}
    for number, kind in enumerate(drawn):
        region, x, y = dice.choice(regions)
        machine = Machine(f"n{number}", (x + 0.004 * dice.random(), y + 0.004 * dice.random()))
        seat = Seat(kind, machine, region)
        mix.seats.append(seat)
        _plug(mix, seat, shared)
    lenders = [one for one in mix.seats if one.kind in (Kind.OPEN, Kind.OPEN_BOTH)]
    both = [one for one in lenders if one.kind is Kind.OPEN_BOTH]
    for one in lenders:
        one.lends = one in both[:2] or dice.random() < 0.7
    return mix


def _plug(mix: Mix, seat: Seat, shared: dict[Kind, list[Router]]) -> None:
    dice, machine, kind = mix.dice, seat.machine, seat.kind
    if kind in (Kind.OPEN, Kind.OPEN_BOTH):
        machine.plug(mix.internet, mix.public())
    if kind in (Kind.OPEN_BOTH, Kind.V6_OPEN):
        machine.plug(mix.internet6, mix.public6())
    if kind in (Kind.V6_HOME, Kind.BOTH):
        machine.plug(mix.firewall().inside, mix.public6())
    match kind:
        case Kind.NO_UDP:
            machine.udp = False
            seat.router = mix.home(Mapping.ONE)
        case Kind.KEEPING | Kind.BOTH:
            seat.router = mix.home(Mapping.ONE)
        case Kind.CONE:
            seat.router = mix.home(Mapping.ONE, Filtering.NONE)
        case Kind.SYMMETRIC:
            seat.router = mix.home(Mapping.EACH)
        case Kind.SHARED | Kind.SHARED_SYMMETRIC:
            mapping = Mapping.ONE if kind is Kind.SHARED else Mapping.EACH
            seat.router = _shared(mix, kind, shared, mapping, isolates=False)
        case Kind.DOUBLE:
            outer = mix.home(Mapping.ONE)
            seat.router = mix.home(Mapping.ONE, outside=outer.inside, address="172.16.0.2")
        case Kind.CARRIER:
            mapping = dice.choice((Mapping.ONE, Mapping.ONE, Mapping.EACH))
            carrier = _shared(mix, kind, shared, mapping, isolates=True)
            inner = f"100.64.{len(carrier.inside.holders)}.2"
            if dice.random() < 0.5:
                # A telephone.
                machine.plug(carrier.inside, inner)
                seat.router = carrier
            else:
                seat.router = mix.home(Mapping.ONE, outside=carrier.inside, address=inner)
        case _:
            pass
    if seat.router is not None and machine.v4 is None:
        plug_home(mix, seat, seat.router)


def plug_home(mix: Mix, seat: Seat, router: Router) -> None:
    """Plugs a machine into the network behind a router."""
    held = router.inside.holders
    lan = next(iter(held)).rpartition(".")[0] if held else mix.dice.choice(LANS)
    number = 10 + mix.dice.randrange(200)
    while f"{lan}.{number}" in held:
        number += 1
    seat.machine.plug(router.inside, f"{lan}.{number}")
    seat.router = router


def _shared(
    mix: Mix, kind: Kind, shared: dict[Kind, list[Router]], mapping: Mapping, *, isolates: bool
) -> Router:
    """Returns a router that others may stand behind: two or three each."""
    held = shared.setdefault(kind, [])
    if not held or len(held[-1].inside.holders) >= 2 + (mix.dice.random() < 0.5):
        held.append(mix.home(mapping, isolates=isolates))
    return held[-1]


# --- theory -------------------------------------------------------------------------------------------------


def best_way(one: Machine, other: Machine, lenders: list[Machine]) -> Way:
    """Returns the best way that two could have. ``lenders`` are those that could relay now."""
    if not (one.udp and other.udp):
        return Way.LINK
    if any(_meet(one, other, version) for version in (6, 4)):
        return Way.DIRECT
    for lender in lenders:
        if lender not in (one, other) and _shares_family(one, lender) and _shares_family(other, lender):
            return Way.RELAY
    return Way.LINK


def _shares_family(one: Machine, other: Machine) -> bool:
    return any(one.at(version) and other.at(version) for version in (4, 6))


def _meet(one: Machine, other: Machine, version: int) -> bool:
    here, there = one.at(version), other.at(version)
    if here is None or there is None:
        return False
    if here[0] is there[0] and not here[0].isolates:
        return True
    mine, theirs = _routers(here[0]), _routers(there[0])
    if all(router.mapping is Mapping.KEPT for router in (*mine, *theirs)):
        return True
    common = [router for router in mine if router in theirs]
    if not (mine and theirs):
        return True
    if common and not common[-1].hairpins:
        # They see each other by the outermost alone.
        return False
    changing = [any(router.mapping is Mapping.EACH for router in routers) for routers in (mine, theirs)]
    if not any(changing):
        return True
    steady = theirs if changing[0] else mine
    return not all(changing) and all(router.filtering is Filtering.NONE for router in steady)


def _routers(network: Network) -> list[Router]:
    """Returns the routers on the way out of a network, the nearest first."""
    found: list[Router] = []
    while network.uplink is not None:
        found.append(network.uplink)
        network = network.uplink.outside
    return found
