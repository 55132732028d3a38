"""Questions from one agent to another, and their answers, in bulk frames over the links.

What people ask at one node about a job of another goes to that job's owner, and what a task prints comes from
the worker that it runs on. A question is one small frame; an answer comes in pieces, in order (a link is
ordered), and is a document or a fault, in JSON as the control socket has them. Who is asked decides what it
tells to whom; here is only how words travel. A question without an answer is given up after ``QUIET_S``:
an agent of an earlier version skips what it does not know.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
import trio

from meshpeer.core.errors import EnvironmentFault, LocalFault, MeshpeerError, PeerFault, Refused, StoreFailed
from meshpeer.core.ids import LinkId, NodeId
from meshpeer.core.scheduler.messages import Attempt
from meshpeer.core.wire.frames import Channel, Codec
from meshpeer.core.wire.limits import BLOB_BYTES_MAX
from meshpeer.core.wire.unreadable import UNREADABLE
from meshpeer.runtime.control import OutputFile
from meshpeer.runtime.exchange import LET_IN_LOOK_S
from meshpeer.runtime.ports import Link

PIECE_BYTES = 48 * 1024
ANSWER_BYTES_MAX = 48 * 1024 * 1024
"""All tasks of the largest job."""
QUIET_S = 30.0
"""So long may an answer, or its next piece, take. Whoever is asked to wait for news answers sooner."""
NEWS_S = 15.0
"""So long an agent that was asked to wait for news does."""
ASKED_MAX = 48
"""Questions that one node has open at another; more wait their turn here."""
SERVED_MAX = 64
"""Questions of one link that are answered at once; a peer that asks more breaks the rules."""
HEAVY_MAX = 4
"""Answers that may be long that are made, or on their way, at once, for all links together."""
NAMES_MAX = 1_000
TEXT_MAX = 1_024
"""Of a name, and of a path: the longest that a job may have."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked; which fields count depends on ``what``."""

    what: str
    job: str = ""
    """An id, the beginning of one, or a name."""
    task: str = ""
    tasks: tuple[str, ...] = ()
    attempt: Attempt | None = None
    stream: str = ""
    offset: int = 0
    number: int = 0
    on: bool = False
    wait: bool = False
    """Answer when there is news, or after ``NEWS_S`` all the same."""
    seen: bytes = b""
    """Of what is known already."""


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="ask"):
    """Asks; ``number`` names the answer."""

    number: int
    question: Question


class Told(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="told"):
    """One piece of an answer. ``fault``: it is a fault rather than a document."""

    number: int
    data: bytes
    last: bool
    fault: bool = False


FRAMES = (Ask, Told)
CODEC = Codec(Channel.BULK, FRAMES)


class OutputPlace(msgspec.Struct, frozen=True, kw_only=True):
    """What answers a question about an output: what it is, and where."""

    file: OutputFile
    holders: tuple[str, ...]
    """The ids of nodes that should have it, in hexadecimal digits."""


Answer = Callable[[NodeId, Question], Awaitable[tuple[bytes, bool]]]
"""Answers a member's question: a document, or a fault and True, in JSON."""


