"""What nodes tell each other of the files of jobs, beside the files themselves.

A worker that is short of room asks the owners of the jobs that it holds files for which of these are over.
And it tells an owner how far the inputs of its attempts are, for people who watch: that is shown, and decides
nothing. Both are bulk frames, so nothing that matters waits for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import msgspec
import trio

from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import JobId, LinkId, NodeId
from meshpeer.core.wire.frames import Channel, Codec
from meshpeer.runtime.ports import Link, LinkOver

JOBS_MAX = 256
"""Jobs that one message is about."""
TELLING_MAX = 8
"""Answers to one link at once; a peer that asks for more is not answered."""
TASKS_SHOWN_MAX = 4_096
SHOWN_FOR_S = 30.0
"""A worker that says no more how far it is, is shown no more."""


class EndsAsk(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="blob.ends?"):
    """Asks which of these jobs are over: whoever holds files for them may let these go."""

    jobs: tuple[JobId, ...]


class Ends(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="blob.ends"):
    """Those of them that the sender owned and that are over, with the times, in Unix seconds."""

    jobs: tuple[tuple[JobId, int], ...]


class Staging(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="blob.staging"):
    """How many bytes of the inputs of a task the sender has by now."""

    job: JobId
    task: int
    received: int
    total: int


FRAMES = (EndsAsk, Ends, Staging)
CODEC = Codec(Channel.BULK, FRAMES)


class FileWords:
    """One per agent; takes its frames from ``bulk``."""

    def __init__(
        self,
        nursery: trio.Nursery,
        link_to: Callable[[NodeId], LinkId | None],
        let_in: Callable[[LinkId], bool],
        ended: Callable[[JobId], int | None],
    ) -> None:
        """``ended`` says when a job that this node owns was over, in Unix seconds; None for any other."""
        self._nursery = nursery
        self._link_to = link_to
        self._let_in = let_in
        self._ended = ended
        self._links: dict[LinkId, Link] = {}
        self._telling: dict[LinkId, int] = {}
        self._staging: dict[tuple[JobId, int], tuple[NodeId, Staging, float]] = {}
        self.on_ends: Callable[[NodeId, Ends], None] = lambda peer, ends: None
        """Told what a peer says of jobs that it owned."""

    def attach(self, link: LinkId, open_link: Link) -> None:
        self._links[link] = open_link
        self._telling[link] = 0

    def detach(self, link: LinkId) -> None:
        self._links.pop(link, None)
        self._telling.pop(link, None)

    def on_message(self, link: LinkId, message: msgspec.Struct) -> None:
        """Takes a frame that was read; raises ``PeerFault`` where it breaks the rules."""
        open_link = self._links.get(link)
        if isinstance(message, EndsAsk | Ends) and len(message.jobs) > JOBS_MAX:
            raise PeerFault(f"more than {JOBS_MAX} jobs in one message")
        if open_link is None or not self._let_in(link):
            return
        match message:
            case EndsAsk(jobs=jobs):
                over = tuple((job, at_s) for job in jobs if (at_s := self._ended(job)) is not None)
                if over and self._telling[link] < TELLING_MAX:
                    self._telling[link] += 1
                    self._nursery.start_soon(self._answer, link, open_link, Ends(jobs=over))
            case Ends():
                self.on_ends(open_link.peer, message)
            case Staging():
                self.note_staging(open_link.peer, message)

    # --- what others are asked and told ---------------------------------------------------------------------

    async def ask_ends(self, owner: NodeId, jobs: Sequence[JobId]) -> None:
        """Asks a node which of its jobs are over, where there is a link to it; ``on_ends`` hears the
        answer."""
        for first in range(0, len(jobs), JOBS_MAX):
            await self._send(owner, EndsAsk(jobs=tuple(jobs[first : first + JOBS_MAX])))

    async def tell_staging(self, owner: NodeId, staging: Staging) -> None:
        await self._send(owner, staging)

    # --- what people see ------------------------------------------------------------------------------------

    def note_staging(self, node: NodeId, staging: Staging) -> None:
        """Notes how far a worker is, this very node included."""
        key = (staging.job, staging.task)
        self._staging.pop(key, None)
        while len(self._staging) >= TASKS_SHOWN_MAX:
            self._staging.pop(next(iter(self._staging)))
        self._staging[key] = (node, staging, trio.current_time())

    def staging_of(self, job: JobId, task: int, node: NodeId) -> tuple[int, int]:
        """Returns how many bytes of how many a worker has of the inputs of a task; zeros for not known."""
        found = self._staging.get((job, task))
        if found is None or found[0] != node or trio.current_time() - found[2] > SHOWN_FOR_S:
            return 0, 0
        total = max(0, found[1].total)
        return min(max(0, found[1].received), total), total

    async def _send(self, node: NodeId, message: msgspec.Struct) -> None:
        number = self._link_to(node)
        link = self._links.get(number) if number is not None else None
        if link is not None:
            with contextlib.suppress(LinkOver):
                await link.send_bulk(CODEC.encode(message))

    async def _answer(self, number: LinkId, link: Link, message: msgspec.Struct) -> None:
        try:
            with contextlib.suppress(LinkOver):
                await link.send_bulk(CODEC.encode(message))
        finally:
            if number in self._telling:
                self._telling[number] -= 1
