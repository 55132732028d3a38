"""The driver against a machine that writes down what it is given, in virtual time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import LagMeasured, Tick
from meshpeer.runtime.driver import BATCH_MAX, LAG_LOOK_S, LAG_TOLD_S, LAG_WINDOW_S, STORY_LENGTH, Driver

EPOCH_S = 1_800_000_000.0


async def test_events_are_handled_in_order_and_effects_performed_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine, performed = Fake(answers=lambda event: [f"{event}.1", f"{event}.2"]), list[object]()
    driver = Driver(machine, VirtualClock(), performed.append)
    async with trio.open_nursery() as nursery:
        driver.post("a")
        nursery.start_soon(driver.run)
        driver.post("b")
        await trio.testing.wait_all_tasks_blocked()
        driver.post("c")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert machine.events == ["a", "b", "c"]
    assert performed == ["a.1", "a.2", "b.1", "b.2", "c.1", "c.2"]


async def test_deadline_brings_one_tick_at_its_time(autojump_clock: trio.testing.MockClock) -> None:
    machine = Fake(deadlines=[3.0, 7.5])
    driver = Driver(machine, VirtualClock(), nothing)
    with trio.move_on_after(100):
        await driver.run()
    assert machine.ticks == pytest.approx([3.0, 7.5])


async def test_event_moves_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    machine = Fake(deadlines=[50.0])
    driver = Driver(machine, VirtualClock(), nothing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(1)
        machine.deadlines = [2.0]
        driver.post("sooner")
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert machine.ticks == pytest.approx([2.0])


async def test_deadline_that_is_past_is_ticked_at_once(autojump_clock: trio.testing.MockClock) -> None:
    machine = Fake(deadlines=[-5.0])
    driver = Driver(machine, VirtualClock(), nothing)
    with trio.move_on_after(1):
        await driver.run()
    assert machine.ticks == pytest.approx([0.0])


async def test_machine_without_a_deadline_sleeps_until_an_event(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Fake()
    driver = Driver(machine, VirtualClock(), nothing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(3_000)
        assert machine.events == []
        driver.post("at last")
        await trio.testing.wait_all_tasks_blocked()
        assert machine.events == ["at last"]
        nursery.cancel_scope.cancel()


async def test_flood_of_events_leaves_other_tasks_their_turn(autojump_clock: trio.testing.MockClock) -> None:
    """A machine that posts for ever: without a checkpoint per batch, nothing else would run again."""
    machine = Fake()
    driver = Driver(machine, VirtualClock(), lambda effect: driver.post(effect))
    machine.answers = lambda event: [event]
    turns = 0
    async with trio.open_nursery() as nursery:
        driver.post("again")
        nursery.start_soon(driver.run)
        while turns < 5:
            await trio.lowlevel.checkpoint()
            turns += 1
        nursery.cancel_scope.cancel()
    assert BATCH_MAX <= len(machine.events) <= 7 * BATCH_MAX


async def test_what_is_posted_while_performing_comes_after(autojump_clock: trio.testing.MockClock) -> None:
    machine = Fake(answers=lambda event: ["effect"] if event == "a" else [])
    driver = Driver(machine, VirtualClock(), lambda effect: driver.post("follows"))
    async with trio.open_nursery() as nursery:
        driver.post("a")
        driver.post("b")
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert machine.events == ["a", "b", "follows"]


async def test_step_now_shows_its_effects_to_the_caller(autojump_clock: trio.testing.MockClock) -> None:
    performed: list[object] = []
    driver = Driver(Fake(answers=lambda event: [event]), VirtualClock(), performed.append)
    driver.step_now("urgent")
    assert performed == ["urgent"]


async def test_story_keeps_what_had_consequences_and_is_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Fake(answers=lambda event: [] if event == "dull" else ["done"])
    driver = Driver(machine, VirtualClock(), nothing)
    for event in ("dull", Tick(), *range(STORY_LENGTH + 5)):
        driver.step_now(event)
    assert len(driver.story) == STORY_LENGTH
    assert [chapter.event for chapter in driver.story] == list(range(5, STORY_LENGTH + 5))
    last = driver.story[-1]
    assert (last.effects, last.unix_s, last.number) == (("done",), EPOCH_S, STORY_LENGTH + 7)


async def test_flood_of_events_does_not_stop_time(autojump_clock: trio.testing.MockClock) -> None:
    machine = Fake(deadlines=[0.0])
    driver = Driver(machine, VirtualClock(), lambda effect: driver.post(effect))
    machine.answers = lambda event: [event]
    async with trio.open_nursery() as nursery:
        driver.post("again")
        nursery.start_soon(driver.run)
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert machine.ticks == [0.0]


# --- lag ----------------------------------------------------------------------------------------------------


async def test_lateness_of_a_tick_is_measured(autojump_clock: trio.testing.MockClock) -> None:
    """Something blocks the event loop past the deadline: time passes and nothing runs."""
    async with driving(Fake(deadlines=[1.0])) as driver:
        await trio.sleep(0.5)
        autojump_clock.jump(2.0)
        await trio.sleep(1)
        assert driver.lag_s == pytest.approx(1.5)


async def test_stopped_process_is_noticed_without_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with driving(Fake()) as driver:
        await trio.sleep(0.25)
        autojump_clock.jump(8.0)
        await trio.sleep(0.01)
        assert driver.lag_s == pytest.approx(8.0 - (LAG_LOOK_S - 0.25))


async def test_slow_batch_is_lag(autojump_clock: trio.testing.MockClock) -> None:
    def slow(event: object) -> list[object]:
        autojump_clock.jump(0.3)
        return []

    async with driving(Fake(answers=slow)) as driver:
        for number in range(4):
            driver.post(number)
        await trio.testing.wait_all_tasks_blocked()
        assert driver.lag_s == pytest.approx(1.2)


async def test_event_that_waited_is_lag(autojump_clock: trio.testing.MockClock) -> None:
    """Other tasks hold the loop between an event and the driver's turn."""
    async with driving(Fake()) as driver:
        await trio.testing.wait_all_tasks_blocked()
        driver.post("early")
        autojump_clock.jump(0.7)
        await trio.testing.wait_all_tasks_blocked()
        assert driver.lag_s == pytest.approx(0.7)


