"""What the doctor makes of rules that others wrote."""

from __future__ import annotations

import json

import pytest

from meshpeer.app.doctor.firewall import Wanted, judge_firewall
from meshpeer.runtime.doctor import Finding

WANTED = Wanted(wireguard_port=51820, control_port=51821, interface="wg0")
HUB = Wanted(wireguard_port=51820, control_port=51821, interface="wg0", forwards=True)
ACCEPT, DROP = {"accept": None}, {"drop": None}


def match(left: object, right: object) -> dict[str, object]:
    return {"match": {"op": "==", "left": left, "right": right}}


ANSWERS = [match({"ct": {"key": "state"}}, ["established", "related"]), ACCEPT]
UDP = match({"payload": {"protocol": "udp", "field": "dport"}}, 51820)
TCP = match({"payload": {"protocol": "tcp", "field": "dport"}}, 51821)
FROM_ONE = match({"payload": {"protocol": "ip", "field": "saddr"}}, "192.0.2.1")
MESH = match({"meta": {"key": "iifname"}}, "wg0")


@pytest.mark.parametrize(
    ("policy", "rules", "expected"),
    [
        ("accept", [], ["rules ok"]),
        ("accept", [[UDP, DROP]], ["udp_in bad"]),
        ("accept", [[FROM_ONE, DROP]], ["udp_in warning", "tcp_in warning"]),
        ("drop", [], ["udp_in bad", "tcp_in bad"]),
        ("drop", [ANSWERS, [MESH, ACCEPT]], ["udp_in warning", "tcp_in warning"]),
        ("drop", [ANSWERS, [UDP, ACCEPT]], ["tcp_in warning"]),
        ("drop", [ANSWERS, [UDP, ACCEPT], [TCP, ACCEPT]], ["rules ok"]),
    ],
)
def test_ports_from_outside(policy: str, rules: list[list[object]], expected: list[str]) -> None:
    assert shown(judge_firewall(ruleset("input", policy, rules), "", False, WANTED)) == expected


def test_what_a_node_sends_matters_too() -> None:
    assert shown(judge_firewall(ruleset("output", "accept", [[UDP, DROP]]), "", False, WANTED)) == [
        "udp_out bad"
    ]


def test_forwarding_matters_where_a_node_forwards_and_its_own_table_is_its_own() -> None:
    text = ruleset("forward", "drop", [])
    assert shown(judge_firewall(text, "", False, WANTED)) == ["rules ok"]
    assert shown(judge_firewall(text, "", False, HUB)) == ["forward bad"]
    own = ruleset("forward", "drop", [], table="meshpeer_wg0")
    assert shown(judge_firewall(own, "", False, HUB)) == ["rules ok"]


@pytest.mark.parametrize(
    ("family", "table", "chain", "todo"),
    [
        ("inet", "filter", "input", "nft insert rule inet filter input udp dport 51820 accept"),
        ("inet", "firewalld", "filter_INPUT", "firewall-cmd --permanent --add-port=51820/udp"),
        ("ip", "filter", "INPUT", "iptables -I INPUT -p udp --dport 51820 -j ACCEPT"),
        ("ip6", "filter", "INPUT", "ip6tables -I INPUT -p udp --dport 51820 -j ACCEPT"),
    ],
)
def test_what_mends_it_is_in_the_words_of_who_keeps_the_rules(
    family: str, table: str, chain: str, todo: str
) -> None:
    text = ruleset("input", "accept", [[UDP, DROP]], family=family, table=table, chain=chain)
    (found,) = judge_firewall(text, "", False, WANTED)
    assert found.todo[0].startswith(todo)


def test_what_can_not_be_looked_at_is_not_known() -> None:
    assert shown(judge_firewall(None, "that takes root", False, WANTED)) == ["rules unknown"]
    assert shown(judge_firewall(b"nonsense", "", False, WANTED)) == ["rules unknown"]
    legacy = judge_firewall(ruleset("input", "accept", []), "", True, WANTED)
    assert shown(legacy) == ["rules ok", "legacy unknown"]


def shown(found: list[Finding]) -> list[str]:
    assert all(one.todo for one in found if one.level in ("bad", "warning")), "each says what to do"
    return [f"{one.check} {one.level}" for one in found]


def ruleset(
    hook: str,
    policy: str,
    rules: list[list[object]],
    *,
    family: str = "inet",
    table: str = "filter",
    chain: str = "base",
) -> bytes:
    base = {"family": family, "table": table, "name": chain, "type": "filter", "hook": hook, "policy": policy}
    own = [{"rule": {"family": family, "table": table, "chain": chain, "expr": one}} for one in rules]
    return json.dumps({"nftables": [{"chain": base}, *own]}).encode()
