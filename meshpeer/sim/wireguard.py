"""A WireGuard interface in memory, by the same rules as the real ones (``core.wgconf.after``)."""

from __future__ import annotations

from collections.abc import Sequence

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.wgconf.after import device_after
from meshpeer.core.wgconf.model import DeviceStep, ObservedDevice


class MemoryWireGuard:
    """Implements ``runtime.ports.WireGuard``; tests set ``device`` as a person's hand would, and ``fault``
    as the world."""

    backend = "kernel"

    def __init__(self) -> None:
        self.device: ObservedDevice | None = None
        self.applied: list[tuple[DeviceStep, ...]] = []
        """Every ``apply``, so that a test can assert that nothing to change meant no call."""
        self.fault: EnvironmentFault | None = None
        """Raised by every call while it is set."""

    async def observe(self) -> ObservedDevice | None:
        self._fail()
        return self.device

    async def apply(self, steps: Sequence[DeviceStep]) -> None:
        self._fail()
        self.applied.append(tuple(steps))
        for step in steps:
            self.device = device_after(self.device, (step,))

    async def remove(self) -> None:
        self._fail()
        self.device = None

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault
