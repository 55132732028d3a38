"""Revoking: hears, keeps and passes on who was shut out, before anything else is said on a link.

Greetings name the fingerprint of the revocations that each end holds. Where the two differ, each says all
that it holds as the first thing on the link, and hears nothing else of the other until that has said the
same: so no record is believed of somebody whose revocation the other end could have told of. Where they are
equal, which is nearly always, nothing is said.

News floods: it goes to every link but its source at once, whatever Plumtree's tree looks like. It is rare,
and must not wait for a repair. What gets lost all the same is found by reconciliation, which counts the set
as one more member.

Who may sign at all (roots and issuers) goes the same way, and first: revocations and chains stand on it.
Greetings show the roots themselves, since the greeting's own chain may stand below one that is news.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from meshpeer.core.antientropy.messages import Revoked
from meshpeer.core.antientropy.telling import read_told, told_in_frames
from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Note
from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.line import ROOTS_MAX
from meshpeer.core.ids import LinkId, NodeId, Ticket, key_text
from meshpeer.core.membership.rates import Buckets
from meshpeer.core.node.gossip import Outcome
from meshpeer.core.node.rows import (
    row_of_revocation,
    row_of_revocation_gone,
    row_of_signer,
    row_of_signer_gone,
    rows_gone,
    rows_of_member,
)
from meshpeer.core.records import envelope
from meshpeer.core.records.authorities import ISSUERS_MAX, Taken
from meshpeer.core.records.ledger import Chain, Ledger
from meshpeer.core.records.revocation import Revocation, ShutOut, said_of
from meshpeer.core.records.revocations import REVOCATIONS_MAX

LINK_REVOCATIONS_PER_S = 20.0
LINK_REVOCATIONS_BURST = 2.0 * REVOCATIONS_MAX
"""What one peer may bring that is not held: a whole set on a new link, and each costs a signature."""


@dataclass(slots=True)
class _Link:
    """What was said of revocations on one link."""

    mine: bytes
    """The fingerprint that this node greeted with."""
    theirs: bytes | None = None
    told: bool = False
    """This node has said all of its own."""
    heard: bool = False
    """The peer has."""

    @property
    def differs(self) -> bool:
        return bool(self.theirs) and self.theirs != self.mine

    @property
    def clear(self) -> bool:
        return self.theirs is not None and (self.heard or not self.differs)


@dataclass(slots=True)
class Revoking:
    """Keeps one node's revocations in step with its peers'. Sans-IO; the ``Words`` of its links."""

    ledger: Ledger
    linked: Callable[[], list[NodeId]]
    counters: Counters
    written: Ticket | None = None
    """The write of what was accepted last."""
    greeted_with: Outcome | None = None
    """What the roots that a greeting showed came to; whoever takes it sets it back."""
    _links: dict[LinkId, _Link] = field(default_factory=dict)
    _rates: Buckets[NodeId] = field(
        default_factory=lambda: Buckets(LINK_REVOCATIONS_PER_S, LINK_REVOCATIONS_BURST)
    )

    # --- greetings ------------------------------------------------------------------------------------------

    @property
    def roots(self) -> tuple[bytes, ...]:
        return self.ledger.roots[1:]

    def hear_roots(self, roots: Sequence[bytes], now: Instant) -> None:
        if len(roots) > ROOTS_MAX:
            raise PeerFault(f"a greeting shows more than {ROOTS_MAX} roots")
        outcome = Outcome()
        self._authorize(roots, None, outcome, now)
        self.greeted_with = outcome if outcome.revoked else None

    def take_greeted_with(self) -> Outcome | None:
        outcome, self.greeted_with = self.greeted_with, None
        return outcome

    def take_shown(self) -> Outcome | None:
        """Returns what to keep and pass on of issuers that chains have shown, None where they showed none.

        A greeting's chain is no gossip, and a member's row keeps the chain that it came with: an issuer's
        certificate that stands in one alone would be gone with the next restart.
        """
        if not self.ledger.shown.news:
            return None
        outcome = Outcome()
        self._tell(self.ledger.take_shown(), None, outcome)
        return outcome

    def say(self, link: LinkId) -> bytes:
        mine = self.ledger.first_word
        self._links[link] = _Link(mine)
        return mine

    def hear(self, link: LinkId, word: bytes) -> None:
        state = self._links.get(link)
        if state is not None:
            state.theirs = word

    def over(self, link: LinkId) -> None:
        self._links.pop(link, None)

    def proof(self, fault: PeerFault) -> Sequence[msgspec.Struct]:
        """Shows who is refused the revocation itself: it need not take this node's word for it."""
        if not isinstance(fault, ShutOut):
            return ()
        self.counters.add(Counter.LINKS_REVOKED)
        return tuple(told_in_frames([fault.revocation], last=False))

    # --- links ----------------------------------------------------------------------------------------------

    def on_up(self, link: LinkId) -> list[Revoked]:
        """Returns what to say first on a link that is taken into use."""
        state = self._links.get(link)
        if state is None or state.told or not state.theirs:
            return []
        if not state.differs and self.ledger.first_word == state.mine:
            return []
        state.told = True
        return list(told_in_frames(self.ledger.revocations, last=True, signers=self.ledger.authorities))

    def on_frame(self, link: LinkId, peer: NodeId, message: msgspec.Struct, now: Instant) -> Outcome | None:
        """Takes what a greeted peer tells; None for a message that is for others to read. Raises
        ``PeerFault`` where it comes before the peer has told all."""
        state = self._links.get(link)
        if isinstance(message, Revoked):
            if state is not None and message.last:
                state.heard = True
            if len(message.signers) > ISSUERS_MAX + ROOTS_MAX:
                raise PeerFault(f"it names more than {ISSUERS_MAX} issuers and {ROOTS_MAX} roots")
            return self._take(read_told(message), peer, now, message.signers)
        if state is not None and not state.clear:
            raise PeerFault("it spoke before it had said who was revoked")
        return None

    # --- facts ----------------------------------------------------------------------------------------------

    def spread(self, chain: Chain, data: bytes, now: Instant) -> Outcome:
        """Merges a revocation of this node's own making and tells everybody."""
        return self._take([(data, chain)], None, now)

    def certify(self, certificates: Sequence[bytes], now: Instant) -> Outcome:
        """Merges roots and issuers that a person signed and tells everybody."""
        return self._take((), None, now, certificates)

    def restore(
        self, rows: Iterable[tuple[bytes, Chain]], signers: Iterable[bytes], now: Instant
    ) -> list[Note]:
        """Merges what the store held, before anything else is read from it."""
        outcome = Outcome()
        self.ledger.authorize(signers, now.unix_s)
        read = [self._read(data, chain, outcome) for data, chain in rows]
        self.ledger.revoke(*filter(None, read))
        return outcome.notes

    def of_self(self, me: NodeId, chain: Chain, now: Instant) -> Revocation | None:
        """Returns what shuts out this very node, which shows a chain; its key alone tells where the chain
        does not hold at this clock."""
        try:
            self.ledger.identify(chain, now.unix_s)
        except ShutOut as fault:
            return fault.revocation
        except PeerFault:
            return self.ledger.revocations.of_node(me)
        return None

    # --- rules ----------------------------------------------------------------------------------------------

    def _authorize(
        self, certificates: Sequence[bytes], peer: NodeId | None, outcome: Outcome, now: Instant
    ) -> None:
        fresh = [one for one in certificates if not self.ledger.authorities.knows(one)]
        if peer is not None:
            fresh = [one for one in fresh if self._rates.take(peer, now)]
        if not fresh:
            return
        taken = self.ledger.authorize(fresh, now.unix_s)
        self.counters.add(Counter.RECORDS_REFUSED, len(taken.refused))
        for why in taken.refused:
            note = Note(level="warning", fact="a root or issuer was refused", fields=(("reason", why),))
            outcome.notes.append(note)
        if taken.news:
            self._tell(taken, peer, outcome)

    def _tell(self, taken: Taken, peer: NodeId | None, outcome: Outcome) -> None:
        """Keeps what counts now on disk and passes it on to everybody but its source."""
        outcome.changes += map(row_of_signer, taken.news)
        outcome.changes += map(row_of_signer_gone, taken.gone)
        outcome.changes += map(row_of_revocation_gone, self.ledger.lost)
        self.ledger.lost.clear()
        frame = Revoked(signers=tuple(taken.news))
        outcome.sends += [(one, frame) for one in self.linked() if one != peer]
        outcome.revoked = True
        self._drop(outcome)

    def _take(
        self,
        told: Iterable[tuple[bytes, Chain]],
        peer: NodeId | None,
        now: Instant,
        signers: Sequence[bytes] = (),
    ) -> Outcome:
        outcome, read = Outcome(), list[Revocation]()
        self._authorize(signers, peer, outcome, now)
        for data, chain in told:
            if self.ledger.revocations.knows(data, chain):
                continue
            if peer is not None and not self._rates.take(peer, now):
                self.counters.add(Counter.RECORDS_RATE_LIMITED)
                continue
            revocation = self._read(data, chain, outcome, peer)
            if outcome.fault:
                break
            read += [revocation] if revocation else []
        news, gone = self.ledger.revoke(*read)
        if news:
            self.counters.add(Counter.REVOCATIONS_ACCEPTED, len(news))
            outcome.changes += map(row_of_revocation, news)
            outcome.changes += map(row_of_revocation_gone, gone)
            frames = list(told_in_frames(news, last=False))
            outcome.sends += [(one, frame) for one in self.linked() if one != peer for frame in frames]
            outcome.revoked = True
            self._drop(outcome)
        return outcome

    def _read(
        self, data: bytes, chain: Chain, outcome: Outcome, peer: NodeId | None = None
    ) -> Revocation | None:
        """Judges one; what breaks a rule is counted and told."""
        try:
            return self.ledger.revocations.read(data, chain)
        except envelope.BadSignature as fault:
            self.counters.add(Counter.SIGNATURES_BAD)
            outcome.fault = fault.what
        except PeerFault as fault:
            self.counters.add(Counter.REVOCATIONS_REFUSED)
            outcome.offence = fault.what if peer is not None else ""
            reason = (("reason", fault.what),)
            outcome.notes.append(Note(level="warning", fact="a revocation was refused", fields=reason))
        return None

    def _drop(self, outcome: Outcome) -> None:
        for node, revocation in self.ledger.take_shut_out():
            member = self.ledger.get(node)
            outcome.touched.append(node)
            outcome.changes += rows_gone(node) if member is None else rows_of_member(member)
            if member is None:
                outcome.shut_out.append((node, said_of(revocation)))
                fields = (("node", key_text(node)), ("why", said_of(revocation)))
                outcome.notes.append(Note(level="warning", fact="a member was revoked", fields=fields))
        outcome.doubted += self.ledger.take_undoubted()
