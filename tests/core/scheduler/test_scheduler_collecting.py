"""What is forgotten of jobs that are over, when, and what is not run again for that."""

from __future__ import annotations

import msgspec
import pytest
from fixtures import ME
from hypothesis import given
from hypothesis import strategies as st
from world import World, array

from meshpeer.core.effects import Table, Tick
from meshpeer.core.ids import JobId
from meshpeer.core.jobs.model import JobSpec
from meshpeer.core.scheduler import collecting
from meshpeer.core.scheduler.collecting import DAY_S, GONE_KEPT_S, Terms
from meshpeer.core.scheduler.messages import MessageReceived, Unknown

SHORT = Terms(history_s=1_000.0, results_s=0.0, keep_s_max=5_000.0)


@given(keep_s=st.integers(0, 4_000 * 86_400), history_s=st.integers(0, 10**9), most_s=st.integers(0, 10**9))
def test_a_job_is_not_forgotten_before_its_results_may_go(keep_s: int, history_s: int, most_s: int) -> None:
    terms = Terms(history_s=history_s, keep_s_max=most_s)
    spec = JobSpec(name="x", tasks=(), keep_s=keep_s)
    ends_s = terms.ends_at_s(spec, 5_000_000)
    assert ends_s >= 5 + history_s
    assert ends_s >= 5 + min(keep_s, most_s)
    assert terms.keep_s(keep_s) <= max(most_s, terms.results_s)
    assert terms.keep_s(0) == 7 * DAY_S


def test_a_job_that_is_long_over_is_forgotten_whole_and_one_that_is_open_is_not() -> None:
    world = World(1, [2, 2], terms=SHORT, plan=lambda task, attempt, node: (0.1 if task < 9 else 9e9, True))
    world.run_for(0.5)
    over, opened = world.submit(array(9)), world.submit(array(10))
    world.run_until(lambda: world.finished(over), 60.0)
    world.run_for(999.0)
    assert over in owned(world)
    world.run_for(700.0)
    assert list(owned(world)) == [opened]
    assert world.forgotten == [(world.names[0], over)]
    assert rows_of(world, over) == [(Table.GRANTS, f"gone/{over}")]
    assert rows_of(world, opened)
    world.check()
    world.crash(world.names[0])
    world.start(world.names[0])
    world.run_for(5.0)
    assert list(owned(world)) == [opened]


def test_a_job_stays_for_as_long_as_it_asks_to_be_kept() -> None:
    world = World(1, [2], terms=SHORT)
    job = world.submit(msgspec.structs.replace(array(3), keep_s=4_000))
    longer = world.submit(msgspec.structs.replace(array(3), keep_s=90_000))
    world.run_for(3_900.0)
    assert list(owned(world)) == [job, longer]
    world.run_for(800.0)
    assert list(owned(world)) == [longer], "a node says how long at most"
    world.run_for(1_000.0)
    assert not owned(world)


def test_who_offers_a_result_of_a_forgotten_job_is_told_that_it_has_ended() -> None:
    world = World(2, [1, 1], terms=SHORT, plan=lambda task, attempt, node: (1.0, True))
    world.run_for(0.5)
    job = world.submit(array(4))
    world.run_for(1.2)
    owner, worker = world.names
    world.partition(owner, worker)
    world.bury(worker)
    world.run_until(lambda: world.finished(job), 60.0)
    world.run_for(2_000.0)
    assert job not in owned(world)
    at = world.nodes[worker].scheduler
    assert at is not None
    assert at.worker.unacknowledged
    world.heal(owner, worker)
    world.run_for(1.0)
    assert not at.worker.unacknowledged
    assert not world.nodes[worker].journal[Table.RESULTS]


def test_a_job_whose_end_is_still_to_be_told_is_not_forgotten() -> None:
    world = World(1, [1], terms=SHORT)
    job = world.submit(msgspec.structs.replace(array(1), on_complete="http://127.0.0.1:1/x"))
    world.run_for(5_000.0)
    assert list(owned(world)) == [job]


def test_each_replica_forgets_a_job_and_votes_on_it_no_more() -> None:
    world = World(3, [1, 1, 1], terms=SHORT, replicated=True)
    world.run_for(0.5)
    job = world.submit(array(5))
    world.run_for(2_500.0)
    assert sorted(world.forgotten) == sorted((name, job) for name in world.names)
    for node in world.nodes.values():
        assert node.scheduler is not None
        assert not node.scheduler.replicas.copies
        assert not node.journal[Table.REPLICAS]
        assert not node.journal[Table.JOBS]
        assert node.scheduler.collector.gone.keys() == {job}


