"""Measures what a full set of revocations costs: python tests/core/records/measure_revocations.py"""

from __future__ import annotations

import time

from revocation_cases import (
    GUEST,
    JUNIOR,
    MESH,
    MIDDLE,
    PLAIN,
    ROOT,
    ROOT_KEY,
    SENIOR,
    chain_of,
    of_node,
    signed,
)

from meshpeer.core.antientropy.telling import told_in_frames
from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.node.codec import CODEC
from meshpeer.core.node.revoking import Revoking
from meshpeer.core.node.rows import row_of_revocation
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.records.revocations import REVOCATIONS_MAX

AUTHORS = (ROOT_KEY, SENIOR, MIDDLE, JUNIOR)


def main() -> None:
    said = [
        (
            signed(
                author, "node", bytes([place]) + number.to_bytes(31), reason="laptop stolen", name="delta"
            ),
            chain_of(author),
        )
        for place, author in enumerate(AUTHORS)
        for number in range(REVOCATIONS_MAX // len(AUTHORS))
    ]
    ledger = Ledger(MESH, (ROOT.certificate,))
    began = time.perf_counter()
    Revoking(ledger, list, Counters()).restore(said, (), Instant(0.0, time.time()))
    held = list(ledger.revocations)
    print(f"| read {len(held):,} from disk, signatures included | {time.perf_counter() - began:.1f} s |")
    began = time.perf_counter()
    ledger.revoke(of_node(SENIOR, GUEST))
    print(f"| take one more | {1_000 * (time.perf_counter() - began):.0f} ms |")
    frames = [len(CODEC.encode(one)) for one in told_in_frames(held, last=True)]
    print(f"| tell all of them | {len(frames)} frames, {sum(frames):,} B |")
    (one,) = (len(CODEC.encode(frame)) for frame in told_in_frames([of_node(SENIOR, PLAIN)], last=False))
    print(f"| tell one, with its author's chain | {one} B |")
    print(f"| keep one | {len(row_of_revocation(held[-1]).value)} B |")


if __name__ == "__main__":
    main()
