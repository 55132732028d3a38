"""Whom a node asks where it is seen, and when."""

from __future__ import annotations

import random

import pytest

from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import MeshId, NodeId
from meshpeer.core.paths.observers import (
    AGAIN_S,
    EVERY_S,
    PASSED_OVER_S,
    SILENT_S,
    UNANSWERED_MAX,
    WANTED,
    Observers,
)
from meshpeer.core.paths.probe_desk import AnswerSeen, ProbeDesk, ProbeHeard, SendProbe
from meshpeer.core.paths.reflections import LASTS_S, STEADY, UNKNOWN, Reflections, SeenAt

MESH = MeshId(b"m" * 32)
OWN = ("192.168.1.2:51820",)
MAPPED, OTHER = "11.0.0.7:51820", "11.0.0.7:40001"


class Asking:
    """One node behind a router, and peers that answer where they see it."""

    def __init__(self, *endpoints: str) -> None:
        self.dice = random.Random(3)
        self.now_s = 100.0
        self.desk = self.desk_of(0)
        self.reflections = Reflections()
        self.observers = Observers(self.desk, self.reflections, salt=b"salt")
        self.ways = {peer(number): endpoint for number, endpoint in enumerate(endpoints, 1)}
        self.desks = {one: self.desk_of(one[0]) for one in self.ways}
        self.desk.know([(one, key_of(one[0]).public) for one in self.ways], ())
        for desk in self.desks.values():
            desk.know([(peer(0), key_of(0).public)], ())
        self.seen = dict.fromkeys(self.ways, MAPPED)
        self.mute: set[NodeId] = set()
        self.asked: list[tuple[float, NodeId]] = []
        self.observers.on_network(OWN, self.now)
        self.observers.follow(self.ways, self.now)

    def desk_of(self, number: int) -> ProbeDesk:
        return ProbeDesk(mesh=MESH, key=key_of(number), entropy=self.dice.randbytes, counters=Counters())

    @property
    def now(self) -> Instant:
        return Instant(self.now_s, 1_800_000_000.0 + self.now_s)

    def run(self, for_s: float) -> list[NodeId]:
        """Lets time pass; returns who was asked in that time."""
        before, end_s = len(self.asked), self.now_s + for_s
        while (due := self.observers.next_deadline()) is not None and due.at_s <= end_s:
            self.now_s = max(self.now_s, due.at_s)
            for probe in self.observers.tick(self.now):
                self._carry(probe)
        self.now_s = end_s
        self.observers.follow(self.ways, self.now)
        return [one for _, one in self.asked[before:]]

    def _carry(self, probe: SendProbe) -> None:
        to = next(one for one, endpoint in self.ways.items() if endpoint == probe.endpoint)
        self.asked.append((self.now_s, to))
        if to in self.mute:
            return
        heard = ProbeHeard(source=self.seen[to], local="", data=probe.data)
        _, answers = self.desks[to].on_heard(heard, self.now, lambda *_: True)
        back = ProbeHeard(source=probe.endpoint, local="", data=answers[0].data)
        fact, _ = self.desk.on_heard(back, self.now, lambda *_: True)
        assert isinstance(fact, AnswerSeen)
        self.observers.on_answer(fact, self.now)


def test_a_node_that_nobody_tells_asks_two_peers_and_knows_its_router() -> None:
    """In a regional mesh of a hundred nobody who saw a node's packets had a link to it, so that two behind
    routers stayed on their relay."""
    mine = Asking("11.1.0.7:51820", "11.2.0.7:51820", "11.3.0.7:51820")
    asked = mine.run(1)
    assert len(set(asked)) == len(asked) == WANTED
    assert mine.observers.has_news
    assert mine.reflections.shown(OWN, (), mine.now) == (MAPPED,)
    assert mine.reflections.router(OWN, mine.now) == STEADY
    mine.observers.has_news = False
    assert set(mine.run(EVERY_S)) == set(asked), "the same, from time to time"
    assert not mine.observers.has_news, "the same is no news"
    mine.run(LASTS_S)
    assert mine.reflections.router(OWN, mine.now) == STEADY


def test_another_mapping_is_found_within_the_time_between_questions() -> None:
    mine = Asking("11.1.0.7:51820", "11.2.0.7:51820")
    mine.run(1)
    mine.seen = dict.fromkeys(mine.ways, OTHER)
    mine.run(EVERY_S)
    assert mine.reflections.shown(OWN, (), mine.now) == (OTHER,)
    assert mine.reflections.router(OWN, mine.now) == STEADY


