"""A relay without an agent: core's desk and the adapter, told line by line what ends say over their links.

Run on the machine that relays: ``relay_driver.py FIRST_KEY SECOND_KEY process|fast``. A line of input is one
of ``ask 0``, ``renew 1``, ``free 0``, ``freeze 0`` (of both ends), ``wake 1``, ``leave 1``, ``look``; each is
answered by one line of JSON: what was said to the ends, and what crosses. It ends with its input.
"""

from __future__ import annotations

import base64
import json
import sys
import time

import trio

from meshpeer.adapters.relay.fastpath import FastPath
from meshpeer.adapters.relay.process import ProcessRelay
from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Send
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.paths.relay import RelayDesk, RelayLimits
from meshpeer.core.paths.relay_messages import (
    CloseRelay,
    FreezeRelay,
    OpenRelay,
    RelayAsked,
    RelayCarried,
    RelayEvent,
    RelayFreed,
    RelayFreezeAsked,
    RelayGranted,
    RelayLost,
    RelayMembersShown,
    RelayOpened,
    RelayRenewed,
    RelayRequest,
    RelayRequested,
    RelayWakeAsked,
    WakeRelay,
)

NODES = (NodeId(b"\1" * 32), NodeId(b"\2" * 32))
ME = NodeId(b"\3" * 32)
RATE = 1e9


class Driver:
    def __init__(self, keys: list[WireGuardKey], fast: FastPath | None) -> None:
        self.relay = ProcessRelay(rate=RATE, total=RATE, fast=fast)
        self.desk = RelayDesk(ME, RelayLimits(), Counters())
        self.keys = keys
        self.said: list[list[object]] = []

    async def tell(self, event: RelayEvent) -> None:
        for effect in self.desk.handle(event, Instant(time.clock_gettime(time.CLOCK_BOOTTIME), time.time())):
            match effect:
                case Send(peer=peer, message=message):
                    value = (
                        message.port if isinstance(message, RelayGranted) else getattr(message, "reason", "")
                    )
                    self.said.append([NODES.index(peer), type(message).__name__, value])
                case OpenRelay(ports=ports, keys=keys):
                    try:
                        await self.relay.open(ports, keys)
                    except EnvironmentFault:
                        await self.tell(RelayLost(ports=ports))
                    else:
                        await self.tell(RelayOpened(ports=ports))
                case CloseRelay(ports=ports):
                    await self.relay.close(ports)
                case FreezeRelay(ports=ports, at_s=at_s):
                    await self.relay.freeze(ports, at_s)
                case WakeRelay(ports=ports):
                    await self.relay.wake(ports)

    async def obey(self, words: list[str]) -> dict[str, object]:
        messages: dict[str, RelayRequest] = {
            "ask": RelayAsked(pair=NODES),
            "renew": RelayRenewed(pair=NODES),
            "free": RelayFreed(pair=NODES),
            "freeze": RelayFreezeAsked(pair=NODES),
            "wake": RelayWakeAsked(pair=NODES),
        }
        match words:
            case ["look"]:
                pass
            case ["leave", end]:
                here = [number for number in (0, 1) if number != int(end)]
                await self.tell(
                    RelayMembersShown(members=tuple((NODES[one], self.keys[one]) for one in here))
                )
            case [word, end]:
                await self.tell(RelayRequested(peer=NODES[int(end)], message=messages[word]))
        pairs = await self.relay.look()
        for pair in pairs:
            drops = sum(pair.drops.values())
            await self.tell(RelayCarried(ports=pair.ports, packets=sum(pair.packets), drops=drops))
        said, self.said = self.said, []
        return {
            "said": said,
            "fault": str(self.relay.fault or ""),
            "pairs": [
                {
                    "ports": pair.ports,
                    "packets": pair.packets,
                    "bytes": pair.bytes,
                    "drops": dict(pair.drops),
                    "ways": [way and [way.host, way.port] for way in pair.ways],
                    "frozen": pair.frozen,
                    "fast": pair.fast,
                }
                for pair in pairs
            ],
        }


async def main() -> None:
    keys = [WireGuardKey(base64.b64decode(text)) for text in sys.argv[1:3]]
    driver = Driver(keys, FastPath(RATE, RATE) if sys.argv[3] == "fast" else None)
    await driver.tell(RelayMembersShown(members=tuple(zip(NODES, keys, strict=True))))
    async with trio.open_nursery() as nursery:
        await nursery.start(driver.relay.run)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            print(json.dumps(await driver.obey(line.split())), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
