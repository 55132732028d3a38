"""The real clock and the real entropy."""

from __future__ import annotations

import os
import time

from meshpeer.core.deadline import Instant


class SystemClock:
    """Implements ``runtime.ports.Clock``: CLOCK_BOOTTIME counts through suspend, so a sleeping laptop does
    not wake with its leases."""

    def now(self) -> Instant:
        return Instant(time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


class SystemEntropy:
    """Implements ``runtime.ports.Entropy``."""

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)
