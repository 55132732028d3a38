"""Keeps probes answered on the overlay addresses that core names, and sends those of this node.

An address that can't be had yet (its interface is on the way) is tried again for ever; why is told once.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from meshpeer.core.effects import AskEcho
from meshpeer.core.errors import EnvironmentFault
from meshpeer.runtime.ports import Prober

RETRY_S = 2.0
TOLD_AFTER = 3
"""Failures in a row: an interface that is made anew is back by then."""


class Probing:
    """Owns the probes of one node for the lifetime of the agent."""

    def __init__(
        self,
        prober: Prober,
        post: Callable[[object], None],
        report: Callable[[str, str, tuple[tuple[str, str], ...]], None],
    ) -> None:
        self._prober = prober
        self._post = post
        self._report = report
        self._addresses: tuple[str, ...] = ()
        self._changed = trio.Event()

    def want(self, addresses: tuple[str, ...]) -> None:
        """Sets the addresses to answer on; none: not at all."""
        self._addresses = addresses
        self._changed.set()

    def ask(self, probe: AskEcho) -> None:
        """Sends a probe; one that can't be sent is lost, as others are on their way."""
        self._prober.ask(probe.address, probe.number)

    async def run(self, interface: trio.Event) -> None:
        """Runs until cancelled, from when the interface is there."""
        await interface.wait()
        while True:
            self._changed = trio.Event()
            async with trio.open_nursery() as nursery:
                for address in self._addresses:
                    nursery.start_soon(self._serve, address)
                await self._changed.wait()
                nursery.cancel_scope.cancel()

    async def _serve(self, address: str) -> None:
        failures = 0
        while True:
            try:
                await self._prober.serve(address, self._post)
            except EnvironmentFault as fault:
                failures += 1
                if failures == TOLD_AFTER:
                    self._report(
                        "warning",
                        "members can't probe this node",
                        (("reason", fault.what), ("hint", fault.hint)),
                    )
            await trio.sleep(RETRY_S)
