"""The leader of one job: takes a ballot, reads a quorum, writes registers, changes who the replicas are.

It asks its own replica first and the others once that has the ballot on disk: a ballot that anybody has heard
of is never taken again by the next life of this node. What a quorum has under one stamp is decided; the rest
of what it read it writes again, under its own ballot, and tells after that.

Batches may be accepted in any order and are told in their own: ``Chosen`` names the last one of which all
before it are chosen too, so whoever waits for a batch knows that nothing older can be lost.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import JobId, NodeId
from meshpeer.core.scheduler.consensus.messages import (
    FIRST,
    PAGE_BYTES_MAX,
    ROW_OVERHEAD_BYTES,
    Accept,
    Accepted,
    Chosen,
    ConsensusEffect,
    Denied,
    Deposed,
    Elected,
    Prepare,
    Promise,
    Say,
)
from meshpeer.core.scheduler.consensus.values import Ballot, Key, Membership, Replica, Row, Written

WRITE_LEASE_S = 15.0
"""A leader that heard from no quorum for this long grants nothing; as long as a worker's lease."""
BEATS_KEPT = 64
"""Signs of life whose time is remembered; an answer to an older one counts for nothing."""


class Phase(enum.StrEnum):
    """Where a leader stands. It only ever goes forward."""

    READING = "reading"
    LEADING = "leading"
    DEPOSED = "deposed"


@dataclass(slots=True)
class Batch:
    """Rows on their way to a quorum."""

    rows: tuple[Row, ...]
    voters: set[Replica] = field(default_factory=set)


@dataclass(slots=True)
class Reading:
    """What one replica has shown so far."""

    rows: dict[Key, Written] = field(default_factory=dict)
    whole: bool = False


