"""An endpoint moves in one call when its instant has come, and what comes of it is looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from meshpeer.core.deadline import Instant
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.relay_messages import MoveEndpoint
from meshpeer.core.wgconf.model import CreateInterface, SetPeer
from meshpeer.runtime.endpoint_moves import MOVES_MAX, EndpointMoves
from meshpeer.sim.wireguard import MemoryWireGuard

PEER, OTHER = WireGuardKey(b"p" * 32), WireGuardKey(b"o" * 32)
HERE, THERE = "203.0.113.1:51820", "203.0.113.2:51820"
UNIX_S = 1_900_000_000.0


class TrioClock:
    def now(self) -> Instant:
        return Instant(trio.current_time(), UNIX_S + trio.current_time())


@dataclass
class Bench:
    moves: EndpointMoves
    wireguard: MemoryWireGuard
    looks: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def endpoint(self, key: WireGuardKey = PEER) -> str | None:
        device = self.wireguard.device
        assert device is not None
        return next(one.endpoint for one in device.peers if one.public_key == key)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    wireguard = MemoryWireGuard()
    await wireguard.apply((CreateInterface(interface="wg0"),))
    for key in (PEER, OTHER):
        await wireguard.apply((SetPeer(public_key=key, allowed_ips=("10.10.0.2/32",), endpoint=HERE),))
    wireguard.applied.clear()
    looks: list[float] = []
    said: list[str] = []
    async with trio.open_nursery() as nursery:
        moves = EndpointMoves(
            wireguard,
            TrioClock(),
            lambda: looks.append(trio.current_time()),
            lambda level, what, words: said.append(what),
            nursery,
        )
        yield Bench(moves, wireguard, looks, said)
        nursery.cancel_scope.cancel()


def move(to: str, in_s: float, key: WireGuardKey = PEER) -> MoveEndpoint:
    return MoveEndpoint(public_key=key, endpoint=to, at_s=trio.current_time() + in_s)


async def test_a_move_waits_for_its_instant_and_changes_nothing_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench() as one:
        begun = trio.current_time()
        one.moves.order(move(THERE, 0.2))
        await trio.sleep(0.1)
        assert one.endpoint() == HERE
        await trio.sleep(0.2)
        assert one.endpoint() == THERE
        assert one.wireguard.applied == [(SetPeer(public_key=PEER, endpoint=THERE),)]
        assert one.looks == [pytest.approx(begun + 0.2)]


async def test_a_later_order_takes_the_place_of_one_that_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench() as one:
        one.moves.order(move(THERE, 1.0))
        one.moves.order(move(THERE, 0.5, OTHER))
        one.moves.order(move("203.0.113.3:51820", -1.0))
        await trio.sleep(2)
        assert one.endpoint() == "203.0.113.3:51820"
        assert one.endpoint(OTHER) == THERE


async def test_a_move_that_fails_is_reported_and_the_next_is_made(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench() as one:
        one.wireguard.fault = EnvironmentFault("wg is gone")
        one.moves.order(move(THERE, 0.0))
        await trio.sleep(1)
        assert one.said == ["a peer's endpoint can't be moved"]
        one.wireguard.fault = None
        one.moves.order(move(THERE, 0.0))
        await trio.sleep(1)
        assert one.endpoint() == THERE


async def test_moves_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as one:
        for number in range(MOVES_MAX + 1):
            one.moves.order(move(THERE, 5.0, WireGuardKey(number.to_bytes(32, "big"))))
        one.moves.order(move(THERE, 1.0))
        await trio.sleep(2)
        assert one.endpoint() == HERE
