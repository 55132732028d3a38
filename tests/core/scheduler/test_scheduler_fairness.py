"""Who is next: shares of submitters, priorities, and that nobody waits for ever."""

from __future__ import annotations

import random
from collections import Counter

from fixtures import ALICE, BOB, JOB, ME, NOW, later, scheduler, submitted
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.effects import Send
from meshpeer.core.ids import JobId, NodeId
from meshpeer.core.jobs.model import Array, JobRecord, JobSpec, TaskSpec
from meshpeer.core.scheduler.fairness import SHARERS_MAX, Lineup, Shares
from meshpeer.core.scheduler.fitting import Demand, Load, Profile, can_run, fits_beside, oversubscribed
from meshpeer.core.scheduler.holdings import Holding
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import Attempt, Capacity, Grant, Granted, MessageReceived
from meshpeer.core.scheduler.ranked import ELDEST_EVERY, Ranked
from meshpeer.core.scheduler.turns import QUANTUM

NODE = Profile(slots=4, memory_bytes=8, resources=(("gpu", 2),))


# --- ranks --------------------------------------------------------------------------------------------------


def test_the_higher_rank_is_first_and_within_one_who_came_first() -> None:
    queue: Ranked[str] = Ranked(lambda item: True)
    for item, rank in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
        queue.add(item, (rank,))
    queue.add_first("e", (5,))
    assert [queue.pop() for _ in range(5)] == ["e", "b", "d", "a", "c"]


@settings(max_examples=40, deadline=None)
@given(ahead=st.integers(0, 12), coming=st.integers(1, 3))
def test_a_low_rank_waits_for_a_bounded_number_of_turns(ahead: int, coming: int) -> None:
    queue: Ranked[int] = Ranked(lambda item: True)
    for number in range(ahead):
        queue.add(number, (0,))
    queue.add(-1, (0,))
    turns = 0
    while True:
        for _ in range(coming):
            queue.add(1_000, (9,))
        turns += 1
        if queue.pop() == -1:
            break
    assert turns <= ELDEST_EVERY * (ahead + 1)


@settings(max_examples=40, deadline=None)
@given(items=st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=30))
def test_what_is_not_wanted_any_more_is_never_met(items: list[tuple[int, bool]]) -> None:
    live = {number for number, (_, wanted) in enumerate(items) if wanted}
    queue: Ranked[int] = Ranked(lambda item: item in live)
    for number, (rank, _) in enumerate(items):
        queue.add(number, (rank,))
    assert set(queue.latest()) == live
    assert {item for _, _, item in queue.waiting(100)} == live
    taken = []
    while queue.first() is not None:
        taken.append(queue.pop())
    assert sorted(taken) == sorted(live)


# --- shares -------------------------------------------------------------------------------------------------


def test_who_comes_back_has_saved_nothing_up() -> None:
    shares: Shares[str] = Shares()
    shares.come("a")
    for _ in range(100):
        shares.serve("a", 1.0)
    shares.come("b")
    assert shares.time_of("b") >= shares.time_of("a") - 1.0


def test_what_is_remembered_of_sharers_is_bounded() -> None:
    shares: Shares[int] = Shares()
    for number in range(10 * SHARERS_MAX):
        shares.come(number)
        shares.serve(number, 1.0)
    assert len(shares._times) <= SHARERS_MAX


def test_two_submitters_get_the_same_time_of_a_worker_whatever_their_tasks_take() -> None:
    """Alice's tasks take ten times as long as Bob's, so he gets ten of them for one of hers."""
    line, load = Lineup(lambda holding: not holding.given, 4), Load()
    took_s = {ALICE: 10.0, BOB: 1.0}
    used: Counter[NodeId] = Counter()
    for number in range(500):
        for submitter in (ALICE, BOB):
            line.add(holding(number, Demand()), submitter, (0, 0))
    for _ in range(300):
        taken = line.take(fits(load))
        assert taken is not None
        assert taken.submitter is not None
        taken.given = True
        used[taken.submitter] += int(took_s[taken.submitter])
        line.settle(taken, took_s[taken.submitter])
    assert abs(used[ALICE] - used[BOB]) <= 20


demands = st.builds(
    lambda cpu, memory, gpu: Demand(
        (("cpu", cpu), *((("memory", memory),) if memory else ()), *((("gpu", gpu),) if gpu else ()))
    ),
    st.integers(1, 4),
    st.integers(0, 8),
    st.integers(0, 2),
)


