"""An explanation in words: the answer first, no more than is known, and what to do."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core" / "node"))

from why_cases import NOW, known, look_at, two_regions

from meshpeer.app.why_rules import rule_view
from meshpeer.app.why_view import Words, why_view
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.opinions import Opinion, State
from meshpeer.core.node.why import Explanation, Known, RelayReason, StateReason, StayReason, explain
from meshpeer.core.topology.moves import Stay, Waits
from meshpeer.runtime.control import Why, WhyRule

NOBODY = NodeId(bytes(32))


def test_by_hubs_the_way_is_named_with_whose_hubs_and_reaching_is_not_claimed() -> None:
    view, one, other, path = two_regions()
    found = words(explain(known(one, view), one, other))
    a, b, c, d = (name(node) for node in path)
    assert (
        found.answer
        == f"{a} goes to {d} by hubs: {a} -> {b} (hub of {home(b)}) -> {c} (hub of {home(c)}) -> {d}"
    )
    assert found.path == (a, b, c, d)
    assert found.verdict == "hubs"
    assert found.unknown == (
        f"whether the tunnel of {b} and {c} works: run `meshpeer why {c}` on {b}",
        f"whether the tunnel of {c} and {d} works: run `meshpeer why {d}` on {c}",
    )
    assert found.todo == ()


def test_a_tunnel_of_their_own_is_told_with_its_endpoint_and_whose_view_it_is() -> None:
    view, one, other, _ = two_regions()
    state = known(one, view, topology="full")
    a, b = name(one), name(other)
    there = words(explain(state, one, other), me=one).answer
    back = words(explain(state, other, one), me=one).answer
    assert there == f"{a} and {b} have a tunnel of their own, direct to 192.0.2.1:51820"
    assert back == f"{b} and {a} have a tunnel of their own, from {a} to 192.0.2.1:51820"


def test_from_a_third_node_all_is_by_the_plan() -> None:
    view, one, other, path = two_regions()
    third = next(node.node for node in view.members if node.node not in path)
    found = words(explain(known(third, view), one, other), me=third)
    assert found.answer.startswith(f"by the plan {name(one)} goes to {name(other)} by hubs: ")
    assert found.unknown[0].startswith("whether that works, what ")
    assert found.candidates == found.tunnels == ()


@pytest.mark.parametrize(
    ("handshake", "said"),
    [
        (int(NOW) - 20, "carries nothing: no UDP answered since"),
        (0, "has never had a handshake, no UDP answered yet, asked since"),
    ],
)
def test_a_silent_tunnel_is_named_with_since_when_whatever_its_handshake_says(
    handshake: int, said: str
) -> None:
    view, one, other, _ = two_regions()
    state = known(one, view, topology="full", linked=True)
    silent = dataclasses.replace(
        look_at(other, works=False), handshake_unix_s=handshake, silent_since_unix_s=NOW - 15
    )
    found = words(explain(dataclasses.replace(state, look=lambda _: silent), one, other), me=one)
    a, b = name(one), name(other)
    assert found.verdict == "link"
    assert found.answer == (
        f"{a} reaches {b} by a control link only: the tunnel of {a} and {b} {said} 2030-03-17 17:46:25 UTC"
    )
    assert found.todo[0].startswith("open UDP 51820")


@pytest.mark.parametrize("carried", [True, False])
def test_a_link_that_does_not_go_straight_is_told(carried: bool) -> None:
    view, one, other, path = two_regions()
    carrier = path[1] if carried else None
    state = dataclasses.replace(
        known(one, view, topology="full"), carrier_of=lambda _: carrier, forwarded=lambda _: not carried
    )
    (rule,) = (rule for rule in words(explain(state, one, other), me=one).rule if "link_" in rule.code)
    if carrier is None:
        assert rule.code == "link_forwarded"
        assert rule.text == f"the control link to {name(other)} goes through a forwarded port (via = ssh)"
    else:
        assert rule.code == "link_carried"
        assert rule.text.startswith(f"the control link to {name(other)} goes over {name(carrier)}, sealed")
    third = next(node.node for node in view.members if node.node not in (one, other))
    foreign = words(explain(dataclasses.replace(state, me=third), one, other), me=third)
    assert not any("link_" in rule.code for rule in foreign.rule)


def test_a_tunnel_without_a_handshake_is_named_with_what_to_open() -> None:
    view, one, other, _ = two_regions()
    state = known(one, view, topology="full", works={})
    found = words(explain(state, one, other), me=one)
    a, b = name(one), name(other)
    assert found.answer == f"{a} does not reach {b}: the tunnel of {a} and {b} has never had a handshake"
    assert found.todo[0] == f"open UDP 51820 on {b} or on {a}: one of the two must let the other's packets in"
    (tried,) = found.candidates
    assert (tried.tunnel, tried.source, tried.state) == (b, "near", "given_up")


@pytest.mark.parametrize(
    ("relay", "asked", "hopeless", "lenders", "code", "says"),
    [
        (True, False, True, 2, "relayed", "passes on what they encrypt, and can't read it"),
        (True, False, False, 2, "relayed", "got no handshake directly"),
        (False, True, True, 2, "relay_asked", "both ends have to ask it"),
        (False, False, True, 2, "relay_wanted", "no relay took them so far"),
        (False, False, True, 0, "relay_wanted", "no member that could relay them"),
    ],
)
def test_what_a_relay_has_to_do_with_a_tunnel_is_told(
    relay: bool, asked: bool, hopeless: bool, lenders: int, code: str, says: str
) -> None:
    _, one, other, path = two_regions()
    reason = RelayReason(
        node=other,
        relay=path[1] if relay else None,
        asked=path[1] if asked else None,
        hopeless=hopeless,
        lenders=lenders,
    )
    said = rule(reason, me=one)
    assert said.code == code
    assert says in said.text
    assert ("can't meet directly" in said.text) is hopeless


def test_relays_whose_ports_do_not_answer_are_named() -> None:
    _, one, other, path = two_regions()
    reason = RelayReason(node=other, relay=None, asked=None, hopeless=True, lenders=1, shut=(path[1],))
    said = rule(reason, me=one)
    assert f"the ports that {name(path[1])} would lend do not answer {name(one)}" in said.text


def test_a_path_by_a_relay_is_told_with_its_name_and_end() -> None:
    view, one, other, path = two_regions()
    reason = RelayReason(node=other, relay=path[1], asked=None, hopeless=True, lenders=2)
    state = dataclasses.replace(known(one, view, topology="full"), relayed=lambda _: reason)
    found = words(explain(state, one, other), me=one)
    assert found.verdict == "relay"
    assert f"by the relay {name(path[1])}, from {name(one)} to 192.0.2.1:51820" in found.answer


def test_every_stay_has_words() -> None:
    for waits in Waits:
        for direct in (False, True):
            stay = Stay(direct=direct, waits=waits, idle_s=None if direct else 12.0)
            said = rule(StayReason(node=two_regions()[1], stay=stay, idle_s=180))
            assert said.code == ("stays_by_hubs" if direct else "stays_direct")
    assert (
        "traffic went through it 12 s ago, and it moves after 180 s without"
        in rule(
            StayReason(
                node=two_regions()[1], stay=Stay(direct=False, waits=Waits.TRAFFIC, idle_s=12.0), idle_s=180
            )
        ).text
    )


def test_a_dead_member_is_told_with_why_and_that_its_tunnels_stay() -> None:
    view, one, other, _ = two_regions()
    opinion = Opinion(state=State.DEAD, since_unix_s=NOW - 90, because="refused", observers=(one,))
    said = rule(StateReason(node=other, opinion=opinion), me=view.members[0].node)
    assert said.code == "member_dead"
    assert f"{name(other)} has been dead for 1 min 30 s" in said.text
    assert "Its tunnels stay all the same" in said.text


@pytest.mark.parametrize(("taken", "code"), [(False, "no_interface"), (True, "key_taken")])
def test_a_member_without_tunnels_says_so_and_what_to_do(taken: bool, code: str) -> None:
    view, one, other, _ = two_regions()
    less = dataclasses.replace(view, members=tuple(m for m in view.members if m.node != other))
    state: Known = dataclasses.replace(known(one, less), shown_keys=frozenset({other} if taken else ()))
    found = words(explain(state, one, other))
    assert found.answer == f"{name(one)} does not reach {name(other)}: {name(other)} has no tunnels"
    assert [one.code for one in found.rule] == [code]
    assert len(found.todo) == 1


# --- helpers ------------------------------------------------------------------------------------------------


def name(node: NodeId) -> str:
    return next(one.name for one in two_regions()[0].members if one.node == node)


def home(text: str) -> str:
    return next(one.region for one in two_regions()[0].members if one.name == text)


def words(found: Explanation, *, me: NodeId | None = None) -> Why:
    said = Words(me=me or found.source, name_of=name, port_of=lambda _: 51_820, now_unix_s=NOW)
    return why_view(found, said)


def rule(reason: StayReason | StateReason, *, me: NodeId = NOBODY) -> WhyRule:
    return rule_view(reason, name_of=lambda node: name(node) if any(node) else "me", me=me, now_unix_s=NOW)
