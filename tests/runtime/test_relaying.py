"""The relay's process runs for who asks, and what it had lent is lost with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.relay_binding import NO_BINDS, Binds
from meshpeer.core.paths.relay_messages import (
    CloseRelay,
    FreezeRelay,
    OpenRelay,
    RelayAble,
    RelayCarried,
    RelayLost,
    RelayOpened,
    WakeRelay,
)
from meshpeer.runtime.ports import RelayedPair
from meshpeer.runtime.relaying import TRIES, Relayer

PORTS, OTHERS = (51830, 51831), (51832, 51833)
KEYS = (WireGuardKey(b"a" * 32), WireGuardKey(b"b" * 32))
BINDS = (b"c" * 32, b"d" * 32)


@dataclass
class FakeRelay:
    """A relay that ends when it is told to; ``broken``: it does not start."""

    broken: bool = False
    taken: tuple[int, int] | None = None
    """Ports that somebody else holds."""
    starts: int = 0
    done: list[tuple[str, tuple[int, int]]] = field(default_factory=list)
    ending: trio.Event = field(default_factory=trio.Event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await trio.lowlevel.checkpoint()
        self.starts += 1
        if self.broken:
            raise EnvironmentFault("the helper does not start", "see why")
        self.ending = trio.Event()
        task_status.started()
        await self.ending.wait()
        raise EnvironmentFault("the helper ended")

    async def open(
        self, ports: tuple[int, int], keys: tuple[WireGuardKey, WireGuardKey], binds: Binds = NO_BINDS
    ) -> None:
        await trio.lowlevel.checkpoint()
        assert (keys, binds) == (KEYS, BINDS)
        if ports == self.taken:
            raise EnvironmentFault("the port is taken")
        self.done.append(("open", ports))

    async def close(self, ports: tuple[int, int]) -> None:
        await trio.lowlevel.checkpoint()
        self.done.append(("close", ports))

    async def freeze(self, ports: tuple[int, int], at_s: float) -> None:
        await trio.lowlevel.checkpoint()
        self.done.append(("freeze", ports))

    async def wake(self, ports: tuple[int, int]) -> None:
        await trio.lowlevel.checkpoint()
        self.done.append(("wake", ports))

    async def look(self) -> Sequence[RelayedPair]:
        await trio.lowlevel.checkpoint()
        return [
            RelayedPair(
                ports=PORTS,
                packets=(3, 4),
                bytes=(300, 400),
                drops={"mac": 2, "index": 1},
                ways=(None, None),
                frozen=False,
                fast=False,
            )
        ]


@dataclass
class Rig:
    relay: FakeRelay
    relayer: Relayer
    posted: list[object]
    reported: list[str]

    async def order(self, *orders: OpenRelay | CloseRelay | FreezeRelay | WakeRelay) -> None:
        for one in orders:
            self.relayer.order(one)
        await wait_all_tasks_blocked()


def rig(relay: FakeRelay, start: Callable[..., None]) -> Rig:
    posted: list[object] = []
    reported: list[str] = []
    relayer = Relayer(relay, posted.append, lambda level, fact, words: reported.append(fact))
    start(relayer.run)
    return Rig(relay, relayer, posted, reported)


def opens(ports: tuple[int, int] = PORTS) -> OpenRelay:
    return OpenRelay(ports=ports, keys=KEYS, binds=BINDS)


async def test_nothing_runs_until_somebody_asks(nursery: trio.Nursery) -> None:
    one = rig(FakeRelay(), nursery.start_soon)
    await one.order(CloseRelay(ports=PORTS))
    assert one.relay.starts == 0
    await one.order(opens())
    assert one.relay.starts == 1
    assert RelayOpened(ports=PORTS) in one.posted
    nursery.cancel_scope.cancel()


async def test_orders_are_obeyed_in_order_and_what_crosses_is_told(nursery: trio.Nursery) -> None:
    one = rig(FakeRelay(), nursery.start_soon)
    await one.order(
        opens(), FreezeRelay(ports=PORTS, at_s=1.0), WakeRelay(ports=PORTS), CloseRelay(ports=PORTS)
    )
    assert [what for what, _ in one.relay.done] == ["open", "freeze", "wake", "close"]
    assert RelayCarried(ports=PORTS, packets=7, drops=3) in one.posted
    nursery.cancel_scope.cancel()


async def test_a_port_that_is_taken_costs_its_pair_alone(nursery: trio.Nursery) -> None:
    one = rig(FakeRelay(taken=OTHERS), nursery.start_soon)
    await one.order(opens(), opens(OTHERS))
    assert RelayLost(ports=OTHERS) in one.posted
    assert RelayLost(ports=PORTS) not in one.posted
    assert one.relay.starts == 1
    nursery.cancel_scope.cancel()


async def test_with_the_process_all_pairs_are_lost_and_the_next_starts_it_anew(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    one = rig(FakeRelay(), nursery.start_soon)
    one.relayer.order(opens())
    one.relayer.order(opens(OTHERS))
    await trio.sleep(0.5)
    one.relay.ending.set()
    await trio.sleep(0.5)
    assert [each for each in one.posted if isinstance(each, RelayLost)] == [
        RelayLost(ports=PORTS),
        RelayLost(ports=OTHERS),
    ]
    assert one.reported == ["the relay ended"]
    one.relayer.order(opens())
    await trio.sleep(2)
    assert one.relay.starts == 2
    assert one.posted.count(RelayOpened(ports=PORTS)) == 2
    nursery.cancel_scope.cancel()


async def test_a_machine_where_it_never_starts_lends_nothing_until_it_does(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    one = rig(FakeRelay(broken=True), nursery.start_soon)
    for _ in range(TRIES):
        one.relayer.order(opens())
        await trio.sleep(5)
    assert RelayAble(fault="the helper does not start") in one.posted
    assert one.posted.count(RelayLost(ports=PORTS)) == TRIES
    one.relay.broken = False
    await trio.sleep(200)
    assert one.posted[-1] == RelayAble()
    one.relayer.order(opens())
    await trio.sleep(1)
    assert RelayOpened(ports=PORTS) in one.posted
    nursery.cancel_scope.cancel()