@settings(max_examples=40, deadline=None)
@given(
    first=st.lists(
        st.tuples(demands, st.sampled_from([ALICE, BOB, ME]), st.integers(-1, 1)), min_size=1, max_size=12
    ),
    seed=st.integers(0, 999),
)
def test_nobody_starves_and_nothing_is_taken_twice_while_narrow_ones_keep_coming(
    first: list[tuple[Demand, NodeId, int]], seed: int
) -> None:
    rng = random.Random(seed)
    line, load = Lineup(lambda one: not one.given, 4), Load()
    waiting = set()
    for number, (demand, submitter, priority) in enumerate(first):
        assert can_run(demand, NODE)
        line.add(holding(number, demand), submitter, (0, priority))
        waiting.add(number)
    running: list[Holding] = []
    number, ends = len(first), 0
    while waiting:
        while (taken := line.take(fits(load))) is not None:
            taken.given = True
            load.add(taken.demand.amounts)
            running.append(taken)
            waiting.discard(taken.granted.attempt.task)
            assert not oversubscribed(load, NODE)
        for submitter in (ALICE, BOB, ME):
            line.add(holding(number, Demand((("cpu", 1),))), submitter, (0, 1))
            number += 1
        ended = running.pop(rng.randrange(len(running)))
        load.add(ended.demand.amounts, -1)
        line.settle(ended, rng.choice([0.1, 1.0, 5.0]))
        ends += 1
        # Turns of the eldest, overtakings, and the three submitters' shares, whose tasks take up to 50 times
        # as long as each other.
        assert ends < 1_500, f"{sorted(waiting)} wait for ever"


# --- an owner's jobs ----------------------------------------------------------------------------------------


def test_a_small_job_does_not_wait_for_a_large_one_before_it() -> None:
    machine = scheduler(slots=0, accepting=False)
    submit(machine, "jlarge", 1_000)
    small = submit(machine, "jsmall", 4)
    effects = hear_capacity(machine, ALICE, 4)
    assert len(grants(effects)[small]) == 4


def test_a_job_of_higher_priority_is_granted_first() -> None:
    machine = scheduler(slots=0, accepting=False)
    submit(machine, "jlow", 100)
    high = submit(machine, "jhigh", 16, priority=1)
    found = grants(hear_capacity(machine, ALICE, 2))
    assert list(found) == [high]


def test_jobs_of_two_submitters_share_what_there_is() -> None:
    machine = scheduler(slots=0, accepting=False)
    for number in range(3):
        submit(machine, f"jmine{number}", 200)
    other = submit(machine, "jother", 200, submitter=BOB)
    found = grants(hear_capacity(machine, ALICE, 16))
    total = sum(len(tasks) for tasks in found.values())
    assert abs(len(found[other]) - total / 2) <= QUANTUM


def test_the_last_open_job_goes_on_by_itself() -> None:
    machine = scheduler(slots=0, accepting=False)
    first, second = submit(machine, "jfirst", 1), submit(machine, "jsecond", 1)
    found = grants(hear_capacity(machine, ALICE, 1))
    assert {first, second} == set(found)
    machine.check()


# --- helpers ------------------------------------------------------------------------------------------------


def holding(number: int, demand: Demand) -> Holding:
    return Holding(JOB, ME, Granted(Attempt(number, 1, 1)), demand)


def fits(load: Load):  # type: ignore[no-untyped-def]
    def check(demand: Demand, kept: Demand | None) -> bool:
        return fits_beside(demand.amounts, NODE, load, reserved=dict(kept.amounts) if kept else None)

    return check


def submit(machine: Scheduler, name: str, count: int, *, priority: int = 0, submitter: NodeId = ME) -> JobId:
    spec = JobSpec(
        name="x", tasks=(TaskSpec(name="t", argv=("true",), array=Array(size=count)),), priority=priority
    )
    of = JobRecord(job=JobId(name), submitter=submitter, submitted_at_us=1, spec=spec)
    machine.handle(submitted(of), NOW)
    return of.job


def hear_capacity(machine: Scheduler, node: NodeId, slots: int) -> list[object]:
    message = Capacity(slots=slots, accepting=True, boot=b"1")
    return list(machine.handle(MessageReceived(peer=node, message=message), later(1)))


def grants(effects: list[object]) -> dict[JobId, list[int]]:
    found: dict[JobId, list[int]] = {}
    for effect in effects:
        if isinstance(effect, Send) and isinstance(effect.message, Grant):
            found.setdefault(effect.message.job, []).extend(one.attempt.task for one in effect.message.tasks)
    return found
