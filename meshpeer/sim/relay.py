"""A relay in memory: the same decisions, and a wire that its user holds both ends of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.relay_binding import NO_BINDS, Binds, is_binding
from meshpeer.core.paths.relay_bucket import Bucket
from meshpeer.core.paths.relay_crossing import Crossing, Way
from meshpeer.runtime.ports import RelayedPair

Ports = tuple[int, int]


class MemoryRelay:
    """``now_s`` is the clock of freezes; ``busy`` are ports that somebody else holds; ``sent`` is called with
    the port that a packet leaves by, where it goes, and the packet."""

    def __init__(
        self,
        *,
        rate: float,
        total: float,
        now_s: Callable[[], float],
        sent: Callable[[int, Way, bytes], None],
        busy: Sequence[int] = (),
    ) -> None:
        self._rate, self._total = rate, Bucket(total, total)
        self._now_s = now_s
        self._sent = sent
        self._busy = set(busy)
        self._pairs: dict[Ports, Crossing] = {}
        self._runs = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._runs = True
        try:
            task_status.started()
            await trio.sleep_forever()
        finally:
            self._runs = False
            self._pairs.clear()

    def arrive(self, port: int, way: Way, data: bytes) -> None:
        """Lets a packet come to a port; where nobody lent it, nothing happens."""
        for ports, crossing in self._pairs.items():
            if port in ports:
                side = ports.index(port)
                if is_binding(data):
                    answer = crossing.bind(side, way, data, self._now_s())
                    if answer is not None:
                        self._sent(port, way, answer)
                elif (target := crossing.carry(side, way, data, self._now_s())) is not None:
                    self._sent(ports[1 - side], target, data)

    async def open(
        self, ports: Ports, keys: tuple[WireGuardKey, WireGuardKey], binds: Binds = NO_BINDS
    ) -> None:
        await self._ordered()
        lent = self._busy.union(*self._pairs)
        for port in ports:
            if port in lent:
                raise EnvironmentFault(f"UDP port {port}: Address already in use")
        self._pairs[ports] = Crossing(keys, Bucket(self._rate, self._rate), self._total, binds)

    async def rekey(self, ports: Ports, keys: tuple[Sequence[WireGuardKey], Sequence[WireGuardKey]]) -> None:
        await self._ordered()
        self._crossing(ports).rekey(keys)

    async def close(self, ports: Ports) -> None:
        await self._ordered()
        self._pairs.pop(ports, None)

    async def freeze(self, ports: Ports, at_s: float) -> None:
        await self._ordered()
        self._crossing(ports).freeze(at_s)

    async def wake(self, ports: Ports) -> None:
        await self._ordered()
        self._crossing(ports).wake()

    async def look(self) -> Sequence[RelayedPair]:
        await self._ordered()
        return [
            RelayedPair(
                ports=ports,
                packets=(one.ends[0].packets, one.ends[1].packets),
                bytes=(one.ends[0].bytes, one.ends[1].bytes),
                drops={reason.value: count for reason, count in one.drops.items()},
                ways=(one.ends[0].way, one.ends[1].way),
                frozen=one.is_frozen(self._now_s()),
                fast=False,
            )
            for ports, one in self._pairs.items()
        ]

    async def _ordered(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self._runs:
            raise EnvironmentFault("the relay does not run")

    def _crossing(self, ports: Ports) -> Crossing:
        if ports not in self._pairs:
            raise EnvironmentFault("no such ports are open")
        return self._pairs[ports]
