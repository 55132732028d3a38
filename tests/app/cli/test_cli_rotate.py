"""What `meshpeer rotate-key` asks, prints and refuses."""

from __future__ import annotations

import pytest
from cli_calls import Call
from fake_control_api import FakeApi, make_rotation

NEW = "bmV3IGtleQ=="


def test_it_follows_the_change_and_names_the_new_key(agent: FakeApi, call: Call) -> None:
    agent.rotations = [
        make_rotation(),
        make_rotation(state="announced", next_public_key=NEW, waiting_for=("bravo",)),
        make_rotation(state="called", next_public_key=NEW, ready=2),
        make_rotation(public_key=NEW, ready=2, missed=("echo",)),
    ]
    ran = call("rotate-key")
    assert [asked for asked in agent.asked if asked[0] == "rotate-key"] == [("rotate-key",)]
    assert ran.out.splitlines() == [
        f"this node has a new WireGuard key: {NEW}",
        "2 peers had let it in before",
        "not heard from: echo; they take it from this node's record",
    ]
    assert ran.err.splitlines() == ["waiting for bravo to let the new key in", "changing over"]


def test_its_document_is_how_the_change_ended(agent: FakeApi, call: Call) -> None:
    agent.rotations = [
        make_rotation(),
        make_rotation(state="turning"),
        make_rotation(public_key=NEW, previous_public_key="b2xkIGtleQ=="),
    ]
    shown = call("rotate-key", "--json").json()
    assert (shown["state"], shown["public_key"]) == ("steady", NEW)
    assert shown["previous_public_key"] == "b2xkIGtleQ=="


def test_a_key_that_was_not_changed_is_a_failure_that_says_why(agent: FakeApi, call: Call) -> None:
    agent.rotations = [make_rotation(), make_rotation(state="announced"), make_rotation()]
    ran = call("rotate-key")
    assert ran.code == 5
    assert "the key was not changed" in ran.err


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshpeer.app.cli.rotate.LOOK_S", 0.0)
