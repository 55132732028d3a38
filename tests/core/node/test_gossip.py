"""Gossip alone: which comparisons it opens, and how it pushes in a storm."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest

from meshpeer.core.antientropy.messages import Compare, Facts, Synced
from meshpeer.core.antientropy.rounds import ROUND_MAX_S
from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.node.gossip import Gossip, Outcome
from meshpeer.core.node.pushes import PUSH_PAUSE_MAX_S, PUSH_PAUSE_MIN_S
from meshpeer.core.records import envelope
from meshpeer.core.records.ledger import Chain, Ledger
from meshpeer.sim.world import World

A, B, C = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))


# --- comparisons --------------------------------------------------------------------------------------------


def test_links_that_come_up_together_are_compared_one_after_the_other(gossip: Gossip) -> None:
    """Who boots opens ten links at once: each of ten peers sent it all that the others did."""
    assert opened(gossip.on_up(A, at(0), opens=True)) == [A]
    assert opened(gossip.on_up(B, at(0), opens=True)) == []
    assert opened(gossip.on_up(C, at(0), opens=False)) == []
    assert opened(gossip.on_message(A, Synced(members=1), at(1))) == [B]
    assert opened(gossip.on_message(B, Synced(members=1), at(1))) == []


def test_a_comparison_that_the_opener_ends_itself_lets_the_next_begin(gossip: Gossip) -> None:
    gossip.on_up(A, at(0), opens=True)
    gossip.on_up(B, at(0), opens=True)
    assert opened(gossip.on_message(A, Compare(ranges=(), want=(), more=False), at(1))) == [B]


@pytest.mark.parametrize("how", ["late", "down", "replaced"])
def test_a_comparison_that_gets_nowhere_holds_up_nobody(gossip: Gossip, how: str) -> None:
    gossip.on_up(A, at(0), opens=True)
    gossip.on_up(B, at(0), opens=True)
    match how:
        case "late":
            deadline = gossip.next_deadline(at(0))
            assert deadline is not None
            assert deadline.at_s <= ROUND_MAX_S
            assert B in opened(gossip.tick(at(ROUND_MAX_S)))
        case "down":
            assert opened(gossip.on_down(A, at(1))) == [B]
        case _:
            # The link was exchanged for another: what was asked on the old one may be lost.
            assert opened(gossip.on_up(A, at(1), opens=True)) == [B]
            assert opened(gossip.on_message(B, Synced(members=1), at(1))) == [A]


def test_a_peer_that_is_gone_is_not_compared_with(gossip: Gossip) -> None:
    gossip.on_up(A, at(0), opens=True)
    gossip.on_up(B, at(0), opens=True)
    gossip.on_down(B, at(0))
    assert opened(gossip.on_message(A, Synced(members=1), at(1))) == []


# --- pushes -------------------------------------------------------------------------------------------------


def test_single_news_goes_at_once_and_a_storm_in_few_pushes() -> None:
    """Three hundred pieces within three seconds: a push for each would be three hundred frames a link."""
    world = World(5)
    author = world.found("alpha")
    world.run(0.5)
    assert author.node is not None
    assert author.node.presence.record is not None
    said, gossip = author.node.presence.record, gossip_of(world, author.node.presence.chain)

    def news(now_s: float) -> bytes:
        record = msgspec.structs.replace(said, sequence=said.sequence + round(100 * now_s))
        return envelope.sign(author.key, world.mesh, record)

    gossip.on_up(A, at(0), opens=False)
    pushes: list[float] = []

    def note(outcome: Outcome, now_s: float) -> None:
        if any(isinstance(message, Facts) for _, message in outcome.sends):
            pushes.append(now_s)

    now_s = 1.0
    while now_s < 4.0:
        note(gossip.spread((), [news(now_s)], at(now_s)), now_s)
        now_s += 0.01
        note(gossip.tick(at(now_s)), now_s)
    gaps = [after - before for before, after in itertools.pairwise(pushes)]
    assert pushes[0] == 1.0
    assert max(gaps) <= PUSH_PAUSE_MAX_S + 0.02
    assert len(pushes) < 3 * 3.0 / PUSH_PAUSE_MAX_S
    quiet_s = now_s + 2 * PUSH_PAUSE_MAX_S
    gossip.tick(at(quiet_s))
    note(gossip.spread((), [news(quiet_s + 1)], at(quiet_s + 1)), quiet_s + 1)
    assert pushes[-1] == quiet_s + 1
    assert gaps[0] <= 2 * PUSH_PAUSE_MIN_S


# --- helpers ------------------------------------------------------------------------------------------------


@pytest.fixture
def gossip() -> Gossip:
    return gossip_of(World(5))


def gossip_of(world: World, chain: Chain = ()) -> Gossip:
    ledger = Ledger(world.mesh, (world.root.certificate,))
    if chain:
        ledger.admit(chain, int(world.unix_s()))
    return Gossip(ledger, linked=lambda: [A, B, C], jitter=random.Random(1), counters=Counters())


def at(now_s: float) -> Instant:
    return Instant(now_s, World(5).unix_s() + now_s)


def opened(outcome: Outcome) -> list[NodeId]:
    """Returns whom a comparison was begun with."""
    return [
        peer
        for peer, message in outcome.sends
        if isinstance(message, Compare) and message.ranges and message.ranges[0][0] == b""
    ]
