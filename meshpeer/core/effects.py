"""Effects and events that every room shares; a room's own stand in its ``messages.py``.

An effect that promises something to somebody (an acknowledgement, a grant) names the ``Ticket`` of the write
that backs it in ``after``: the runtime holds it until the write is on disk, and never releases it if the
write
fails. So commits batch and nothing overtakes the disk.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from meshpeer.core.ids import NodeId, Ticket


class Table(enum.StrEnum):
    """The journal's tables; each maps a text key to bytes whose shape its owner defines (canonical CBOR)."""

    META = "meta"
    RECORDS = "records"
    CERTIFICATES = "certificates"
    SEEDS = "seeds"
    JOBS = "jobs"
    TASKS = "tasks"
    RESULTS = "results"
    GRANTS = "grants"
    REPLICAS = "replicas"


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Writes one row, replacing what the key held."""

    table: Table
    key: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Removes one row; a key that is absent is no error."""

    table: Table
    key: str


Change = Put | Delete


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """Writes all changes in one transaction, then performs the effects that wait for the ticket."""

    ticket: Ticket
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Sends one message to a peer over its link; dropped where there is none (protocols repeat themselves).

    A message to this very node is delivered to its own machines, so owner and worker never know whether they
    share
    a machine.
    """

    peer: NodeId
    message: msgspec.Struct
    after: Ticket | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskEcho:
    """Sends an echo to an overlay address: whoever has it answers with the same number."""

    number: int
    """Not to be guessed."""
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Tells the operator a fact: logged, and shown by ``status`` where it is a warning."""

    level: str
    """``debug``, ``info``, ``warning`` or ``error``."""
    fact: str
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Tick:
    """Time reached (or passed) the machine's deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LagMeasured:
    """This process ran late: what peers seem to have failed at meanwhile may be this node's own doing."""

    lag_s: float


class TicketCounter:
    """Hands out tickets, rising by one; one counter serves all machines of a node."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0

    def take(self) -> Ticket:
        self._last += 1
        return Ticket(self._last)

    @property
    def last(self) -> int:
        """The ticket that was taken last; 0 for none."""
        return self._last
