"""Routers in virtual time: what they map, let in, forget and turn round (RFC 4787)."""

from __future__ import annotations

import random

from meshpeer.sim.nat.routers import Arrival, End, Filtering, Machine, Mapping, Network, Router, carry

PORT = 51820
INTERNET = "11.0.0.%d"


class Homes:
    """Two open machines, and homes behind routers of one kind."""

    def __init__(
        self, mapping: Mapping, filtering: Filtering = Filtering.PORT, *, hairpins: bool = False
    ) -> None:
        self.internet = Network("24")
        self.dice = random.Random(1)
        self.mapping, self.filtering, self.hairpins = mapping, filtering, hairpins
        self.one, self.other = self.open("one", 1), self.open("other", 2)

    def open(self, name: str, number: int) -> Machine:
        machine = Machine(name)
        machine.plug(self.internet, INTERNET % number)
        return machine

    def router(self, number: int) -> Router:
        return Router(
            inside=Network("24"),
            outside=self.internet,
            address=INTERNET % number,
            mapping=self.mapping,
            filtering=self.filtering,
            lasts_s=60.0,
            hairpins=self.hairpins,
            draw=self.dice.random,
        )

    @staticmethod
    def home(router: Router, number: int = 10) -> Machine:
        machine = Machine(f"home{number}")
        machine.plug(router.inside, f"192.168.1.{number}")
        return machine


def source_of(arrival: Arrival | None) -> End:
    assert arrival is not None
    return arrival.source


def to(machine: Machine) -> End:
    assert machine.v4 is not None
    return End(machine.v4[1], PORT)


def test_one_mapping_serves_all_destinations_and_keeps_the_port() -> None:
    homes = Homes(Mapping.ONE)
    inner = homes.home(homes.router(9))
    first = source_of(carry(inner, PORT, to(homes.one), 0.0))
    assert first == source_of(carry(inner, PORT, to(homes.other), 0.0)) == End(INTERNET % 9, PORT)


def test_a_symmetric_router_has_another_port_for_each_destination() -> None:
    homes = Homes(Mapping.EACH)
    inner = homes.home(homes.router(9))
    first = source_of(carry(inner, PORT, to(homes.one), 0.0))
    assert first != source_of(carry(inner, PORT, to(homes.other), 0.0))
    assert first == source_of(carry(inner, PORT, to(homes.one), 1.0))


def test_two_behind_one_router_get_ports_of_their_own() -> None:
    homes = Homes(Mapping.ONE)
    router = homes.router(9)
    sources = [source_of(carry(homes.home(router, number), PORT, to(homes.one), 0.0)) for number in (10, 11)]
    assert len(set(sources)) == 2


def test_only_what_was_asked_for_comes_in_until_the_mapping_ends() -> None:
    homes = Homes(Mapping.ONE)
    inner = homes.home(homes.router(9))
    seen = source_of(carry(inner, PORT, to(homes.one), 0.0))
    answer = carry(homes.one, PORT, seen, 1.0)
    assert answer is not None
    assert answer.machine is inner
    assert carry(homes.other, PORT, seen, 1.0) is None
    assert carry(homes.one, PORT, seen, 62.0) is None


def test_a_router_without_filter_lets_strangers_in() -> None:
    homes = Homes(Mapping.ONE, Filtering.NONE)
    inner = homes.home(homes.router(9))
    seen = source_of(carry(inner, PORT, to(homes.one), 0.0))
    assert carry(homes.other, PORT, seen, 1.0) is not None


def test_a_reboot_forgets_all_and_another_address_ends_the_old_one() -> None:
    homes = Homes(Mapping.ONE)
    router = homes.router(9)
    inner = homes.home(router)
    seen = source_of(carry(inner, PORT, to(homes.one), 0.0))
    router.flush()
    assert carry(homes.one, PORT, seen, 1.0) is None
    router.renumber(INTERNET % 8)
    assert source_of(carry(inner, PORT, to(homes.one), 2.0)) == End(INTERNET % 8, PORT)
    assert carry(homes.one, PORT, seen, 3.0) is None


def test_only_some_routers_turn_round_what_is_meant_for_their_own_outside() -> None:
    for hairpins in (False, True):
        homes = Homes(Mapping.ONE, Filtering.NONE, hairpins=hairpins)
        router = homes.router(9)
        inner, neighbour = homes.home(router, 10), homes.home(router, 11)
        seen = source_of(carry(inner, PORT, to(homes.one), 0.0))
        assert (carry(neighbour, PORT, seen, 1.0) is not None) is hairpins


def test_a_firewall_keeps_addresses_and_lets_in_answers_alone() -> None:
    homes = Homes(Mapping.KEPT)
    router = Router(
        inside=Network("64"),
        outside=homes.internet,
        address="",
        mapping=Mapping.KEPT,
        filtering=Filtering.PORT,
        lasts_s=60.0,
        hairpins=False,
        draw=homes.dice.random,
    )
    inner = Machine("inner")
    inner.plug(router.inside, INTERNET % 7)
    assert carry(homes.one, PORT, to(inner), 0.0) is None
    assert source_of(carry(inner, PORT, to(homes.one), 0.0)) == to(inner)
    assert carry(homes.one, PORT, to(inner), 1.0) is not None
    assert carry(homes.other, PORT, to(inner), 1.0) is None
