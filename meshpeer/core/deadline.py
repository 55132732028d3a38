"""Time as core sees it: an argument.

``Instant`` carries both clocks because they answer different questions. ``mono_s`` counts through suspend
(CLOCK_BOOTTIME) and never jumps: leases, time-outs and pauses use it. ``unix_s`` is the wall clock: signed
records and certificates use it, nothing else does.

Both are named tuples: every event makes a dozen of them, and a frozen dataclass takes three times as long.
"""

from __future__ import annotations

from typing import NamedTuple


class Instant(NamedTuple):
    """One moment: seconds of CLOCK_BOOTTIME and seconds since the Unix epoch."""

    mono_s: float
    unix_s: float


class Deadline(NamedTuple):
    """When a machine wants ``Tick`` (CLOCK_BOOTTIME seconds), and the printable reason."""

    at_s: float
    reason: str


def earliest(*deadlines: Deadline | None) -> Deadline | None:
    """Returns the deadline that comes first, or None where there is none."""
    first: Deadline | None = None
    for one in deadlines:
        if one is not None and (first is None or one.at_s < first.at_s):
            first = one
    return first
