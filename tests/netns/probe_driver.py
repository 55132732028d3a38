"""Path probes without an agent: core's machine and the adapter, beside a WireGuard that owns the port.

Run on a machine whose interface is up: ``probe_driver.py KEY_FILE PEER_KEY``. A line of input is one of
``aim ENDPOINT...`` and ``look``; each is answered by one line of JSON. It ends with its input.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import trio

from meshpeer.adapters.tunnelport import RawTunnelPort
from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import MeshId, NodeId, WireGuardKey
from meshpeer.core.paths.probe_desk import ProbeHeard, ProbePortOpened, SendProbe
from meshpeer.core.paths.probes import PathProbes
from meshpeer.runtime.tunnelport import TunnelPortKeeper

PORT, MARK = 51820, 0x6D70
PEER = NodeId(b"p" * 32)
TICK_S = 0.02


class Driver:
    def __init__(self, key: WireGuardPrivateKey, peer: WireGuardKey) -> None:
        self.probes = PathProbes(mesh=MeshId(b"m" * 32), key=key, entropy=os.urandom, counters=Counters())
        self.probes.know([(PEER, peer)], ())
        self.said: list[str] = []
        self.keeper = TunnelPortKeeper(RawTunnelPort(), self.post, self.report)

    def report(self, level: str, fact: str, fields: tuple[tuple[str, str], ...]) -> None:
        self.said.append(f"{fact}: {dict(fields)['reason']}")

    def post(self, event: object) -> None:
        if isinstance(event, ProbePortOpened):
            self.probes.able = True
        if isinstance(event, ProbeHeard):
            self.send(self.probes.on_heard(event, now())[1])

    def send(self, probes: list[SendProbe]) -> None:
        for probe in probes:
            self.keeper.send(probe)

    async def tick(self) -> None:
        while True:
            self.send(self.probes.tick(now()))
            await trio.sleep(TICK_S)

    def obey(self, words: list[str]) -> dict[str, object]:
        if words[0] == "aim":
            self.probes.aim(PEER, words[1:], now())
        paths = [dataclasses.asdict(one) for one in self.probes.look(PEER, now())]
        return {"able": self.probes.able, "said": self.said, "paths": paths}


def now() -> Instant:
    return Instant(time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


async def main(key: WireGuardPrivateKey, peer: WireGuardKey) -> None:
    driver = Driver(key, peer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.keeper.run, PORT, MARK)
        nursery.start_soon(driver.tick)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            print(json.dumps(driver.obey(line.split())), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    mine = WireGuardPrivateKey(base64.b64decode(Path(sys.argv[1]).read_text()))
    trio.run(main, mine, WireGuardKey(base64.b64decode(sys.argv[2])))
