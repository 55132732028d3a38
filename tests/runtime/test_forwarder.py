"""The forwarder: it waits for the interface, tries again, and gives the place up where it can't be had."""

from __future__ import annotations

import trio
import trio.testing

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.node.messages import ForwardingFailed
from meshpeer.core.wgconf.forwarding import NOTHING, DesiredForwarding
from meshpeer.runtime.forwarder import LOOK_INTERVAL_S, TRIES, Forwarder

WANTED = DesiredForwarding(mesh=("10.10.0.0/24",), hub=True)


class Machine:
    """Forwards what it is told to, but for the first so many times."""

    def __init__(self, *, fails: int = 0) -> None:
        self.fails = fails
        self.asked: list[DesiredForwarding] = []

    async def ensure(self, wanted: DesiredForwarding) -> bool:
        self.asked.append(wanted)
        if len(self.asked) <= self.fails:
            raise EnvironmentFault("it can't", "mend it")
        return True


class Lab:
    def __init__(self, *, fails: int = 0) -> None:
        self.machine = Machine(fails=fails)
        self.posted: list[object] = []
        self.said: list[str] = []
        self.interface = trio.Event()
        self.forwarder = Forwarder(
            self.machine, self.posted.append, lambda level, fact, fields: self.said.append(fact)
        )


async def test_what_an_agent_before_left_on_stays_on_until_there_is_a_plan(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lab = Lab()
    lab.interface.set()
    nursery.start_soon(lab.forwarder.run, lab.interface)
    await trio.sleep(100)
    assert lab.machine.asked == []
    lab.forwarder.want(NOTHING)
    await trio.sleep(100)
    assert lab.machine.asked == [NOTHING]


async def test_a_hub_waits_for_its_interface_and_looks_after_its_rules(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lab = Lab()
    lab.forwarder.want(WANTED)
    nursery.start_soon(lab.forwarder.run, lab.interface)
    await trio.sleep(5)
    assert lab.machine.asked == []
    lab.interface.set()
    await trio.sleep(2 * LOOK_INTERVAL_S + 1)
    assert lab.machine.asked == [WANTED] * 3
    assert lab.forwarder.forwards


async def test_a_passing_failure_costs_no_place(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lab = Lab(fails=TRIES - 1)
    lab.interface.set()
    lab.forwarder.want(WANTED)
    nursery.start_soon(lab.forwarder.run, lab.interface)
    await trio.sleep(TRIES)
    assert (lab.posted, lab.said) == ([], ["this node can't forward"])
    assert lab.forwarder.fault is None


async def test_a_lasting_failure_is_told_once_and_the_place_given_up(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lab = Lab(fails=100)
    lab.interface.set()
    lab.forwarder.want(WANTED)
    nursery.start_soon(lab.forwarder.run, lab.interface)
    await trio.sleep(60)
    assert lab.posted == [ForwardingFailed(reason="it can't")]
    assert lab.said == ["this node can't forward"]
    assert not lab.forwarder.forwards
