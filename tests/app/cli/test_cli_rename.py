"""What `meshpeer rename` asks, prints and refuses."""

from __future__ import annotations

from cli_calls import Call
from fake_control_api import FakeApi

from meshpeer.core.errors import Refused


def test_it_says_what_the_node_is_called_now_and_was_before(agent: FakeApi, call: Call) -> None:
    ran = call("rename", "render-3")
    assert agent.asked == [("rename", "render-3")]
    assert ran.out == "this node is called render-3 now (was alpha)\n"
    assert call("rename", "render-3", "--json").json() == {"name": "render-3", "before": "alpha"}
    assert call("rename", "render-3", "--quiet").out == ""


def test_a_name_that_another_has_is_refused_in_two_lines(agent: FakeApi, call: Call) -> None:
    agent.fault = Refused("another member is called bravo already", "choose another name")
    ran = call("rename", "bravo")
    assert ran.code == 4
    assert [line.split(": ", 1)[-1] for line in ran.err.splitlines()] == [
        "another member is called bravo already",
        "choose another name",
    ]