async def test_lag_is_the_worst_of_its_window_and_then_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Fake(answers=lambda event: [autojump_clock.jump(float(str(event)))])
    async with driving(machine) as driver:
        for lag in ("0.5", "2.0", "0.25"):
            driver.post(lag)
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(1)
        assert driver.lag_s == pytest.approx(2.0)
        await trio.sleep(LAG_WINDOW_S - 1.5)
        assert driver.lag_s == pytest.approx(0.25)
        await trio.sleep(2)
        assert driver.lag_s == 0.0


async def test_undisturbed_driver_has_no_lag(autojump_clock: trio.testing.MockClock) -> None:
    machine = Fake(deadlines=[0.5, 3.0, 40.0])
    async with driving(machine, tell_lag=True) as driver:
        await trio.sleep(60)
        assert driver.lag_s == pytest.approx(0.0)
    assert machine.ticks == pytest.approx([0.5, 3.0, 40.0])
    assert machine.events == []


async def test_machine_is_told_of_lag_before_what_came_meanwhile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Fake()
    async with driving(machine, tell_lag=True) as driver:
        await trio.testing.wait_all_tasks_blocked()
        driver.post("came meanwhile")
        autojump_clock.jump(8.0)
        await trio.testing.wait_all_tasks_blocked()
    told, event = machine.events
    assert told == LagMeasured(lag_s=pytest.approx(8.0, abs=LAG_LOOK_S))
    assert event == "came meanwhile"


async def test_machine_is_told_the_worst_lag_at_most_once_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Fake(answers=lambda event: [autojump_clock.jump(0.2)] if event == "slow" else [])
    async with driving(machine, tell_lag=True) as driver:
        for _ in range(20):
            driver.post("slow")
            await trio.testing.wait_all_tasks_blocked()
    told = [event for event in machine.events if isinstance(event, LagMeasured)]
    # Twenty times 0.2 s are 4 s.
    assert 3 <= len(told) <= 5
    assert all(one.lag_s == pytest.approx(0.2) for one in told)


async def test_small_lag_is_not_told(autojump_clock: trio.testing.MockClock) -> None:
    machine = Fake(answers=lambda event: [autojump_clock.jump(LAG_TOLD_S / 2)] if event == "slow" else [])
    async with driving(machine, tell_lag=True) as driver:
        driver.post("slow")
        await trio.testing.wait_all_tasks_blocked()
        assert driver.lag_s == pytest.approx(LAG_TOLD_S / 2)
    assert machine.events == ["slow"]


async def test_machine_that_does_not_ask_is_not_told(autojump_clock: trio.testing.MockClock) -> None:
    machine = Fake()
    async with driving(machine):
        await trio.sleep(0.25)
        autojump_clock.jump(8.0)
        await trio.sleep(3)
    assert machine.events == []


# --- helpers ------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def driving(machine: Fake, *, tell_lag: bool = False) -> AsyncIterator[Driver]:
    driver = Driver(machine, VirtualClock(), nothing, tell_lag=tell_lag)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        yield driver
        nursery.cancel_scope.cancel()


def nothing(effect: object) -> None:
    pass


class VirtualClock:
    """Reads trio's clock from the moment of its making."""

    def __init__(self) -> None:
        self._began_s = trio.current_time()

    def now(self) -> Instant:
        elapsed = trio.current_time() - self._began_s
        return Instant(elapsed, EPOCH_S + elapsed)


@dataclass
class Fake:
    """A machine that answers as told; each deadline lasts until it is ticked."""

    answers: Callable[[object], list[object]] = lambda event: []
    deadlines: list[float] = field(default_factory=list)
    events: list[object] = field(default_factory=list)
    ticks: list[float] = field(default_factory=list)

    def handle(self, event: object, now: Instant) -> Sequence[object]:
        if isinstance(event, Tick) and self.deadlines:
            self.ticks.append(now.mono_s)
            self.deadlines.pop(0)
            return []
        self.events.append(event)
        return self.answers(event)

    def next_deadline(self) -> Deadline | None:
        return Deadline(self.deadlines[0], "the next") if self.deadlines else None
