"""Replicas, ballots, memberships and rows: the values that acceptors keep and leaders write."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from meshpeer.core.ids import NodeId

REPLICAS_MAX = 7
"""Replicas of one membership; a job has three, or one."""
ROW_BYTES_MAX = 64 * 1024 * 1024
"""One value at rest; what fits a frame is bounded where it is made."""

Key = tuple[int, int]
"""A register: task and round. Task -1 is the job itself, task -2 (with a number for a round) a worker."""


class Replica(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A node and the journal that it votes from: a wiped node is another replica."""

    node: NodeId
    store: bytes


class Ballot(msgspec.Struct, frozen=True, array_like=True, order=True):
    """The fence: a counter, and the replica that raised it. The higher ballot is the job's present owner."""

    counter: int
    replica: Replica


NO_BALLOT = Ballot(0, Replica(NodeId(b""), b""))
"""Lower than any that somebody takes."""


class Membership(msgspec.Struct, frozen=True, array_like=True):
    """Who votes. ``old`` is there while a change is under way: then majorities of both count."""

    number: int
    members: tuple[Replica, ...]
    old: tuple[Replica, ...] = ()

    @property
    def everybody(self) -> tuple[Replica, ...]:
        """All who are asked and told, in a fixed order."""
        return tuple(sorted({*self.members, *self.old}))

    def is_quorum(self, voters: Collection[Replica]) -> bool:
        return _is_majority(voters, self.members) and (not self.old or _is_majority(voters, self.old))

    def begin(self, members: tuple[Replica, ...]) -> Membership:
        """Returns the joint membership on the way to ``members``."""
        return Membership(self.number + 1, members, self.members)

    def settle(self) -> Membership:
        """Returns what comes after a joint membership."""
        return Membership(self.number + 1, self.members)


NOBODY = Membership(0, ())


class Written(msgspec.Struct, frozen=True, array_like=True):
    """A row as a replica has it: the value of one register, and the stamp of its writing."""

    task: int
    round: int
    decided: bool
    """Never written again; else its task is still open."""
    value: bytes
    ballot: Ballot
    sequence: int
    """Which batch of the ballot's leader: of two stamps with one ballot the later is newer."""

    @property
    def key(self) -> Key:
        return (self.task, self.round)

    @property
    def stamp(self) -> tuple[Ballot, int]:
        return (self.ballot, self.sequence)


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A row as a leader writes it; the message around it carries the stamp."""

    task: int
    round: int
    decided: bool
    value: bytes

    @property
    def key(self) -> Key:
        return (self.task, self.round)

    def stamped(self, ballot: Ballot, sequence: int) -> Written:
        return Written(self.task, self.round, self.decided, self.value, ballot, sequence)


class Vote(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica has promised: on disk before it is answered, one row per job."""

    generation: int = 0
    promised: Ballot = NO_BALLOT
    membership: Membership = NOBODY
    told_by: Ballot = NO_BALLOT
    """The ballot that the membership came with."""


def _is_majority(voters: Collection[Replica], members: tuple[Replica, ...]) -> bool:
    return sum(one in voters for one in members) * 2 > len(members)
