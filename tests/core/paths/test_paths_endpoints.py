"""Candidates are ranked by fixed rules; one is tried at a time, and a working one is never left."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.paths.endpoints import (
    MUTE_TRY_S,
    TRY_MAX_S,
    TRY_S,
    EndpointChoice,
    families_of,
    lacks_family,
    rank_candidates,
)

LAN, PUBLIC, LINK = "192.168.7.2:51820", "203.0.113.9:51820", "198.51.100.4:51820"
UNIX = 1_900_000_000.0
REASON = "try the next endpoint of a peer"


def test_lan_comes_before_link_before_configured_before_the_rest() -> None:
    assert ranked(
        [PUBLIC, "8.8.8.8:51820", "10.4.4.4:51820", LAN], configured=True, link="198.51.100.4:33333"
    ) == (
        LAN,
        LINK,
        PUBLIC,
        "8.8.8.8:51820",
        "10.4.4.4:51820",
    )


def test_a_candidate_stands_once() -> None:
    assert ranked([LINK, LINK], link="198.51.100.4:1") == (LINK,)


@pytest.mark.parametrize(
    "endpoint",
    [
        "10.10.0.9:51820",
        "[fd12::9]:51820",
        "127.0.0.1:51820",
        "[::1]:51820",
        "0.0.0.0:51820",
        "224.0.0.1:51820",
        "169.254.3.3:51820",
        "[fe80::1]:51820",
        "192.168.7.2:0",
        "192.168.7.2:99999",
        "192.168.7.2",
        ":51820",
        "rubbish",
        "",
    ],
)
def test_what_must_not_carry_a_tunnel_is_no_candidate(endpoint: str) -> None:
    assert ranked([endpoint]) == ()


def test_a_link_through_the_tunnel_is_no_candidate() -> None:
    assert ranked([PUBLIC], link="[fd12::9]:51821") == (PUBLIC,)


def test_loopback_counts_where_the_link_shows_that_the_peer_is_on_this_machine() -> None:
    assert ranked(["127.0.0.1:51900"], link="127.0.0.1:40000", port=51900) == ("127.0.0.1:51900",)


def test_a_dns_name_is_a_candidate() -> None:
    assert ranked(["home.example.net:51820", LAN], configured=True) == (LAN, "home.example.net:51820")


def test_what_is_of_a_family_that_this_machine_has_no_address_of_is_no_candidate() -> None:
    assert ranked([PUBLIC, "[2001:db8::9]:51820", "home.example.net:51820"]) == (
        "home.example.net:51820",
        PUBLIC,
    )
    assert ranked(["[2001:db8::9]:51820"]) == ()
    assert lacks_family(["[2001:db8::9]:51820"], ["192.168.7.77/24"])
    assert not lacks_family(["[2001:db8::9]:51820", PUBLIC], ["192.168.7.77/24"])
    assert not lacks_family(["home.example.net:51820"], ["192.168.7.77/24"])
    assert not lacks_family([], ["192.168.7.77/24"])
    assert not lacks_family([PUBLIC], [])


def test_this_machines_own_endpoint_is_no_candidate_but_another_port_of_it_is() -> None:
    assert ranked(["192.168.7.77:51820", "192.168.7.77:51900"]) == ("192.168.7.77:51900",)


def test_a_private_address_is_near_unless_the_two_are_seen_behind_two_routers() -> None:
    here, there = "198.51.100.1:51820", "198.51.100.2:51820"
    assert ranked([LAN], reflected=[here], mine=[here]) == (LAN, here), "one router for both"
    assert ranked([LAN], reflected=[there], mine=[here]) == (there, LAN), "the prefix is another home's, too"
    assert ranked([LAN], reflected=[there]) == (LAN, there), "nobody knows how this node is seen"
    assert ranked([LAN], reflected=[there], mine=["[2001:db8::1]:51820"]) == (LAN, there)
    assert ranked([LAN], reflected=[there], mine=[here], link="192.168.7.2:4000") == (LAN, there)


def test_candidates_are_tried_in_turn_while_nothing_answers() -> None:
    choice = EndpointChoice()
    assert choice.update((LAN, PUBLIC), 0, at(0)) == LAN
    assert choice.next_deadline() == Deadline(TRY_S, REASON)
    assert choice.update((LAN, PUBLIC), 0, at(TRY_S - 0.1)) == LAN
    assert choice.update((LAN, PUBLIC), 0, at(TRY_S)) == PUBLIC
    assert choice.update((LAN, PUBLIC), 0, at(2 * TRY_S)) == LAN


def test_each_round_is_slower_up_to_a_limit() -> None:
    choice, now_s, spans = EndpointChoice(), 0.0, []
    choice.update((LAN, PUBLIC), 0, at(now_s))
    for _ in range(12):
        deadline = choice.next_deadline()
        assert deadline is not None
        spans.append(deadline.at_s - now_s)
        now_s = deadline.at_s
        choice.update((LAN, PUBLIC), 0, at(now_s))
    assert spans == [6, 6, 12, 12, 24, 24, TRY_MAX_S, TRY_MAX_S, 48, 48, 48, 48]


def test_what_worked_last_has_every_other_turn_while_a_living_peer_is_silent() -> None:
    choice = EndpointChoice()
    choice.update((LAN, PUBLIC, LINK), UNIX + 1, at(1), PUBLIC)
    choice.hurried = True
    turns = [choice.update((LAN, PUBLIC, LINK), UNIX + 1, at(190 + TRY_S * turn)) for turn in range(9)]
    assert turns == [LINK, PUBLIC, LAN, PUBLIC, LINK, PUBLIC, LAN, PUBLIC, LINK]
    choice.hurried = False
    turns = [choice.update((LAN, PUBLIC, LINK), UNIX + 1, at(1_000 * turn)) for turn in range(1, 5)]
    assert turns == [LAN, PUBLIC, LINK, LAN]


def test_a_silent_peer_that_lives_is_tried_at_full_pace_for_ever() -> None:
    choice, spans = EndpointChoice(hurried=True), []
    choice.update((LAN, PUBLIC), 0, at(0))
    for turn in range(1, 9):
        deadline = choice.next_deadline()
        assert deadline is not None
        spans.append(deadline.at_s - TRY_S * (turn - 1))
        choice.update((LAN, PUBLIC), 0, at(TRY_S * turn))
    assert spans == [TRY_S] * 8


def test_a_fresh_handshake_is_never_left() -> None:
    choice = EndpointChoice()
    choice.update((LAN, PUBLIC), 0, at(0))
    assert choice.update((LAN, PUBLIC), UNIX + 1, at(2)) == LAN
    assert choice.next_deadline() is None
    assert choice.update((LAN, PUBLIC), UNIX + 99, at(100)) == LAN
    assert choice.update((PUBLIC,), UNIX + 99, at(101), LAN) == LAN


def test_where_the_peer_roamed_to_is_the_choice_and_tried_first_when_it_goes_stale() -> None:
    choice = EndpointChoice()
    choice.update((LAN, PUBLIC), 0, at(0))
    roamed = "198.51.100.9:4711"
    assert choice.update((LAN, PUBLIC), UNIX + 5, at(6), roamed) == roamed
    assert choice.update((LAN, PUBLIC), UNIX + 5, at(184), roamed) == roamed
    assert choice.update((LAN, PUBLIC), UNIX + 5, at(186), roamed) == roamed
    assert choice.next_deadline() == Deadline(184 + TRY_S, REASON)
    assert choice.update((LAN, PUBLIC), UNIX + 5, at(190), roamed) == LAN


def test_a_mute_tunnel_is_left_at_once_and_each_candidate_gets_a_short_time_in_the_first_round() -> None:
    choice = EndpointChoice()
    choice.update((LAN, PUBLIC), 0, at(0))
    choice.update((LAN, PUBLIC), UNIX + 1, at(2), LAN)
    assert choice.update((LAN, PUBLIC), UNIX + 1, at(3), LAN, mute=True) == PUBLIC
    assert choice.next_deadline() == Deadline(3 + MUTE_TRY_S, REASON)
    assert choice.update((LAN, PUBLIC), UNIX + 1, at(3 + MUTE_TRY_S), PUBLIC, mute=True) == LAN
    deadline = choice.next_deadline()
    assert deadline is not None
    assert deadline.at_s >= 3 + MUTE_TRY_S + TRY_S, "the second round takes its time"
    assert choice.update((LAN, PUBLIC), UNIX + 1, at(5), LAN) == LAN
    assert choice.next_deadline() is None


def test_a_mute_tunnel_tries_the_best_first_whatever_stands_behind_the_one_that_worked() -> None:
    choice = EndpointChoice()
    choice.update((LINK, PUBLIC), 0, at(0))
    choice.update((LINK, PUBLIC), UNIX + 1, at(2), LINK)
    assert choice.update((LAN, LINK, PUBLIC), UNIX + 1, at(3), LINK, mute=True) == LAN


def test_a_mute_tunnel_with_one_candidate_stays_there() -> None:
    choice = EndpointChoice()
    choice.update((LAN,), 0, at(0))
    choice.update((LAN,), UNIX + 1, at(2), LAN)
    assert choice.update((LAN,), UNIX + 1, at(3), LAN, mute=True) == LAN


def test_a_mute_tunnel_goes_back_to_the_name_that_its_address_came_from() -> None:
    name, resolved = "home.example.net:51820", "198.51.100.9:51820"
    choice = EndpointChoice()
    choice.update((name,), 0, at(0))
    assert choice.update((name,), UNIX + 1, at(2), resolved) == resolved
    assert choice.update((name,), UNIX + 1, at(3), resolved, mute=True) == name


def test_what_is_not_to_be_tried_now_keeps_the_time_since_when_it_is_known() -> None:
    choice = EndpointChoice()
    choice.update((LAN,), 0, at(0))
    choice.update((PUBLIC,), 0, at(9), idle=(LAN,))
    assert choice.chosen == PUBLIC
    assert choice.known == {PUBLIC: UNIX + 9, LAN: UNIX}


def test_how_long_a_candidate_is_known_counts_from_when_it_came_and_ends_when_it_goes() -> None:
    choice = EndpointChoice()
    choice.update((LAN,), 0, at(0))
    choice.update((PUBLIC, LAN), 0, at(5))
    assert choice.known == {PUBLIC: UNIX + 5, LAN: UNIX}
    choice.update((PUBLIC,), 0, at(6))
    choice.update((PUBLIC, LAN), 0, at(7))
    assert choice.known == {PUBLIC: UNIX + 5, LAN: UNIX + 7}


def test_candidates_that_change_under_a_fresh_handshake_are_told_once() -> None:
    choice = EndpointChoice()
    choice.update((LAN,), 0, at(0))
    choice.update((LAN, PUBLIC), 0, at(1))
    assert not choice.moved
    choice.update((LAN, PUBLIC), UNIX + 1, at(2))
    choice.update((PUBLIC,), UNIX + 1, at(3))
    assert choice.moved


def test_new_candidates_are_tried_at_once_when_the_old_one_is_gone() -> None:
    choice = EndpointChoice()
    choice.update((LAN,), 0, at(0))
    assert choice.next_deadline() is None
    assert choice.update((PUBLIC, LINK), 0, at(1)) == PUBLIC
    assert choice.update((PUBLIC, LINK, LAN), 0, at(2)) == PUBLIC


def test_without_candidates_there_is_no_endpoint() -> None:
    choice = EndpointChoice()
    assert choice.update((), 0, at(0)) is None
    assert choice.next_deadline() is None


class ChoosingEndpoints(RuleBasedStateMachine):
    """Any sequence of candidates, handshakes and waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.choice = EndpointChoice()
        self.now_s = 0.0
        self.handshake = 0.0
        self.candidates: tuple[str, ...] = ()
        self.endpoint: str | None = None

    @rule(candidates=st.lists(st.sampled_from([LAN, PUBLIC, LINK]), unique=True))
    def candidates_changed(self, candidates: list[str]) -> None:
        self.candidates = tuple(candidates)
        self._update()

    @rule(span_s=st.sampled_from([0.5, 3, 6, 7, 60, 200]))
    def time_passed(self, span_s: float) -> None:
        self.now_s += span_s
        self._update()

    @rule()
    def handshake_made(self) -> None:
        if self.endpoint is not None:
            self.handshake = UNIX + self.now_s
        self._update()

    def _update(self) -> None:
        before, fresh = self.endpoint, 0 < self.handshake > UNIX + self.now_s - 180
        self.endpoint = self.choice.update(self.candidates, self.handshake, at(self.now_s), before)
        assert not (fresh and before) or self.endpoint == before, "a working endpoint was left"
        assert self.endpoint in (before, *self.candidates) or not self.candidates

    @invariant()
    def something_is_tried_while_there_is_something(self) -> None:
        assert self.endpoint is not None or not self.candidates

    @invariant()
    def the_deadline_is_ahead(self) -> None:
        deadline = self.choice.next_deadline()
        assert deadline is None or deadline.at_s > self.now_s


TestChoosingEndpoints = ChoosingEndpoints.TestCase
TestChoosingEndpoints.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def ranked(
    advertised: list[str],
    *,
    configured: bool = False,
    link: str = "",
    port: int = 51820,
    reflected: Sequence[str] = (),
    mine: Sequence[str] = (),
) -> tuple[str, ...]:
    candidates = rank_candidates(
        advertised=advertised,
        reflected=reflected,
        mine=mine,
        my_port=51820,
        configured=configured,
        link_remote=link,
        port=port,
        attached=["192.168.7.77/24"],
        overlay=["10.10.0.0/24", "fd12::/64"],
    )
    assert [one.source for one in candidates] == sorted(one.source for one in candidates)
    return tuple(one.endpoint for one in candidates)


def at(mono_s: float) -> Instant:
    return Instant(mono_s, UNIX + mono_s)


def test_families_are_those_of_numbers_and_both_where_there_is_a_name() -> None:
    assert families_of((PUBLIC, "[2001:db8::9]:51820")) == {4, 6}
    assert families_of((PUBLIC, "no endpoint")) == {4}
    assert families_of(("home.example.net:51820",)) == {4, 6}
    assert families_of(()) == frozenset()
