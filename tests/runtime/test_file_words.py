"""What nodes say of files: which jobs are over, and how far inputs are. Nobody is answered without limit."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import JobId, LinkId, NodeId
from meshpeer.runtime.file_words import (
    CODEC,
    JOBS_MAX,
    SHOWN_FOR_S,
    TASKS_SHOWN_MAX,
    TELLING_MAX,
    Ends,
    EndsAsk,
    FileWords,
    Staging,
)

Clock = trio.testing.MockClock
PEER, LINK = NodeId(b"p" * 32), LinkId(1)
OPEN, OVER = JobId("jopen"), JobId("jover")


async def test_a_peer_hears_which_of_its_jobs_are_over_and_nothing_of_others() -> None:
    async with trio.open_nursery() as nursery:
        words, end = words_of(nursery)
        words.on_message(LINK, EndsAsk(jobs=(OPEN, OVER, JobId("junknown"))))
    assert end.sent == [Ends(jobs=((OVER, 77),))]


async def test_where_none_is_over_nothing_is_said() -> None:
    async with trio.open_nursery() as nursery:
        words, end = words_of(nursery)
        words.on_message(LINK, EndsAsk(jobs=(OPEN,)))
    assert end.sent == []


async def test_who_was_not_let_in_is_neither_answered_nor_heard() -> None:
    async with trio.open_nursery() as nursery:
        words, end = words_of(nursery, let_in=False)
        heard: list[object] = []
        words.on_ends = lambda peer, ends: heard.append(ends)
        for message in (EndsAsk(jobs=(OVER,)), Ends(jobs=((OPEN, 1),)), staging(OPEN, 1, 1, 2)):
            words.on_message(LINK, message)
    assert (end.sent, heard, words.staging_of(OPEN, 1, PEER)) == ([], [], (0, 0))


async def test_too_many_jobs_at_once_are_a_fault() -> None:
    async with trio.open_nursery() as nursery:
        words, _ = words_of(nursery)
        with pytest.raises(PeerFault):
            words.on_message(LINK, EndsAsk(jobs=(OVER,) * (JOBS_MAX + 1)))
        with pytest.raises(PeerFault):
            words.on_message(LINK, Ends(jobs=((OVER, 1),) * (JOBS_MAX + 1)))


async def test_a_peer_that_reads_nothing_costs_a_few_answers() -> None:
    async with trio.open_nursery() as nursery:
        words, end = words_of(nursery)
        end.stuck = True
        for _ in range(100):
            words.on_message(LINK, EndsAsk(jobs=(OVER,)))
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == TELLING_MAX
        nursery.cancel_scope.cancel()


async def test_many_jobs_are_asked_about_in_several_messages() -> None:
    async with trio.open_nursery() as nursery:
        words, end = words_of(nursery)
        jobs = [JobId(f"j{number}") for number in range(JOBS_MAX + 1)]
        await words.ask_ends(PEER, jobs)
        await words.ask_ends(NodeId(b"absent"), jobs)
    asks = [one for one in end.sent if isinstance(one, EndsAsk)]
    assert [len(one.jobs) for one in asks] == [JOBS_MAX, 1]


async def test_how_far_inputs_are_is_shown_of_who_has_the_task_and_for_a_while(autojump_clock: Clock) -> None:
    async with trio.open_nursery() as nursery:
        words, _ = words_of(nursery)
        words.on_message(LINK, staging(OPEN, 3, 10, 40))
        assert words.staging_of(OPEN, 3, PEER) == (10, 40)
        assert words.staging_of(OPEN, 3, NodeId(b"other")) == (0, 0)
        await trio.sleep(SHOWN_FOR_S + 1)
        assert words.staging_of(OPEN, 3, PEER) == (0, 0)


@pytest.mark.parametrize(
    ("received", "total", "shown"), [(50, 40, (40, 40)), (-1, 4, (0, 4)), (1, -4, (0, 0))]
)
async def test_nonsense_is_shown_as_what_can_be(received: int, total: int, shown: tuple[int, int]) -> None:
    async with trio.open_nursery() as nursery:
        words, _ = words_of(nursery)
        words.on_message(LINK, staging(OPEN, 3, received, total))
        assert words.staging_of(OPEN, 3, PEER) == shown


async def test_what_is_shown_is_bounded() -> None:
    async with trio.open_nursery() as nursery:
        words, _ = words_of(nursery)
        for task in range(TASKS_SHOWN_MAX + 1):
            words.on_message(LINK, staging(OPEN, task, 1, 2))
        assert words.staging_of(OPEN, 0, PEER) == (0, 0)
        assert words.staging_of(OPEN, 1, PEER) == (1, 2)


class End:
    """One end of a link; implements what is used of ``runtime.ports.Link``."""

    peer = PEER

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.stuck = False

    async def send_bulk(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.stuck:
            await trio.sleep_forever()
        self.sent.append(CODEC.decode(frame))


def words_of(nursery: trio.Nursery, *, let_in: bool = True) -> tuple[FileWords, End]:
    words = FileWords(
        nursery,
        link_to=lambda node: LINK if node == PEER else None,
        let_in=lambda link: let_in,
        ended=lambda job: 77 if job == OVER else None,
    )
    end = End()
    words.attach(LINK, end)  # type: ignore[arg-type]
    return words, end


def staging(job: JobId, task: int, received: int, total: int) -> Staging:
    return Staging(job=job, task=task, received=received, total=total)
