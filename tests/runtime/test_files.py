"""What stays on a node and what goes: attempts, uploads and jobs hold files, and owners say what is over."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.cache import CachedFile, Use
from meshpeer.runtime.file_words import Ends
from meshpeer.runtime.files import HELD_FOR_S, FileKeeper
from meshpeer.sim.store import MemoryLists

Clock = trio.testing.MockClock
ME, OWNER, STRANGER = NodeId(b"m" * 32), NodeId(b"o" * 32), NodeId(b"s" * 32)
JOB, MINE = JobId("jtheirs"), JobId("jmine")
CAP = 100
RESULTS_S, KEEP_S_MAX = 1_000.0, 5_000.0


async def test_what_nobody_needs_goes_the_least_recently_used_first(node: Node) -> None:
    for number in range(12):
        node.add(number, 10)
    await node.keeper.tidy()
    assert node.numbers() == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert (node.keeper.kept.bytes, node.keeper.kept.short_bytes) == (90, 0)


async def test_below_the_cap_nothing_goes_and_no_list_is_read(node: Node) -> None:
    node.add(1, CAP)
    node.lists.read = None  # type: ignore[assignment,method-assign]
    await node.keeper.tidy()
    assert node.numbers() == [1]


async def test_what_an_attempt_stages_and_makes_stays_while_it_is_under_way(node: Node) -> None:
    node.add(1, 90)
    with node.keeper.holding(digest_of(1)):
        await trio.to_thread.run_sync(node.name, 2, 80)
        await node.keeper.tidy()
        assert node.numbers() == [1, 2]
        assert (node.keeper.kept.bytes, node.keeper.kept.short_bytes) == (170, 70)
    await node.keeper.tidy()
    assert node.numbers() == [2]
    assert node.said == [
        "files that jobs need are more than the cache may hold",
        "files made room for others",
    ]


async def test_what_another_attempt_makes_is_not_held_by_this_one(node: Node) -> None:
    async def other() -> None:
        node.name(2, 80)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        with node.keeper.holding():
            await trio.testing.wait_all_tasks_blocked()
            node.add(3, 90)
            await node.keeper.tidy()
    assert 2 not in node.numbers()


async def test_a_file_that_is_held_while_lists_are_read_does_not_go(node: Node) -> None:
    node.add(1, 150)
    real = node.lists.read

    async def read() -> list[object]:
        holding.__enter__()
        return await real()  # type: ignore[return-value]

    holding = node.keeper.pinning(digest_of(1))
    node.lists.read = read  # type: ignore[assignment,method-assign]
    await node.keeper.tidy()
    assert node.numbers() == [1]
    holding.__exit__(None, None, None)


async def test_an_upload_is_held_until_its_job_may_have_been_submitted(node: Node) -> None:
    node.add(1, 150)
    node.keeper.hold_for_a_while(digest_of(1))
    await node.keeper.tidy()
    assert node.numbers() == [1]
    node.now_s += HELD_FOR_S + 1
    await node.keeper.tidy()
    assert node.numbers() == []


async def test_files_of_an_own_job_stay_until_it_is_over_and_its_results_for_a_while(node: Node) -> None:
    await node.keeper.note(MINE, ME, [(digest_of(1), Use.WORK), (digest_of(2), Use.RESULT)])
    node.add(1, 90)
    node.add(2, 90)
    await node.keeper.tidy()
    assert node.numbers() == [1, 2]
    node.over[MINE] = int(node.now_s)
    await node.keeper.tidy()
    assert node.numbers() == [2]
    node.add(3, 90)
    node.now_s += RESULTS_S
    await node.keeper.tidy()
    assert node.numbers() == [3]
    assert await node.lists.read() == [], "and nothing of the job is remembered"


async def test_results_stay_as_long_as_their_job_asks_and_the_node_allows(node: Node) -> None:
    await node.keeper.note(MINE, ME, [(digest_of(1), Use.RESULT)], 3_000)
    await node.keeper.note(JOB, ME, [(digest_of(2), Use.RESULT)], 90_000)
    node.over.update({MINE: int(node.now_s), JOB: int(node.now_s)})
    node.add(1, 90)
    node.add(2, 90)
    node.now_s += 2_999
    await node.keeper.tidy()
    assert node.numbers() == [1, 2]
    node.now_s += 2
    await node.keeper.tidy()
    assert node.numbers() == [2]
    node.now_s += KEEP_S_MAX
    node.add(3, 90)
    await node.keeper.tidy()
    assert node.numbers() == [3]


async def test_with_a_job_that_is_forgotten_goes_what_stands_there_for_it_alone(node: Node) -> None:
    await node.keeper.note(MINE, ME, [(digest_of(number), Use.RESULT) for number in (1, 2, 3)])
    await node.keeper.note(JOB, OWNER, [(digest_of(2), Use.WORK)])
    for number in (1, 2, 3, 4):
        node.add(number, 1)
    with node.keeper.pinning(digest_of(3)):
        await node.keeper.forget({MINE})
    assert node.numbers() == [2, 3, 4], "below the cap as well"
    assert [one.job for one in await node.lists.read()] == [JOB]


@pytest.mark.parametrize(
    ("teller", "kept"),
    [(OWNER, [2]), (STRANGER, [1, 2]), (None, [1, 2])],
    ids=["its owner", "somebody else", "nobody"],
)
async def test_only_its_owner_says_that_a_job_is_over(
    node: Node, autojump_clock: Clock, teller: NodeId | None, kept: list[int]
) -> None:
    await node.keeper.note(JOB, OWNER, [(digest_of(1), Use.WORK), (digest_of(2), Use.RESULT)])
    node.add(1, 90)
    node.add(2, 90)
    node.teller = teller
    await node.keeper.tidy()
    assert node.asked == [(OWNER, (JOB,))]
    assert node.numbers() == kept


async def test_a_word_that_nobody_asked_for_counts_for_nothing(node: Node, autojump_clock: Clock) -> None:
    await node.keeper.note(JOB, OWNER, [(digest_of(1), Use.WORK)])
    node.add(1, 150)
    node.keeper.on_ends(OWNER, Ends(jobs=((JOB, 1),)))
    await node.keeper.tidy()
    assert node.numbers() == [1]


async def test_the_end_of_a_job_is_remembered(node: Node, autojump_clock: Clock) -> None:
    await node.keeper.note(JOB, OWNER, [(digest_of(2), Use.RESULT)])
    node.add(2, 150)
    node.teller = OWNER
    await node.keeper.tidy()
    await node.keeper.tidy()
    assert len(node.asked) == 1


async def test_room_is_made_below_the_cap_where_the_disk_ends_before(node: Node) -> None:
    for number in range(5):
        node.add(number, 10)
    node.room = 5
    await node.keeper.make_room(25)
    assert node.numbers() == [2, 3, 4]


async def test_nothing_goes_where_that_would_not_make_enough_room(node: Node) -> None:
    node.add(1, 10)
    node.room = 5
    await node.keeper.make_room(25)
    assert node.numbers() == [1]


async def test_part_of_a_file_goes_like_any_other(node: Node) -> None:
    node.add(1, 90, partial=True)
    node.add(2, 60)
    await node.keeper.tidy()
    assert node.numbers() == [2]


async def test_blobs_are_looked_at_when_much_was_added_and_when_something_is_let_go(
    node: Node, autojump_clock: Clock
) -> None:
    async with trio.open_nursery() as nursery:
        node.add(1, 150)
        with node.keeper.pinning(digest_of(1)):
            nursery.start_soon(node.keeper.run)
            await trio.sleep(5)
            assert node.numbers() == [1]
        await trio.sleep(5)
        assert node.numbers() == []
        node.add(2, 150)
        await trio.sleep(5)
        assert node.numbers() == [2]
        node.added_bytes = 10**9
        await trio.sleep(5)
        assert node.numbers() == []
        nursery.cancel_scope.cancel()


# --- a node ---------------------------------------------------------------------------------------------


@dataclass
class Node:
    """One node's files, as sizes; implements ``files.Stock``."""

    files: dict[Digest, CachedFile] = field(default_factory=dict)
    added_bytes: int = 0
    room: int = 10**9
    now_s: float = 1e9
    over: dict[JobId, int] = field(default_factory=dict)
    asked: list[tuple[NodeId, tuple[JobId, ...]]] = field(default_factory=list)
    teller: NodeId | None = None
    said: list[str] = field(default_factory=list)
    lists: MemoryLists = field(default_factory=MemoryLists)
    uses: Iterator[int] = field(default_factory=itertools.count)
    on_naming: Callable[[Digest], None] = field(init=False)
    make_room: Callable[[int], Awaitable[None]] = field(init=False)

    def __post_init__(self) -> None:
        self.keeper = FileKeeper(
            me=ME,
            stock=self,
            lists=self.lists,
            bytes_max=CAP,
            results_s=RESULTS_S,
            keep_s_max=KEEP_S_MAX,
            ended=self.over.get,
            ask_ends=self.ask_ends,
            write=lambda level, fact, fields: self.said.append(fact),
            unix_s=lambda: self.now_s,
        )

    def add(self, number: int, size: int, *, partial: bool = False) -> None:
        """Files stand there without anybody having named them, in the order of their use."""
        digest, used_s = digest_of(number), float(next(self.uses))
        self.files[digest] = CachedFile(digest=digest, size=size, used_s=used_s, partial=partial)

    def name(self, number: int, size: int) -> None:
        self.on_naming(digest_of(number))
        self.add(number, size)

    def numbers(self) -> list[int]:
        return [number for number in range(20) if digest_of(number) in self.files]

    async def survey(self) -> list[CachedFile]:
        await trio.lowlevel.checkpoint()
        return list(self.files.values())

    def drop_soon(self, digest: Digest, *, partial: bool = False) -> Path | None:
        found = self.files.pop(digest, None)
        assert found is None or found.partial is partial
        return Path("gone") if found is not None else None

    async def unlink(self, gone: Path) -> None:
        await trio.lowlevel.checkpoint()

    def room_bytes(self) -> int:
        return self.room

    async def ask_ends(self, owner: NodeId, jobs: Sequence[JobId]) -> None:
        await trio.lowlevel.checkpoint()
        self.asked.append((owner, tuple(jobs)))
        if self.teller is not None:
            self.keeper.on_ends(self.teller, Ends(jobs=tuple((job, int(self.now_s)) for job in jobs)))


@pytest.fixture
def node() -> Node:
    return Node()


def digest_of(number: int) -> Digest:
    return Digest(hashlib.sha256(b"%d" % number).digest())
