"""The real clock."""

from __future__ import annotations

import time

from meshpeer.core.deadline import Instant


class SystemClock:
    """Implements ``runtime.ports.Clock``: CLOCK_BOOTTIME counts through suspend, so a sleeping laptop does
    not wake with its leases."""

    def now(self) -> Instant:
        return Instant(time.clock_gettime(time.CLOCK_BOOTTIME), time.time())
