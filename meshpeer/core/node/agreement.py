"""Agreement: says from what this node derives its plan, hears from what the others do, names who differs.

Joins two strangers: ``topology.digest`` knows what a digest is made of, ``antientropy.digests`` how it
travels. A digest is made when it is asked for, which is when a round of reconciliation begins or is answered:
however many pieces of news come in between, one digest of them is said.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshpeer.core.antientropy.digests import Digests, Unheard
from meshpeer.core.antientropy.messages import Word
from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.detector import Detector
from meshpeer.core.node.derived import Derived
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.topology.digest import MemberRow, differing, digest_of

DIGEST_PAUSE_PER_MEMBER_S = 0.002
"""A digest follows the facts at most this often, times the members: who boots hears a piece of news and a
comparison from each of ten peers, a hundred times a second."""
LASTS_S = 30.0
"""A difference lasts where the member said so again, so long after this node had noticed; until then it is
news on its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A member that derives its plan from something else than this node."""

    node: NodeId
    parts: tuple[str, ...]
    """Of ``topology.digest.PARTS``; at least one."""
    for_s: float
    """How long this node has known."""
    lasts: bool
    """It is more than news on its way: worth a person's attention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementReport:
    """Who agrees with this node; every member is in one of the three."""

    agree: int
    """This node included, as soon as it knows the charter."""
    total: int
    differ: tuple[Disagreement, ...]
    unheard: tuple[Unheard, ...]
    """Dead, silent, or of a version that says nothing of it."""


class Agreement:
    """Says, hears and reports for one node. Sans-IO."""

    def __init__(self, ledger: Ledger, derived: Derived, detector: Detector, counters: Counters) -> None:
        assert ledger.me is not None
        self._ledger = ledger
        self._derived = derived
        self._detector = detector
        self._digests = Digests(ledger.me, counters)
        self._made: tuple[object, bytes] = (None, b"")
        self._made_at_s = float("-inf")

    def say(self, now: Instant) -> Word | None:
        """Returns what to tell a peer; None before this node knows the mesh's charter."""
        digest = self._digest_of_late(now)
        return self._digests.say(digest, self._ledger.ids, now) if digest else None

    def hear(self, peer: NodeId, word: Word, now: Instant) -> Word | None:
        """Takes what a peer tells; returns what it lacks, if anything. Raises ``PeerFault`` for bad form."""
        digest = self._digest_of_late(now)
        return self._digests.hear(peer, word, digest, self._ledger.ids, now) if digest else None

    def report(self, now: Instant) -> AgreementReport:
        """Returns who agrees as of now."""
        digest, ids = self._digest(now), self._ledger.ids
        if not digest:
            return AgreementReport(
                agree=0, total=len(ids), differ=(), unheard=tuple(Unheard(node, None) for node in ids)
            )
        look = self._digests.look(digest, ids, self._detector.dead, now)
        differ = tuple(
            Disagreement(
                node=one.node,
                parts=differing(digest, one.digest),
                for_s=(for_s := now.mono_s - one.since_s),
                lasts=for_s - one.said_s >= LASTS_S,
            )
            for one in look.differ
        )
        return AgreementReport(agree=look.agree, total=len(ids), differ=differ, unheard=tuple(look.unheard))

    # --- rules ----------------------------------------------------------------------------------------------

    def _digest_of_late(self, now: Instant) -> bytes:
        """Returns the digest as it was a moment ago, where making it anew would come too soon."""
        pause_s = DIGEST_PAUSE_PER_MEMBER_S * len(self._ledger.ids)
        if self._ledger.charter is not None and now.mono_s < self._made_at_s + pause_s:
            return self._made[1]
        return self._digest(now)

    def _digest(self, now: Instant) -> bytes:
        """Returns the digest of this node's own inputs; empty without a charter, from which all begins."""
        ledger, charter = self._ledger, self._ledger.charter
        if charter is None:
            return b""
        doubted = tuple(sorted(self._derived.doubted(now)[0]))
        self._made_at_s = now.mono_s
        key = ("digest", ledger.mesh, ledger.fingerprint, doubted)
        if key != self._made[0]:
            self._made = (key, ledger.judge.shared(key, lambda: self._make(doubted)))
        return self._made[1]

    def _make(self, doubted: tuple[NodeId, ...]) -> bytes:
        ledger = self._ledger
        assert ledger.charter is not None
        shape = self._derived.layout(ledger.charter, doubted).shape
        return digest_of(shape, ledger.charter_digest, map(self._row, ledger.ids))

    def _row(self, node: NodeId) -> MemberRow:
        member = self._ledger.get(node)
        assert member is not None
        assert member.best is not None
        return node, member.digest, member.best.leaf
