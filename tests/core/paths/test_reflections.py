"""What members tell each other of where their packets come from, and what a node makes of it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.paths.reflections import (
    CHANGING,
    LASTS_S,
    NONE,
    OBSERVERS_MAX,
    SHOWN_FOR_S,
    SHOWN_MAX,
    STEADY,
    TELL_EVERY_S,
    UNKNOWN,
    Reflections,
    SeenAt,
)
from meshpeer.core.wgconf.model import ObservedPeer

OWN = ("192.168.1.2:51820", "[fd77::2]:51820")
OVERLAY = ("10.10.0.0/24", "fd12::/64")
HERE, THERE = "198.51.100.7:51820", "198.51.100.7:40001"


# --- of others ----------------------------------------------------------------------------------------------


def test_a_peer_is_told_once_and_again_when_it_moves_or_time_went_by() -> None:
    mine = Reflections()
    assert told(mine, HERE, 0) == [(node(1), SeenAt(endpoint=HERE))]
    assert told(mine, HERE, 1) == []
    assert told(mine, THERE, 2) == [(node(1), SeenAt(endpoint=THERE))]
    assert told(mine, THERE, 1 + TELL_EVERY_S) == []
    assert told(mine, THERE, 2 + TELL_EVERY_S) == [(node(1), SeenAt(endpoint=THERE))]


def test_a_new_link_is_told_anew() -> None:
    mine = Reflections()
    told(mine, HERE, 0)
    mine.on_link(node(1))
    assert told(mine, HERE, 1) == [(node(1), SeenAt(endpoint=HERE))]


def test_who_has_no_link_no_endpoint_or_no_fresh_handshake_is_told_nothing() -> None:
    mine = Reflections()
    assert told(mine, HERE, 0, linked=False) == []
    assert told(mine, None, 0) == []
    assert told(mine, HERE, 0, handshake_age_s=500) == []
    assert told(mine, HERE, 0) == [(node(1), SeenAt(endpoint=HERE))], "it was not taken for told"


# --- of this node -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "shown", "router"),
    [
        ((), (), UNKNOWN),
        ((OWN[0],), (), UNKNOWN),
        (("8.8.8.8:51820",), ("8.8.8.8:51820",), UNKNOWN),
        ((HERE,), (HERE,), UNKNOWN),
        ((HERE, HERE), (HERE,), STEADY),
        ((HERE, OWN[0], HERE), (HERE,), STEADY),
        ((HERE, THERE), (THERE, HERE), CHANGING),
        ((HERE, HERE, THERE), (HERE, THERE), CHANGING),
        (("10.10.0.7:51820", "[fd12::9]:51820", "127.0.0.1:5", "[fe80::1]:5"), (), CHANGING),
    ],
)
def test_what_members_see_is_shown_and_tells_the_kind_of_router(
    seen: tuple[str, ...], shown: tuple[str, ...], router: str
) -> None:
    mine = Reflections()
    for number, endpoint in enumerate(seen):
        mine.on_seen(node(number), SeenAt(endpoint=endpoint), at(number))
    assert mine.shown(OWN, OVERLAY, at(9)) == shown
    assert mine.router(OWN, at(9)) == router


def test_a_public_address_of_its_own_is_no_router() -> None:
    mine = Reflections()
    mine.on_seen(node(1), SeenAt(endpoint="8.8.8.8:51820"), at(0))
    assert mine.router(("8.8.8.8:51820",), at(1)) == NONE
    assert mine.shown(("8.8.8.8:51820",), OVERLAY, at(1)) == ()


def test_a_word_that_is_not_said_again_is_forgotten() -> None:
    mine = Reflections()
    mine.on_seen(node(1), SeenAt(endpoint=HERE), at(0))
    deadline = mine.next_deadline()
    assert deadline is not None
    assert deadline.at_s == at(LASTS_S).mono_s
    assert mine.shown(OWN, OVERLAY, at(LASTS_S - 1)) == (HERE,)
    assert mine.shown(OWN, OVERLAY, at(LASTS_S)) == ()
    assert mine.next_deadline() is None


def test_only_another_endpoint_is_news() -> None:
    mine = Reflections()
    assert mine.on_seen(node(1), SeenAt(endpoint=HERE), at(0))
    assert not mine.on_seen(node(1), SeenAt(endpoint=HERE), at(1))
    assert mine.on_seen(node(1), SeenAt(endpoint=THERE), at(2))


def test_a_member_that_tells_another_thing_each_second_does_not_make_this_node_publish_each_second() -> None:
    mine = Reflections()
    said: list[tuple[tuple[str, ...], str]] = []
    for second in range(100):
        for observer in (1, 2):
            mine.on_seen(node(observer), SeenAt(endpoint=HERE), at(second))
        mine.on_seen(node(9), SeenAt(endpoint=f"198.51.100.9:{5_000 + second}"), at(second))
        said.append(mine.published(OWN, OVERLAY, at(second)))
    changes = sum(one != other for one, other in itertools.pairwise(said))
    assert changes <= 100 / SHOWN_FOR_S
    assert all(shown[0] == HERE for shown, _ in said)


def test_what_nobody_sees_any_more_is_replaced_at_once() -> None:
    mine = Reflections()
    mine.on_seen(node(1), SeenAt(endpoint=HERE), at(0))
    assert mine.published(OWN, OVERLAY, at(0)) == ((HERE,), UNKNOWN)
    mine.on_seen(node(1), SeenAt(endpoint=THERE), at(1))
    assert mine.published(OWN, OVERLAY, at(1)) == ((THERE,), UNKNOWN)


def test_a_mapping_that_moved_for_one_observer_ranks_behind_and_makes_no_changing_router() -> None:
    mine = Reflections()
    for number in (1, 2, 3):
        mine.on_seen(node(number), SeenAt(endpoint=HERE), at(0))
    mine.published(OWN, OVERLAY, at(0))
    mine.on_seen(node(1), SeenAt(endpoint=THERE), at(1))
    assert mine.published(OWN, OVERLAY, at(1)) == ((THERE, HERE), UNKNOWN), (
        "at once: nobody saw the old since"
    )
    mine.on_seen(node(2), SeenAt(endpoint=THERE), at(12))
    assert mine.published(OWN, OVERLAY, at(12)) == ((THERE, HERE), STEADY)


def test_who_sees_the_old_mapping_again_is_believed() -> None:
    mine = Reflections()
    for number in (1, 2, 3):
        mine.on_seen(node(number), SeenAt(endpoint=HERE), at(0))
    mine.on_seen(node(1), SeenAt(endpoint=THERE), at(1))
    for number in (2, 3):
        mine.on_seen(node(number), SeenAt(endpoint=HERE), at(2))
    assert mine.shown(OWN, OVERLAY, at(3)) == (HERE, THERE)


def test_what_was_seen_before_this_machines_network_changed_says_nothing_of_its_router() -> None:
    mine = Reflections()
    for number in (1, 2):
        mine.on_seen(node(number), SeenAt(endpoint=HERE), at(0))
    mine.on_network_changed()
    assert mine.router(OWN, at(1)) == UNKNOWN
    assert mine.shown(OWN, OVERLAY, at(1)) == (HERE,)
    mine.on_seen(node(1), SeenAt(endpoint=THERE), at(2))
    assert mine.shown(OWN, OVERLAY, at(2)) == (THERE, HERE)


def test_news_that_has_to_wait_is_said_when_the_pause_is_over() -> None:
    mine = Reflections()
    mine.on_seen(node(1), SeenAt(endpoint=HERE), at(0))
    mine.published(OWN, OVERLAY, at(0))
    mine.on_seen(node(2), SeenAt(endpoint=HERE), at(1))
    assert mine.published(OWN, OVERLAY, at(1)) == ((HERE,), UNKNOWN)
    deadline = mine.next_deadline()
    assert deadline is not None
    assert deadline.at_s == at(SHOWN_FOR_S).mono_s
    assert mine.published(OWN, OVERLAY, at(SHOWN_FOR_S)) == ((HERE,), STEADY)


@given(st.lists(st.tuples(st.integers(0, 200), st.text(max_size=80) | st.sampled_from((HERE, THERE)))))
def test_whatever_members_say_little_is_kept_and_only_endpoints_are_shown(
    words: list[tuple[int, str]],
) -> None:
    mine = Reflections()
    for second, (number, endpoint) in enumerate(words):
        mine.on_seen(node(number), SeenAt(endpoint=endpoint), at(second / 10))
    shown = mine.shown(OWN, OVERLAY, at(len(words) / 10))
    assert len(shown) <= SHOWN_MAX
    assert all(one.rpartition(":")[2].isdigit() for one in shown)
    assert len(mine._heard) <= OBSERVERS_MAX


# --- helpers ------------------------------------------------------------------------------------------------


def told(
    mine: Reflections,
    endpoint: str | None,
    second: float,
    *,
    linked: bool = True,
    handshake_age_s: float = 10,
) -> list[tuple[NodeId, SeenAt]]:
    now = at(second)
    peer = ObservedPeer(
        public_key=WireGuardKey(bytes(32)),
        allowed_ips=(),
        endpoint=endpoint,
        keepalive_s=25,
        latest_handshake_unix_s=int(now.unix_s - handshake_age_s),
        rx_bytes=0,
        tx_bytes=0,
    )
    return mine.words([(node(1), peer)], lambda _: linked, now)


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32))


def at(second: float) -> Instant:
    return Instant(1_000.0 + second, 1_900_000_000.0 + second)
