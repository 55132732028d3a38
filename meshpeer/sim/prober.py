"""Probes in memory: an overlay that carries them at once, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import trio

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.node.messages import EchoAsked, EchoHeard

Hear = Callable[[EchoAsked | EchoHeard], None]


class MemoryOverlay:
    """What probers of one world share: who answers on which address."""

    def __init__(self) -> None:
        self.served: dict[str, Hear] = {}
        self.dead: set[str] = set()
        """Addresses that tests cut off."""


class MemoryProber:
    """Implements ``runtime.ports.Prober``."""

    def __init__(self, overlay: MemoryOverlay) -> None:
        self._overlay = overlay
        self._mine: dict[bool, str] = {}
        """This prober's own address of each family (whether it is IPv6)."""

    async def serve(self, address: str, heard: Hear) -> None:
        if address in self._overlay.served:
            raise EnvironmentFault(f"probes can't be answered on {address}: it is in use", "choose another")
        self._overlay.served[address] = heard
        self._mine[":" in address] = address
        try:
            await trio.sleep_forever()
        finally:
            del self._overlay.served[address], self._mine[":" in address]

    def ask(self, address: str, number: int) -> bool:
        source = self._mine.get(":" in address)
        if source is None:
            return False
        there = self._overlay.served.get(address)
        if there is not None and not self._overlay.dead & {source, address}:
            there(EchoAsked(source=source))
            self._overlay.served[source](EchoHeard(number=number, source=address))
        return True
