"""``meshpeer hosts``: who is listed, and what is asked for wrongly."""

from __future__ import annotations

from cli_calls import Call
from fake_control_api import FakeApi


def test_this_node_comes_first_and_then_who_can_be_used(agent: FakeApi, call: Call) -> None:
    ran = call("hosts", "--format", "dask")
    node = call("status", "--json").json()["node"]  # type: ignore[index]
    usable = [
        one["ipv4"]
        for one in sorted(call("peers", "--json").json(), key=lambda one: one["name"])  # type: ignore[call-overload]
        if one["state"] == "alive" and one["path"] not in ("link", "none")
    ]
    assert ran.out.split() == [node["ipv4"], *usable]


def test_all_are_those_that_have_not_left(agent: FakeApi, call: Call) -> None:
    known = call("peers", "--json").json()
    ran = call("hosts", "--format", "dask", "--all")
    assert len(ran.out.split()) == 1 + sum(one["state"] not in ("left", "revoked") for one in known)  # type: ignore[attr-defined]


def test_nobody_of_a_region_is_an_error_of_two_lines(agent: FakeApi, call: Call) -> None:
    ran = call("hosts", "--format", "ray", "--region", "atlantis")
    assert ran.code == 1
    assert "no member of region atlantis" in ran.two_lines[0]


def test_a_format_that_is_none_names_those_there_are(agent: FakeApi, call: Call) -> None:
    ran = call("hosts", "--format", "slurm")
    assert ran.code == 2
    assert all(one in ran.err for one in ("ssh", "ansible", "mpi", "dask", "ray"))
