"""Seals: an owner's signature on every attempt that it grants, so that who hands work on can hand on nothing
else.

A thief takes attempts from a victim, not from their owner. Without the owner's word any member could make it
run a task of somebody else's job again, on inputs of its own choice; and any member could tell an owner that
it had stolen what it never had. So a grant is sealed: the owner signs the attempt with its job, its record
and its inputs. The thief checks that before it queues anything. To the owner the seal is a token that only
those know who were given the attempt: it compares, and checks no signature.

What a seal does not do is to run out: whoever once had an attempt can have it run again, until its owner says
stop."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from meshpeer.core.identity.keys import SigningKey, verify_signature
from meshpeer.core.ids import JobId, MeshId, NodeId, TaskIndex
from meshpeer.core.scheduler.messages import Attempt, Blob, Grant, Granted, Input
from meshpeer.core.wire import cbor

GRANT_CONTEXT = b"meshpeer/grant/v1"
COUNTER_BYTES = 8
NUMBER_MAX = 1_000_000
"""Attempts of one task in one round, and rounds: nobody pushes a number to its end."""
FORMER_MAX = 8
"""Who is remembered to have had attempts of one task, the latest ones."""


class Seals(Protocol):
    """Makes seals with this node's key, and judges those of others."""

    def make(self, counter: int, body: bytes) -> bytes:
        """Returns the seal of a grant that the owner gives in its epoch of this counter."""
        ...

    def counter_of(self, owner: NodeId, body: bytes, seal: bytes) -> int | None:
        """Returns the counter of the epoch in which ``owner`` gave a grant; None where it did not."""
        ...


class _Sealed(msgspec.Struct, frozen=True, array_like=True):
    """What a seal is about."""

    job: JobId
    generation: int
    record: Blob
    attempt: Attempt
    inputs: tuple[Input, ...]
    inputs_blob: Blob | None


def sealed_body(job: JobId, generation: int, record: Blob, granted: Granted) -> bytes:
    """Returns the bytes that the seal of one attempt covers, all but the epoch's counter."""
    return cbor.encode(_Sealed(job, generation, record, granted.attempt, granted.inputs, granted.inputs_blob))


class KeySeals:
    """Implements ``Seals`` with a node's own key: 8 bytes of the counter, then the signature over both."""

    def __init__(self, key: SigningKey, mesh: MeshId) -> None:
        self._key = key
        self._mesh = mesh

    def make(self, counter: int, body: bytes) -> bytes:
        head = counter.to_bytes(COUNTER_BYTES, "big")
        return head + self._key.sign(GRANT_CONTEXT, self._mesh, head + body)

    def counter_of(self, owner: NodeId, body: bytes, seal: bytes) -> int | None:
        head, signature = seal[:COUNTER_BYTES], seal[COUNTER_BYTES:]
        if not verify_signature(owner, GRANT_CONTEXT, self._mesh, head + body, signature):
            return None
        return int.from_bytes(head, "big")


def counter_of_grant(seals: Seals, grant: Grant) -> int | None:
    """Returns the highest counter of the epochs in which a grant's owner gave its tasks; None where one of
    them is not the owner's."""
    counters = [
        seals.counter_of(grant.owner, sealed_body(grant.job, grant.generation, grant.record, one), one.seal)
        for one in grant.tasks
    ]
    known = [one for one in counters if one is not None]
    return max(known) if known and len(known) == len(counters) else None


def proves(token: bytes | None, shown: bytes) -> bool:
    """Says whether a seal that somebody shows is the one that went with a lease; None: that is not known any
    more, and nothing proves it."""
    return token is not None and hmac.compare_digest(token, shown)


@dataclass(slots=True)
class FormerHolders:
    """Who had attempts of one job that have no lease any more: their results still count, and they may take
    their tasks up again while nobody else has them."""

    restored: frozenset[NodeId] = frozenset()
    """Workers that the journal names from before this owner's restart: which attempts each had is not
    known."""
    _by_task: dict[TaskIndex, list[tuple[Attempt, NodeId, bytes | None]]] = field(default_factory=dict)

    def add(self, task: TaskIndex, attempt: Attempt, node: NodeId, token: bytes | None) -> None:
        held = self._by_task.setdefault(task, [])
        held.append((attempt, node, token))
        del held[:-FORMER_MAX]

    def had(self, task: TaskIndex, attempt: Attempt, node: NodeId, shown: bytes) -> bool:
        """Says whether a node had this very attempt, or shows the seal of who had."""
        return node in self.restored or any(
            one == attempt and (holder == node or proves(token, shown))
            for one, holder, token in self._by_task.get(task, ())
        )

    def token_of(self, task: TaskIndex, attempt: Attempt) -> bytes | None:
        return next((token for one, _, token in self._by_task.get(task, ()) if one == attempt), None)

    def forget(self, task: TaskIndex) -> None:
        self._by_task.pop(task, None)
