#!/usr/bin/env python3
"""What one task costs in the executor, beside what it costs at the least: `true`, again and again.

    scripts/bench/spawn.py [--tasks 1000] [--rounds 3]

Prints milliseconds per task, and the ratio to `make -j2` of the same round (the median over the rounds), so
that the machine's own pace cancels out. Rows: posix_spawn one after another; make -j2; the executor with two
slots as one user (in a user namespace where root calls, for root runs no tasks), and as root with a user per
slot; both with 200 MiB more in the agent, which a spawn by fork would pay for. No blob is written.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import trio

from meshpeer.adapters.executor import open_executor
from meshpeer.core.ids import Digest
from meshpeer.runtime.ports import AttemptPlan, BlobRef, BlobWriter

FIRST_UID = 2_000_000
BALLAST_BYTES = 200 * 1024 * 1024
SAME_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


class NoBlobs:
    """Blobs that forget: `true` prints nothing."""

    def path(self, digest: Digest) -> Path | None:
        return None

    async def add_bytes(self, data: bytes) -> BlobRef:
        return BlobRef(digest=Digest(hashlib.sha256(data).digest()), size=len(data))

    async def add_file(self, source: Path) -> BlobRef:
        return await self.add_bytes(await trio.Path(source).read_bytes())

    async def read(self, digest: Digest, offset: int, length: int) -> bytes:
        return b""

    def receive(self, ref: BlobRef) -> contextlib.AbstractAsyncContextManager[BlobWriter]:
        raise NotImplementedError


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--executor-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ballast", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.executor_only:
        print(run_executor(options.tasks, ballast=options.ballast))
        return
    rounds = [run_round(options.tasks) for _ in range(options.rounds)]
    print(f"{options.tasks} x true, 2 in flight where it says so; median of {options.rounds} rounds")
    print(f"{'':44}{'ms per task':>12}{'x make':>9}")
    for name in rounds[0]:
        cost = statistics.median(one[name] for one in rounds)
        ratio = statistics.median(one[name] / one["make -j2"] for one in rounds)
        print(f"{name:44}{1000 * cost / options.tasks:12.3f}{ratio:9.2f}")


def run_round(tasks: int) -> dict[str, float]:
    """Returns seconds by row, all measured one after another."""
    rows: dict[str, Callable[[], float]] = {
        "posix_spawn, one after another": lambda: run_posix_spawn(tasks),
        "make -j2": lambda: run_make(tasks),
    }
    prefix = () if os.geteuid() else SAME_USER
    rows["executor, 2 slots, one user"] = lambda: run_apart(tasks, prefix)
    rows["  with 200 MiB more in the agent"] = lambda: run_apart(tasks, prefix, "--ballast")
    if os.geteuid() == 0:
        rows["executor, 2 slots, a user per slot"] = lambda: run_apart(tasks, ())
        rows["  with 200 MiB more in the agent "] = lambda: run_apart(tasks, (), "--ballast")
    return {name: measure() for name, measure in rows.items()}


def run_posix_spawn(tasks: int) -> float:
    started = time.perf_counter()
    for _ in range(tasks):
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    return time.perf_counter() - started


def run_make(tasks: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        names = " ".join(f"t{number}" for number in range(tasks))
        (Path(folder) / "Makefile").write_text(f"all: {names}\n.PHONY: all {names}\n{names}:\n\t@/bin/true\n")
        started = time.perf_counter()
        subprocess.run(["make", "-s", "-j2", "-C", folder], check=True)
        return time.perf_counter() - started


def run_apart(tasks: int, prefix: tuple[str, ...], *options: str) -> float:
    """Runs the executor in a process of its own, as another user if need be."""
    command = [*prefix, sys.executable, __file__, "--executor-only", "--tasks", str(tasks), *options]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run_executor(tasks: int, *, ballast: bool) -> float:
    weight = b"\1" * (BALLAST_BYTES if ballast else 0)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)
        seconds = trio.run(_run_executor, Path(folder), tasks)
    assert len(weight) in (0, BALLAST_BYTES)
    return seconds


async def _run_executor(folder: Path, tasks: int) -> float:
    uids = range(FIRST_UID, FIRST_UID + 2)
    numbers = iter(range(tasks))
    async with open_executor(
        slots=2, scratch_root=folder / "scratch", blobs=NoBlobs(), uids=uids
    ) as executor:

        async def work(numbers: Iterator[int]) -> None:
            for number in numbers:
                outcome = await executor.run(
                    AttemptPlan(
                        key=str(number),
                        argv=("/bin/true",),
                        env=(),
                        cwd="",
                        staged=(),
                        outputs=(),
                        timeout_s=0,
                    )
                )
                assert outcome.error == "", outcome.error

        async def both(numbers: Iterator[int]) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work, numbers)
                nursery.start_soon(work, numbers)

        await both(iter(range(-4, 0)))  # helpers are up then
        started = time.perf_counter()
        await both(numbers)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