class Leader:
    """One ballot's leader. Sans-IO."""

    def __init__(
        self,
        *,
        job: JobId,
        generation: int,
        ballot: Ballot,
        membership: Membership,
        told_by: Ballot,
    ) -> None:
        """``membership`` and ``told_by`` are what this node's own replica goes by."""
        self.job = job
        self.generation = generation
        self.ballot = ballot
        self.membership = membership
        self.told_by = told_by
        self.phase = Phase.READING
        self.rows: dict[Key, Written] = {}
        """The newest row of each register."""
        self._readings: dict[Replica, Reading] = {}
        self._batches: dict[int, Batch] = {}
        """What is not chosen yet, in order."""
        self._gathered: list[list[Row]] = []
        """Batches that wait until those on their way are chosen: under load each carries many rows."""
        self._gathered_bytes = 0
        """What the last of them takes, estimated."""
        self._sequence = 0
        """The newest batch on its way."""
        self._told = 0
        """All batches up to this one were told as chosen."""
        self._began_alone = False
        """It was all of the membership when it began the change that is under way."""
        self._joint_ends_at: int | None = None
        """The last batch that must be chosen before a joint membership may be left."""
        self._began_s = 0.0
        self._beat = 0
        self._beats: dict[int, float] = {}
        """When each of the last signs of life was given."""
        self._heard: dict[Replica, float] = {}
        """When the newest message was sent that each replica has answered."""

    # --- reading ------------------------------------------------------------------------------------------

    @property
    def is_leading(self) -> bool:
        return self.phase is Phase.LEADING

    @property
    def sequence(self) -> int:
        """The newest batch, on its way or gathered."""
        return self._sequence + len(self._gathered)

    @property
    def told(self) -> int:
        """The newest batch that was told as chosen."""
        return self._told

    def unchosen(self) -> Iterator[Key]:
        """Yields the registers whose last write no quorum is known to have."""
        for batch in self._batches.values():
            yield from (row.key for row in batch.rows)
        for rows in self._gathered:
            yield from (row.key for row in rows)

    @property
    def is_changing(self) -> bool:
        """Whether the membership is on its way to another one."""
        return bool(self.membership.old)

    @property
    def read(self) -> int:
        """How much replicas have shown so far: it grows as long as reading them goes on."""
        return sum(len(one.rows) + one.whole for one in self._readings.values())

    def may_grant(self, now_s: float) -> bool:
        """Says whether a quorum answered within one lease: else another owner may be at work."""
        recent = {one for one, at_s in self._heard.items() if at_s + WRITE_LEASE_S > now_s}
        return self.is_leading and self.membership.is_quorum(recent)

    def may_write(self, key: Key) -> bool:
        """Says whether a register is open: nothing is written over what is decided."""
        present = self.rows.get(key)
        return present is None or not present.decided

    def silent_for_s(self, replica: Replica, now_s: float) -> float:
        """Returns how long ago the newest message was sent that this replica has answered, or how long this
        leader waits for its first answer."""
        return now_s - self._heard.get(replica, self._began_s)

    # --- start --------------------------------------------------------------------------------------------

    def found(self, now_s: float) -> list[ConsensusEffect]:
        """Leads a new job (or generation), that nobody can have led before: there is nothing to read."""
        self.phase, self.told_by, self._began_s = Phase.LEADING, self.ballot, now_s
        return self.beat(now_s)

    def start(self) -> list[ConsensusEffect]:
        """Asks this node's own replica first."""
        return [self._ask(self.ballot.replica)]

    def _ask(self, replica: Replica, start: Key = FIRST) -> Say:
        self._readings.setdefault(replica, Reading())
        prepare = Prepare(
            job=self.job,
            generation=self.generation,
            ballot=self.ballot,
            membership=self.membership,
            told_by=self.told_by,
            start=start,
        )
        return Say(to=replica.node, message=prepare)

    def on_promise(self, peer: NodeId, message: Promise, now_s: float) -> list[ConsensusEffect]:
        """Takes a page; asks for the next, or for other replicas; leads once a quorum is read."""
        if not self._is_mine(peer, message.generation, message.ballot, message.replica):
            return []
        reading = self._readings.get(message.replica)
        if self.phase is not Phase.READING or reading is None or reading.whole:
            return []
        reading.rows.update((row.key, row) for row in message.rows)
        self._go_by_newest(message)
        if message.next is not None:
            return [self._ask(message.replica, message.next)]
        reading.whole = True
        if self._has_read():
            return self._lead(now_s)
        return [self._ask(one) for one in self.membership.everybody if one not in self._readings]

    def ask_again(self, node: NodeId) -> list[ConsensusEffect]:
        """Repeats to a node with a new link what it may have missed."""
        if self.phase is Phase.READING:
            return [
                self._ask(one)
                for one, reading in list(self._readings.items())
                if one.node == node and not reading.whole
            ]
        return [
            self._write(one, number, batch.rows)
            for one in self.membership.everybody
            if one.node == node and self.is_leading
            for number, batch in self._batches.items()
            if one not in batch.voters
        ]

    def admit(self, node: NodeId) -> list[ConsensusEffect]:
        """Gives all rows to a replica that has just come to be one, in batches like any others."""
        missed = self.ask_again(node)
        # Batches count anew under each ballot: what is left of an earlier one was chosen before this one.
        chosen = [
            row
            for _, row in sorted(self.rows.items())
            if row.ballot != self.ballot or row.sequence <= self._told
        ]
        if not self.is_leading or not chosen:
            return missed
        missed += self._send_gathered()
        effects = missed
        for part in batches(Row(row.task, row.round, row.decided, row.value) for row in chosen):
            effects += self._add(part)
        return effects

    def _go_by_newest(self, message: Promise) -> None:
        if (message.told_by, message.membership.number) > (self.told_by, self.membership.number):
            self.membership, self.told_by = message.membership, message.told_by

    def _has_read(self) -> bool:
        whole = {one for one, reading in self._readings.items() if reading.whole}
        return self.ballot.replica in whole and self.membership.is_quorum(whole)

    # --- leading ------------------------------------------------------------------------------------------

    def _lead(self, now_s: float) -> list[ConsensusEffect]:
        """Takes up what was read: writes again what a quorum does not have under one stamp."""
        self.phase, self.told_by, self._began_s = Phase.LEADING, self.ballot, now_s
        readings = {one: reading.rows for one, reading in self._readings.items() if reading.whole}
        self._readings.clear()
        for rows in readings.values():
            for row in rows.values():
                self._take_up(row)
        taken = [row for _, row in sorted(self.rows.items())]
        effects: list[ConsensusEffect] = [Elected(ballot=self.ballot, rows=tuple(taken))]
        effects += self.beat(now_s)
        if self.membership.old:
            return [*effects, *self._transfer()]
        for part in batches(
            Row(row.task, row.round, row.decided, row.value)
            for row in taken
            if not self._is_chosen({one for one, rows in readings.items() if rows.get(row.key) == row})
        ):
            effects += self._add(part)
        return effects

    def _take_up(self, row: Written) -> None:
        present = self.rows.get(row.key)
        if present is None or present.stamp < row.stamp:
            self.rows[row.key] = row

    def _is_chosen(self, voters: set[Replica]) -> bool:
        return self.membership.is_quorum(voters)

    def propose(self, rows: Sequence[Row]) -> list[ConsensusEffect]:
        """Writes rows in one batch, or several where they fit no single one; ``sequence`` is the last.

        While a batch is on its way further rows gather for the next, as in a group commit.

        Raises ``InvariantBroken`` for a register that is decided: its value stands.
        """
        if not self.is_leading:
            raise InvariantBroken(f"{self.job}: a row is written by a leader that is {self.phase}")
        decided = [row.key for row in rows if not self.may_write(row.key)]
        if decided:
            raise InvariantBroken(f"{self.job}: registers {decided} are decided, and written again")
        if not self._batches and not self._gathered:
            return [one for part in batches(rows) for one in self._add(part)]
        for row in rows:
            cost = len(row.value) + ROW_OVERHEAD_BYTES
            if not self._gathered or self._gathered_bytes + cost > PAGE_BYTES_MAX:
                self._gathered.append([])
                self._gathered_bytes = 0
            self._gathered[-1].append(row)
            self._gathered_bytes += cost
            self.rows[row.key] = row.stamped(self.ballot, self.sequence)
        return []

    def _send_gathered(self) -> list[ConsensusEffect]:
        gathered, self._gathered = self._gathered, []
        return [one for part in gathered for one in self._add(tuple(part))]

    def _add(self, rows: tuple[Row, ...]) -> list[ConsensusEffect]:
        self._sequence += 1
        for row in rows:
            self.rows[row.key] = row.stamped(self.ballot, self._sequence)
        self._batches[self._sequence] = Batch(rows)
        return [self._write(one, self._sequence, rows) for one in self.membership.everybody]

    def _write(self, replica: Replica, number: int, rows: tuple[Row, ...]) -> Say:
        accept = Accept(
            job=self.job,
            generation=self.generation,
            ballot=self.ballot,
            membership=self.membership,
            sequence=number,
            beat=self._beat,
            rows=rows,
        )
        return Say(to=replica.node, message=accept)

    def on_accepted(self, peer: NodeId, message: Accepted) -> list[ConsensusEffect]:
        """Counts a replica's word; tells what it brings about."""
        if not self._is_mine(peer, message.generation, message.ballot, message.replica):
            return []
        if not self.is_leading or message.replica not in self.membership.everybody:
            return []
        sent_at_s = self._beats.get(message.beat)
        if sent_at_s is not None:
            self._heard[message.replica] = max(sent_at_s, self._heard.get(message.replica, sent_at_s))
        batch = self._batches.get(message.sequence)
        if batch is not None:
            batch.voters.add(message.replica)
        return self._tell()

    def _tell(self) -> list[ConsensusEffect]:
        """Tells how far batches are chosen; leaves a joint membership once the new replicas have all."""
        before = self._told
        while (batch := self._batches.get(self._told + 1)) is not None and self._is_chosen(batch.voters):
            self._told += 1
            del self._batches[self._told]
        effects: list[ConsensusEffect] = []
        if self._told > before:
            effects.append(Chosen(ballot=self.ballot, sequence=self._told))
        if self._joint_ends_at is not None and self._told >= self._joint_ends_at:
            self._joint_ends_at = None
            effects += self._send_gathered()
            gone = [one for one in self.membership.old if one not in self.membership.members]
            self.membership = self.membership.settle()
            effects += self._add(())
            # They learn that they are out: else they would take the silence for this leader's end.
            effects += [self._write(one, self._sequence, ()) for one in gone]
        if self._gathered and not self._batches:
            effects += self._send_gathered()
        return effects

    def on_denied(self, peer: NodeId, message: Denied) -> list[ConsensusEffect]:
        """Gives way to a higher ballot."""
        if (message.generation, message.ballot) != (self.generation, self.ballot):
            return []
        higher = (message.promised_generation, message.promised) > (self.generation, self.ballot)
        return self.give_way(message.promised) if higher else []

    def give_way(self, to: Ballot) -> list[ConsensusEffect]:
        """Ends this leader: its own replica, or another, has promised a higher ballot."""
        if self.phase is Phase.DEPOSED:
            return []
        self.phase = Phase.DEPOSED
        return [Deposed(ballot=self.ballot, by=to)]

    # --- signs of life ------------------------------------------------------------------------------------

    def beat(self, now_s: float) -> list[ConsensusEffect]:
        """Tells every replica that this leader is there."""
        if not self.is_leading:
            return []
        self._beat += 1
        self._beats[self._beat] = now_s
        self._beats.pop(self._beat - BEATS_KEPT, None)
        return [self._write(one, 0, ()) for one in self.membership.everybody]

    # --- who the replicas are -----------------------------------------------------------------------------

    def change(self, members: tuple[Replica, ...]) -> list[ConsensusEffect]:
        """Begins to make others the replicas: from here on majorities of old and new both count.

        Raises ``InvariantBroken`` while another change is under way.
        """
        if not self.is_leading or self.is_changing:
            raise InvariantBroken(f"{self.job}: its replicas can't change now")
        sent = self._send_gathered()
        self._began_alone = self.membership.members == (self.ballot.replica,)
        self.membership = self.membership.begin(members)
        fresh = [one for one in members if one not in self.membership.old]
        pending = [
            self._write(one, number, batch.rows) for number, batch in self._batches.items() for one in fresh
        ]
        return [*sent, *pending, *self._transfer()]

    @property
    def may_go_back(self) -> bool:
        """Whether the change that is under way can be taken back.

        Only where this leader was alone, and began the change itself: then every quorum there ever was needs
        its own replica, which has all rows. A later ballot can't know whether the one before has left the
        joint membership, and with it the others to themselves.
        """
        return self.is_leading and self.is_changing and self._began_alone

    def go_back(self) -> list[ConsensusEffect]:
        """Is alone again; those who were to be replicas learn that they are none.

        Raises ``InvariantBroken`` where others may have been a quorum.
        """
        if not self.may_go_back:
            raise InvariantBroken(f"{self.job}: others may be its quorum by now")
        sent = self._send_gathered()
        self._joint_ends_at = None
        gone = [one for one in self.membership.members if one not in self.membership.old]
        self.membership = Membership(self.membership.number + 1, self.membership.old)
        sent += self._add(())
        sent += [self._write(one, self._sequence, ()) for one in gone]
        return [*sent, *self._tell()]

    def _transfer(self) -> list[ConsensusEffect]:
        """Writes every row again: the new replicas have none. The last batch ends the joint membership."""
        rows = [Row(row.task, row.round, row.decided, row.value) for _, row in sorted(self.rows.items())]
        effects: list[ConsensusEffect] = []
        for part in batches(rows) if rows else ((),):
            effects += self._add(part)
        self._joint_ends_at = self._sequence
        return effects

    def _is_mine(self, peer: NodeId, generation: int, ballot: Ballot, replica: Replica) -> bool:
        return (generation, ballot) == (self.generation, self.ballot) and replica.node == peer


def batches(rows: Iterable[Row]) -> Iterator[tuple[Row, ...]]:
    """Splits rows into what one message holds."""
    part: list[Row] = []
    size = 0
    for row in rows:
        cost = len(row.value) + ROW_OVERHEAD_BYTES
        if part and size + cost > PAGE_BYTES_MAX:
            yield tuple(part)
            part, size = [], 0
        part.append(row)
        size += cost
    if part:
        yield tuple(part)
