"""Puts together what moves, keeps and shows the files of jobs on this node."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import msgspec
import trio

from meshpeer.adapters.store.lists import FileLists
from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.core.ids import Digest, JobId, LinkId, NodeId, TaskIndex
from meshpeer.core.jobs.cache import Use
from meshpeer.core.scheduler.messages import Attempt
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.runtime.control import FileUse, Task
from meshpeer.runtime.exchange import Exchange
from meshpeer.runtime.file_words import FileWords, Staging
from meshpeer.runtime.files import FileKeeper
from meshpeer.runtime.ports import BlobRef
from meshpeer.runtime.transfers import SHOWN_BYTES_MIN, Transfers

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

DAY_S = 86_400
TELL_S = 1.0
"""How often an owner hears how far the inputs of its attempts are."""
INPUTS_TOLD_MAX = 256
"""Larger inputs of one attempt that are looked at for that."""


class Files:
    """The files of jobs, of one agent."""

    def __init__(self, agent: Agent, nursery: trio.Nursery) -> None:
        """Raises ``EnvironmentFault`` where the folder of lists can't be made."""
        self._agent = agent
        links, jobs = agent.node.links, agent.settings.file.jobs
        self.exchange = Exchange(agent.blobs, nursery, links.link_to, let_in=self._let_in)
        self.words = FileWords(nursery, links.link_to, self._let_in, self._ended_here)
        self.transfers = Transfers(agent.node.me, agent.blobs, self.exchange.fetch)
        self.keeper = FileKeeper(
            me=agent.node.me,
            stock=agent.blobs,
            lists=FileLists(agent.settings.state_dir / "blobs" / "jobs"),
            bytes_max=jobs.cache_bytes_max,
            results_s=float(jobs.results_days * DAY_S),
            keep_s_max=float(jobs.keep_days_max * DAY_S),
            ended=self._ended,
            here=self._is_here,
            ask_ends=self.words.ask_ends,
            write=agent.log.write,
        )
        self.words.on_ends = self.keeper.on_ends

    async def run(self) -> None:
        """Keeps the blobs within bounds, and owners told, until cancelled."""
        # What a crash left of jobs whose rows were gone already.
        await self.forget(frozenset(self._agent.node.scheduler.collector.gone))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.keeper.run)
            nursery.start_soon(self._tell_owners)

    async def note_submitted(self, job: JobId, files: Sequence[Digest], keep_s: int) -> None:
        """Keeps what a job brought along until it is over."""
        await self.keeper.note(job, self._agent.node.me, [(one, Use.WORK) for one in files], keep_s)

    async def forget(self, jobs: Collection[JobId]) -> None:
        """Lets go of what stands here for jobs that this node has forgotten."""
        try:
            await self.keeper.forget(jobs)
        except EnvironmentFault as fault:
            # What is not let go now is a cache, and goes when room is needed.
            self._agent.log.write("warning", fault.what, (("hint", fault.hint),))

    async def keep_result(self, job: JobId, attempt: Attempt, digest: Digest) -> None:
        """Keeps what a service answered for an attempt that this node has."""
        held = self._agent.node.scheduler.worker.describe(job, attempt, self._agent.clock.now())
        if held is not None:
            await self.keeper.note(job, held.owner, [(digest, Use.RESULT)])

    # --- what people see ------------------------------------------------------------------------------------

    def use(self) -> FileUse:
        """Returns what files of jobs take of this node's disk, and what is on its way."""
        kept = self.keeper.kept
        moving = self.transfers.under_way()
        return FileUse(
            bytes=kept.bytes,
            bytes_max=self._agent.settings.file.jobs.cache_bytes_max,
            bytes_needed=kept.bytes_pinned,
            coming=len(moving),
            coming_bytes=sum(ref.size for ref, _ in moving),
            here_bytes=sum(received for _, received in moving),
        )

    def notices(self) -> list[str]:
        """Returns what is worth knowing of the cache."""
        kept = self.keeper.kept
        if not kept.short_bytes:
            return []
        most = self._agent.settings.file.jobs.cache_bytes_max
        return [
            f"files of jobs take {kept.bytes:,} bytes, and {most:,} are allowed: open jobs and results need "
            "the rest (raise cache_bytes_max or lower results_days under [jobs])"
        ]

    def with_staging(self, owner: JobOwner, index: TaskIndex, task: Task) -> Task:
        """Returns a task's document with how far its inputs are."""
        lease = owner.leases.get(index)
        if lease is None or lease.running:
            return task
        received, total = self.words.staging_of(owner.job, index, lease.node)
        return msgspec.structs.replace(task, staged_bytes=received, input_bytes=total) if total else task

    # --- helpers --------------------------------------------------------------------------------------------

    async def _tell_owners(self) -> None:
        agent = self._agent
        while True:
            await trio.sleep(TELL_S)
            for job, attempt, owner, refs in agent.attempts.staging():
                staging = self._staging(job, attempt, refs)
                if staging.total < SHOWN_BYTES_MIN:
                    continue
                if owner == agent.node.me:
                    self.words.note_staging(owner, staging)
                else:
                    await self.words.tell_staging(owner, staging)

    def _staging(self, job: JobId, attempt: Attempt, refs: Sequence[BlobRef]) -> Staging:
        large = [ref for ref in refs if ref.size >= SHOWN_BYTES_MIN][:INPUTS_TOLD_MAX]
        received = sum(self.transfers.received(ref) for ref in large)
        return Staging(job=job, task=attempt.task, received=received, total=sum(ref.size for ref in large))

    def _let_in(self, link: LinkId) -> bool:
        return self._agent.node.links.peer_of(link) is not None

    def _ended_here(self, job: JobId) -> int | None:
        """Returns when a job that this node owns was over; None for one that is open, or not its own."""
        scheduler = self._agent.node.scheduler
        if job in scheduler.collector.gone:
            return scheduler.collector.gone[job].finished_at_us // 1_000_000
        owner = scheduler.owned.get(job)
        if owner is not None:
            over = owner.finished and scheduler.replicas.is_settled(owner.last_ticket)
            return owner.finished_at_us // 1_000_000 if over else None
        copy = scheduler.replicas.copies.get(job)
        return int(self._agent.clock.now().unix_s) if copy is not None and copy.ended else None

    def _is_here(self, job: JobId) -> bool:
        """Says whether this node owns a job, or keeps a replica of it, or did so until it was forgotten."""
        scheduler = self._agent.node.scheduler
        return job in scheduler.owned or job in scheduler.replicas.copies or job in scheduler.collector.gone

    def _ended(self, job: JobId) -> int | None:
        """Returns the same, and now for a job that this node knows nothing of."""
        if self._is_here(job):
            return self._ended_here(job)
        return int(self._agent.clock.now().unix_s)


def holders_of(owner: JobOwner, index: TaskIndex) -> tuple[NodeId, ...]:
    """Returns who should have what a task made."""
    row = owner.results.get(index)
    if row is None:
        raise LocalFault("it runs again: there is no result now", f"see `meshpeer jobs status {owner.job}`")
    return (row.node,)
