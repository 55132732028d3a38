"""What a node holds for which job: one list per job, in ``blobs/jobs/``, appended to as files come.

    owner HEX          who says whether the job is over; the last one counts
    file HEX USE       a blob, and what the job has it for (``core.jobs.cache.Use``)
    over SECONDS       when the job ended, in Unix seconds
    keep SECONDS       how long after that it wants its results to stay

A list is no promise: it is not synced, and what a power cut takes off its end are files that nobody was told
of, or that are made again. It is read only when room is short, so a job of any size costs no memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import trio

from meshpeer.adapters.store.drafts import translated
from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.cache import JobFiles, Use

_OWNER, _FILE, _OVER, _KEEP = "owner", "file", "over", "keep"


class FileLists:
    """Implements ``runtime.ports.JobLists``."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder; raises ``EnvironmentFault``."""
        self._folder = folder
        self._thread = trio.CapacityLimiter(1)
        """One at a time, so that lines stay whole and in order."""
        with translated(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def add(
        self, job: JobId, owner: NodeId, files: Sequence[tuple[Digest, Use]], keep_s: int = 0
    ) -> None:
        lines = [f"{_OWNER} {owner.hex()}", *(f"{_FILE} {digest.hex()} {use.value}" for digest, use in files)]
        lines += [f"{_KEEP} {keep_s}"] if keep_s else []
        await trio.to_thread.run_sync(self._append, job, lines, limiter=self._thread)

    async def note_over(self, job: JobId, over_s: int) -> None:
        await trio.to_thread.run_sync(self._append, job, [f"{_OVER} {over_s}"], limiter=self._thread)

    async def forget(self, job: JobId) -> None:
        await trio.to_thread.run_sync(self._unlink, job, limiter=self._thread)

    async def read(self) -> list[JobFiles]:
        return await trio.to_thread.run_sync(self._read, limiter=self._thread)

    def _append(self, job: JobId, lines: Sequence[str]) -> None:
        with translated(self._folder), (self._folder / job).open("a", encoding="ascii") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def _unlink(self, job: JobId) -> None:
        with contextlib.suppress(OSError):
            (self._folder / job).unlink()

    def _read(self) -> list[JobFiles]:
        with translated(self._folder):
            return [_parse(path) for path in sorted(self._folder.iterdir())]


def _parse(path: Path) -> JobFiles:
    """Reads one list; a line that a crash left half written says nothing."""
    found = JobFiles(JobId(path.name), NodeId(b""))
    with path.open(encoding="ascii", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                match line.split():
                    case [word, text] if word == _OWNER:
                        # Whoever notes something for a job that was over has it run again.
                        found.owner, found.over_s = NodeId(bytes.fromhex(text)), None
                    case [word, text] if word == _OVER:
                        found.over_s = float(int(text))
                    case [word, text] if word == _KEEP:
                        found.keep_s = int(text)
                    case [word, text, use] if word == _FILE and len(text) == 64:
                        digest = Digest(bytes.fromhex(text))
                        if found.files.get(digest) is not Use.RESULT:
                            found.files[digest] = Use(use)
    return found
