"""News along a tree that repairs itself, and the bounds of what a peer may make this node keep."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import Counter as Count

import pytest

from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.membership import plumtree
from meshpeer.core.membership.plumtree import (
    ANNOUNCE_AFTER_S,
    EAGER_MAX,
    GRAFT_AFTER_S,
    GRAFT_NEXT_S,
    IDS_MAX,
    MISSING_MAX,
    PRUNE_PAUSE_S,
    Plumtree,
)
from meshpeer.core.membership.plumtree_messages import Graft, IHave, Prune
from meshpeer.core.membership.rates import SWEEP_EVERY, Buckets

A, B, C = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))


def test_news_goes_eagerly_to_all_but_its_source() -> None:
    tree = tree_with(A, B, C)
    assert tree.on_news(news(1), A, at(0)) == [B, C]
    assert tree.on_news(news(2), None, at(0)) == [A, B, C]


def test_who_pushes_what_is_known_is_pruned_once() -> None:
    tree = tree_with(A, B)
    assert tree.on_duplicate(A, at(1)) == [(A, Prune())]
    assert tree.on_duplicate(A, at(1 + PRUNE_PAUSE_S / 2)) == []
    assert (tree.eager, tree.lazy) == ([B], [A])


def test_a_link_that_replaces_another_is_eager_or_lazy_and_not_both() -> None:
    tree = tree_with(A, B)
    tree.on_prune(B)
    tree.peer_up(B)
    assert (tree.eager, tree.lazy) == ([A, B], [])


def test_lazy_links_hear_of_news_together_and_a_moment_later() -> None:
    tree = tree_with(A, B)
    tree.on_prune(B)
    tree.on_news(news(1), A, at(0))
    tree.on_news(news(2), A, at(0.01))
    assert tree.tick(at(0.02)) == []
    assert tree.tick(at(ANNOUNCE_AFTER_S)) == [(B, IHave(ids=(news(1), news(2))))]


def test_announced_news_that_does_not_come_is_asked_for_one_announcer_after_the_other() -> None:
    tree = tree_with(A, B)
    tree.on_prune(A)
    tree.on_ihave(A, IHave(ids=(news(1),)), at(0))
    tree.on_ihave(B, IHave(ids=(news(1),)), at(0))
    assert tree.tick(at(GRAFT_AFTER_S)) == [(A, Graft(ids=(news(1),)))]
    assert A in tree.eager
    assert tree.tick(at(GRAFT_AFTER_S + GRAFT_NEXT_S)) == [(B, Graft(ids=(news(1),)))]
    tree.tick(at(10))
    assert tree.next_deadline() is None


def test_news_that_comes_in_time_is_not_asked_for() -> None:
    tree = tree_with(A, B)
    tree.on_ihave(B, IHave(ids=(news(1),)), at(0))
    tree.on_news(news(1), A, at(0.1))
    assert not [one for _, one in tree.tick(at(5)) if isinstance(one, Graft)]


def test_graft_makes_a_link_eager_and_names_what_was_seen() -> None:
    tree = tree_with(A)
    tree.on_prune(A)
    tree.on_news(news(1), None, at(0))
    assert tree.on_graft(A, Graft(ids=(news(1), news(2))), at(1)) == [news(1)]
    assert tree.eager == [A]


def test_what_reconciliation_brought_is_announced_to_all_and_pushed_to_nobody() -> None:
    tree = tree_with(A, B, C)
    tree.on_found(news(1), A, at(0))
    assert tree.tick(at(ANNOUNCE_AFTER_S)) == [(B, IHave(ids=(news(1),))), (C, IHave(ids=(news(1),)))]


def test_seed_that_everybody_dials_pushes_to_a_few() -> None:
    peers = [NodeId(bytes([number]) * 32) for number in range(1, 60)]
    assert len(tree_with(*peers).eager) == EAGER_MAX


def test_bounds_hold_whatever_a_peer_announces(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tree_with(A)
    for start in range(0, MISSING_MAX + 512, 512):
        tree.on_ihave(A, IHave(ids=tuple(news(start + number) for number in range(512))), at(0))
    assert len(tree._missing) == MISSING_MAX
    assert tree._counters.get(Counter.IHAVES_DROPPED) == 512
    for bad in ((b"short",), tuple(news(number) for number in range(IDS_MAX + 1))):
        with pytest.raises(PeerFault):
            tree.on_ihave(A, IHave(ids=bad), at(0))
        with pytest.raises(PeerFault):
            tree.on_graft(A, Graft(ids=bad), at(0))
    monkeypatch.setattr(plumtree, "SEEN_MAX", 100)
    fresh = tree_with(A)
    for number in range(150):
        fresh.on_news(news(number), None, at(0))
    assert (len(fresh._seen), fresh._counters.get(Counter.SEEN_EVICTED)) == (100, 50)


@pytest.mark.parametrize("seed", range(5))
def test_everybody_hears_everything_and_the_tree_thins_out(seed: int) -> None:
    net = Network(50, seed)
    net.spread(20)
    net.settle()
    assert all(len(one._seen) == 20 for one in net.trees)
    before = sum(net.pushes.values())
    net.pushes.clear()
    net.spread(20)
    net.settle()
    assert all(len(one._seen) == 40 for one in net.trees)
    assert sum(net.pushes.values()) < before
    assert sum(net.pushes.values()) < 2.5 * 20 * 50


@pytest.mark.parametrize("seed", range(5))
def test_lost_pushes_are_asked_for(seed: int) -> None:
    net = Network(40, seed, lost=0.2)
    net.spread(30)
    net.settle()
    assert sum(len(one._seen) for one in net.trees) >= 0.99 * 30 * 40


def test_bucket_gives_its_burst_and_then_its_rate() -> None:
    buckets: Buckets[str] = Buckets(per_s=2.0, burst=5.0)
    assert [buckets.take("a", at(0)) for _ in range(6)] == [True] * 5 + [False]
    assert buckets.take("b", at(0))
    assert [buckets.take("a", at(1)) for _ in range(3)] == [True, True, False]


def test_buckets_that_are_full_again_are_forgotten() -> None:
    buckets: Buckets[int] = Buckets(per_s=1.0, burst=1.0)
    for number in range(SWEEP_EVERY):
        buckets.take(number, at(number * 2.0))
    assert len(buckets) < 5


# --- helpers ------------------------------------------------------------------------------------------------


def news(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(4)).digest()[:16]


def at(now_s: float) -> Instant:
    return Instant(now_s, 1_800_000_000 + now_s)


def tree_with(*peers: NodeId) -> Plumtree:
    tree = Plumtree(Counters())
    for peer in peers:
        tree.peer_up(peer)
    return tree


class Network:
    """Trees over a random graph of degree 6 to 8, with 10 ms between any two."""

    def __init__(self, size: int, seed: int, lost: float = 0.0) -> None:
        self.dice = random.Random(seed)
        self.lost = lost
        self.now = 0.0
        self.number = self.order = 0
        self.pushes: Count[int] = Count()
        self.ids = [NodeId(hashlib.sha256(bytes([one])).digest()) for one in range(size)]
        self.trees = [Plumtree(Counters()) for _ in range(size)]
        self.heap: list[tuple[float, int, int, int, object]] = []
        for me in range(size):
            for other in {(me + 1) % size, *self.dice.sample(range(size), 3)} - {me}:
                self.trees[me].peer_up(self.ids[other])
                self.trees[other].peer_up(self.ids[me])

    def spread(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            me = self.dice.randrange(len(self.ids))
            self.push(me, news(self.number), None)
            self.run(self.now + 0.7)

    def settle(self) -> None:
        self.run(self.now + 10)

    def push(self, me: int, news_id: bytes, source: NodeId | None) -> None:
        for peer in self.trees[me].on_news(news_id, source, at(self.now)):
            self.send(me, peer, news_id)

    def send(self, me: int, peer: NodeId, what: object) -> None:
        if isinstance(what, bytes) and self.dice.random() < self.lost:
            return
        self.order += 1
        heapq.heappush(self.heap, (self.now + 0.01, self.order, me, self.ids.index(peer), what))

    def run(self, until: float) -> None:
        while self.now < until:
            deadlines = [one.next_deadline() for one in self.trees]
            ticks = [one.at_s for one in deadlines if one]
            self.now = min([until, *ticks, *(entry[0] for entry in self.heap[:1])])
            while self.heap and self.heap[0][0] <= self.now:
                _, _, source, me, what = heapq.heappop(self.heap)
                self.take(me, self.ids[source], what)
            for me, tree in enumerate(self.trees):
                for peer, message in tree.tick(at(self.now)):
                    self.send(me, peer, message)

    def take(self, me: int, source: NodeId, what: object) -> None:
        tree, now = self.trees[me], at(self.now)
        match what:
            case bytes() if tree.knows(what):
                self.pushes[me] += 1
                for peer, message in tree.on_duplicate(source, now):
                    self.send(me, peer, message)
            case bytes():
                self.pushes[me] += 1
                self.push(me, what, source)
            case IHave():
                tree.on_ihave(source, what, now)
            case Graft():
                for news_id in tree.on_graft(source, what, now):
                    self.send(me, source, news_id)
            case Prune():
                tree.on_prune(source)
