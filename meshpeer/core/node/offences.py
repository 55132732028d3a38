"""Offences: who broke the protocol, and how, last; for the operator."""

from __future__ import annotations

from dataclasses import dataclass

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId

OFFENDERS_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Offence:
    """How a member broke the protocol last, and how often it did."""

    what: str
    unix_s: float
    times: int


def note_offence(offences: dict[NodeId, Offence], peer: NodeId | None, what: str, now: Instant) -> None:
    """Counts what a member did; beyond so many members nobody is added."""
    if peer is None or (peer not in offences and len(offences) >= OFFENDERS_MAX):
        return
    times = offences[peer].times + 1 if peer in offences else 1
    offences[peer] = Offence(what=what, unix_s=now.unix_s, times=times)
