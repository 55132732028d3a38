"""Keeps the files of jobs on this node within bounds, and those that are needed from going.

Who needs a file says so: an attempt *holds* what it stages and makes while it is under way (``holding``), an
upload or an answer holds what it handles, and every job has a list of what stands here for it. When blobs are
more than the cap, or a file is to come that the disk has no room for, the owners of jobs that may be over are
asked (``file_words.EndsAsk``), and what ``core.jobs.cache`` says may go goes.

A list is added to before anybody is told of a result, so what was offered is pinned. Who was not told yet
holds it itself: blobs that are added while somebody is ``holding`` are held from before they have their name.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.cache import CachedFile, Eviction, JobFiles, Use, owners_to_ask, plan_eviction
from meshpeer.runtime.file_words import Ends
from meshpeer.runtime.ports import JobLists

LOOK_S = 600.0
"""How often the blobs are looked at, however few were added."""
SHORT_LOOK_S = 60.0
"""The same, while there are more than the cap because jobs need them: these may be over."""
LOOK_BYTES = 64 * 1024 * 1024
"""They are, too, when so many bytes were added."""
PAUSE_S = 0.5
"""Between two looks at what was added."""
ANSWER_S = 2.0
"""How long owners have to say which of their jobs are over."""
HELD_FOR_S = 900.0
"""How long a client has to submit the job that it uploads files for."""
HELD_MAX = 20_000

_HOLDING: contextvars.ContextVar[set[Digest] | None] = contextvars.ContextVar("holding", default=None)


class Stock(Protocol):
    """What it asks of blobs beyond ``runtime.ports.Blobs``."""

    on_naming: Callable[[Digest], None]
    make_room: Callable[[int], Awaitable[None]]

    @property
    def added_bytes(self) -> int: ...

    async def survey(self) -> list[CachedFile]: ...

    def drop_soon(self, digest: Digest, *, partial: bool = False) -> Path | None: ...

    async def unlink(self, gone: Path) -> None: ...

    def room_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How the blobs were when they were looked at last."""

    bytes: int = 0
    bytes_pinned: int = 0
    short_bytes: int = 0
    """By how much the files that are needed exceed the cap."""


