"""Time as core sees it: an argument.

``Instant`` carries both clocks because they answer different questions. ``mono_s`` counts through suspend
(CLOCK_BOOTTIME) and never jumps: leases, time-outs and pauses use it. ``unix_s`` is the wall clock: signed
records and certificates use it, nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment: seconds of CLOCK_BOOTTIME and seconds since the Unix epoch."""

    mono_s: float
    unix_s: float


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a machine wants ``Tick`` (CLOCK_BOOTTIME seconds), and the printable reason."""

    at_s: float
    reason: str


def earliest(*deadlines: Deadline | None) -> Deadline | None:
    """Returns the deadline that comes first, or None where there is none."""
    present = [deadline for deadline in deadlines if deadline is not None]
    return min(present, key=lambda deadline: deadline.at_s, default=None)
