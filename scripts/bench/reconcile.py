#!/usr/bin/env python3
"""What it costs to keep a real interface as a ledger of 200 members wants it, and how often `wg` and `ip`
write.

One machine in a namespace, with one WireGuard interface (the kernel's, or else wireguard-go). The ledger is
that of a simulated mesh, its records signed; what looks at the interface is what does so in the agent:
`meshpeer/runtime/reconciler.py` with the backend that calls `wg` and `ip`. Rounds alternate between a look
that finds nothing to do and one change: a member takes another address. Needs root.

    .venv/bin/python scripts/bench/reconcile.py [--members 200] [--rounds 100]

Time is from the moment that a device is wanted to the moment that the node hears what the interface holds;
processor time is the agent's alone, and that of the programs it ran. Ends with 1 where a round wrote more
than it had to.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import trio
import trio.testing

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from meshlab import Lab

from meshpeer.adapters.wireguard import CommandWireGuard, backends, open_wireguard
from meshpeer.app.clock import SystemClock
from meshpeer.core.deadline import Instant
from meshpeer.core.node.messages import DeviceObserved
from meshpeer.core.records import envelope
from meshpeer.core.wgconf.diff import diff_device
from meshpeer.core.wgconf.model import DesiredDevice
from meshpeer.runtime.reconciler import Reconciler
from meshpeer.sim.world import World

LAB = 'name = "reconcile"\n[lans.lan0]\nipv4 = "192.168.77.0/24"\n[nodes.alpha]\nlans = ["lan0"]\n'
INTERFACE = "wgbench"
READY_S = 5.0
"""By then every peer has its endpoint, whether it said a word or not."""
ASIDE = 40_000
"""Where in the subnet nobody lives."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        return trio.run(measure, asked.members, asked.rounds)
    with Lab.from_toml(LAB) as lab:
        argv = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--inside"]
        return (
            lab.node("alpha").popen(argv, env={"PYTHONPATH": str(Path(__file__).resolve().parents[2])}).wait()
        )


async def measure(members: int, rounds: int) -> int:
    mesh, calls = Mesh(members), watch_tools()
    wireguard = await open_wireguard("auto", INTERFACE)
    assert isinstance(wireguard, CommandWireGuard)
    nothing, change, derived, pure = Cost(), Cost(), Cost(), Cost()
    send, receive = trio.open_memory_channel[DeviceObserved](8)
    reconciler = Reconciler(wireguard, SystemClock(), send.send_nowait, lambda *_: None, dict)  # type: ignore[arg-type]

    async def look(desired: DesiredDevice, cost: Cost) -> None:
        with cost.measured(calls):
            reconciler.want(desired)
            observed = (await receive.receive()).device
        steps = diff_device(observed, desired, now_unix_s=time.time())
        assert not steps, f"not in step: {steps[:3]}"

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reconciler.run)
            await trio.testing.wait_all_tasks_blocked()
            first = Cost()
            await look(mesh.derive(), first)
            for number in range(rounds):
                await look(mesh.derive(), nothing)
                mesh.change(number)
                with derived.measured(calls):
                    desired = mesh.derive()
                await look(desired, change)
            observed = await wireguard.observe()
            for _ in range(rounds):
                with pure.measured(calls):
                    diff_device(observed, desired, now_unix_s=time.time())
            nursery.cancel_scope.cancel()
    finally:
        await wireguard.remove()
    print(f"{wireguard.backend}, {len(desired.peers)} peers, {rounds} rounds")
    for what, cost in (("the first", first), ("nothing to do", nothing), ("one change", change)):
        cost.show(what)
    for what, cost in (("facts to device", derived), ("diff alone", pure)):
        print(f"{what:16} median {statistics.median(cost.wall_ms):6.2f} ms")
    as_it_must = not writes_of(nothing) and writes_of(change) == {"wg set": rounds}
    print("writes as they must be" if as_it_must else "WRITES THAT NEED NOT BE")
    return 0 if as_it_must else 1


# --- what is wanted -------------------------------------------------------------------------------------


class Mesh:
    """A ledger of so many others, and what the interface of one member shall hold."""

    def __init__(self, members: int) -> None:
        self._world = World(seed=1)
        me, *self._others = self._world.grow(members + 1, topology="full")
        assert me.node is not None
        self._node = me.node
        self.derive(at_s=0)

    def derive(self, *, at_s: float = READY_S) -> DesiredDevice:
        device = self._node.derived.device(Instant(at_s, self._world.unix_s() + at_s))
        desired = device or self._node.desired
        assert desired is not None
        return dataclasses.replace(desired, interface=INTERFACE)

    def change(self, number: int) -> None:
        """Merges the newer record of a member that takes another address."""
        host, low = self._others[number % len(self._others)], ASIDE + number
        member = self._node.ledger.get(host.id)
        assert member is not None
        assert member.record is not None
        moved = msgspec.structs.replace(
            member.record, sequence=member.record.sequence + 1, ipv4=f"10.0.{low // 256}.{low % 256}"
        )
        self._node.ledger.merge(envelope.sign(host.key, self._world.mesh, moved), self._world.unix_s())


# --- what it costs --------------------------------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class Cost:
    wall_ms: list[float] = dataclasses.field(default_factory=list)
    agent_ms: list[float] = dataclasses.field(default_factory=list)
    programs_ms: list[float] = dataclasses.field(default_factory=list)
    calls: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @contextlib.contextmanager
    def measured(self, calls: collections.Counter[str]) -> Iterator[None]:
        """Adds what its body costs; the body waits for all that it starts."""
        calls.clear()
        began = (
            time.perf_counter(),
            processor_s(resource.RUSAGE_SELF),
            processor_s(resource.RUSAGE_CHILDREN),
        )
        yield
        self.wall_ms.append((time.perf_counter() - began[0]) * 1_000)
        self.agent_ms.append((processor_s(resource.RUSAGE_SELF) - began[1]) * 1_000)
        self.programs_ms.append((processor_s(resource.RUSAGE_CHILDREN) - began[2]) * 1_000)
        self.calls.update(calls)

    def show(self, what: str) -> None:
        rounds = len(self.wall_ms)
        calls = ", ".join(f"{count / rounds:g} `{name}`" for name, count in sorted(self.calls.items()))
        agent_ms, programs_ms = statistics.mean(self.agent_ms), statistics.mean(self.programs_ms)
        print(
            f"{what:16} median {statistics.median(self.wall_ms):6.2f} ms, worst {max(self.wall_ms):.2f}; "
            f"processor: agent {agent_ms:.2f} ms, programs {programs_ms:.2f} ms; calls: {calls}"
        )


def watch_tools() -> collections.Counter[str]:
    """Returns a counter that grows with every run of `wg` or `ip`, by its first words."""
    calls: collections.Counter[str] = collections.Counter()
    real = backends.run_tool

    async def counted(name: str, *arguments: str, stdin: bytes = b"") -> str:
        verb = (
            arguments[0]
            if name == "wg" or arguments[0] == "-batch"
            else next(one for one in arguments if not one.startswith("-"))
        )
        calls[f"{name} {verb}"] += 1
        return await real(name, *arguments, stdin=stdin)

    backends.run_tool = counted
    return calls


def writes_of(cost: Cost) -> dict[str, int]:
    reads = ("wg show", "ip address", "ip route")
    return {name: count for name, count in cost.calls.items() if name not in reads}


def processor_s(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
