"""What must hold after every step, whatever happens to a mesh.

Cheap ones look at what a step wanted written: nobody accepts a record that its subject did not sign, one
that has
expired, or one of a member whose later tombstone it holds. Dear ones walk through one host's tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshpeer.core.deadline import Instant
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.overlay import DEGREE_MAX, FULL_MESH_MAX
from meshpeer.core.records.judge import Judge
from meshpeer.core.records.kinds import LeaveRecord, MemberRecord, expires_at, precedence
from meshpeer.sim.host import Host
from meshpeer.sim.network import QUEUE_FRAMES_MAX


@dataclass(slots=True)
class Invariants:
    """Remembers what subjects signed, and holds all others to it."""

    judge: Judge
    rogues: set[int] = field(default_factory=set)
    """Hosts that may contradict themselves: nobody answers for what they sign of themselves."""
    _signed: dict[bytes, MemberRecord | LeaveRecord] = field(default_factory=dict)
    _left: dict[int, LeaveRecord] = field(default_factory=dict)
    _told: dict[int, set[int]] = field(default_factory=dict)
    """By who left: the hosts that hold the tombstone."""

    def published(self, host: Host, data: bytes) -> None:
        """A host hands a record of its own to its journal."""
        if data in self._signed:
            return
        record = self.judge.open(data)
        if isinstance(record, MemberRecord | LeaveRecord):
            self._signed[data] = record
            if isinstance(record, LeaveRecord):
                self._left[host.index] = record
                self._told[host.index] = {host.index}

    def accepted(self, host: Host, subject: Host, data: bytes, unix_s: float) -> None:
        """A host hands another one's record to its journal. Raises ``InvariantBroken``."""
        if subject.index in self.rogues:
            return
        record = self._signed.get(data)
        if record is None:
            raise InvariantBroken(
                f"{host.name} holds a record of {subject.name} that {subject.name} never signed"
            )
        if expires_at(record) <= unix_s:
            raise InvariantBroken(f"{host.name} took a record of {subject.name} that had expired")
        left = self._left.get(subject.index)
        if left is None:
            return
        told = self._told[subject.index]
        if record == left:
            told.add(host.index)
        elif host.index in told and precedence(record) <= precedence(left):
            raise InvariantBroken(f"{subject.name} left, and {host.name} took it for a member again")

    def wiped(self, host: Host) -> None:
        """A host lost its journal, and with it what it knew of those that left."""
        for told in self._told.values():
            told.discard(host.index)

    def check_links(self, host: Host, members: int, now: Instant) -> None:
        """Raises ``InvariantBroken`` where a host has more links, or longer queues, than it may."""
        if host.node is None:
            return
        if (
            members > FULL_MESH_MAX
            and len(host.node.links.peers) > DEGREE_MAX
            and (settled := host.node.overlay.settled(now)) > DEGREE_MAX
        ):
            raise InvariantBroken(f"{host.name} has {settled} settled links, {DEGREE_MAX} is the cap")
        for lane in host.lanes.values():
            if lane.waiting is not None and len(lane.waiting) > QUEUE_FRAMES_MAX + 1:
                raise InvariantBroken(f"{len(lane.waiting)} frames wait on a link of {host.name}")

    def check_ledger(self, host: Host, by_id: Mapping[NodeId, Host]) -> None:
        """Walks through one ledger. Raises ``InvariantBroken``."""
        if host.node is None:
            return
        host.node.links.check()
        for member in host.node.ledger:
            subject = by_id.get(member.node)
            if subject is None or not member.envelope or subject.index in self.rogues:
                continue
            if member.envelope not in self._signed:
                raise InvariantBroken(
                    f"the ledger of {host.name} holds a record of {subject.name} that it never signed"
                )