class FileKeeper:
    """The files of one node."""

    def __init__(
        self,
        *,
        me: NodeId,
        stock: Stock,
        lists: JobLists,
        bytes_max: int,
        results_s: float,
        keep_s_max: float = 0.0,
        ended: Callable[[JobId], int | None],
        ask_ends: Callable[[NodeId, Sequence[JobId]], Awaitable[None]],
        write: Callable[[str, str, tuple[tuple[str, str], ...]], None],
        here: Callable[[JobId], bool] = lambda job: False,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        """``results_s`` is how long results stay of jobs that don't say so, ``keep_s_max`` of others at most.
        ``ended`` says when a job of this node's own was over, in Unix seconds; None where it is not.
        ``here``: it knows that of a job whose files came for another node."""
        self._me = me
        self._stock = stock
        self._lists = lists
        self._bytes_max = bytes_max
        self._results_s = results_s
        self._keep_s_max = keep_s_max
        self._ended = ended
        self._here = here
        self._ask_ends = ask_ends
        self._write = write
        self._unix_s = unix_s
        self._holds: list[set[Digest]] = []
        self._held_until: dict[Digest, float] = {}
        self._over: dict[JobId, int] = {}
        self._asked: dict[JobId, NodeId] = {}
        self._let_go = False
        """Somebody needs something no more since blobs were looked at."""
        self._tidying = trio.Lock()
        self.kept = Kept()
        stock.on_naming = _hold
        stock.make_room = self.make_room

    # --- who needs what -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def holding(self, *digests: Digest) -> Iterator[set[Digest]]:
        """Keeps these from going while the context lives, what is added to the set, and every blob that is
        added to this node meanwhile by this task and those that it starts."""
        with self.pinning(*digests) as held:
            token = _HOLDING.set(held)
            try:
                yield held
            finally:
                _HOLDING.reset(token)

    @contextlib.contextmanager
    def pinning(self, *digests: Digest) -> Iterator[set[Digest]]:
        """Keeps these from going while the context lives, whichever tasks enter and leave it."""
        held = set(digests)
        self._holds.append(held)
        try:
            yield held
        finally:
            self._holds = [one for one in self._holds if one is not held]
            self._let_go = True

    def hold_for_a_while(self, digest: Digest) -> None:
        """Keeps what a client uploads until it submits the job, as long as that may take."""
        while len(self._held_until) >= HELD_MAX:
            self._held_until.pop(next(iter(self._held_until)))
        self._held_until[digest] = self._unix_s() + HELD_FOR_S

    async def note(
        self, job: JobId, owner: NodeId, files: Iterable[tuple[Digest, Use]], keep_s: int = 0
    ) -> None:
        """Notes what stands here for a job, and how long it wants its results kept; raises
        ``StoreFailed``."""
        listed = [(digest, use) for digest, use in files if digest]
        if listed:
            self._over.pop(job, None)
            await self._lists.add(job, owner, listed, keep_s)

    def on_ends(self, peer: NodeId, ends: Ends) -> None:
        """Takes the word of a job's owner that it is over, if it was asked."""
        for job, over_s in ends.jobs:
            if self._asked.get(job) == peer:
                self._over[job] = min(over_s, int(self._unix_s()))

    async def forget(self, jobs: Collection[JobId]) -> None:
        """Lets go what stands here for jobs that are forgotten, and for no other; raises
        ``EnvironmentFault``."""
        if not jobs:
            return
        async with self._tidying:
            listed = await self._lists.read()
            gone = [one for one in listed if one.job in jobs]
            needed = {digest for one in listed if one.job not in jobs for digest in one.files}
            for one in gone:
                await self._lists.forget(one.job)
                self._over.pop(one.job, None)
            for digest in dict.fromkeys(digest for one in gone for digest in one.files):
                if digest in needed or self._is_held(digest):
                    continue
                path = self._stock.drop_soon(digest)
                if path is not None:
                    await self._stock.unlink(path)

    # --- room -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Looks at the blobs now, when much was added, and every ten minutes."""
        while True:
            added, self._let_go = self._stock.added_bytes, False
            try:
                await self.tidy()
            except EnvironmentFault as fault:
                self._write("warning", fault.what, (("hint", fault.hint),))
            short = self.kept.short_bytes > 0
            with trio.move_on_after(SHORT_LOOK_S if short else LOOK_S):
                # Threads add, so there is no event to wait for.
                while not self._is_due(added, short):  # noqa: ASYNC110
                    await trio.sleep(PAUSE_S)

    async def make_room(self, size: int) -> None:
        """Lets go what may go so that the disk has room for so many bytes, below the cap or not."""
        if size <= self._stock.room_bytes():
            return
        async with self._tidying:
            missing = size - self._stock.room_bytes()
            if missing > 0:
                await self._tidy(more_bytes=missing)

    async def tidy(self) -> None:
        """Lets go what may go where there is more than the cap; raises ``EnvironmentFault``."""
        async with self._tidying:
            await self._tidy()

    async def _tidy(self, more_bytes: int = 0) -> None:
        """``more_bytes``: as many as these are to go, even below the cap."""
        files = await self._stock.survey()
        total = sum(one.size for one in files)
        bytes_max = min(self._bytes_max, total - more_bytes) if more_bytes else self._bytes_max
        if total <= bytes_max:
            self._see(Kept(bytes=total))
            return
        listed = await self._listed()
        plan = plan_eviction(files, self._pins(listed), bytes_max=max(0, bytes_max))
        if more_bytes and total - plan.bytes_left < more_bytes:
            # It would be in vain.
            return
        dropped = [
            (one.size, gone)
            for one in plan.drop
            # Whoever came to hold it while lists were read is asked once more: nothing else runs in between.
            if not self._is_held(one.digest)
            and (gone := self._stock.drop_soon(one.digest, partial=one.partial)) is not None
        ]
        for _, gone in dropped:
            await self._stock.unlink(gone)
        if dropped:
            freed = sum(size for size, _ in dropped)
            self._write(
                "info", "files made room for others", (("files", str(len(dropped))), ("bytes", str(freed)))
            )
        self._see(_kept(plan, self._bytes_max))
        for one in listed:
            if one.is_done_with(self._unix_s(), self._results_s_of(one)):
                await self._lists.forget(one.job)
                self._over.pop(one.job, None)

    async def _listed(self) -> list[JobFiles]:
        """Reads what jobs have here, and learns which of them are over."""
        listed = await self._lists.read()
        for one in listed:
            if one.over_s is None and (one.owner == self._me or self._here(one.job)):
                await self._end(one, self._ended(one.job))
        asked = owners_to_ask(listed, self._me)
        if asked:
            await self._ask(asked)
            for one in listed:
                if one.over_s is None and one.owner != self._me:
                    await self._end(one, self._over.get(one.job))
        return listed

    async def _ask(self, asked: Mapping[NodeId, Sequence[JobId]]) -> None:
        self._asked = {job: owner for owner, jobs in asked.items() for job in jobs}
        with trio.move_on_after(ANSWER_S):
            async with trio.open_nursery() as nursery:
                for owner, jobs in asked.items():
                    nursery.start_soon(self._ask_ends, owner, jobs)
            # Those that go on are not told of: there is no last word to wait for.
            await trio.sleep(ANSWER_S)
        self._asked = {}

    async def _end(self, files: JobFiles, over_s: int | None) -> None:
        if over_s is not None:
            files.over_s = float(over_s)
            await self._lists.note_over(files.job, over_s)

    def _results_s_of(self, files: JobFiles) -> float:
        return min(float(files.keep_s), self._keep_s_max) if files.keep_s else self._results_s

    def _pins(self, listed: Iterable[JobFiles]) -> Callable[[Digest], bool]:
        now_s = self._unix_s()
        for digest in [one for one, until_s in self._held_until.items() if until_s < now_s]:
            del self._held_until[digest]
        needed = {digest for one in listed for digest in one.needed(now_s, self._results_s_of(one))}
        return lambda digest: digest in needed or self._is_held(digest)

    def _is_due(self, added: int, short: bool) -> bool:
        return self._stock.added_bytes - added >= LOOK_BYTES or (short and self._let_go)

    def _is_held(self, digest: Digest) -> bool:
        return digest in self._held_until or any(digest in held for held in self._holds)

    def _see(self, kept: Kept) -> None:
        if kept.short_bytes and not self.kept.short_bytes:
            self._write(
                "warning",
                "files that jobs need are more than the cache may hold",
                (("bytes", str(kept.bytes)), ("cache_bytes_max", str(self._bytes_max))),
            )
        self.kept = kept


def _kept(plan: Eviction, bytes_max: int) -> Kept:
    return Kept(
        bytes=plan.bytes_left,
        bytes_pinned=plan.bytes_pinned,
        short_bytes=max(0, plan.bytes_left - bytes_max),
    )


def _hold(digest: Digest) -> None:
    held = _HOLDING.get()
    if held is not None:
        held.add(digest)
