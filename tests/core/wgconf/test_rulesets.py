"""What a ruleset does to a packet: drops it, may drop it, lets it pass."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.wgconf.rulesets import Fate, Packet, RulesetUnreadable, Verdict, judge_ruleset

WIREGUARD = Packet(hook="input", protocol="udp", dport=51820)
HUB = Packet(hook="forward", iifname="wg0", oifname="wg0")
UDP_PORT = {"payload": {"protocol": "udp", "field": "dport"}}
SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
STATE = {"ct": {"key": "state"}}
IIF, OIF = {"meta": {"key": "iifname"}}, {"meta": {"key": "oifname"}}
ACCEPT, DROP = {"accept": None}, {"drop": None}
REJECT = {"reject": {"type": "icmpx", "expr": "port-unreachable"}}
COUNTER = {"counter": {"packets": 1, "bytes": 2}}


def match(left: object, right: object, op: str = "==") -> dict[str, object]:
    return {"match": {"op": op, "left": left, "right": right}}


ESTABLISHED = [match(STATE, ["established", "related"], "in"), ACCEPT]
STATE_MAP = [{"vmap": {"key": STATE, "data": {"set": [["established", ACCEPT], ["invalid", DROP]]}}}]
KNOWS_ONE = [match(SADDR, "192.0.2.1"), ACCEPT]


@pytest.mark.parametrize(
    ("policy", "rules", "fate", "by_policy"),
    [
        ("accept", [], None, False),
        ("drop", [], Fate.DROPS, True),
        ("drop", [ESTABLISHED, [match(IIF, "lo"), ACCEPT]], Fate.DROPS, True),
        ("drop", [[match(IIF, "eth0"), ACCEPT]], Fate.MAY_DROP, True),
        ("drop", [ESTABLISHED, STATE_MAP], Fate.DROPS, True),
        ("drop", [[match(UDP_PORT, 51820), ACCEPT]], None, False),
        ("drop", [[match(UDP_PORT, {"set": [53, {"range": [51800, 51900]}]}), COUNTER, ACCEPT]], None, False),
        ("drop", [[match(UDP_PORT, {"set": [53, 80]}), ACCEPT]], Fate.DROPS, True),
        ("drop", [[match({"meta": {"key": "l4proto"}}, "udp"), ACCEPT]], None, False),
        ("drop", [[match({"payload": {"protocol": "tcp", "field": "dport"}}, 22), ACCEPT]], Fate.DROPS, True),
        ("drop", [KNOWS_ONE], Fate.MAY_DROP, True),
        ("drop", [[match(UDP_PORT, "@open"), ACCEPT]], Fate.MAY_DROP, True),
        ("drop", [[{"xt": None}, ACCEPT]], Fate.MAY_DROP, True),
        ("accept", [[match(UDP_PORT, 51820), DROP]], Fate.DROPS, False),
        ("accept", [[match(UDP_PORT, 51820), REJECT]], Fate.DROPS, False),
        ("accept", [[match(UDP_PORT, 51820, "!="), DROP]], None, False),
        ("accept", [[match(SADDR, "192.0.2.1"), match(UDP_PORT, 51820), DROP]], Fate.MAY_DROP, False),
        ("accept", [KNOWS_ONE, [match(UDP_PORT, 51820), DROP]], Fate.MAY_DROP, False),
        ("accept", [[match(UDP_PORT, 51820), ACCEPT], [DROP]], None, False),
        ("accept", [[{"jump": {"target": "more"}}], [DROP]], None, False),
        ("accept", [[match(SADDR, "192.0.2.1"), {"return": None}], [DROP]], Fate.MAY_DROP, False),
        ("accept", [[{"return": None}], [DROP]], None, False),
        ("drop", [[{"jump": {"target": "round"}}]], Fate.MAY_DROP, True),
        ("drop", [[{"goto": {"target": "empty"}}], [ACCEPT]], Fate.DROPS, True),
    ],
)
def test_a_packet_in_a_chain(
    policy: str, rules: list[list[object]], fate: Fate | None, by_policy: bool
) -> None:
    found = judge_ruleset(ruleset("input", policy, rules), WIREGUARD)
    expected = [] if fate is None else [Verdict(chain="inet filter base", fate=fate, by_policy=by_policy)]
    assert found == expected


@pytest.mark.parametrize(
    ("rules", "fate"),
    [
        ([], Fate.DROPS),
        ([[match(IIF, "docker0"), ACCEPT]], Fate.DROPS),
        ([[match(IIF, "wg*"), match(OIF, "wg0"), ACCEPT]], None),
        ([[match(IIF, "wg0"), match(OIF, "eth0"), ACCEPT]], Fate.DROPS),
    ],
)
def test_a_hubs_packet_in_a_chain_that_drops(rules: list[list[object]], fate: Fate | None) -> None:
    assert [one.fate for one in judge_ruleset(ruleset("forward", "drop", rules), HUB)] == [fate] * bool(fate)


def test_what_answers_passes_where_what_is_new_does_not() -> None:
    text = ruleset("input", "drop", [ESTABLISHED])
    answer = Packet(hook="input", protocol="udp", dport=51820, state="established")
    assert [one.fate for one in judge_ruleset(text, WIREGUARD)] == [Fate.DROPS]
    assert judge_ruleset(text, answer) == []


def test_chains_of_other_hooks_and_ones_own_table_do_not_count() -> None:
    text = ruleset("input", "drop", [])
    assert judge_ruleset(text, HUB) == []
    assert judge_ruleset(text, WIREGUARD, own="filter") == []


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"nftables": 1}', b"nonsense"])
def test_what_is_no_ruleset_is_refused(text: bytes) -> None:
    with pytest.raises(RulesetUnreadable):
        judge_ruleset(text, WIREGUARD)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70_000) | st.sampled_from(["lo", "udp", "@x", "base", "new"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "match",
                    "left",
                    "right",
                    "op",
                    "meta",
                    "key",
                    "vmap",
                    "data",
                    "set",
                    "jump",
                    "target",
                    "drop",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.lists(_JSON, max_size=4), max_size=4))
def test_no_rule_however_odd_breaks_the_judge(rules: list[list[object]]) -> None:
    judge_ruleset(ruleset("input", "drop", rules), WIREGUARD)


def test_a_chain_that_many_jump_to_is_walked_once() -> None:
    """Eight jumps in each of sixteen chains are more ways than anyone lives to see."""
    where = {"family": "inet", "table": "filter"}
    jumps = [
        {"rule": {**where, "chain": "base" if depth == 0 else f"c{depth}", "expr": [jump]}}
        for depth in range(15)
        for jump in [{"jump": {"target": f"c{depth + 1}"}}] * 8
    ]
    last = {"rule": {**where, "chain": "c15", "expr": [match(UDP_PORT, 51820), DROP]}}
    base = {"chain": {**where, "name": "base", "type": "filter", "hook": "input", "policy": "accept"}}
    text = json.dumps({"nftables": [base, *jumps, last]}).encode()
    assert [one.fate for one in judge_ruleset(text, WIREGUARD)] == [Fate.DROPS]
    assert judge_ruleset(text, Packet(hook="input", protocol="udp", dport=53)) == []


def ruleset(hook: str, policy: str, rules: list[list[object]]) -> bytes:
    base = {"family": "inet", "table": "filter", "name": "base", "type": "filter", "hook": hook, "prio": 0}
    where = {"family": "inet", "table": "filter"}
    more = [{"rule": {**where, "chain": "more", "expr": [match(UDP_PORT, 51820), ACCEPT]}}]
    round_and_round = [{"rule": {**where, "chain": "round", "expr": [{"jump": {"target": "round"}}]}}]
    own = [{"rule": {**where, "chain": "base", "expr": one}} for one in rules]
    items = [{"metainfo": {}}, {"chain": {**base, "policy": policy}}, *more, *round_and_round, *own]
    return json.dumps({"nftables": items}).encode()