@pytest.mark.parametrize("observers", [2, 5])
@pytest.mark.parametrize("away_s", [8, 30, 45, 120])
def test_another_mapping_is_found_soon_after_a_router_that_was_away(observers: int, away_s: int) -> None:
    """While it was, nobody answered, and all of them were passed over for minutes."""
    mine = Asking(*(f"11.{number}.0.7:51820" for number in range(1, observers + 1)))
    mine.run(1)
    mine.mute = set(mine.ways)
    for _ in range(away_s):
        mine.run(1)
    mine.mute, mine.seen = set(), dict.fromkeys(mine.ways, OTHER)
    for _ in range(round(EVERY_S + UNANSWERED_MAX * AGAIN_S)):
        mine.run(1)
    assert mine.reflections.shown(OWN, (), mine.now) == (OTHER,)
    assert mine.reflections.router(OWN, mine.now) == STEADY


def test_nobody_is_asked_where_two_tell_by_themselves_until_their_words_are_old() -> None:
    mine = Asking("11.1.0.7:51820", "11.2.0.7:51820")
    for number in (8, 9):
        mine.reflections.on_seen(peer(number), SeenAt(endpoint=MAPPED), mine.now)
    mine.observers.follow(mine.ways, mine.now)
    assert mine.run(LASTS_S) == []
    assert len(mine.run(1)) == WANTED


def test_one_who_tells_leaves_one_to_be_asked() -> None:
    mine = Asking("11.1.0.7:51820", "11.2.0.7:51820")
    mine.reflections.on_seen(peer(1), SeenAt(endpoint=MAPPED), mine.now)
    mine.observers.follow(mine.ways, mine.now)
    assert mine.run(1) == [peer(2)]


def test_a_word_of_a_neighbour_that_sees_no_router_leaves_both_to_be_asked() -> None:
    mine = Asking("11.1.0.7:51820", "11.2.0.7:51820")
    mine.reflections.on_seen(peer(9), SeenAt(endpoint=OWN[0]), mine.now)
    mine.observers.follow(mine.ways, mine.now)
    assert len(mine.run(1)) == WANTED


def test_who_answers_nothing_is_passed_over_for_another() -> None:
    endpoints = ("11.1.0.7:51820", "11.2.0.7:51820", "11.3.0.7:51820")
    mute = Asking(*endpoints).run(0)[0]
    mine = Asking(*endpoints)
    mine.mute = {mute}
    asked = mine.run((UNANSWERED_MAX + 1) * AGAIN_S)
    assert asked.count(mute) == UNANSWERED_MAX
    assert set(asked) == set(mine.ways)
    assert mute not in mine.run(SILENT_S - 2 * AGAIN_S)
    assert mute in mine.run(SILENT_S), "it may be there again"


def test_who_shares_the_network_is_asked_last_and_seldom() -> None:
    mine = Asking("192.168.1.3:51820", "11.1.0.7:51820", "11.2.0.7:51820")
    assert peer(1) not in mine.run(EVERY_S)
    alone = Asking("192.168.1.3:51820")
    alone.seen = {peer(1): OWN[0]}
    assert len(alone.run(PASSED_OVER_S - 1)) == 1
    assert alone.reflections.router(OWN, alone.now) == UNKNOWN


def test_a_node_with_a_public_address_asks_nobody() -> None:
    mine = Asking("11.1.0.7:51820", "11.2.0.7:51820")
    mine.observers.on_network(("11.9.0.7:51820",), mine.now)
    assert mine.run(EVERY_S) == []


def test_ipv6_is_not_asked() -> None:
    assert Asking("[2a0a::7]:51820").run(EVERY_S) == []


def test_another_network_is_asked_about_at_once() -> None:
    mine = Asking("11.1.0.7:51820", "11.2.0.7:51820")
    mine.run(1)
    mine.observers.on_network(("10.0.0.5:51820",), mine.now)
    assert len(mine.run(0)) == WANTED


def test_an_answer_to_another_question_counts_for_nothing() -> None:
    mine = Asking("11.1.0.7:51820")
    stray = AnswerSeen(
        peer=peer(1),
        endpoint="11.1.0.7:51820",
        number=7,
        probe_bytes=100,
        rtt_s=0.01,
        seen=OTHER,
        answered=False,
    )
    mine.observers.on_answer(stray, mine.now)
    assert mine.reflections.shown(OWN, (), mine.now) == ()
    assert not mine.observers.has_news


def test_a_tunnel_that_ended_is_not_asked_through() -> None:
    mine = Asking("11.1.0.7:51820", "11.2.0.7:51820")
    mine.run(1)
    mine.ways = {}
    mine.observers.follow({}, mine.now)
    assert mine.observers.next_deadline() is None
    assert mine.run(EVERY_S) == []


def key_of(number: int) -> WireGuardPrivateKey:
    return WireGuardPrivateKey(bytes([number + 1]) * 32)


def peer(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)
