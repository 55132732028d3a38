"""One relay and the ends around it: on loopback for the process, in memory for its twin."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from meshpeer.adapters.relay.process import ProcessRelay
from meshpeer.core.paths.relay_crossing import Way
from meshpeer.runtime.ports import Relaying
from meshpeer.sim.relay import MemoryRelay

RATE = 1e9
WAIT_S = 10.0


class Box(Protocol):
    """A socket somewhere."""

    async def send(self, port: int, data: bytes) -> None: ...

    async def receive(self) -> tuple[int, bytes]:
        """Returns the relay's port that a packet came from, and the packet."""
        ...

    @property
    def address(self) -> tuple[str, int]: ...


@dataclass
class Rig:
    relay: Relaying
    make_box: Callable[[], Box]
    ports: tuple[int, int]
    clock: Callable[[], float]


@contextlib.asynccontextmanager
async def process_rig(host: str) -> AsyncIterator[Rig]:
    relay = ProcessRelay(rate=RATE, total=RATE, fast=None)
    async with trio.open_nursery() as nursery:
        with contextlib.ExitStack() as boxes:

            def make_box() -> Box:
                return boxes.enter_context(_LoopbackBox(host))

            await nursery.start(relay.run)
            yield Rig(relay, make_box, free_ports(), _boottime)
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def memory_rig() -> AsyncIterator[Rig]:
    boxes: dict[tuple[str, int], _MemoryBox] = {}

    def sent(port: int, way: Way, data: bytes) -> None:
        boxes[way.host, way.port].queue.append((port, data))

    relay = MemoryRelay(rate=RATE, total=RATE, now_s=_boottime, sent=sent, busy=(7,))

    def make_box() -> Box:
        made = _MemoryBox(relay, ("192.0.2.1", 1000 + len(boxes)))
        boxes[made.address] = made
        return made

    async with trio.open_nursery() as nursery:
        await nursery.start(relay.run)
        yield Rig(relay, make_box, (51830, 51831), _boottime)
        nursery.cancel_scope.cancel()


class _LoopbackBox:
    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = trio.socket.socket(family, socket.SOCK_DGRAM)
        self._host = host

    def __enter__(self) -> _LoopbackBox:
        self._socket._sock.bind((self._host, 0))  # type: ignore[attr-defined]
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def send(self, port: int, data: bytes) -> None:
        await self._socket.sendto(data, (self._host, port))

    async def receive(self) -> tuple[int, bytes]:
        with trio.fail_after(WAIT_S):
            data, source = await self._socket.recvfrom(65_536)
        assert source[0] == self._host
        return source[1], data

    @property
    def address(self) -> tuple[str, int]:
        host, port, *_ = self._socket.getsockname()
        return host, port


class _MemoryBox:
    def __init__(self, relay: MemoryRelay, address: tuple[str, int]) -> None:
        self._relay = relay
        self.queue: list[tuple[int, bytes]] = []
        self._address = address

    async def send(self, port: int, data: bytes) -> None:
        self._relay.arrive(port, Way(*self._address), data)

    async def receive(self) -> tuple[int, bytes]:
        return self.queue.pop(0)

    @property
    def address(self) -> tuple[str, int]:
        return self._address


def free_ports() -> tuple[int, int]:
    """Returns two UDP ports that nobody held a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) for _ in range(2)]
        for one in sockets:
            one.bind(("::", 0))
        first, second = (one.getsockname()[1] for one in sockets)
        return first, second


def _boottime() -> float:
    import time

    return time.clock_gettime(time.CLOCK_BOOTTIME)