@dataclass(slots=True)
class Asking:
    """Asks and answers for one agent."""

    nursery: trio.Nursery
    link_to: Callable[[NodeId], LinkId | None]
    peer_of: Callable[[LinkId], NodeId | None]
    """Names the peer of a link once it was greeted as a member: nobody else is answered."""
    answer: Answer
    is_heavy: Callable[[Question], bool] = lambda question: False
    """Says of which questions the answers may be long: few of those are made at once."""
    quiet_s: float = QUIET_S
    _links: dict[LinkId, Link] = field(default_factory=dict)
    _served: dict[LinkId, int] = field(default_factory=dict)
    _open: dict[tuple[LinkId, int], trio.MemorySendChannel[Told]] = field(default_factory=dict)
    _turns: dict[NodeId, trio.CapacityLimiter] = field(default_factory=dict)
    _heavy: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(HEAVY_MAX))
    _number: int = 0

    # --- links ----------------------------------------------------------------------------------------------

    def attach(self, link: LinkId, open_link: Link) -> None:
        self._links[link] = open_link
        self._served[link] = 0

    def detach(self, link: LinkId) -> None:
        self._links.pop(link, None)
        self._served.pop(link, None)
        for key in [key for key in self._open if key[0] == link]:
            self._open.pop(key).close()

    def on_message(self, link: LinkId, message: msgspec.Struct) -> None:
        """Takes a frame that was read; raises ``PeerFault`` where it breaks the rules."""
        match message:
            case Ask():
                if link not in self._served:
                    return
                _check(message.question)
                if self._served[link] >= SERVED_MAX:
                    raise PeerFault(f"more than {SERVED_MAX} questions at once")
                self._served[link] += 1
                self.nursery.start_soon(self._serve, link, message)
            case Told():
                asked = self._open.get((link, message.number))
                if asked is not None:
                    try:
                        asked.send_nowait(message)
                    except (trio.WouldBlock, trio.BrokenResourceError) as error:
                        raise PeerFault("an answer of more pieces than may be") from error

    # --- asking ---------------------------------------------------------------------------------------------

    async def ask(self, node: NodeId, question: Question) -> tuple[bytes, bool]:
        """Returns what a node answers: JSON, and whether it is a fault. Raises ``EnvironmentFault`` where it
        can't be asked or says nothing, ``PeerFault`` for an answer that is too long."""
        try:
            _check(question)
            CODEC.encode(Ask(number=0, question=question))
        except (PeerFault, ValueError) as error:
            raise LocalFault("that is too much, or too long, for one question", "name less") from error
        turn = self._turns.setdefault(node, trio.CapacityLimiter(ASKED_MAX))
        async with turn:
            number = self.link_to(node)
            link = self._links.get(number) if number is not None else None
            if number is None or link is None:
                raise EnvironmentFault("there is no link to it")
            self._number += 1
            ask = Ask(number=self._number, question=question)
            give, take = trio.open_memory_channel[Told](ANSWER_BYTES_MAX // PIECE_BYTES + 1)
            self._open[number, ask.number] = give
            try:
                await link.send_bulk(CODEC.encode(ask))
                return await self._collect(take)
            except trio.EndOfChannel as error:
                raise EnvironmentFault("the link broke before it had answered") from error
            except trio.TooSlowError as error:
                raise EnvironmentFault(
                    "it does not answer (is it busy, or of an earlier version?)"
                ) from error
            finally:
                self._open.pop((number, ask.number), None)

    async def _collect(self, take: trio.MemoryReceiveChannel[Told]) -> tuple[bytes, bool]:
        data = bytearray()
        while True:
            with trio.fail_after(self.quiet_s):
                piece = await take.receive()
            data += piece.data
            if len(data) > ANSWER_BYTES_MAX:
                raise PeerFault("an answer is too long")
            if piece.last:
                return bytes(data), piece.fault

    # --- answering ------------------------------------------------------------------------------------------

    async def _serve(self, number: LinkId, ask: Ask) -> None:
        try:
            peer = await self._greeted(number)
            if peer is not None:
                async with self._heavy if self.is_heavy(ask.question) else contextlib.nullcontext():
                    data, fault = await self.answer(peer, ask.question)
                await self._tell(number, ask.number, data, fault)
        except MeshpeerError:
            # The link is gone: who asked finds out by itself.
            return
        finally:
            if number in self._served:
                self._served[number] -= 1

    async def _greeted(self, number: LinkId) -> NodeId | None:
        """Returns the peer once its greeting was judged; None where the link is gone by then."""
        while (peer := self.peer_of(number)) is None:
            if number not in self._links:
                return None
            await trio.sleep(LET_IN_LOOK_S)
        return peer

    async def _tell(self, number: LinkId, asked: int, data: bytes, fault: bool) -> None:
        for start in range(0, max(1, len(data)), PIECE_BYTES):
            link = self._links.get(number)
            if link is None:
                return
            piece = data[start : start + PIECE_BYTES]
            last = start + PIECE_BYTES >= len(data)
            await link.send_bulk(CODEC.encode(Told(number=asked, data=piece, last=last, fault=fault)))


class NotOwned(LocalFault):
    """The node that was asked owns no such job."""


class _Fault(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    what: str
    hint: str
    exit_code: int


_KINDS = {
    kind.__name__: kind for kind in (NotOwned, LocalFault, Refused, PeerFault, StoreFailed, EnvironmentFault)
}


def encode_fault(fault: MeshpeerError) -> bytes:
    kind = next((name for name, kind in _KINDS.items() if isinstance(fault, kind)), "")
    return msgspec.json.encode(_Fault(kind=kind, what=fault.what, hint=fault.hint, exit_code=fault.exit_code))


def decode_fault(data: bytes) -> MeshpeerError:
    """Returns the fault that a node answered with; raises ``PeerFault`` for what is none."""
    try:
        read = msgspec.json.decode(data, type=_Fault)
    except UNREADABLE as error:
        raise PeerFault("the answer of a node can't be read") from error
    fault = _KINDS.get(read.kind, MeshpeerError)(read.what, read.hint)
    fault.exit_code = read.exit_code
    return fault


def _check(question: Question) -> None:
    """Raises ``PeerFault`` for a question that nobody of this project would ask."""
    texts = (question.what, question.job, question.task, question.stream, *question.tasks)
    if len(question.tasks) > NAMES_MAX or any(len(one) > TEXT_MAX for one in texts):
        raise PeerFault("a question is too long")
    if not 0 <= question.offset <= BLOB_BYTES_MAX:
        raise PeerFault("a question is about what stands beyond the ends")
