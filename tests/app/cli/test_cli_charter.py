"""What the charter commands ask, print and refuse."""

from __future__ import annotations

import pytest
from cli_calls import Call
from fake_control_api import FakeApi

from meshpeer.runtime.control import CharterChange


def test_show_prints_every_setting_and_who_set_it(agent: FakeApi, call: Call) -> None:
    ran = call("charter", "show")
    for text in ("auto, which is full now", "10.10.0.0/24", "by alpha", "1420", "25 s", "180 s"):
        assert text in ran.out
    assert call("charter", "show", "--json").json()["version"] == 1  # type: ignore[index]


def test_set_asks_for_what_the_options_say_and_nothing_else(agent: FakeApi, call: Call) -> None:
    ran = call("charter", "set", "--topology", "regional", "--keepalive", "15s", "--idle", "2m")
    assert ("change_charter", CharterChange(topology="regional", keepalive_s=15, idle_s=120)) in agent.asked
    assert ran.out.startswith("charter 2 is signed")
    assert "15 s" in ran.out


@pytest.mark.parametrize("off", ["0", "0s"])
def test_keepalive_can_be_switched_off(agent: FakeApi, call: Call, off: str) -> None:
    assert "off" in call("charter", "set", "--keepalive", off).out
    assert ("change_charter", CharterChange(keepalive_s=0)) in agent.asked


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "nothing to change"),
        (("--keepalive", "soon"), "'soon' is not a duration"),
        (("--idle", "-1"), "'-1' is not a duration"),
    ],
)
def test_what_is_no_change_is_refused_before_anything_is_asked(
    agent: FakeApi, call: Call, arguments: tuple[str, ...], says: str
) -> None:
    ran = call("charter", "set", *arguments)
    assert ran.code == 2
    assert says in ran.err
    assert agent.asked == []
