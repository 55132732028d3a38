"""The end of a job with replicas is told by whoever is left to tell it: at least once, and not for ever."""

from __future__ import annotations

import json

import msgspec
import pytest
from world import World, array

from meshpeer.core.effects import Table
from meshpeer.core.ids import JobId, TaskIndex
from meshpeer.core.scheduler.control_messages import RetryAsked
from meshpeer.core.scheduler.outbox import Outbox
from meshpeer.core.scheduler.tables import TaskState
from meshpeer.core.scheduler.webhook_messages import Delivered

URL = "http://127.0.0.1:9000/ended"


@pytest.mark.parametrize("comes_back", [False, True])
def test_end_is_told_by_another_where_its_owner_dies_before_it_wrote_that_down(
    comes_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, job = ended_untold(monkeypatch)
    owner = world.owner(job).epoch.node
    assert world.told == []

    world.crash(owner)
    if comes_back:
        world.start(owner)
    world.run_until(lambda: bool(world.told), 20.0)

    ((teller, message),) = world.told
    assert (teller == owner) is comes_back
    said = json.loads(message.body)
    assert (said["data"]["id"], said["data"]["state"], message.event) == (job, "succeeded", "on_complete")
    world.check()


def test_end_that_was_told_is_nobodys_business_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world, job = ended_untold(monkeypatch)
    world.crash(world.owner(job).epoch.node)
    world.run_until(lambda: bool(world.told), 20.0)
    ((teller, message),) = world.told

    world.handle(teller, Delivered(job=job, event=message.event, number=message.number, status=200))
    world.run_for(3.0)
    beats = world.messages["job.accept"]
    world.crash(teller)
    world.start(world.names[0])
    world.run_for(60.0)

    assert len(world.told) == 1
    assert all(
        copy.over
        for node in world.nodes.values()
        if node.scheduler
        for copy in node.scheduler.replicas.copies.values()
    )
    # The one that came back asks what became of the job, and that is all.
    assert world.messages["job.accept"] - beats < 12


def test_end_that_was_told_is_not_told_again_after_a_retry() -> None:
    world = World(3, [2, 2, 2], replicated=True, plan=lambda task, attempt, node: (0.1, attempt.round > 1))
    world.run_for(0.5)
    job = world.submit(msgspec.structs.replace(array(2), on_complete=URL))
    world.run_until(lambda: bool(world.told), 30.0)
    ((teller, message),) = world.told
    world.handle(teller, Delivered(job=job, event=message.event, number=message.number, status=200))
    world.run_for(1.0)
    world.crash(teller)
    # The outbox of another owner would know nothing of it.
    grants = world.nodes[teller].journal[Table.GRANTS]
    del grants[f"outbox/{job}/on_complete"]
    world.start(teller)
    world.run_for(3.0)

    world.handle(teller, RetryAsked(job=job, tasks=(TaskIndex(0), TaskIndex(1))))
    world.run_until(lambda: world.owner(job).counts[TaskState.SUCCEEDED] == 2, 30.0)
    world.run_for(5.0)

    assert world.finished(job)
    assert len(world.told) == 1


def ended_untold(monkeypatch: pytest.MonkeyPatch) -> tuple[World, JobId]:
    """Returns a world in which a job has ended and its owner has not come to tell it."""
    world = World(3, [2, 2, 2], replicated=True)
    world.run_for(0.5)
    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "take_news", lambda *_, **__: [])
        job = world.submit(msgspec.structs.replace(array(4), on_complete=URL))
        world.run_until(lambda: world.finished(job), 30.0)
        world.run_for(1.0)
    return world, job
