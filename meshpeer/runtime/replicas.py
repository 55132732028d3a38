"""Gets what a replica needs before it votes: a job's signed record, and all files of the job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from meshpeer.core.errors import EnvironmentFault, MeshpeerError, PeerFault
from meshpeer.core.ids import Digest
from meshpeer.core.jobs.cache import Use
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.scheduler.messages import Blob
from meshpeer.core.scheduler.replica_messages import FetchReplica, ReplicaFetched, ReplicaUnfetched
from meshpeer.core.scheduler.replicas import names_of
from meshpeer.runtime.attempts import Attempts
from meshpeer.runtime.ports import BlobRef


@dataclass(slots=True)
class ReplicaFetcher:
    """Performs ``FetchReplica``."""

    attempts: Attempts
    post: Callable[[object], None]
    nursery: trio.Nursery
    admit: Callable[[JobRecord], None] = lambda record: None
    """Raises ``Refused`` for a job that this node does not want to keep."""

    def fetch(self, effect: FetchReplica) -> None:
        self.nursery.start_soon(self._fetch, effect)

    async def _fetch(self, effect: FetchReplica) -> None:
        try:
            record, signed = await self._have_all(effect)
        except MeshpeerError as fault:
            judged = not isinstance(fault, EnvironmentFault)
            self.post(ReplicaUnfetched(job=effect.job, reason=fault.what, refused=judged))
            return
        self.post(
            ReplicaFetched(record=record, signed=signed, digest=Digest(effect.digest), holder=effect.holder)
        )

    async def _have_all(self, effect: FetchReplica) -> tuple[JobRecord, bytes]:
        """Makes record and files present, and notes them; raises a ``MeshpeerError``."""
        # What came first must not go while the rest comes: the job's list names them once all are here.
        with self.attempts.files.holding(effect.digest) as held:
            blob = Blob(effect.digest, effect.size)
            record = await self.attempts.record_of(effect.job, blob, (effect.holder,))
            if effect.holder not in names_of(record):
                raise PeerFault("who shows the record can't own the job")
            self.admit(record)
            kept = [effect.digest, *(file.digest for file in record.spec.files)]
            # Some are here already, and would not be held for coming.
            held.update(kept)
            for file in record.spec.files:
                ref = BlobRef(digest=file.digest, size=file.size)
                await self.attempts.have(ref, (effect.holder, record.submitter))
            signed = await self.attempts.blobs.read(effect.digest, 0, effect.size)
            noted = [(one, Use.WORK) for one in kept]
            await self.attempts.files.note(effect.job, effect.holder, noted, record.spec.keep_s)
        return record, signed
