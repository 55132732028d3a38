"""Claims of workers: the bounds of a result, whoever offers it.

What a result says ends up in its owner's journal, in files' names, on terminals and in the requests that
fetch its blobs. So a result that is out of its form is the offence of who sent it; times and texts that are
merely beyond reason are cut."""

from __future__ import annotations

import msgspec

from meshpeer.core.deadline import Instant
from meshpeer.core.errors import PeerFault
from meshpeer.core.jobs.outputs import OUTPUT_FILES_MAX
from meshpeer.core.scheduler.messages import REASON_LENGTH_MAX, SLOTS_MAX, Blob, Capacity, Offer
from meshpeer.core.scheduler.seals import NUMBER_MAX
from meshpeer.core.wire.limits import BLOB_BYTES_MAX, DOCUMENT_BYTES_MAX

DIGEST_BYTES = 32
EXIT_CODE_MAX = 255
AHEAD_MAX_S = 300
"""A result that ended further ahead of this node's clock is said to have ended now."""


def bounded_offer(offer: Offer, now: Instant) -> Offer:
    """Returns a result with its texts and times within reason; raises ``PeerFault`` where it is none."""
    for blob in (offer.stdout, offer.stderr):
        _check_blob(blob, BLOB_BYTES_MAX)
    _check_blob(offer.manifest, DOCUMENT_BYTES_MAX)
    if not (0 < offer.attempt.round <= NUMBER_MAX and 0 < offer.attempt.number <= NUMBER_MAX):
        raise PeerFault("a result is of an attempt that can't be")
    if not 0 <= offer.outputs <= OUTPUT_FILES_MAX:
        raise PeerFault(f"a result has {offer.outputs} files")
    if offer.exit_code is not None and not -EXIT_CODE_MAX <= offer.exit_code <= EXIT_CODE_MAX:
        raise PeerFault(f"a result has the exit code {offer.exit_code}")
    latest_us = int((now.unix_s + AHEAD_MAX_S) * 1e6)
    if not 0 <= offer.started_us <= offer.finished_us <= latest_us:
        now_us = int(now.unix_s * 1e6)
        started_us = min(max(0, offer.started_us), now_us)
        finished_us = min(max(started_us, offer.finished_us), now_us)
        offer = msgspec.structs.replace(offer, started_us=started_us, finished_us=finished_us)
    if len(offer.error) > REASON_LENGTH_MAX:
        offer = msgspec.structs.replace(offer, error=offer.error[:REASON_LENGTH_MAX])
    return offer


def slots_of(capacity: Capacity) -> int:
    """Returns how many tasks a worker is taken to run at once: what it says, within bounds."""
    return min(max(0, capacity.slots), SLOTS_MAX) if capacity.accepting else 0


def _check_blob(blob: Blob, bytes_max: int) -> None:
    if len(blob.digest) != DIGEST_BYTES or not 0 <= blob.size <= bytes_max:
        raise PeerFault(f"a result names a file of {blob.size} bytes with a digest of {len(blob.digest)}")
