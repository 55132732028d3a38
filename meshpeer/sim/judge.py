"""A judge that remembers: the nodes of one world judge the same facts, and each fact needs judging once.

All it remembers are values of pure functions, so a world with it and one without are the same, event for
event.
It is also what lets ten thousand ledgers hold one object for each member.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar, cast

from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import Digest, MeshId, NodeId
from meshpeer.core.records.judge import Judge
from meshpeer.core.records.kinds import LeaveRecord, MemberRecord, Record, SuspectRecord
from meshpeer.core.records.member import Admission, Member

Value = TypeVar("Value")

FACTS_REMEMBERED = 200_000
SHARED_REMEMBERED = 512
"""Values derived from whole ledgers: each may be as long as the mesh is large."""


class _Memory(dict[Hashable, object]):
    """Holds so many values, and forgets the oldest."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def of(self, key: Hashable, make: Callable[[], Value]) -> Value:
        try:
            return cast(Value, self[key])
        except KeyError:
            if len(self) >= self._most:
                del self[next(iter(self))]
            made = self[key] = make()
            return made


class SharedJudge(Judge):
    """Decides each thing once for all ledgers of a world."""

    def __init__(self) -> None:
        super().__init__()
        self._opened = _Memory(FACTS_REMEMBERED)
        self._verified = _Memory(FACTS_REMEMBERED)
        self._digests = _Memory(FACTS_REMEMBERED)
        self._steps = _Memory(FACTS_REMEMBERED)
        self._shared = _Memory(SHARED_REMEMBERED)

    def open(self, data: bytes) -> Record | None:
        return self._opened.of(data, lambda: super(SharedJudge, self).open(data))

    def verify(self, data: bytes, author: NodeId, mesh: MeshId) -> None:
        self._verified.of((data, author, mesh), lambda: super(SharedJudge, self).verify(data, author, mesh))

    def digest(self, data: bytes) -> Digest:
        return self._digests.of(data, lambda: super(SharedJudge, self).digest(data))

    def admitted(self, held: Member | None, admission: Admission) -> tuple[Member, bool]:
        key = ("admitted", held or admission.identity.node, admission.leaf, admission.chain)
        return self._steps.of(key, lambda: super(SharedJudge, self).admitted(held, admission))

    def recorded(
        self, held: Member, record: MemberRecord | LeaveRecord, data: bytes, mesh: MeshId
    ) -> Member | None:
        return self._steps.of(
            ("recorded", held, data), lambda: super(SharedJudge, self).recorded(held, record, data, mesh)
        )

    def suspected(self, held: Member, record: SuspectRecord, data: bytes, mesh: MeshId) -> Member:
        return self._steps.of(
            ("suspected", held, data), lambda: super(SharedJudge, self).suspected(held, record, data, mesh)
        )

    def shared(self, key: object, make: Callable[[], Value]) -> Value:
        if not isinstance(key, Hashable):
            raise InvariantBroken(f"{key!r} can't stand for a value")
        return self._shared.of(key, make)
