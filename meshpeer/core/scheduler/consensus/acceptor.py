"""A replica of one job: what it has promised, which rows it has, and what it answers.

An answer waits for the newest write of this replica, whatever it rests on: nothing is said that a crash could
take back. Rows stay in memory, since the journal is read at start only.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable

from meshpeer.core.effects import TicketCounter
from meshpeer.core.ids import JobId, NodeId, Ticket
from meshpeer.core.scheduler.consensus.messages import (
    PAGE_BYTES_MAX,
    ROW_OVERHEAD_BYTES,
    Accept,
    Accepted,
    ConsensusEffect,
    Denied,
    Keep,
    Prepare,
    Promise,
    Say,
)
from meshpeer.core.scheduler.consensus.values import (
    NO_BALLOT,
    NOBODY,
    Ballot,
    Key,
    Membership,
    Replica,
    Vote,
    Written,
)


class Acceptor:
    """One replica's part in one job. Sans-IO."""

    def __init__(
        self,
        *,
        job: JobId,
        me: Replica,
        tickets: TicketCounter,
        vote: Vote | None = None,
        rows: Iterable[Written] = (),
    ) -> None:
        """``vote`` and ``rows`` are what the journal held."""
        self.me = me
        self.vote = vote or Vote()
        self.rows: dict[Key, Written] = {one.key: one for one in rows}
        self._job = job
        self._tickets = tickets
        self._last_ticket: Ticket | None = None
        self._order: list[Key] = []
        """All keys in order, as they were when the last promise began."""

    @property
    def last_ticket(self) -> Ticket | None:
        """The newest write of this replica."""
        return self._last_ticket

    def found(self, generation: int, ballot: Ballot, membership: Membership) -> list[ConsensusEffect]:
        """Promises the first ballot of a job that was submitted here; returns the write."""
        return self._keep(generation, ballot, membership, ballot)

    # --- questions ----------------------------------------------------------------------------------------

    def on_prepare(self, peer: NodeId, message: Prepare) -> list[ConsensusEffect]:
        """Promises, and shows a page of rows."""
        if self._refuses(message.generation, message.ballot):
            return [self._denial(peer, message.generation, message.ballot)]
        if self.is_stranger(message.generation, message.ballot.replica):
            return []
        effects: list[ConsensusEffect] = []
        if message.generation > self.vote.generation or message.ballot > self.vote.promised:
            effects += self._keep(message.generation, message.ballot, message.membership, message.told_by)
        if effects or not self._order:
            self._order = sorted(self.rows)
        rows, following = self._page(message.start)
        promise = Promise(
            job=self._job,
            generation=message.generation,
            ballot=message.ballot,
            replica=self.me,
            membership=self.vote.membership,
            told_by=self.vote.told_by,
            start=message.start,
            rows=rows,
            next=following,
        )
        return [*effects, Say(to=peer, message=promise, after=self._backed())]

    def _page(self, start: Key) -> tuple[tuple[Written, ...], Key | None]:
        """Returns the rows from a key on that one message holds, and the key behind them."""
        rows: list[Written] = []
        size = 0
        for place in range(bisect.bisect_left(self._order, start), len(self._order)):
            row = self.rows[self._order[place]]
            size += len(row.value) + ROW_OVERHEAD_BYTES
            if rows and size > PAGE_BYTES_MAX:
                return tuple(rows), row.key
            rows.append(row)
        return tuple(rows), None

    # --- writes -------------------------------------------------------------------------------------------

    def on_accept(self, peer: NodeId, message: Accept) -> list[ConsensusEffect]:
        """Takes a batch, and with it the leader's ballot and membership."""
        if self._refuses(message.generation, message.ballot):
            return [self._denial(peer, message.generation, message.ballot)]
        rows = tuple(
            written
            for row in message.rows
            if self._is_newer(written := row.stamped(message.ballot, message.sequence))
        )
        effects = self._keep(message.generation, message.ballot, message.membership, message.ballot, rows)
        accepted = Accepted(
            job=self._job,
            generation=message.generation,
            ballot=message.ballot,
            replica=self.me,
            sequence=message.sequence,
            beat=message.beat,
            membership=self.vote.membership.number,
        )
        return [*effects, Say(to=peer, message=accepted, after=self._backed())]

    def _is_newer(self, row: Written) -> bool:
        """Says whether a row is to take the place of what is there: batches may come in any order."""
        present = self.rows.get(row.key)
        return present is None or present.stamp < row.stamp

    # --- the fence ----------------------------------------------------------------------------------------

    def _refuses(self, generation: int, ballot: Ballot) -> bool:
        return (generation, ballot) < (self.vote.generation, self.vote.promised)

    def is_stranger(self, generation: int, candidate: Replica) -> bool:
        """Says whether a candidate is no replica: one that was let go must not stir up the others."""
        known = self.vote.membership
        return generation == self.vote.generation and bool(known.number) and candidate not in known.everybody

    def _denial(self, peer: NodeId, generation: int, ballot: Ballot) -> Say:
        denied = Denied(
            job=self._job,
            generation=generation,
            ballot=ballot,
            promised=self.vote.promised,
            promised_generation=self.vote.generation,
        )
        return Say(to=peer, message=denied, after=self._backed())

    def _keep(
        self,
        generation: int,
        ballot: Ballot,
        membership: Membership,
        told_by: Ballot,
        rows: tuple[Written, ...] = (),
    ) -> list[ConsensusEffect]:
        """Takes up what a message says; returns the write, or nothing where nothing is new."""
        anew = generation > self.vote.generation
        known, known_by = (NOBODY, NO_BALLOT) if anew else (self.vote.membership, self.vote.told_by)
        if (told_by, membership.number) > (known_by, known.number):
            known, known_by = membership, told_by
        vote = Vote(generation=generation, promised=ballot, membership=known, told_by=known_by)
        if vote == self.vote and not rows:
            return []
        self.vote = vote
        gone = tuple(self.rows) if anew else ()
        for key in gone:
            del self.rows[key]
        for row in rows:
            self.rows[row.key] = row
        self._last_ticket = self._tickets.take()
        return [Keep(ticket=self._last_ticket, vote=vote, rows=rows, gone=gone)]

    def _backed(self) -> Ticket | None:
        """Returns the write that an answer waits for."""
        return self._last_ticket
