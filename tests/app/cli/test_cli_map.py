"""What ``meshpeer map`` prints and writes."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cli_calls import Call
from fake_control_api import FakeApi, make_peer

KEYS = {
    "": {
        "mesh",
        "node",
        "mode",
        "states",
        "regions",
        "members",
        "paths",
        "planned",
        "left",
        "revoked",
        "notes",
    },
    "regions": {"name", "members", "hubs", "standbys", "states", "paths"},
    "members": {"id", "name", "region", "me", "hub", "state"},
    "paths": {"source", "target", "path", "via", "rtt_ms"},
}


def test_a_map_is_drawn_in_eighty_columns(agent: FakeApi, call: Call) -> None:
    agent.members = [make_peer(), make_peer(name="gamma", path="hub", via="beta", state="suspect")]
    ran = call("map")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "home, as alpha sees it"
    assert max(map(len, lines)) <= 80
    assert any(line.split()[:3] == ["◉", "alpha", "alive"] for line in lines)
    assert any(line.split()[:4] == ["╞═══◐", "gamma", "suspect", "hub"] for line in lines)
    assert call("map", "--quiet").out.splitlines() == lines[: len(call("map", "--quiet").out.splitlines())]


def test_where_letters_are_missing_a_map_is_drawn_without_them(
    agent: FakeApi, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(sys.stdout.fileno(), "w", encoding="ascii", closefd=False) as narrow:
        monkeypatch.setattr("sys.stdout", narrow)
        ran = call("map")
    assert ran.out.isascii()
    assert "|---o beta" in ran.out


def test_the_document_has_the_keys_of_the_reference(agent: FakeApi, call: Call) -> None:
    found = call("map", "--json").json()
    assert isinstance(found, dict)
    assert set(found) == KEYS[""]
    for part in ("regions", "members", "paths"):
        assert set(found[part][0]) == KEYS[part]
    assert found["paths"] == [
        {"source": "alpha", "target": "beta", "path": "direct", "via": "", "rtt_ms": 1.25}
    ]


def test_a_picture_goes_to_a_file_or_to_standard_output(agent: FakeApi, call: Call, home: Path) -> None:
    agent.members = [make_peer(name="<b>&\x1b")]
    place = home / "mesh.svg"
    ran = call("map", "--svg", str(place))
    assert (ran.code, ran.out, ran.err) == (0, "", f"drawn in {place}\n")
    ElementTree.fromstring(place.read_bytes())
    printed = call("map", "--svg", "-")
    assert printed.out.encode() == place.read_bytes()
    assert (call("map", "--svg", str(place), "--quiet").err, printed.err) == ("", "")


def test_a_picture_that_cannot_be_written_is_the_environments_fault(
    agent: FakeApi, call: Call, home: Path
) -> None:
    ran = call("map", "--svg", str(home / "nowhere" / "mesh.svg"))
    assert (ran.code, ran.out) == (5, "")
    assert ran.two_lines[0].endswith("can't be written: No such file or directory")


def test_a_map_is_a_document_or_a_picture(agent: FakeApi, call: Call) -> None:
    ran = call("map", "--json", "--svg", "-")
    assert (ran.code, ran.out) == (2, "")
    assert agent.asked == []
