"""Gets what a replica needs before it votes: a job's signed record, and all files of the job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from meshpeer.core.errors import MeshpeerError
from meshpeer.core.ids import Digest
from meshpeer.core.jobs.cache import Use
from meshpeer.core.scheduler.messages import Blob
from meshpeer.core.scheduler.replica_messages import FetchReplica, ReplicaFetched, ReplicaUnfetched
from meshpeer.runtime.attempts import Attempts
from meshpeer.runtime.ports import BlobRef


@dataclass(slots=True)
class ReplicaFetcher:
    """Performs ``FetchReplica``."""

    attempts: Attempts
    post: Callable[[object], None]
    nursery: trio.Nursery

    def fetch(self, effect: FetchReplica) -> None:
        self.nursery.start_soon(self._fetch, effect)

    async def _fetch(self, effect: FetchReplica) -> None:
        try:
            blob = Blob(effect.digest, effect.size)
            record = await self.attempts.record_of(effect.job, blob, (effect.holder,))
            for file in record.spec.files:
                ref = BlobRef(digest=file.digest, size=file.size)
                await self.attempts.have(ref, (effect.holder, record.submitter))
            signed = await self.attempts.blobs.read(effect.digest, 0, effect.size)
            kept = [Digest(effect.digest), *(file.digest for file in record.spec.files)]
            await self.attempts.files.note(effect.job, effect.holder, [(one, Use.WORK) for one in kept])
        except MeshpeerError as fault:
            self.post(ReplicaUnfetched(job=effect.job, reason=fault.what))
            return
        self.post(
            ReplicaFetched(record=record, signed=signed, digest=Digest(effect.digest), holder=effect.holder)
        )
