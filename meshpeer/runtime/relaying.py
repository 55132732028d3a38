"""Performs what the desk of this node's relay wants: opens and closes ports, freezes and wakes pairs, counts
what crosses.

The relay's process is started for the first pair. When it ends, all pairs are lost, which is reported of
each, and the next pair starts it again after a pause. A machine where it won't start lends nothing any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import trio

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.paths.relay_messages import (
    CloseRelay,
    FreezeRelay,
    OpenRelay,
    RekeyRelay,
    RelayAble,
    RelayCarried,
    RelayLost,
    RelayOpened,
    WakeRelay,
)
from meshpeer.runtime.ports import RelayedPair, Relaying

Order = OpenRelay | RekeyRelay | CloseRelay | FreezeRelay | WakeRelay
ORDERS_MAX = 1_024
"""Orders that wait; the desk's own bounds keep it far below."""
LOOK_INTERVAL_S = 5.0
PAUSE_FIRST_S, PAUSE_MAX_S = 1.0, 60.0
TRIES = 3
"""After so many failures in a row this node says that it can't relay; it goes on trying."""


class Relayer:
    """Owns the relay of one node for the lifetime of the agent."""

    def __init__(
        self,
        relaying: Relaying,
        post: Callable[[object], None],
        report: Callable[[str, str, tuple[tuple[str, str], ...]], None],
    ) -> None:
        self._relaying = relaying
        self._post = post
        self._report = report
        self._give, self._take = trio.open_memory_channel[Order](ORDERS_MAX)
        self._open: dict[tuple[int, int], None] = {}
        self._failures = 0
        self.pairs: tuple[RelayedPair, ...] = ()
        """What crossed, as last looked at."""

    def order(self, order: Order) -> None:
        """Queues an order; never blocks."""
        if isinstance(order, OpenRelay):
            self._open[order.ports] = None
        try:
            self._give.send_nowait(order)
        except trio.WouldBlock:
            if isinstance(order, OpenRelay):
                self._lose(order.ports)

    async def run(self) -> None:
        """Relays until cancelled. What it leaves behind is nothing."""
        while True:
            # Nothing runs for a node that nobody asks.
            first = await self._take.receive()
            if not isinstance(first, OpenRelay):
                continue
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._relaying.run)
                    self._failures = 0
                    nursery.start_soon(self._look)
                    await self._obey(first)
                    async for order in self._take:
                        await self._obey(order)
            except* EnvironmentFault as faults:
                await self._fail(_first(faults))

    async def _fail(self, fault: EnvironmentFault) -> None:
        self._failures += 1
        level = "warning" if self._failures < TRIES else "error"
        self._report(level, "the relay ended", (("reason", fault.what), ("hint", fault.hint)))
        self._drain()
        self.pairs = ()
        if self._failures == TRIES:
            self._post(RelayAble(fault=fault.what))
            await self._until_it_runs()
        else:
            await trio.sleep(min(PAUSE_MAX_S, PAUSE_FIRST_S * 2.0 ** (self._failures - 1)))

    async def _until_it_runs(self) -> None:
        """Tries the relay alone, so that nobody is promised what can't be had."""
        runs = False
        while not runs:
            await trio.sleep(PAUSE_MAX_S)
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._relaying.run)
                    runs = True
                    nursery.cancel_scope.cancel()
            except* EnvironmentFault as faults:
                self._report("debug", "the relay still does not start", (("reason", _first(faults).what),))
        self._failures = 0
        self._drain()
        self._post(RelayAble())

    def _drain(self) -> None:
        """Forgets what waits, and says of all that was lent that it is lost."""
        with contextlib.suppress(trio.WouldBlock):
            while True:
                self._take.receive_nowait()
        for ports in list(self._open):
            self._lose(ports)

    def _lose(self, ports: tuple[int, int]) -> None:
        self._open.pop(ports, None)
        self._post(RelayLost(ports=ports))

    async def _obey(self, order: Order) -> None:
        ports = order.ports
        try:
            match order:
                case OpenRelay(keys=keys, binds=binds):
                    await self._relaying.open(ports, keys, binds)
                    self._post(RelayOpened(ports=ports))
                case RekeyRelay(keys=keys_of):
                    await self._relaying.rekey(ports, keys_of)
                case CloseRelay():
                    self._open.pop(ports, None)
                    await self._relaying.close(ports)
                case FreezeRelay(at_s=at_s):
                    await self._relaying.freeze(ports, at_s)
                case WakeRelay():
                    await self._relaying.wake(ports)
        except EnvironmentFault as fault:
            # The relay itself may be well: a port that somebody else holds costs one pair.
            if isinstance(order, OpenRelay):
                words = (("ports", f"{ports[0]}, {ports[1]}"), ("reason", fault.what), ("hint", fault.hint))
                self._report("warning", "a relay's port can't be had", words)
            if isinstance(order, OpenRelay | WakeRelay):
                self._lose(ports)

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(EnvironmentFault):
                self.pairs = tuple(await self._relaying.look())
                for one in self.pairs:
                    drops = sum(one.drops.values())
                    self._post(RelayCarried(ports=one.ports, packets=sum(one.packets), drops=drops))
            await trio.sleep(LOOK_INTERVAL_S)


def _first(group: BaseExceptionGroup[EnvironmentFault]) -> EnvironmentFault:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, EnvironmentFault)
    return error
