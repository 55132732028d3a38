"""Asks other nodes about jobs, and keeps the answers apart: by number, with a time-out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import trio

from meshpeer.core.errors import EnvironmentFault, LocalFault, MeshpeerError
from meshpeer.core.ids import NodeId
from meshpeer.core.scheduler.asking import (
    ANSWER_INLINE_BYTES_MAX,
    ARGUMENT_LENGTH_MAX,
    JobAnswered,
    JobAsked,
    Spoken,
)
from meshpeer.runtime.ports import BlobRef, Blobs

ANSWER_WAIT_S = 5.0
"""A node that has not answered by then is taken to know nothing."""
LONG_WAIT_S = 30.0
"""For answers that take a file from elsewhere first, or wait for something to happen."""
ANSWERING_MAX = 32
"""Questions of others that are answered at once; more are refused."""
ERROR_LENGTH_MAX = 1_000

Shape = TypeVar("Shape")


class NotHere(LocalFault):
    """The node that was asked has nothing of that job."""


@dataclass(slots=True)
class _Waiting:
    peer: NodeId
    done: trio.Event = field(default_factory=trio.Event)
    answer: JobAnswered | None = None


class JobQuestions:
    """Both sides: what this node asks, and what it is asked."""

    def __init__(
        self,
        *,
        post: Callable[[object], None],
        blobs: Blobs,
        fetch: Callable[[BlobRef, NodeId], Awaitable[None]],
        answer: Callable[[NodeId, JobAsked], Awaitable[object]],
        nursery: trio.Nursery,
    ) -> None:
        """``answer`` returns the document that answers a question; it raises ``MeshpeerError`` for none."""
        self._post = post
        self._blobs = blobs
        self._fetch = fetch
        self._answer = answer
        self._nursery = nursery
        self._number = 0
        self._waiting: dict[int, _Waiting] = {}
        self._answering = 0

    async def ask(
        self,
        peer: NodeId,
        what: str,
        arguments: Iterable[str],
        shape: type[Shape],
        *,
        wait_s: float = ANSWER_WAIT_S,
    ) -> Shape:
        """Returns a peer's answer; raises ``EnvironmentFault`` where none comes, and what the peer says."""
        self._number += 1
        number, waiting = self._number, _Waiting(peer)
        self._waiting[number] = waiting
        try:
            asked = JobAsked(number=number, what=what, arguments=tuple(arguments))
            self._post(Spoken(peer=peer, message=asked))
            with trio.move_on_after(wait_s):
                await waiting.done.wait()
        finally:
            del self._waiting[number]
        answer = waiting.answer
        if answer is None:
            raise EnvironmentFault("the node that was asked does not answer", "see `meshpeer peers`")
        if answer.error:
            raise LocalFault(answer.error[:ERROR_LENGTH_MAX], answer.hint[:ERROR_LENGTH_MAX])
        body = answer.body
        if answer.digest:
            ref = BlobRef(digest=answer.digest, size=answer.size)
            await self._fetch(ref, peer)
            body = await self._blobs.read(answer.digest, 0, answer.size)
        try:
            return msgspec.json.decode(body, type=shape)
        except msgspec.MsgspecError as error:
            raise EnvironmentFault(
                "the node that was asked answers what this version can't read", "run one version everywhere"
            ) from error

    def hear(self, peer: NodeId, message: JobAsked | JobAnswered) -> None:
        """Takes a word of a peer."""
        if isinstance(message, JobAsked):
            self._nursery.start_soon(self._reply, peer, message)
            return
        waiting = self._waiting.get(message.number)
        if waiting is not None and waiting.peer == peer:
            waiting.answer = message
            waiting.done.set()

    async def _reply(self, peer: NodeId, asked: JobAsked) -> None:
        if self._answering >= ANSWERING_MAX:
            answer = JobAnswered(number=asked.number, error="too many questions at once", hint="ask again")
            self._post(Spoken(peer=peer, message=answer))
            return
        self._answering += 1
        try:
            if len(asked.arguments) > 8 or any(len(one) > ARGUMENT_LENGTH_MAX for one in asked.arguments):
                raise LocalFault("that is no question", "")
            body = msgspec.json.encode(await self._answer(peer, asked))
            if len(body) <= ANSWER_INLINE_BYTES_MAX:
                answer = JobAnswered(number=asked.number, body=body)
            else:
                kept = await self._blobs.add_bytes(body)
                answer = JobAnswered(number=asked.number, digest=kept.digest, size=kept.size)
        except MeshpeerError as fault:
            answer = JobAnswered(number=asked.number, error=fault.what, hint=fault.hint)
        finally:
            self._answering -= 1
        self._post(Spoken(peer=peer, message=answer))
