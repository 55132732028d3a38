"""Of every tunnel of a node: whom it probes where, whom it tells, and what counts as an answer."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from why_cases import member, view_of

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import AskEcho, Note
from meshpeer.core.ids import NodeId
from meshpeer.core.node.channels import HURRIED_MAX, HURRY_S, Channels
from meshpeer.core.paths.channel import TunnelSilent
from meshpeer.core.topology.plan import MeshPlan, plan_mesh
from meshpeer.core.topology.view import MemberView
from meshpeer.core.wgconf.model import ObservedPeer

UNIX = 1_900_000_000.0
KEEPALIVE_S = 25


def test_a_silent_tunnel_of_a_living_member_is_probed_at_the_members_own_address() -> None:
    it = Scene(2)
    probes = it.probes(10)
    assert {one.address for one in probes} == {it.others[0].ipv6}
    assert len({one.number for one in probes}) == len(probes) > 0


def test_a_new_tunnel_has_time_to_shake_hands_by_itself() -> None:
    it = Scene(3)
    assert it.probes(4) == []
    assert len(it.probes(1)) == 2


def test_an_agent_that_is_gone_is_not_waited_for() -> None:
    it = Scene(2)
    it.dead.add(it.others[0].node)
    assert it.probes(20) == []


def test_a_silent_tunnel_of_a_member_that_lives_again_is_probed_at_once_by_the_lower_end() -> None:
    """WireGuard shakes hands for it; by itself it may wait for a keepalive. The lower end alone asks: both
    would lose both answers."""
    it = Scene(3)
    it.shake(1)
    shaken, never = it.others
    it.dead.update((shaken.node, never.node))
    it.follow()
    it.probes(KEEPALIVE_S + 30)
    assert it.probes(20) == []
    it.dead.clear()
    it.follow()
    (probe,) = [one for one in it.channels.tick(it.now) if isinstance(one, AskEcho)]
    assert probe.address == shaken.ipv6
    it.follow()
    assert it.channels.tick(it.now) == []


def test_a_tunnel_without_an_endpoint_is_left_alone() -> None:
    it = Scene(2, endpoint=None)
    assert it.probes(20) == []


def test_an_answer_counts_once_and_only_from_where_it_was_asked() -> None:
    it = Scene(3)
    node, other = it.others
    probe = next(one for one in it.probes(10) if one.address == node.ipv6)
    it.channels.on_echo(probe.number, other.ipv6, it.now)
    it.channels.on_echo(probe.number + 1, node.ipv6, it.now)
    assert it.channels.is_silent(node.node)
    it.channels.on_echo(probe.number, node.ipv6, it.now)
    assert not it.channels.is_silent(node.node)
    assert it.channels.has_news
    it.follow()
    assert not it.channels.has_news


def test_a_member_is_told_once_that_nothing_of_it_is_heard() -> None:
    it = Scene(2)
    node = it.others[0].node
    it.shake()
    it.probes(KEEPALIVE_S + 30)
    assert it.channels.is_silent(node)
    assert it.channels.words() == [(node, TunnelSilent())]
    assert it.channels.words() == []
    assert [one.fact for one in it.notes] == ["a tunnel answers", "a tunnel does not answer any more"]


def test_a_word_of_a_member_is_looked_into() -> None:
    it = Scene(2)
    it.shake()
    it.channels.on_word(it.others[0].node, it.now)
    assert it.probes(1) != []
    it.channels.on_word(NodeId(b"x" * 32), it.now)


def test_a_new_key_is_a_new_tunnel() -> None:
    it = Scene(2)
    it.shake()
    node = it.others[0].node
    assert not it.channels.is_silent(node)
    plan = MeshPlan(mode="full", peers=())
    it.channels.follow(plan, {}, it.now)
    assert it.channels.of(node) is None
    it.follow()
    assert it.channels.is_silent(node)


@pytest.mark.parametrize("returned", [False, True])
def test_endpoints_of_a_few_are_hurried_and_of_all_once_one_answers(returned: bool) -> None:
    it = Scene(HURRIED_MAX + 5)
    assert len(it.channels.hurried(it.now)) == HURRIED_MAX
    if returned:
        it.shake(only=1)
        assert len(it.channels.hurried(it.now)) == HURRIED_MAX + 3
        it.wait(HURRY_S)
        assert len(it.channels.hurried(it.now)) == HURRIED_MAX


# --- helpers ------------------------------------------------------------------------------------------------


class Scene:
    """One node of a full mesh, and its interface."""

    def __init__(self, count: int, endpoint: str | None = "192.0.2.1:51820") -> None:
        view = dataclasses.replace(view_of(*(member(number) for number in range(count))), topology="full")
        self.me = view.members[0].node
        self.others: tuple[MemberView, ...] = view.members[1:]
        self.plan = plan_mesh(view, self.me)
        self.now = Instant(1_000.0, UNIX)
        self.dead: set[NodeId] = set()
        self.notes: list[Note] = []
        self._endpoint = endpoint
        self._handshakes = dict.fromkeys((one.node for one in self.others), 0.0)
        seeds = itertools.count(1)
        self.channels = Channels(
            self.me,
            alive=lambda node: node not in self.dead,
            entropy=lambda count: next(seeds).to_bytes(count, "big"),
        )
        self.follow()
        self.look()

    def follow(self) -> None:
        self.channels.follow(self.plan, {one.node: one for one in self.others}, self.now)

    def shake(self, only: int = 1_000) -> None:
        """Lets the first tunnels shake hands."""
        self.wait(1)
        for one in self.others[:only]:
            self._handshakes[one.node] = self.now.unix_s
        self.look()

    def wait(self, seconds: float) -> None:
        self.now = Instant(self.now.mono_s + seconds, self.now.unix_s + seconds)

    def probes(self, seconds: int) -> list[AskEcho]:
        """Lets time pass; returns what was asked."""
        asked: list[AskEcho] = []
        for _ in range(seconds):
            self.wait(1)
            done = self.channels.tick(self.now)
            asked += [one for one in done if isinstance(one, AskEcho)]
            self.notes += [one for one in done if isinstance(one, Note)]
        return asked

    def look(self) -> None:
        peers = tuple(
            ObservedPeer(
                public_key=one.public_key,
                allowed_ips=one.allowed_ips,
                endpoint=self._endpoint,
                keepalive_s=KEEPALIVE_S,
                latest_handshake_unix_s=int(self._handshakes[one.node]),
                rx_bytes=0,
                tx_bytes=0,
            )
            for one in self.plan.peers
        )
        self.channels.observe({one.public_key: one for one in peers}, KEEPALIVE_S, self.now)
