"""Claims of workers: the bounds of a result, whoever offers it.

What a result says ends up in its owner's journal, in files' names, on terminals and in the requests that
fetch its blobs. So a result that is out of its form is the offence of who sent it; times and texts that are
merely beyond reason are cut."""

from __future__ import annotations

from itertools import chain

import msgspec

from meshpeer.core.deadline import Instant
from meshpeer.core.errors import PeerFault
from meshpeer.core.jobs.outputs import OUTPUT_FILES_MAX
from meshpeer.core.jobs.placing import label_fault, resource_fault
from meshpeer.core.jobs.python import VERSION
from meshpeer.core.jobs.rules import LABELS_MAX, RESOURCE_COUNT_MAX, RESOURCES_MAX, SIZE_BYTES_MAX
from meshpeer.core.scheduler.fitting import NO_PYTHON, Profile
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
    if not 0 <= offer.output_bytes <= SIZE_BYTES_MAX:
        offer = msgspec.structs.replace(offer, output_bytes=0)
    if len(offer.error) > REASON_LENGTH_MAX:
        offer = msgspec.structs.replace(offer, error=offer.error[:REASON_LENGTH_MAX])
    return offer


def profile_of(capacity: Capacity) -> Profile:
    """Returns what a worker is taken to have: what it says, numbers within bounds. Raises ``PeerFault`` for
    more than a node may say, and for names that are none."""
    if len(capacity.resources) > RESOURCES_MAX or any(resource_fault(name) for name, _ in capacity.resources):
        raise PeerFault("a worker says that it has resources which are none")
    if len(capacity.labels) > LABELS_MAX or any(map(label_fault, chain.from_iterable(capacity.labels))):
        raise PeerFault("a worker has labels which are none")
    if capacity.python not in ("", NO_PYTHON) and VERSION.fullmatch(capacity.python) is None:
        raise PeerFault("a worker says that it has a Python which is none")
    return Profile(
        slots=min(max(0, capacity.slots), SLOTS_MAX) if capacity.accepting else 0,
        memory_bytes=min(max(0, capacity.memory_bytes), SIZE_BYTES_MAX),
        resources=tuple(
            (name, min(count, RESOURCE_COUNT_MAX)) for name, count in capacity.resources if count > 0
        ),
        labels=capacity.labels,
        python=capacity.python,
    )


def capacity_of(profile: Profile, *, accepting: bool, boot: bytes, store: bytes) -> Capacity:
    """Returns what a worker says of itself."""
    return Capacity(
        slots=profile.slots,
        accepting=accepting,
        boot=boot,
        memory_bytes=profile.memory_bytes,
        resources=profile.resources,
        labels=profile.labels,
        python=profile.python,
        store=store,
    )


def _check_blob(blob: Blob, bytes_max: int) -> None:
    if len(blob.digest) != DIGEST_BYTES or not 0 <= blob.size <= bytes_max:
        raise PeerFault(f"a result names a file of {blob.size} bytes with a digest of {len(blob.digest)}")