@pytest.mark.parametrize("restarts", [False, True])
def test_a_replica_that_was_away_since_before_the_end_does_not_run_the_job_anew(restarts: bool) -> None:
    world = World(4, [2, 2, 2], terms=SHORT, replicated=True, plan=lambda task, attempt, node: (0.5, True))
    world.run_for(0.5)
    job = world.submit(array(12))
    world.run_for(1.0)
    away = world.names[0]
    world.crash(away)
    world.bury(away)
    world.run_for(3_000.0)
    assert len(world.forgotten) == 2
    runs = len(world.runs)
    if restarts:
        for name in world.names[1:]:
            world.crash(name)
            world.start(name)

    world.start(away)
    world.run_for(30.0)

    assert len(world.runs) == runs
    assert (away, job) in world.forgotten
    for node in world.nodes.values():
        assert node.scheduler is not None
        assert not node.scheduler.owned
        assert not node.scheduler.replicas.copies
    world.check()


def test_one_replica_that_has_forgotten_does_not_end_a_job_that_is_open() -> None:
    world = World(5, [1, 1, 1], replicated=True, plan=lambda task, attempt, node: (50.0, True))
    world.run_for(0.5)
    job = world.submit(array(4))
    world.run_for(1.0)
    _, second, third = world.records[job].replicas
    word = MessageReceived(peer=third, message=Unknown(job=job, ended=True))
    for name in (world.names[0], second):
        world.handle(name, word)
    stranger = MessageReceived(peer=ME, message=Unknown(job=job, ended=True))
    world.handle(second, stranger)
    world.run_until(lambda: world.finished(job), 400.0)
    assert not world.forgotten


def test_a_node_that_keeps_a_job_for_longer_than_the_others_has_it_after_a_restart_too() -> None:
    world = World(3, [1, 1, 1], terms=SHORT, replicated=True)
    longer = world.names[0]
    kept = Terms(history_s=1e6, results_s=1e6, keep_s_max=1e6)
    scheduler = world.nodes[longer].scheduler
    assert scheduler is not None
    scheduler.collector.terms = kept
    world.run_for(0.5)
    job = world.submit(array(5))
    world.run_for(2_500.0)
    assert sorted(name for name, _ in world.forgotten) == sorted(world.names[1:])
    world.crash(longer)
    world.terms = kept
    world.start(longer)
    world.run_for(60.0)
    assert (longer, job) not in world.forgotten
    scheduler = world.nodes[longer].scheduler
    assert scheduler is not None
    seen = scheduler.seen(job)
    assert seen is not None
    assert seen.finished
    assert len(seen.results) == 5
    assert scheduler.replicas.next_deadline() is None, "nor does it ask anybody again"
    world.check()


def test_a_crash_in_the_middle_leaves_no_row_behind_and_takes_none_of_another_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collecting, "SLICE_ROWS", 2)
    world = World(6, [1], terms=SHORT)
    job = world.submit(array(20))
    world.run_for(700.0)
    other = world.submit(array(20))
    world.run_until(lambda: bool(world.forgotten), 2_000.0)
    world.run_for(0.12)
    assert 0 < len([key for table, key in rows_of(world, job) if table is Table.TASKS]) < 20
    before = rows_of(world, other)
    world.crash(world.names[0])
    world.start(world.names[0])
    world.run_for(10.0)
    assert rows_of(world, job) == [(Table.GRANTS, f"gone/{job}")]
    assert rows_of(world, other) == before
    assert list(owned(world)) == [other]


def test_the_word_of_a_forgotten_job_goes_when_nobody_can_come_back_with_it() -> None:
    world = World(7, [1], terms=SHORT)
    world.submit(array(1))
    world.run_for(2_000.0)
    here = world.nodes[world.names[0]]
    assert here.scheduler is not None
    assert here.scheduler.collector.gone
    world.now_s += GONE_KEPT_S
    world.handle(world.names[0], Tick())
    world.run_for(1.0)
    assert not here.scheduler.collector.gone
    assert not here.journal[Table.GRANTS]


def owned(world: World) -> dict[JobId, object]:
    here = world.nodes[world.names[0]].scheduler
    assert here is not None
    return dict(here.owned)


def rows_of(world: World, job: JobId) -> list[tuple[Table, str]]:
    """Every row of the first node's journal that is of a job."""
    journal = world.nodes[world.names[0]].journal
    return [(table, key) for table, rows in journal.items() for key in sorted(rows) if job in key]
