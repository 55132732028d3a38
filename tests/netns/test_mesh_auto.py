"""A mesh of topology ``auto`` that grows from ten to eleven and shrinks to eight while all talk to all."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import meshkit
import pytest
from meshlab import Lab, Traffic

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(300)]

REGIONS = ("eu", "us", "ap")
NAMES = (
    *("alpha", "bravo", "charlie", "delta", "echo", "foxtrot"),
    *("golf", "hotel", "india", "juliett", "kilo"),
)
FIRST, ELEVENTH = NAMES[:-1], NAMES[-1]
STAYING = FIRST[:-2]
REGION_OF = {name: REGIONS[number % len(REGIONS)] for number, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*NAMES)) as lab:
        founder = lab.node("alpha")
        meshkit.found(founder, "--region", "eu")
        text = meshkit.invite(founder, "--uses", str(len(NAMES) - 1))
        for name in FIRST[1:]:
            meshkit.join(lab.node(name), text, "--region", REGION_OF[name])
        meshkit.until(lambda: modes(lab, FIRST) == {"full"} and direct(lab, FIRST), "all have tunnels", 60)
        yield lab


def test_no_connection_is_lost_from_ten_to_eleven_and_back_to_eight(lab: Lab) -> None:
    addresses = {name: meshkit.status(lab.node(name)).node.ipv4 for name in FIRST}
    apart = [pair for pair in itertools.combinations(FIRST, 2) if REGION_OF[pair[0]] != REGION_OF[pair[1]]]
    with Traffic(lab) as traffic:
        for one, other in apart:
            traffic.talk(one, other, addresses[other])
        meshkit.until(lambda: all(len(talk.answers()) > 5 for talk in traffic.talks), "all talk", 30)
        text = meshkit.invite(lab.node("alpha"))
        meshkit.join(lab.node(ELEVENTH), text, "--region", REGION_OF[ELEVENTH])
        meshkit.until(lambda: modes(lab, NAMES) == {"regional"}, "all are regional", 60)
        meshkit.until(lambda: hubs_are_settled(lab), "pairs of hubs have moved", 60)
        assert_all_live(traffic, "regional", set(FIRST))
        for one, other in apart:
            paths = {meshkit.peers(lab.node(one))[other].path, meshkit.peers(lab.node(other))[one].path}
            kept = other in meshkit.plan(lab.node(one)).keeps
            assert paths == ({"direct"} if kept or active(lab, one, other) else {"hub"}), (one, other)
        for name in (*FIRST[-2:], ELEVENTH):
            meshkit.meshpeer(lab.node(name), "leave")
        meshkit.until(lambda: modes(lab, STAYING) == {"full"}, "all are full", 60)
        meshkit.until(lambda: direct(lab, STAYING), "all have tunnels of their own", 90)
        assert_all_live(traffic, "full again", set(STAYING))


# --- helpers ------------------------------------------------------------------------------------------------


def assert_all_live(traffic: Traffic, when: str, names: set[str]) -> None:
    """Every connection between these is open still, and answers from now on."""
    now_s = time.time()
    for talk in traffic.talks:
        if {talk.source, talk.target} <= names:
            pair = f"{talk.source} and {talk.target}, {when}"
            meshkit.until(lambda: talk.answers()[-1:] > [now_s], f"an answer between {pair}", 30)  # noqa: B023
            assert not talk.lost(), pair


def modes(lab: Lab, names: tuple[str, ...]) -> set[str]:
    return {meshkit.plan(lab.node(name)).mode for name in names}


def direct(lab: Lab, names: tuple[str, ...]) -> bool:
    return all(
        peer.path == "direct"
        for name in names
        for other, peer in meshkit.peers(lab.node(name)).items()
        if other in names
    )


def hubs_are_settled(lab: Lab) -> bool:
    """Says whether all agree on the hubs, and only pairs of others keep what the plan does without."""
    plans = {name: meshkit.plan(lab.node(name)) for name in NAMES}
    hubs = {plan.hubs for plan in plans.values()}
    if len(hubs) != 1:
        return False
    (active,) = hubs
    return all(not plan.keeps for name, plan in plans.items() if name in active) and not any(
        set(plan.keeps) & set(active) for plan in plans.values()
    )


def active(lab: Lab, one: str, other: str) -> bool:
    return {one, other} <= set(meshkit.plan(lab.node(one)).hubs)
