"""Gossip: merges facts into the ledger, keeps them on disk, passes news on, and makes losses good.

News is pushed along Plumtree's tree: what the ledger accepts goes eagerly to some links and is announced on
the rest; what it knows goes nowhere. Range-based reconciliation on every new link, and with one neighbour
every 10 s, finds whatever a push lost. What came by reconciliation is announced, not pushed: most of the
mesh knows it, and whoever does not asks.

Checks go from cheap to dear, and what a link or an author may ask for in a second is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from meshpeer.core.antientropy.facts import Group, chains_behind, facts_about, in_frames
from meshpeer.core.antientropy.messages import Compare, Facts, Synced, Want, Word, with_word
from meshpeer.core.antientropy.ranges import Answer, Fingerprints, Reconciler
from meshpeer.core.antientropy.rounds import Jitter, Rounds
from meshpeer.core.antientropy.telling import told_in_frames
from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import Change, Delete, Note, Table
from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.chains import ChainFault, Rule
from meshpeer.core.ids import NodeId, key_text
from meshpeer.core.membership.plumtree import NEWS_ID_BYTES, Plumtree
from meshpeer.core.membership.plumtree_messages import Graft, IHave, Prune
from meshpeer.core.node.agreement import Agreement
from meshpeer.core.node.gate import Gate, RateLimited
from meshpeer.core.node.pushes import Pushes
from meshpeer.core.node.rows import row_of_chains_of, row_of_charter, row_of_record, rows_gone, unpack_chains
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import CharterRecord, Record, SuspectRecord
from meshpeer.core.records.ledger import CHARTER_ID, REVOCATIONS_ID, Chain, Ledger, Limit, Verdict

FORGET_PAUSE_S = 60.0
"""Between two looks for what has expired."""
SUBJECTS_MAX = 10_000
"""Pieces of news that a GRAFT can still ask for."""


@dataclass(slots=True)
class Outcome:
    """What merging some facts came to: messages to send, rows to write, whose facts changed."""

    sends: list[tuple[NodeId, msgspec.Struct]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    touched: list[NodeId] = field(default_factory=list)
    """Whose chains, record or tombstone changed."""
    doubted: list[NodeId] = field(default_factory=list)
    """About whom something was said that was not known."""
    notes: list[Note] = field(default_factory=list)
    charter: bool = False
    revoked: bool = False
    """Who is shut out changed."""
    shut_out: list[tuple[NodeId, str]] = field(default_factory=list)
    """Who was dropped because it was revoked, and what to tell it."""
    synced: bool = False
    """A member has sent all that this node lacked."""
    fault: str = ""
    """Why the source of the facts is not worth a link."""
    offence: str = ""
    """What its source said in its own name and nobody takes."""


@dataclass(slots=True)
class _News:
    """What of a batch was new: ids with the facts to push for them, and ids that were known."""

    fresh: list[tuple[bytes, Group]] = field(default_factory=list)
    known: list[bytes] = field(default_factory=list)
    lacking: list[NodeId] = field(default_factory=list)
    """Members whose facts stand on something that is not held."""
    put_off: bool = False
    """Some of it came too early: what stands on that is not asked for."""


class Gossip:
    """Drives one ledger. Sans-IO."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        linked: Callable[[], list[NodeId]],
        jitter: Jitter,
        counters: Counters,
        agreement: Agreement | None = None,
    ) -> None:
        """``agreement``: whose words ride on reconciliations; None for who has nothing to agree on."""
        self.ledger = ledger
        self.plumtree = Plumtree(counters)
        self._counters = counters
        sums = ledger.judge.shared(("sums", ledger.mesh, ledger.fingerprint), lambda: _sums_of(ledger))
        self._reconciler = Reconciler(ledger, sums.copy(ledger))
        self._subjects: dict[bytes, NodeId] = {}
        self.gate = Gate(ledger)
        self._rounds = Rounds(linked, jitter)
        self._agreement = agreement
        self._pushes = Pushes()
        self._forgot_at_s = float("-inf")
        self._synced = False

    # --- start ----------------------------------------------------------------------------------------------

    def restore(
        self, chains: Iterable[bytes], records: Iterable[bytes], charter: bytes | None, now: Instant
    ) -> list[Note]:
        """Merges what the store held; what has expired or no longer holds is left out, with a note."""
        outcome, news = Outcome(), _News()
        for packed in chains:
            for chain in unpack_chains(packed):
                self._admit(chain, outcome, news, now, None)
        for record in (*records, *([charter] if charter else [])):
            self._merge(record, outcome, news, now, None)
        return outcome.notes

    # --- events ---------------------------------------------------------------------------------------------

    def on_up(self, peer: NodeId, now: Instant, *, opens: bool) -> Outcome:
        """Begins a reconciliation from the end that ``opens``, or puts it off until the one under way ends.

        One end is enough for both. Where one link takes the place of another, both open: either may have
        spoken on the one that the other had closed, and a round that is lost that way would come back only
        with the next that is due.
        """
        self.plumtree.peer_up(peer)
        self.gate.on_up(peer)
        return Outcome(sends=self._open(self._rounds.on_up(peer, now), now)) if opens else Outcome()

    def on_down(self, peer: NodeId, now: Instant) -> Outcome:
        self.plumtree.peer_down(peer)
        return Outcome(sends=self._open(self._rounds.on_down(peer, now), now))

    def _open(self, peer: NodeId | None, now: Instant) -> list[tuple[NodeId, msgspec.Struct]]:
        if peer is None:
            return []
        word = self._agreement.say(now) if self._agreement else None
        return [(peer, with_word(self._reconciler.open(), word))]

    def on_facts(self, peer: NodeId, facts: Facts, now: Instant) -> Outcome:
        """Merges what holds; what does not is refused one by one, since clocks differ between honest
        nodes."""
        outcome, news = self._take(facts, now, peer)
        if facts.push:
            if len(news.known) > len(news.fresh):
                self._counters.add(Counter.DUPLICATES, len(news.known))
                outcome.sends += self.plumtree.on_duplicate(peer, now)
            if news.lacking and not news.put_off:
                # Answered by facts that are no push: one question, never a circle.
                outcome.sends.append((peer, Want(nodes=tuple(dict.fromkeys(news.lacking)))))
            self._push(news, outcome, peer, now)
        elif self._synced:
            for news_id, _ in news.fresh:
                self.plumtree.on_found(news_id, peer, now)
        else:
            # A first sync is nobody's news; but what several peers bring need be looked at once.
            for news_id, _ in news.fresh:
                self.plumtree.see(news_id)
        return outcome

    def on_message(self, peer: NodeId, message: msgspec.Struct, now: Instant) -> Outcome:
        """Takes what reconciliation and the tree say to each other; raises ``PeerFault`` for broken form."""
        if isinstance(message, Compare | Want | Graft) and not self.gate.may_ask(peer, _asked(message), now):
            self._counters.add(Counter.ASKS_RATE_LIMITED)
            return Outcome()
        match message:
            case Compare():
                answer, lacked = self._reconciler.on_compare(message), self._hear(peer, message.word, now)
                return self._on_compare(peer, answer, lacked if message.opens else None, now)
            case Want(nodes=nodes):
                return Outcome(sends=self._facts_about(nodes, peer))
            case Synced():
                self._hear(peer, message.word, now)
                return self._on_synced(peer, message, now)
            case IHave():
                self._counters.add(Counter.IHAVES_IN, len(message.ids))
                self.plumtree.on_ihave(peer, message, now)
            case Graft():
                self._counters.add(Counter.GRAFTS_IN)
                return self._on_graft(peer, self.plumtree.on_graft(peer, message, now))
            case Prune():
                self._counters.add(Counter.PRUNES_IN)
                self.plumtree.on_prune(peer)
        return Outcome()

    def _hear(self, peer: NodeId, word: Word | None, now: Instant) -> Word | None:
        return self._agreement.hear(peer, word, now) if self._agreement and word else None

    def _on_synced(self, peer: NodeId, message: Synced, now: Instant) -> Outcome:
        if message.more:
            return Outcome(sends=self._open(peer if self._rounds.on_cut() else None, now))
        return Outcome(sends=self._open(self._rounds.on_ended(peer, now), now), synced=self._first_sync())

    def _on_compare(self, peer: NodeId, answer: Answer, word: Word | None, now: Instant) -> Outcome:
        """Facts go first: who reads the reply holds them."""
        self._counters.add(Counter.RECONCILE_DIFFERENCES, len(answer.push))
        outcome = Outcome(sends=self._facts_about(answer.push, peer))
        outcome.sends.append((peer, with_word(answer.reply, word)))
        if answer.in_sync:
            outcome.synced = self._first_sync()
            outcome.sends += self._open(self._rounds.on_ended(peer, now), now)
        return outcome

    def _facts_about(self, nodes: Sequence[NodeId], peer: NodeId) -> list[tuple[NodeId, msgspec.Struct]]:
        """Returns what is held of members, after who of them was revoked where that is asked for, too."""
        asked = REVOCATIONS_ID in nodes
        revoked = self.ledger.revocations if asked else ()
        signers = self.ledger.authorities if asked else ()
        sends: list[tuple[NodeId, msgspec.Struct]] = [
            (peer, frame) for frame in told_in_frames(revoked, last=False, signers=signers)
        ]
        return sends + [(peer, facts) for facts in facts_about(self.ledger, nodes)]

    def _first_sync(self) -> bool:
        first, self._synced = not self._synced, True
        return first

    def spread(self, chains: Iterable[Chain], records: Iterable[bytes], now: Instant) -> Outcome:
        """Merges facts of this node's own making and pushes them."""
        outcome, news = self._take(Facts(chains=tuple(chains), records=tuple(records)), now, None)
        self._push(news, outcome, None, now)
        return outcome

    def tell(self, record: bytes, peers: Sequence[NodeId], now: Instant) -> Outcome:
        """Merges a record of this node's own making and sends it to these peers in this very step, whatever
        the tree says; they pass it on."""
        outcome, news = self._take(Facts(records=(record,)), now, None)
        for news_id, _ in news.fresh:
            self.plumtree.see(news_id)
        for frame in in_frames([group for _, group in news.fresh], push=True):
            outcome.sends += [(peer, frame) for peer in peers]
        return outcome

    def tick(self, now: Instant) -> Outcome:
        outcome = Outcome(sends=[*self.plumtree.tick(now), *self._open(self._rounds.next(now), now)])
        self._flush(outcome, now)
        regular = self._rounds.regular(now)
        if regular is not None:
            self._counters.add(Counter.RECONCILE_ROUNDS)
            outcome.sends += self._open(regular, now)
        if self._forget_due(now):
            self._forgot_at_s = now.mono_s
            for node in self.ledger.forget_expired(now.unix_s):
                outcome.touched.append(node)
                outcome.changes.append(Delete(table=Table.RECORDS, key=key_text(node)))
            self._note_dropped(outcome)
        return outcome

    def next_deadline(self, now: Instant) -> Deadline | None:
        expiry_s = now.mono_s + (self.ledger.next_expiry_s - now.unix_s)
        return earliest(
            Deadline(max(expiry_s, self._forgot_at_s + FORGET_PAUSE_S), "forget what expired"),
            self._pushes.next_deadline(),
            self._rounds.next_deadline(),
            self.plumtree.next_deadline(),
        )

    # --- passing on -----------------------------------------------------------------------------------------

    def _push(self, news: _News, outcome: Outcome, source: NodeId | None, now: Instant) -> None:
        """Pushes news along the tree, at once or with what follows within a moment."""
        for news_id, group in news.fresh:
            self._pushes.add(group, tuple(self.plumtree.on_news(news_id, source, now)))
        self._flush(outcome, now)

    def _flush(self, outcome: Outcome, now: Instant) -> None:
        if not self._pushes.is_due(now):
            return
        for peers, frame in self._pushes.take(len(self.ledger), now):
            outcome.sends += [(peer, frame) for peer in peers]
            self._counters.add(Counter.EAGER_PUSHES, len(peers) * len(frame.records or frame.chains))

    def _on_graft(self, peer: NodeId, ids: Iterable[bytes]) -> Outcome:
        """Answers a GRAFT from what is held now: what is newer than the news asked for serves as well."""
        nodes = [node for one in ids if (node := self._subjects.get(one)) is not None]
        return Outcome(sends=[(peer, facts) for facts in facts_about(self.ledger, nodes, push=True)])

    # --- merging --------------------------------------------------------------------------------------------

    def _take(self, facts: Facts, now: Instant, source: NodeId | None) -> tuple[Outcome, _News]:
        outcome, news = Outcome(), _News()
        digest = self.ledger.judge.digest
        for chain in facts.chains:
            if not (chain and self.plumtree.knows(digest(chain[0])[:NEWS_ID_BYTES])):
                self._admit(chain, outcome, news, now, source)
                if outcome.fault:
                    return outcome, news
        for record in facts.records:
            news_id = digest(record)[:NEWS_ID_BYTES]
            if self.plumtree.knows(news_id):
                self._counters.add(Counter.RECORDS_KNOWN)
                news.known.append(news_id)
            elif not self._merge(record, outcome, news, now, source) and outcome.fault:
                break
        return outcome, news

    def _admit(
        self, chain: Chain, outcome: Outcome, news: _News, now: Instant, source: NodeId | None
    ) -> None:
        try:
            if source is not None:
                self.gate.pass_chain(chain, source, now)
            node = self.ledger.identify(chain, now.unix_s).node
            verdict = self.ledger.admit(chain, now.unix_s)
        except RateLimited as fault:
            self._counters.add(fault.counter)
            news.put_off = True
            return
        except PeerFault as fault:
            self._counters.add(Counter.RECORDS_REFUSED)
            outcome.notes.append(_refused("certificate", fault))
            if isinstance(fault, ChainFault) and fault.rule is Rule.SIGNATURE:
                # Nobody honest passes on what it could not check.
                self._counters.add(Counter.SIGNATURES_BAD)
                outcome.fault = fault.what
            return
        if verdict is not Verdict.ACCEPTED:
            return
        self._counters.add(Counter.RECORDS_ACCEPTED)
        self._note_dropped(outcome)
        member = self.ledger.get(node)
        if member is not None and member.item:
            outcome.touched.append(node)
            outcome.changes.append(row_of_chains_of(member))
            self._note(news, self.ledger.judge.digest(chain[0]), node, ((chain,), ()))

    def _merge(self, data: bytes, outcome: Outcome, news: _News, now: Instant, source: NodeId | None) -> bool:
        record: Record | None = None
        try:
            record = self.ledger.judge.open(data)
            before = self.ledger.get(_subject_of(record)) if record is not None else None
            verdict = self.ledger.merge(data, now.unix_s, self._limit(source, now))
        except envelope.BadSignature as fault:
            self._counters.add(Counter.SIGNATURES_BAD)
            outcome.fault = fault.what
            return False
        except RateLimited as fault:
            self._counters.add(fault.counter)
            return False
        except PeerFault as fault:
            self._counters.add(Counter.RECORDS_REFUSED)
            outcome.notes.append(_refused("record", fault))
            if record is not None and source == _author_of(record):
                outcome.offence = fault.what
            return False
        if record is None:
            return False
        digest = self.ledger.judge.digest(data)
        subject = _subject_of(record)
        if verdict is Verdict.KNOWN:
            self._counters.add(Counter.RECORDS_KNOWN)
            news.known.append(digest[:NEWS_ID_BYTES])
        if verdict is Verdict.UNADMITTED:
            news.lacking.append(subject)
        if verdict not in (Verdict.ACCEPTED, Verdict.EQUIVOCATION):
            return False
        self._counters.add(Counter.RECORDS_ACCEPTED)
        self._note_dropped(outcome)
        self._note(news, digest, subject, (chains_behind(self.ledger, record, before), (data,)))
        if isinstance(record, CharterRecord):
            outcome.charter = True
            outcome.changes.append(row_of_charter(data))
        elif isinstance(record, SuspectRecord):
            outcome.doubted.append(subject)
        else:
            self._note_own(subject, verdict, outcome)
        return True

    def _note_dropped(self, outcome: Outcome) -> None:
        outcome.doubted += self.ledger.take_undoubted()
        for node in self.ledger.take_dropped():
            outcome.touched.append(node)
            outcome.changes += rows_gone(node)
            outcome.notes.append(
                Note(
                    level="warning",
                    fact="an invite was used more often than it allows",
                    fields=(("refused", key_text(node)),),
                )
            )

    def _note_own(self, node: NodeId, verdict: Verdict, outcome: Outcome) -> None:
        member = self.ledger.get(node)
        if member is None:
            return
        outcome.touched.append(node)
        outcome.changes.append(row_of_record(member))
        if member.best is not None and not member.best.identity.durable:
            # The leaf that it names may have come just before it, and not counted then.
            outcome.changes.append(row_of_chains_of(member))
        if verdict is Verdict.EQUIVOCATION:
            self._counters.add(Counter.EQUIVOCATIONS)
            outcome.notes.append(
                Note(
                    level="error",
                    fact="a node contradicts itself: is its state folder in use twice?",
                    fields=(("node", key_text(node)),),
                )
            )

    def _limit(self, source: NodeId | None, now: Instant) -> Limit | None:
        return None if source is None else lambda record: self.gate.pass_record(record, source, now)

    def _note(self, news: _News, digest: bytes, node: NodeId, group: Group) -> None:
        news_id = digest[:NEWS_ID_BYTES]
        if len(self._subjects) >= SUBJECTS_MAX:
            del self._subjects[next(iter(self._subjects))]
        self._subjects[news_id] = node
        news.fresh.append((news_id, group))

    def _forget_due(self, now: Instant) -> bool:
        return now.unix_s >= self.ledger.next_expiry_s and now.mono_s >= self._forgot_at_s + FORGET_PAUSE_S


def _sums_of(ledger: Ledger) -> Fingerprints:
    sums = Fingerprints(ledger)
    for node in (*(member.node for member in ledger), CHARTER_ID, REVOCATIONS_ID):
        sums.replace(node, None, ledger.item_of(node))
    return sums


def _asked(message: Compare | Want | Graft) -> int:
    """Returns about how many members a question is."""
    match message:
        case Compare(ranges=ranges, want=want):
            return len(ranges) + len(want)
        case Want(nodes=nodes):
            return len(nodes)
        case Graft(ids=ids):
            return len(ids)


def _subject_of(record: Record) -> NodeId:
    match record:
        case CharterRecord():
            return CHARTER_ID
        case SuspectRecord(subject=subject):
            return subject
        case _:
            return record.node


def _author_of(record: Record) -> NodeId:
    match record:
        case CharterRecord(author=author):
            return author
        case SuspectRecord(observer=observer):
            return observer
        case _:
            return record.node


def _refused(kind: str, fault: PeerFault) -> Note:
    return Note(level="warning", fact=f"a {kind} was refused", fields=(("reason", fault.what),))
