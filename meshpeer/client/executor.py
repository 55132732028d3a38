"""An executor for ``concurrent.futures`` whose calls run on the mesh.

    submit -> pickled in the caller's thread -> waits a moment for company -> one job of many tasks
           -> its results come back in one stream -> futures

A job for each call would be a signature, a disk write and a connection for each; so calls that are
submitted together become one job. A future is pending until its call has ended: ``cancel`` always succeeds
before that, and a job whose futures are all cancelled is cancelled with them. A call that was handed over and
shares its job may still run then; nobody hears of it.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar, cast

from meshpeer.client import pickling
from meshpeer.client.connection import Client, connect
from meshpeer.client.errors import RemoteError
from meshpeer.client.jobs import Job
from meshpeer.core.errors import MeshpeerError

P = ParamSpec("P")
T = TypeVar("T")
LINGER_S: Final = 0.02
"""How long a call waits for others, from the first of them on."""
CALLS_PER_JOB_MAX: Final = 2_000
BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of functions and arguments that are put into one job together; a larger call is a job of its own."""
JOBS_AT_ONCE_MAX: Final = 64
"""Jobs under way; calls beyond that wait here, and go out together."""


@dataclass(slots=True)
class _Call:
    future: futures.Future[object]
    name: str
    function: bytes
    arguments: bytes

    @property
    def size(self) -> int:
        return len(self.function) + len(self.arguments)


class _Chunk:
    """A function that ``submit`` is to call once for each of a list of arguments."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function

    def __call__(self, calls: list[tuple[object, ...]]) -> list[object]:
        return [self.function(*one) for one in calls]


class Executor(futures.Executor):
    """Runs calls as tasks of the mesh. Leave it, or call ``shutdown``, so that its threads end."""

    def __init__(self, client: Client | None = None, *, linger_s: float = LINGER_S) -> None:
        self._client = client or connect()
        self._linger_s = linger_s
        self._waiting: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._slots = threading.Semaphore(JOBS_AT_ONCE_MAX)
        self._lock = threading.Lock()
        self._closed = False
        self._open: dict[futures.Future[object], None] = {}
        """Futures that nobody has ended yet, in the order of their calls."""
        self._batcher: threading.Thread | None = None
        self._followers: set[threading.Thread] = set()

    # --- concurrent.futures ---------------------------------------------------------------------------------

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> futures.Future[T]:
        """Has a function called on some node. Raises ``Unpicklable`` for what can't be sent, and
        ``LocalFault`` for what is larger than a job may be."""
        future: futures.Future[object] = futures.Future()
        carry = self._client.options.carry
        if isinstance(fn, _Chunk):
            function = fn.function
            arguments = pickling.pickled_chunk(cast(list[tuple[object, ...]], args[0]), carry)
        else:
            function, arguments = fn, pickling.pickled_arguments(args, kwargs, carry)
        packed = pickling.pickled_function(function, carry)
        call = _Call(future, pickling.name_of(function), packed, arguments)
        if call.size > BATCH_BYTES_MAX:
            pickling.calls_of([(packed, arguments)])
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._open[future] = None
            self._waiting.put(call)
            if self._batcher is None:
                self._batcher = threading.Thread(target=self._batch, name="meshpeer-batch", daemon=True)
                self._batcher.start()
        future.add_done_callback(self._on_done)
        return cast(futures.Future[T], future)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[object],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """Calls a function with each item (of several iterables: with one of each) and yields the results in
        order. ``chunksize`` calls are one task each: a process is started per task."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        calls = zip(*iterables, strict=False)
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        parts = super().map(_Chunk(fn), chunks, timeout=timeout)
        return cast(Iterator[T], itertools.chain.from_iterable(parts))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls. ``cancel_futures`` cancels all that have not ended; ``wait`` returns when the
        others have."""
        with self._lock:
            first, self._closed = not self._closed, True
            batcher = self._batcher
            pending = list(self._open) if cancel_futures else []
        for future in pending:
            future.cancel()
        if first:
            self._waiting.put(None)
        if wait and batcher is not None:
            batcher.join()
            for follower in list(self._followers):
                follower.join()

    # --- batches --------------------------------------------------------------------------------------------

    def _batch(self) -> None:
        """Gathers calls into jobs until the executor is shut down."""
        last: _Call | None = None
        ended = False
        while not ended:
            batch, last, ended = self._gathered(last)
            batch = [one for one in batch if not one.future.cancelled()]
            if batch:
                self._slots.acquire()
                follower = threading.Thread(
                    target=self._follow, args=(batch,), name="meshpeer-results", daemon=True
                )
                self._followers.add(follower)
                follower.start()

    def _gathered(self, first: _Call | None) -> tuple[list[_Call], _Call | None, bool]:
        """Returns the calls of one job, one that did not fit any more, and whether no more will come."""
        batch: list[_Call] = []
        size = 0
        one = first if first is not None else self._waiting.get()
        ends_at = time.monotonic() + self._linger_s
        while one is not None:
            size += one.size
            if batch and size > BATCH_BYTES_MAX:
                return batch, one, False
            batch.append(one)
            if len(batch) == CALLS_PER_JOB_MAX:
                return batch, None, False
            try:
                one = self._waiting.get(timeout=max(0.0, ends_at - time.monotonic()))
            except queue.Empty:
                return batch, None, False
        return batch, None, True

    def _follow(self, batch: list[_Call]) -> None:
        """Submits a job and ends its futures as its results come."""
        try:
            self._settle(self._handed_over(batch), batch)
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            for call in batch:
                self._fail(call.future, error)
        finally:
            self._slots.release()
            self._followers.discard(threading.current_thread())

    def _handed_over(self, batch: list[_Call]) -> Job[object]:
        names = {one.name for one in batch}
        name = names.pop() if len(names) == 1 else "calls"
        calls = [(one.function, one.arguments) for one in batch]
        job: Job[object] = self._client.submit_calls(calls, name, array=True)
        left = itertools.count(len(batch) - 1, -1)

        def on_done(_: futures.Future[object]) -> None:
            if next(left) == 0 and any(one.future.cancelled() for one in batch):
                with contextlib.suppress(MeshpeerError):
                    job.cancel()

        for one in batch:
            one.future.add_done_callback(on_done)
        return job

    def _settle(self, job: Job[object], batch: list[_Call]) -> None:
        left = {number: one.future for number, one in enumerate(batch)}
        for ended in job.ended():
            future = left.pop(ended.index or 0)
            try:
                self._succeed(future, job.value_of(ended))
            except futures.CancelledError:
                future.cancel()
            except Exception as error:  # noqa: BLE001 - it belongs to who asks for the result
                self._fail(future, error)
        for number, future in left.items():
            self._fail(future, RemoteError("its job ended without it", task=f"call[{number}]"))

    # --- ends of futures ------------------------------------------------------------------------------------

    def _claim(self, future: futures.Future[object]) -> bool:
        """Says whether the caller is the one who ends this future: a result and ``cancel`` may meet."""
        with self._lock:
            return self._open.pop(future, self) is not self

    def _on_done(self, future: futures.Future[object]) -> None:
        # Who waits for several futures hears of a cancelled one by this.
        if self._claim(future):
            future.set_running_or_notify_cancel()

    def _succeed(self, future: futures.Future[object], value: object) -> None:
        if self._claim(future) and future.set_running_or_notify_cancel():
            future.set_result(value)

    def _fail(self, future: futures.Future[object], error: BaseException) -> None:
        if self._claim(future) and future.set_running_or_notify_cancel():
            future.set_exception(error)
