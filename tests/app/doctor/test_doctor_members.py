"""What the doctor makes of a node's place in its mesh, its clock, and who reaches it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshpeer.app.doctor.members import Standing, judge_agent, judge_clock, judge_standing
from meshpeer.app.doctor.reached import judge_reached
from meshpeer.core.membership.dialbacks import Try
from meshpeer.runtime.doctor import Finding

DAY_S = 86_400.0
WELL = Standing(
    linked=2,
    others=2,
    dead=(),
    refused_by={},
    durable=True,
    ends_in_s=300 * DAY_S,
    agree=3,
    only_issuer=False,
)
HOME, LAN = "203.0.113.9:51821", "192.168.5.2:51821"


@pytest.mark.parametrize(
    ("ahead_s", "level"),
    [
        ({}, "unknown"),
        ({"bravo": 0.4, "charlie": -0.2}, "ok"),
        ({"bravo": 60.0}, "warning"),
        ({"bravo": 400.0, "charlie": 401.0}, "bad"),
        ({"bravo": -3_600.0, "charlie": -3_601.0, "delta": 0.0}, "bad"),
        ({"bravo": 3_600.0, "charlie": 0.1, "delta": 0.0}, "warning"),
    ],
)
def test_a_clock_by_those_of_others(ahead_s: dict[str, float], level: str) -> None:
    assert shown(judge_clock(ahead_s)) == [f"clock {level}"]


def test_one_other_clock_that_is_off_is_that_members() -> None:
    (found,) = judge_clock({"bravo": 3_600.0, "charlie": 0.1, "delta": 0.0})
    assert found.text == "the clock of bravo is off: bravo's is 1 h ahead of this one's"


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (WELL, []),
        (replace(WELL, linked=0, others=0), []),
        (replace(WELL, linked=0), ["links bad"]),
        (replace(WELL, linked=1, dead=("bravo",)), ["links warning"]),
        (replace(WELL, ends_in_s=None), ["certificate bad"]),
        (replace(WELL, durable=False, ends_in_s=600.0), ["certificate warning"]),
        (replace(WELL, ends_in_s=3 * DAY_S), ["certificate warning"]),
        (replace(WELL, refused_by={"bravo": "its clock"}), ["refused warning"]),
        (
            replace(WELL, differ=("bravo and this node do not agree on the hubs: compare",)),
            ["agreement warning"],
        ),
        (replace(WELL, only_issuer=True), ["issuer warning"]),
        (replace(WELL, contradicting=("bravo",)), ["copies bad"]),
        (replace(WELL, shut_out=("bravo",)), ["shut_out warning"]),
        (replace(WELL, overreaching={"bravo": "a hub"}), ["capabilities warning"]),
    ],
)
def test_a_place_in_the_mesh(seen: Standing, expected: list[str]) -> None:
    assert [one for one in shown(judge_standing(seen)) if not one.endswith(" ok")] == expected


def test_a_node_that_was_revoked_is_told_that_and_nothing_else() -> None:
    why = "this node was revoked by alpha at 2026-11-26T10:25:27Z: laptop stolen"
    (found,) = judge_standing(replace(WELL, linked=0, durable=False, revoked=why))
    assert (found.check, found.level, found.text) == ("revoked", "bad", why)
    assert "meshpeer leave" in found.todo[0]


@pytest.mark.parametrize(
    ("lag_s", "health", "level"), [(0.1, 0, "ok"), (0.6, 0, "warning"), (0.0, 3, "warning")]
)
def test_an_agent_that_is_late_is_told(lag_s: float, health: int, level: str) -> None:
    assert shown(judge_agent(lag_s, health)) == [f"agent {level}"]


def tries(**outcomes: str) -> tuple[Try, ...]:
    return tuple(Try(endpoint={"home": HOME, "lan": LAN}[key], outcome=one) for key, one in outcomes.items())


@pytest.mark.parametrize(
    ("heard", "endpoint", "is_seed", "expected"),
    [
        ({}, "", True, ["unknown"]),
        ({"bravo": ()}, "", True, ["unknown"]),
        ({"bravo": tries(home="busy")}, "", True, ["unknown"]),
        ({"bravo": tries(home="of a later version")}, "", True, ["unknown"]),
        ({"bravo": tries(home="reached")}, "", True, ["ok"]),
        ({"bravo": tries(home="silent"), "charlie": tries(home="reached")}, HOME, True, ["ok"]),
        ({"bravo": tries(home="silent", lan="reached")}, HOME, True, ["ok", "warning"]),
        ({"bravo": tries(home="refused", lan="stranger")}, HOME, False, ["bad"]),
        ({"bravo": tries(lan="silent")}, "", True, ["bad"]),
        ({"bravo": tries(lan="silent")}, "", False, ["ok"]),
    ],
)
def test_who_reaches_the_control_port(
    heard: dict[str, tuple[Try, ...]], endpoint: str, is_seed: bool, expected: list[str]
) -> None:
    found = judge_reached(["bravo", "charlie"], heard, 51821, endpoint=endpoint, is_seed=is_seed)
    assert shown(found) == [f"control {one}" for one in expected]


def test_who_is_linked_to_nobody_can_not_know() -> None:
    assert shown(judge_reached([], {}, 51821)) == ["control unknown"]


def shown(found: list[Finding]) -> list[str]:
    assert all(one.todo for one in found if one.level in ("bad", "warning")), "each says what to do"
    return [f"{one.check} {one.level}" for one in found]
