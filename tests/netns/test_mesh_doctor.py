"""``meshpeer doctor`` on real nodes: nothing wrong, UDP dropped, a closed control port, no agent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import meshkit
import msgspec
import pytest
from meshlab import Lab, Node

from meshpeer.runtime.doctor import Doctor, Finding

pytestmark = [pytest.mark.netns, pytest.mark.slow]

NAMES = ("alpha", "bravo", "charlie")
NO_UDP = """
table inet cut {
  chain in { type filter hook input priority 0; udp dport 51820 drop; }
}
"""
ANSWERS_ONLY = """
table inet closed {
  chain in { type filter hook input priority 0; policy drop; iifname lo accept; iifname wg0 accept
             meta l4proto { icmp, icmpv6 } accept; ct state established,related accept; }
}
"""


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*NAMES)) as lab:
        meshkit.found_mesh(lab, *NAMES)
        meshkit.wait_until_whole(lab, *NAMES)
        yield lab


def test_a_healthy_mesh_has_nothing_bad_and_members_reach_its_seed(lab: Lab) -> None:
    for name in NAMES:
        code, found = examine(lab.node(name))
        assert (code, found.bad, found.agent) == (0, 0, True), found
    _, found = examine(lab.node("alpha"))
    assert "reaches TCP 51821 at 192.168.77.11:51821" in one(found, "control").text
    assert one(found, "handshakes").text.startswith("2 of 2 tunnels")
    assert (one(found, "clock").level, one(found, "hosts").level) == ("ok", "ok")
    shown = meshkit.meshpeer(lab.node("alpha"), "doctor").splitlines()
    assert shown[0].startswith("alpha: ")
    assert max(map(len, shown)) <= 80


def test_a_rule_that_drops_wireguard_is_named_with_its_port(lab: Lab) -> None:
    node = lab.node("bravo")
    with rules(node, NO_UDP, "cut"):
        code, found = examine(node)
        assert (code, one(found, "udp_in").level) == (1, "bad")
        assert one(found, "udp_in").text == "the chain in of nftables' table inet cut drops UDP 51820"
        node.run(one(found, "udp_in").todo[0].split())
        assert examine(node)[0] == 0, "what it says mends it"


def test_udp_that_is_dropped_elsewhere_is_noticed_before_handshakes_grow_old(lab: Lab) -> None:
    node = lab.node("bravo")
    with rules(lab.node("alpha"), NO_UDP, "cut"), rules(lab.node("charlie"), NO_UDP, "cut"):
        _, found = examine(node)
        assert "UDP 51820" in one(found, "pings").todo[0]
        assert "alpha and charlie" in one(found, "pings").text
    meshkit.until(lambda: one(examine(node)[1], "pings").level == "ok", "bravo's tunnels carry again", 40)


def test_a_seed_that_lets_nobody_in_is_told_by_those_who_tried(lab: Lab) -> None:
    node = lab.node("alpha")
    with rules(node, ANSWERS_ONLY, "closed"):
        asked: list[tuple[int, Doctor]] = []

        def both_have_tried() -> bool:
            # Members dial back for one that has asked often only now and then: until then nobody can tell.
            asked.append(examine(node))
            return "bravo and charlie can't reach" in one(asked[-1][1], "control").text

        meshkit.until(both_have_tried, "bravo and charlie try", 60)
        code, found = asked[-1]
        assert (code, one(found, "control").level) == (1, "bad")
        assert "bravo and charlie can't reach TCP 51821 here" in one(found, "control").text
        ports = [finding for finding in found.findings if finding.group == "firewall"]
        assert [finding.level for finding in ports] == ["warning", "warning"]
        assert "drops UDP 51820 where another node begins, and lets answers in" in ports[0].text


def test_without_an_agent_it_says_so_and_checks_the_machine(lab: Lab) -> None:
    node = lab.node("charlie")
    meshkit.meshpeer(node, "stop")
    meshkit.until(lambda: not meshkit.is_running(node), "the agent has stopped")
    code, found = examine(node)
    assert (code, found.agent, found.bad) == (1, False, 1)
    assert one(found, "agent").todo[0].startswith("meshpeer up --detach")
    assert {"tools", "backend", "disk", "state", "ports", "rules"} <= {
        finding.check for finding in found.findings
    }
    meshkit.meshpeer(node, "up", "--detach")


# --- helpers ------------------------------------------------------------------------------------------------


def examine(node: Node) -> tuple[int, Doctor]:
    done = node.run(["meshpeer", "doctor", "--json"], check=False)
    return done.returncode, msgspec.json.decode(done.stdout, type=Doctor)


def one(found: Doctor, check: str) -> Finding:
    """Returns the worst finding of a check."""
    order = ("bad", "warning", "unknown", "ok")
    return min(
        (finding for finding in found.findings if finding.check == check),
        key=lambda finding: order.index(finding.level),
    )


@contextlib.contextmanager
def rules(node: Node, text: str, table: str) -> Iterator[None]:
    """Has rules on a machine while the context lives."""
    node.run(["nft", "-f", "-"], input=text)
    try:
        yield
    finally:
        node.run(["nft", "delete", "table", "inet", table])
