"""Questions between two agents over one link in memory: answers whole, bounded, and given up in time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from meshpeer.core.errors import EnvironmentFault, LocalFault, MeshpeerError, PeerFault, Refused
from meshpeer.core.ids import LinkId, NodeId
from meshpeer.runtime import asking
from meshpeer.runtime.asking import (
    ASKED_MAX,
    CODEC,
    PIECE_BYTES,
    SERVED_MAX,
    TEXT_MAX,
    Ask,
    Asking,
    NotOwned,
    Question,
    Told,
    decode_fault,
    encode_fault,
)

HERE, THERE = NodeId(b"h" * 32), NodeId(b"t" * 32)
LINK = LinkId(1)
STATUS = Question(what="job", job="film")


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7])
async def test_answer_comes_whole(size: int) -> None:
    async def answer(peer: NodeId, question: Question) -> tuple[bytes, bool]:
        assert (peer, question) == (HERE, STATUS)
        return bytes(size), False

    async with linked(answer) as (here, _):
        assert await here.ask(THERE, STATUS) == (bytes(size), False)


async def test_answers_find_their_questions_whatever_their_order() -> None:
    first_may_go = trio.Event()

    async def answer(peer: NodeId, question: Question) -> tuple[bytes, bool]:
        if question.number == 0:
            await first_may_go.wait()
        return str(question.number).encode(), False

    async with linked(answer) as (here, _):
        answers: list[bytes] = []

        async def ask(number: int) -> None:
            answers.append((await here.ask(THERE, Question(what="x", number=number)))[0])
            first_may_go.set()

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(ask, number)
        assert sorted(answers) == [b"0", b"1", b"2"]


async def test_question_without_a_link_fails_at_once() -> None:
    async with linked(never) as (here, _):
        here.detach(LINK)
        with pytest.raises(EnvironmentFault, match="no link"):
            await here.ask(THERE, STATUS)


async def test_question_fails_with_its_link() -> None:
    async with linked(never) as (here, _), trio.open_nursery() as nursery:
        nursery.start_soon(expect, here, EnvironmentFault, "link broke")
        await trio.testing.wait_all_tasks_blocked()
        here.detach(LINK)


async def test_who_says_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with linked(never) as (here, _):
        with pytest.raises(EnvironmentFault, match="does not answer"):
            await here.ask(THERE, STATUS)


async def test_answer_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ANSWER_BYTES_MAX", 3 * PIECE_BYTES)

    async def answer(peer: NodeId, question: Question) -> tuple[bytes, bool]:
        return bytes(4 * PIECE_BYTES), False

    async with linked(answer) as (here, _):
        with pytest.raises(PeerFault, match="too long"):
            await here.ask(THERE, STATUS)


async def test_asker_waits_its_turn_and_is_never_refused_for_asking_much() -> None:
    served = most = 0

    async def answer(peer: NodeId, question: Question) -> tuple[bytes, bool]:
        nonlocal served, most
        served += 1
        most = max(most, served)
        await trio.testing.wait_all_tasks_blocked(0.001)
        served -= 1
        return b"", False

    async with linked(answer) as (here, _), trio.open_nursery() as nursery:
        for _number in range(3 * SERVED_MAX):
            nursery.start_soon(here.ask, THERE, STATUS)
    assert 1 < most <= ASKED_MAX


async def test_few_long_answers_are_made_at_once() -> None:
    made = most = 0

    async def answer(peer: NodeId, question: Question) -> tuple[bytes, bool]:
        nonlocal made, most
        made += 1
        most = max(most, made)
        await trio.testing.wait_all_tasks_blocked(0.001)
        made -= 1
        return b"", False

    async with linked(answer) as (here, there), trio.open_nursery() as nursery:
        there.is_heavy = lambda question: question.what == "tasks"
        for _number in range(3 * asking.HEAVY_MAX):
            nursery.start_soon(here.ask, THERE, Question(what="tasks"))
    assert most == asking.HEAVY_MAX


async def test_peer_that_asks_too_much_at_once_breaks_the_rules() -> None:
    async with linked(never) as (_, there):
        for number in range(SERVED_MAX):
            there.on_message(LINK, Ask(number=number, question=STATUS))
        with pytest.raises(PeerFault, match="questions at once"):
            there.on_message(LINK, Ask(number=SERVED_MAX, question=STATUS))


@pytest.mark.parametrize(
    "question",
    [
        Question(what="x" * (TEXT_MAX + 1)),
        Question(what="job", job="x" * (TEXT_MAX + 1)),
        Question(what="retry", tasks=("t",) * (asking.NAMES_MAX + 1)),
        Question(what="log", offset=-1),
    ],
)
async def test_question_that_nobody_would_ask_is_refused(question: Question) -> None:
    async with linked(never) as (_, there):
        with pytest.raises(PeerFault):
            there.on_message(LINK, Ask(number=1, question=question))


async def test_pieces_that_nobody_waits_for_are_dropped() -> None:
    async with linked(never) as (here, _):
        here.on_message(LINK, Told(number=7, data=b"x", last=True))


async def test_nobody_is_answered_before_it_was_let_in() -> None:
    asked: list[Question] = []

    async def answer(peer: NodeId, question: Question) -> tuple[bytes, bool]:
        asked.append(question)
        return b"", False

    greeted: list[NodeId] = []
    async with trio.open_nursery() as nursery:
        there = Asking(nursery, lambda _: LINK, lambda _: greeted[0] if greeted else None, answer)
        there.attach(LINK, End())  # type: ignore[arg-type]
        there.on_message(LINK, Ask(number=1, question=STATUS))
        await trio.testing.wait_all_tasks_blocked()
        assert asked == []
        greeted.append(HERE)
    assert asked == [STATUS]


@pytest.mark.parametrize(
    "fault",
    [
        NotOwned("no", "ask elsewhere"),
        LocalFault("a", "b"),
        Refused("c", "d"),
        EnvironmentFault("e", "f"),
        MeshpeerError("g", "h"),
    ],
)
def test_fault_arrives_as_it_was(fault: MeshpeerError) -> None:
    arrived = decode_fault(encode_fault(fault))
    assert type(arrived) is type(fault)
    assert (arrived.what, arrived.hint, arrived.exit_code) == (fault.what, fault.hint, fault.exit_code)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"kind": 1}', b"[" * 5_000])
def test_fault_that_can_not_be_read_is_the_peers(data: bytes) -> None:
    with pytest.raises(PeerFault):
        decode_fault(data)


async def never(peer: NodeId, question: Question) -> tuple[bytes, bool]:
    await trio.sleep_forever()
    raise AssertionError


async def expect(here: Asking, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        await here.ask(THERE, STATUS)


@dataclass
class End:
    """One end of a link in memory."""

    other: Asking | None = None
    sent: list[bytes] = field(default_factory=list)

    async def send_bulk(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(frame)
        if self.other is not None:
            message = CODEC.decode(frame)
            assert message is not None
            self.other.on_message(LINK, message)


@contextlib.asynccontextmanager
async def linked(
    answer: Callable[[NodeId, Question], Awaitable[tuple[bytes, bool]]],
) -> AsyncIterator[tuple[Asking, Asking]]:
    """Yields who asks and who is asked."""
    async with trio.open_nursery() as nursery:
        here = Asking(nursery, lambda _: LINK, lambda _: THERE, never)
        there = Asking(nursery, lambda _: LINK, lambda _: HERE, answer)
        here.attach(LINK, End(there))  # type: ignore[arg-type]
        there.attach(LINK, End(here))  # type: ignore[arg-type]
        yield here, there
        nursery.cancel_scope.cancel()
