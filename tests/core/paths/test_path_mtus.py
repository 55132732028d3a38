"""Peers' MTUs: what follows from how wide their paths are, and which paths are searched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from probe_world import PORT, Host, World

from meshpeer.core.paths.path_mtus import (
    JUMBO_MTU,
    MTU_LEAST,
    SEARCHED_MAX,
    SENT_BURST,
    SENT_PER_S,
    TUNNEL_OVER_IP,
    UDP_OVER_IP,
    USUAL_MTU,
    PathMtus,
    most_of,
    tunnel_mtu,
)
from meshpeer.core.paths.probe_desk import AnswerSeen, ProbeHeard, ProbeTooLong


@pytest.mark.parametrize(
    ("underlay", "version", "mtu"),
    [
        (9_020, 4, 8_960),
        (9_040, 6, 8_960),
        (9_000, 4, 8_940),
        (9_000, 6, 8_920),
        (9_040, 4, 8_960),
        (1_500, 4, 1_420),
        (1_500, 6, 1_420),
        (1_492, 4, 1_420),
        (1_492, 6, 1_412),
        (1_280, 4, 1_220),
        (1_280, 6, 1_200),
        (4_000, 4, 3_940),
        (500, 4, MTU_LEAST),
    ],
)
def test_the_mtu_of_a_path_follows_from_its_width(underlay: int, version: int, mtu: int) -> None:
    assert tunnel_mtu(underlay, version, USUAL_MTU) == mtu


@given(st.integers(576, 10_000), st.sampled_from([4, 6]), st.integers(1_280, 9_000))
def test_no_packet_is_longer_than_the_path_nor_than_what_somebody_chose(
    underlay: int, version: int, setting: int
) -> None:
    mtu = tunnel_mtu(underlay, version, setting)
    assert mtu <= most_of(setting)
    assert mtu + TUNNEL_OVER_IP[version] <= underlay or mtu == MTU_LEAST


def test_an_mtu_that_somebody_chose_is_the_most_and_of_unknown_paths() -> None:
    assert tunnel_mtu(9_000, 4, 1_380) == 1_380
    assert tunnel_mtu(1_500, 4, 1_440) == 1_440
    assert tunnel_mtu(1_500, 4, 8_900) == 1_440
    assert most_of(USUAL_MTU) == JUMBO_MTU


def test_the_width_of_a_path_is_found_by_what_the_other_end_answers() -> None:
    two = Two(wide=9_000)
    two.follow(two.right.address)
    two.run(10.0)
    assert two.mtus.found == {two.right.node: 8_940}
    look = two.mtus.look(two.right.node)
    assert look is not None
    assert (look.endpoint, look.underlay_bytes, look.mtu) == (f"{two.right.address}:{PORT}", 9_000, 8_940)


def test_a_narrow_way_out_of_this_machine_needs_no_silence() -> None:
    two = Two(wide=9_000, device=1_400)
    two.follow(two.right.address)
    two.run(0.2)
    assert two.mtus.found == {two.right.node: 1_340}


def test_a_path_that_answers_nothing_has_what_the_charter_says() -> None:
    two = Two(wide=0)
    two.follow(two.right.address)
    two.run(30.0)
    assert two.mtus.found == {}
    look = two.mtus.look(two.right.node)
    assert look is not None
    assert (look.underlay_bytes, look.mtu) == (None, USUAL_MTU)


def test_another_endpoint_is_another_path_and_a_tunnel_at_rest_keeps_what_is_known() -> None:
    two = Two(wide=9_000)
    two.follow(two.right.address)
    two.run(10.0)
    two.follow(two.right.address, works=False)
    sent = two.sent
    two.run(600.0)
    assert two.sent == sent
    assert two.mtus.found == {two.right.node: 8_940}
    two.follow("198.51.100.7", works=False)
    two.run(600.0)
    assert two.sent == sent
    assert two.mtus.found == {two.right.node: 8_940}, "nothing works there yet"
    two.follow("198.51.100.7")
    assert two.mtus.found == {}
    two.mtus.follow({}, USUAL_MTU, two.world.now)
    assert two.mtus.look(two.right.node) is None
    assert two.mtus.next_deadline() is None


def test_another_setting_has_everything_searched_anew() -> None:
    two = Two(wide=9_000)
    two.follow(two.right.address)
    two.run(10.0)
    two.follow(two.right.address, setting=1_380)
    assert two.mtus.found == {}
    two.run(10.0)
    assert two.mtus.found == {two.right.node: 1_380}


@pytest.mark.parametrize("endpoint", ["10.10.0.7:51820", "alpha.example:51820", "[fe80::1]:51820"])
def test_what_is_no_address_on_the_underlay_is_not_searched(endpoint: str) -> None:
    two = Two(wide=9_000)
    two.mtus.follow({two.right.node: (endpoint, True)}, USUAL_MTU, two.world.now)
    assert two.mtus.look(two.right.node) is None


def test_an_answer_from_elsewhere_changes_nothing() -> None:
    two = Two(wide=0)
    two.follow(two.right.address)
    two.run(0.5)
    fact = AnswerSeen(
        peer=two.right.node,
        endpoint="198.51.100.7:51820",
        number=1,
        probe_bytes=88,
        rtt_s=0.1,
        seen="",
        answered=False,
    )
    two.mtus.on_answer(fact, two.world.now)
    two.mtus.on_too_long(ProbeTooLong(endpoint="198.51.100.7:51820", probe_bytes=88), two.world.now)
    two.run(10.0)
    assert two.mtus.found == {}


def test_paths_that_are_searched_and_probes_a_second_are_bounded() -> None:
    world = World()
    host = world.host("left")
    many = [(number.to_bytes(32, "big"), bytes([1 + number % 250]) * 31 + b"\1") for number in range(300)]
    host.probes.know(many, ())  # type: ignore[arg-type]
    mtus = PathMtus(host.probes.desk)
    paths = {
        node: (f"198.51.{number // 200}.{1 + number % 200}:51820", True)
        for number, (node, _) in enumerate(many)
    }
    mtus.follow(paths, USUAL_MTU, world.now)  # type: ignore[arg-type]
    assert sum(mtus.look(node) is not None for node, _ in many) == SEARCHED_MAX  # type: ignore[arg-type]
    sent = 0
    for _ in range(100):
        world.now_s += 0.1
        sent += len(mtus.tick(world.now))
    assert SENT_BURST <= sent <= SENT_BURST + SENT_PER_S * 10.0 + 10


# --- helpers ------------------------------------------------------------------------------------------------


class Two:
    """A node that searches the path to another, which answers what is no longer than the path is wide."""

    def __init__(self, wide: int, device: int = 65_535) -> None:
        self.world = World()
        self.left, self.right = self.world.host("left"), self.world.host("right")
        self.mtus = PathMtus(self.left.probes.desk)
        self.wide, self.device = wide, device
        self.sent = 0

    def follow(self, host: str, *, works: bool = True, setting: int = USUAL_MTU) -> None:
        self.mtus.follow({self.right.node: (f"{host}:{PORT}", works)}, setting, self.world.now)

    def run(self, for_s: float) -> None:
        end_s = self.world.now_s + for_s
        while (due := self.mtus.next_deadline()) is not None and due.at_s <= end_s:
            self.world.now_s = max(self.world.now_s, due.at_s)
            for probe in self.mtus.tick(self.world.now):
                size = len(probe.data) + UDP_OVER_IP[4]
                if size > self.device:
                    too_long = ProbeTooLong(endpoint=probe.endpoint, probe_bytes=len(probe.data))
                    self.mtus.on_too_long(too_long, self.world.now)
                    continue
                self.sent += 1
                if size <= self.wide:
                    self._answer(self.left, self.right, probe.data)
        self.world.now_s = end_s

    def _answer(self, asker: Host, answerer: Host, data: bytes) -> None:
        heard = ProbeHeard(source=f"{asker.address}:{PORT}", local=answerer.address, data=data)
        for answer in answerer.probes.on_heard(heard, self.world.now)[1]:
            back = ProbeHeard(source=f"{answerer.address}:{PORT}", local=asker.address, data=answer.data)
            fact, _ = asker.probes.on_heard(back, self.world.now)
            assert isinstance(fact, AnswerSeen)
            self.mtus.on_answer(fact, self.world.now)
