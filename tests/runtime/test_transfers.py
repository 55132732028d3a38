"""Files from several holders: who is asked for the rest, whose fault it is, and what is seen meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from meshpeer.core.errors import EnvironmentFault, PeerFault, StoreFailed
from meshpeer.core.ids import Digest, NodeId
from meshpeer.core.jobs.search import PATIENT_ROUNDS_MAX
from meshpeer.runtime.exchange import HolderLacksIt
from meshpeer.runtime.ports import BlobRef
from meshpeer.runtime.transfers import SHOWN_BYTES_MIN, Transfers, Unobtainable
from meshpeer.sim.store import MemoryBlobs

Clock = trio.testing.MockClock
ME, ALPHA, BRAVO = NodeId(b"m" * 32), NodeId(b"a" * 32), NodeId(b"b" * 32)
DATA = bytes(SHOWN_BYTES_MIN)
REF = BlobRef(digest=Digest(hashlib.sha256(DATA).digest()), size=len(DATA))


async def test_the_next_holder_is_asked_for_the_rest(world: World, autojump_clock: Clock) -> None:
    world.plan(ALPHA, 1_000, EnvironmentFault("the link broke"))
    world.plan(BRAVO, len(DATA), None)
    await world.transfers.fetch(REF, (ALPHA, BRAVO))
    assert world.asked == [ALPHA, BRAVO]
    assert world.blobs.path(REF.digest) is not None


async def test_this_node_is_not_asked_and_what_is_here_is_not_fetched(
    world: World, autojump_clock: Clock
) -> None:
    with pytest.raises(Unobtainable, match="nobody holds it"):
        await world.transfers.fetch(REF, (ME,))
    await world.blobs.add_bytes(DATA)
    await world.transfers.fetch(REF, (ALPHA,))
    assert world.asked == []


async def test_a_holder_that_starts_anew_is_waited_for(world: World, autojump_clock: Clock) -> None:
    world.plan(ALPHA, 1_000, EnvironmentFault("the link broke"))
    for _ in range(PATIENT_ROUNDS_MAX - 2):
        world.plan(ALPHA, 1_000, EnvironmentFault("there is no link"))
    world.plan(ALPHA, len(DATA), None)
    await world.transfers.fetch(REF, (ALPHA,))
    assert world.blobs.path(REF.digest) is not None


async def test_who_sends_other_content_is_asked_once(world: World, autojump_clock: Clock) -> None:
    world.plan(ALPHA, len(DATA), PeerFault("not what was announced"))
    world.plan(BRAVO, len(DATA), None)
    await world.transfers.fetch(REF, (ALPHA, BRAVO))
    assert world.asked == [ALPHA, BRAVO]


async def test_who_sent_only_some_of_a_wrong_file_is_asked_for_all_of_it(
    world: World, autojump_clock: Clock
) -> None:
    """The liar may be the one that was cut off before."""
    world.plan(ALPHA, 1_000, EnvironmentFault("the link broke"), began=0)
    world.plan(BRAVO, len(DATA), PeerFault("not what was announced"), began=1_000)
    world.plan(ALPHA, len(DATA), PeerFault("not what was announced"), began=0)
    world.plan(BRAVO, len(DATA), None, began=0)
    await world.transfers.fetch(REF, (ALPHA, BRAVO))
    assert world.asked == [ALPHA, BRAVO, ALPHA, BRAVO]


async def test_what_an_earlier_search_left_is_not_the_holders_fault(
    world: World, autojump_clock: Clock
) -> None:
    world.plan(ALPHA, len(DATA), PeerFault("not what was announced"), began=1_000)
    world.plan(ALPHA, len(DATA), None, began=0)
    await world.transfers.fetch(REF, (ALPHA,))
    assert world.asked == [ALPHA, ALPHA]


async def test_why_nobody_gave_it_is_said(world: World, autojump_clock: Clock) -> None:
    for _ in range(9):
        world.plan(ALPHA, 0, HolderLacksIt("it has it no more"))
    with pytest.raises(Unobtainable, match="it has it no more"):
        await world.transfers.fetch(REF, (ALPHA,))
    assert len(world.asked) == 3


async def test_a_full_disk_ends_the_search_at_once(world: World, autojump_clock: Clock) -> None:
    world.plan(ALPHA, 1_000, StoreFailed("the disk is full"))
    with pytest.raises(StoreFailed, match="is full"):
        await world.transfers.fetch(REF, (ALPHA, BRAVO))
    assert world.asked == [ALPHA]


async def test_what_is_on_its_way_can_be_seen(world: World, autojump_clock: Clock) -> None:
    world.plan(ALPHA, 1_000, EnvironmentFault("the link broke"))
    world.plan(ALPHA, len(DATA), None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.transfers.fetch, REF, (ALPHA,))
        await trio.sleep(0.5)
        assert world.transfers.under_way() == [(REF, 1_000)]
        assert world.transfers.received(REF) == 1_000
    assert world.transfers.under_way() == []
    assert world.transfers.received(REF) == len(DATA)


@dataclass
class World:
    """Holders that do what they are planned to, one step a request."""

    blobs: MemoryBlobs
    steps: dict[NodeId, list[tuple[int, int, Exception | None]]] = field(default_factory=dict)
    asked: list[NodeId] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.transfers = Transfers(ME, self.blobs, self.pull)

    def plan(self, holder: NodeId, received: int, fault: Exception | None, *, began: int = 0) -> None:
        self.steps.setdefault(holder, []).append((began, received, fault))

    async def pull(self, ref: BlobRef, holder: NodeId, note: Callable[[int], None]) -> None:
        await trio.lowlevel.checkpoint()
        self.asked.append(holder)
        began, received, fault = self.steps[holder].pop(0)
        note(began)
        note(received)
        if fault is not None:
            raise fault
        await self.blobs.add_bytes(DATA)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(MemoryBlobs(tmp_path))
