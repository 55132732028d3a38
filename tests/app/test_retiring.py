"""An agent ends once nobody depends on it as a relay, and in any case after a while."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import trio
from trio.testing import MockClock

from meshpeer.app.agent import Agent
from meshpeer.app.retiring import SLACK_S, retire_relay
from meshpeer.core.paths.relay import RETIRE_S_MAX
from meshpeer.core.paths.relay_messages import RelayStops


@dataclass
class Desk:
    reservations: tuple[str, ...] = ()


@dataclass
class Stopping:
    """As much of an agent as is asked."""

    desk: Desk
    posted: list[object] = field(default_factory=list)

    def agent(self) -> Agent:
        made = SimpleNamespace(
            node=SimpleNamespace(relays=SimpleNamespace(desk=self.desk)),
            driver=SimpleNamespace(post=self.posted.append),
            log=SimpleNamespace(write=lambda *_: None),
        )
        return cast("Agent", made)


async def test_who_relays_for_nobody_ends_at_once(autojump_clock: MockClock) -> None:
    stopping = Stopping(Desk())
    await retire_relay(stopping.agent())
    assert stopping.posted == []
    assert trio.current_time() == 0


async def test_a_relay_says_that_it_stops_and_waits_for_its_pairs(autojump_clock: MockClock) -> None:
    stopping = Stopping(Desk(("pair",)))

    async def leave() -> None:
        await trio.sleep(3)
        stopping.desk.reservations = ()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await retire_relay(stopping.agent())
        assert stopping.desk.reservations == ()
    assert stopping.posted == [RelayStops()]


async def test_pairs_that_do_not_leave_are_waited_for_no_longer_than_a_relay_retires(
    autojump_clock: MockClock,
) -> None:
    stopping = Stopping(Desk(("pair",)))
    with trio.fail_after(RETIRE_S_MAX + SLACK_S + 1):
        await retire_relay(stopping.agent())
    assert stopping.posted == [RelayStops()]
