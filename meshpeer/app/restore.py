"""Takes up what the journal holds when an agent starts."""

from __future__ import annotations

import collections
import random

from meshpeer.adapters.store import SqliteStore
from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Note, Table
from meshpeer.core.ids import Digest, JobId
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.node.gossip import Gossip
from meshpeer.core.node.revoking import Revoking
from meshpeer.core.node.rows import CHARTER_KEY, REVOCATION_PREFIX, SIGNER_PREFIX, unpack_revocation
from meshpeer.core.records import envelope
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import SchedulerEffect
from meshpeer.core.scheduler.rows import ROW_BYTES_MAX, JobRow, ResultRow, TaskRow
from meshpeer.core.wire import cbor


def restore_ledger(ledger: Ledger, store: SqliteStore, now: Instant) -> list[Note]:
    """Merges the stored facts into an empty ledger; what no longer holds is left out, with a note."""
    meta = list(store.load(Table.META))
    # Before anything else is believed.
    notes = Revoking(ledger, list, Counters()).restore(
        (unpack_revocation(value) for key, value in meta if key.startswith(REVOCATION_PREFIX)),
        [value for key, value in meta if key.startswith(SIGNER_PREFIX)],
        now,
    )
    gossip = Gossip(ledger, linked=list, jitter=random.Random(), counters=Counters())
    charter = next((value for key, value in meta if key == CHARTER_KEY), None)
    chains = [value for _, value in store.load(Table.CERTIFICATES)]
    records = [value for _, value in store.load(Table.RECORDS)]
    return notes + gossip.restore(chains, records, charter, now)


def restore_jobs(scheduler: Scheduler, store: SqliteStore, now: Instant) -> list[SchedulerEffect]:
    """Hands the scheduler owned jobs, committed results, results that await acknowledgement, and grants."""
    jobs: list[tuple[JobRecord, Digest, JobRow]] = []
    for _, value in store.load(Table.JOBS):
        row = cbor.decode(value, JobRow, bytes_max=ROW_BYTES_MAX)
        record = envelope.open_body(row.signed, JobRecord, bytes_max=ROW_BYTES_MAX)
        jobs.append((record, envelope.digest_of(row.signed), row))
    tasks: dict[JobId, dict[int, TaskRow]] = collections.defaultdict(dict)
    for key, value in store.load(Table.TASKS):
        job, _, index = key.partition("/")
        tasks[JobId(job)][int(index)] = cbor.decode(value, TaskRow, bytes_max=ROW_BYTES_MAX)
    results = [
        cbor.decode(value, ResultRow, bytes_max=ROW_BYTES_MAX) for _, value in store.load(Table.RESULTS)
    ]
    return scheduler.restore(jobs, tasks, results, now, store.load(Table.GRANTS), store.load(Table.REPLICAS))
