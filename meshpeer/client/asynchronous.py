"""The client for trio: the same questions, asked from threads of trio's own, so that nothing here blocks.

A cancelled question is given up at once; what the agent does about it goes on, and so does the job.
"""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, Generic, ParamSpec, TypeVar

import trio

from meshpeer.client.connection import Client, connect
from meshpeer.client.jobs import Job
from meshpeer.client.options import Options
from meshpeer.core.jobs.model import JobSpec
from meshpeer.runtime import control

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
WAITING_AT_ONCE_MAX: Final = 256
"""Threads of one client that wait for something; further questions wait for one of them."""


@asynccontextmanager
async def aconnect(
    run_dir: str | os.PathLike[str] | None = None, options: Options | None = None
) -> AsyncIterator[AsyncClient]:
    """Opens a client for trio; raises as ``connect`` does."""
    client = await trio.to_thread.run_sync(connect, run_dir)
    yield AsyncClient(client.using(options or Options()))


class AsyncClient:
    """``Client``, for trio."""

    def __init__(self, client: Client) -> None:
        self.client: Final = client
        self._threads = trio.CapacityLimiter(WAITING_AT_ONCE_MAX)

    def using(self, options: Options) -> AsyncClient:
        """Returns a client of the same agent whose calls run with these options."""
        return AsyncClient(self.client.using(options))

    async def status(self) -> control.Status:
        return await self._ask(self.client.status)

    async def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> AsyncJob[T]:
        return AsyncJob(
            await self._ask(functools.partial(self.client.submit, function, *args, **kwargs)), self._threads
        )

    async def map(
        self, function: Callable[..., T], /, *iterables: Iterable[object], chunks: int | None = None
    ) -> AsyncJob[T]:
        made = functools.partial(self.client.map, function, *iterables, chunks=chunks)
        return AsyncJob(await self._ask(made), self._threads)

    async def submit_job(
        self, job: str | os.PathLike[str] | Mapping[str, object] | JobSpec
    ) -> AsyncJob[object]:
        return AsyncJob(await self._ask(functools.partial(self.client.submit_job, job)), self._threads)

    async def job(self, job: str, *, unpickle: bool = False) -> AsyncJob[object]:
        found = functools.partial(self.client.job, job, unpickle=unpickle)
        return AsyncJob(await self._ask(found), self._threads)

    async def jobs(self) -> list[control.Job]:
        return await self._ask(self.client.jobs)

    async def _ask(self, question: Callable[[], U]) -> U:
        return await trio.to_thread.run_sync(question, abandon_on_cancel=True, limiter=self._threads)


class AsyncJob(Generic[T]):
    """``Job``, for trio."""

    def __init__(self, job: Job[T], threads: trio.CapacityLimiter) -> None:
        self.job: Final = job
        self.id: Final = job.id
        self._threads = threads

    async def status(self) -> control.Job:
        return await self._ask(self.job.status)

    async def tasks(self) -> list[control.Task]:
        return await self._ask(self.job.tasks)

    async def wait(self) -> control.Job:
        return await self._ask(self.job.wait)

    async def cancel(self) -> control.Job:
        return await self._ask(self.job.cancel)

    async def logs(self, task: str = "", stream: str = "stdout") -> str:
        return await self._ask(functools.partial(self.job.logs, task, stream))

    async def output(self, path: str, task: str = "") -> bytes:
        return await self._ask(functools.partial(self.job.output, path, task))

    async def gather(self, *, return_exceptions: bool = False) -> list[T]:
        return await self._ask(functools.partial(self.job.gather, return_exceptions=return_exceptions))

    async def result(self) -> T:
        return await self._ask(self.job.result)

    async def watch(self) -> AsyncIterator[control.Job]:
        """Yields how it stands now and at every change until it has ended."""
        async for one in self._each(self.job.watch()):
            yield one

    async def results(self) -> AsyncIterator[tuple[str, T]]:
        """Yields the id of each call's task and what it returned, as they end."""
        async for one in self._each(self.job.results()):
            yield one

    async def _each(self, source: Iterator[U]) -> AsyncIterator[U]:
        while True:
            found = await self._ask(functools.partial(_next_of, source))
            if not found:
                return
            yield found[0]

    async def _ask(self, question: Callable[[], U]) -> U:
        return await trio.to_thread.run_sync(question, abandon_on_cancel=True, limiter=self._threads)


def _next_of(source: Iterator[U]) -> tuple[U, ...]:
    """Returns the next item alone, or nothing at the end: no ``StopIteration`` leaves a thread."""
    for one in source:
        return (one,)
    return ()
