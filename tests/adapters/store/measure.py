"""Measures what a commit and a blob cost on this disk, and prints one figure per line. Not a test.

python tests/adapters/store/measure.py [FOLDER]

A commit writes two rows of 200 bytes. "In flight" is how many wait for their ticket at a time, as an
agent with that many slots does; "busy" adds a task that keeps the event loop computing, in pieces of 2
ms.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from meshpeer.adapters.store import open_blobs, open_store
from meshpeer.core.effects import Put, Table
from meshpeer.core.ids import Ticket
from meshpeer.runtime.ports import BlobRef

COMMITS = 1_000
BLOBS = 300
VALUE = os.urandom(200)


async def commits(folder: Path, in_flight: int, busy: bool) -> None:
    waits: list[float] = []
    began: dict[Ticket, float] = {}
    async with open_store(folder / f"{time.monotonic_ns()}.db") as store, trio.open_nursery() as nursery:
        if busy:
            nursery.start_soon(compute)
        start, asked, done = time.perf_counter(), 0, 0
        cpu = time.process_time()
        while done < COMMITS:
            while asked < COMMITS and asked - done < in_flight:
                asked += 1
                rows = [
                    Put(table=table, key=f"{asked:06}", value=VALUE) for table in (Table.TASKS, Table.RESULTS)
                ]
                began[Ticket(asked)] = time.perf_counter()
                store.commit_soon(Ticket(asked), rows)
            outcome = await store.outcomes.receive()
            now = time.perf_counter()
            waits += [now - began.pop(ticket) for ticket in outcome.tickets]
            done += len(outcome.tickets)
        took, cpu = time.perf_counter() - start, time.process_time() - cpu
        name = f"commits, {in_flight} in flight{', busy' if busy else ''}"
        print(
            f"{name:34} {COMMITS / took:8.0f}/s   median {statistics.median(waits) * 1e6:6.0f} us   "
            f"worst {max(waits) * 1e3:5.1f} ms   {cpu / COMMITS * 1e6:4.0f} us cpu each "
            f"  {store.writes:4} syncs"
        )
        nursery.cancel_scope.cancel()


async def compute() -> None:
    while True:
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
        await trio.lowlevel.checkpoint()


async def blobs(folder: Path) -> None:
    store = open_blobs(folder / "blobs")
    await each("blob, empty", lambda _: store.add_bytes(b""))
    await each("blob, 200 bytes", lambda number: store.add_bytes(b"%d" % number + VALUE))
    await each("blob, 200 bytes, here already", lambda number: store.add_bytes(b"%d" % number + VALUE))
    fdatasync, fsync = os.fdatasync, os.fsync
    os.fdatasync = os.fsync = lambda _: None  # type: ignore[assignment]
    await each("blob, 200 bytes, syncs taken out", lambda number: store.add_bytes(b"no %d" % number + VALUE))
    os.fdatasync, os.fsync = fdatasync, fsync
    source = folder / "source"
    for size in (1 << 20, 64 << 20):
        source.write_bytes(os.urandom(size))
        began = time.perf_counter()
        ref = await store.add_file(source)
        took = time.perf_counter() - began
        await store.remove(ref.digest)
        print(f"{f'blob, file of {size >> 20} MiB':34} {took * 1e3:8.1f} ms")


async def each(name: str, add: Callable[[int], Awaitable[BlobRef]]) -> None:
    costs: list[float] = []
    for number in range(BLOBS):
        began = time.perf_counter()
        await add(number)
        costs.append(time.perf_counter() - began)
    print(f"{name:34} {statistics.median(costs) * 1e6:8.0f} us median   worst {max(costs) * 1e3:5.1f} ms")


async def main(folder: Path) -> None:
    for in_flight in (1, 2, 10, 100):
        await commits(folder, in_flight, busy=False)
    for interval_s in (sys.getswitchinterval(), 0.0005):
        sys.setswitchinterval(interval_s)
        print(f"with a switch interval of {interval_s * 1e3:.1f} ms:")
        await commits(folder, 2, busy=True)
    await blobs(folder)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as scratch:
        trio.run(main, Path(scratch))
