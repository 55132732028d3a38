"""Plumtree: news along a tree of links, announcements on the rest, which repair the tree.

After J. Leitao, J. Pereira, L. Rodrigues, "Epidemic Broadcast Trees" (SRDS 2007). Every new link is eager:
it gets news at once. Who gets a piece of news twice asks the later one to announce only (PRUNE), so what
stays eager is a tree. An announcement (IHAVE) whose news does not come in time is answered by GRAFT: the
news is sent, and the link is part of the tree again. Where the paper caches messages, a GRAFT here is
answered from the ledger, and whatever is lost all the same is found by reconciliation.

A tree is kept for all origins together. So a link is eager or lazy, nothing else, and the cost is two sets
per node."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.plumtree_messages import Graft, IHave, Prune

NEWS_ID_BYTES = 16
GRAFT_AFTER_S = 0.25
"""How long announced news may take to come by the tree: longer than a push waits on two busy hops. Who asks
too early gets it twice, and prunes a link of the tree for it."""
GRAFT_NEXT_S = 0.15
"""How long a GRAFT may take before the next announcer is asked."""
ANNOUNCE_AFTER_S = 0.1
"""Announcements wait for each other: one frame for all that came in one go."""
EAGER_MAX = 4
"""A new link is lazy where so many are eager. Random graphs of degree 3 and more are connected; a tree needs
less, and whoever is left out asks."""
SEEN_MAX = 10_000
MISSING_MAX = 2_048
"""News that was announced and has not come; more is left to reconciliation."""
ANNOUNCERS_MAX = 8
IDS_MAX = 1_024
"""Ids of one message: 17 B each."""
PRUNE_PAUSE_S = 0.5
"""News in flight when a link was pruned may come twice: one PRUNE is enough for it."""

Sends = list[tuple[NodeId, IHave | Graft | Prune]]


@dataclass(slots=True)
class _Missing:
    """News that was announced: who has it, and when to ask the next of them."""

    ask_at_s: float
    announcers: list[NodeId] = field(default_factory=list)


class Plumtree:
    """Keeps one node's part of the tree. Sans-IO."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._eager: dict[NodeId, None] = {}
        self._lazy: dict[NodeId, None] = {}
        self._seen: dict[bytes, None] = {}
        self._missing: dict[bytes, _Missing] = {}
        self._to_announce: dict[NodeId, list[bytes]] = {}
        self._announce_at_s: float | None = None
        self._pruned_at_s: dict[NodeId, float] = {}

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def eager(self) -> list[NodeId]:
        """Peers that get news at once, in id order."""
        return sorted(self._eager)

    @property
    def lazy(self) -> list[NodeId]:
        return sorted(self._lazy)

    def knows(self, news_id: bytes) -> bool:
        return news_id in self._seen

    def next_deadline(self) -> Deadline | None:
        asks = min((one.ask_at_s for one in self._missing.values()), default=None)
        return earliest(
            Deadline(asks, "announced news did not come") if asks is not None else None,
            Deadline(self._announce_at_s, "announce news") if self._announce_at_s is not None else None,
        )

    # --- links ----------------------------------------------------------------------------------------------

    def peer_up(self, peer: NodeId) -> None:
        """A new link is eager, as long as those are few: where it is not needed, the first news that comes
        twice says so. A seed that a whole mesh dials announces, and whoever lacks something grafts."""
        if len(self._eager) < EAGER_MAX:
            self._lazy.pop(peer, None)
            self._eager[peer] = None
        elif peer not in self._eager:
            self._lazy[peer] = None

    def peer_down(self, peer: NodeId) -> None:
        self._eager.pop(peer, None)
        self._lazy.pop(peer, None)
        self._to_announce.pop(peer, None)
        self._pruned_at_s.pop(peer, None)
        for missing in self._missing.values():
            if peer in missing.announcers:
                missing.announcers.remove(peer)

    # --- news -----------------------------------------------------------------------------------------------

    def on_news(self, news_id: bytes, source: NodeId | None, now: Instant) -> list[NodeId]:
        """Takes a fact that was new here; returns whom to push it to. The rest hear of it soon.

        The link that it came on is part of the tree from now on.
        """
        self.see(news_id)
        if source in self._lazy:
            self._lazy.pop(source)
            self._eager[source] = None
        self._announce(news_id, [peer for peer in self._lazy if peer != source], now)
        return [peer for peer in sorted(self._eager) if peer != source]

    def on_found(self, news_id: bytes, source: NodeId, now: Instant) -> None:
        """Takes a fact that reconciliation brought: most of the mesh knows it, so nobody is pushed to."""
        self.see(news_id)
        self._announce(news_id, [one for one in (*self._eager, *self._lazy) if one != source], now)

    def on_duplicate(self, source: NodeId, now: Instant) -> Sends:
        """A push brought only what was known: its link need not be part of the tree."""
        if now.mono_s < self._pruned_at_s.get(source, float("-inf")) + PRUNE_PAUSE_S:
            return []
        if source not in self._eager and source not in self._lazy:
            return []
        self._pruned_at_s[source] = now.mono_s
        self._eager.pop(source, None)
        self._lazy[source] = None
        self._counters.add(Counter.PRUNES_OUT)
        return [(source, Prune())]

    def on_prune(self, peer: NodeId) -> None:
        if peer in self._eager:
            self._eager.pop(peer)
            self._lazy[peer] = None

    def on_ihave(self, peer: NodeId, message: IHave, now: Instant) -> None:
        """Remembers who has what did not come yet; raises ``PeerFault`` for bad form."""
        _check(message.ids)
        for news_id in message.ids:
            if news_id in self._seen:
                continue
            missing = self._missing.get(news_id)
            if missing is None:
                if len(self._missing) >= MISSING_MAX:
                    self._counters.add(Counter.IHAVES_DROPPED)
                    continue
                missing = self._missing[news_id] = _Missing(now.mono_s + GRAFT_AFTER_S)
            if len(missing.announcers) < ANNOUNCERS_MAX and peer not in missing.announcers:
                missing.announcers.append(peer)

    def on_graft(self, peer: NodeId, message: Graft, now: Instant) -> list[bytes]:
        """Makes the link eager; returns what of the news asked for was seen here. Raises ``PeerFault``."""
        _check(message.ids)
        if peer in self._lazy:
            self._lazy.pop(peer)
            self._eager[peer] = None
        return [one for one in message.ids if one in self._seen]

    # --- time -----------------------------------------------------------------------------------------------

    def tick(self, now: Instant) -> Sends:
        sends: Sends = []
        if self._announce_at_s is not None and now.mono_s >= self._announce_at_s:
            self._announce_at_s = None
            for peer, ids in sorted(self._to_announce.items()):
                self._counters.add(Counter.IHAVES_OUT, len(ids))
                sends += [(peer, IHave(ids=tuple(part))) for part in _parts(ids)]
            self._to_announce = {}
        grafts: dict[NodeId, list[bytes]] = {}
        for news_id, missing in list(self._missing.items()):
            if now.mono_s < missing.ask_at_s:
                continue
            if not missing.announcers:
                del self._missing[news_id]
                continue
            grafts.setdefault(missing.announcers.pop(0), []).append(news_id)
            missing.ask_at_s = now.mono_s + GRAFT_NEXT_S
        for peer, ids in sorted(grafts.items()):
            self._counters.add(Counter.GRAFTS_OUT)
            self._lazy.pop(peer, None)
            self._eager[peer] = None
            sends += [(peer, Graft(ids=tuple(part))) for part in _parts(ids)]
        return sends

    # --- rules ----------------------------------------------------------------------------------------------

    def see(self, news_id: bytes) -> None:
        """Takes a fact that need not be passed on."""
        self._missing.pop(news_id, None)
        if len(self._seen) >= SEEN_MAX:
            del self._seen[next(iter(self._seen))]
            self._counters.add(Counter.SEEN_EVICTED)
        self._seen[news_id] = None

    def forget_seen(self) -> None:
        """Takes nothing for known any more: what was dropped may have become true again."""
        self._seen.clear()

    def _announce(self, news_id: bytes, peers: list[NodeId], now: Instant) -> None:
        for peer in peers:
            self._to_announce.setdefault(peer, []).append(news_id)
        if peers and self._announce_at_s is None:
            self._announce_at_s = now.mono_s + ANNOUNCE_AFTER_S


def _check(ids: tuple[bytes, ...]) -> None:
    if len(ids) > IDS_MAX or any(len(one) != NEWS_ID_BYTES for one in ids):
        raise PeerFault("news ids out of their form")


def _parts(ids: list[bytes]) -> list[list[bytes]]:
    return [ids[at : at + IDS_MAX] for at in range(0, len(ids), IDS_MAX)]
