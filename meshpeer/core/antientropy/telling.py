"""Packs revocations into frames of bounded size, and reads them back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshpeer.core.antientropy.facts import FACTS_BYTES_MAX
from meshpeer.core.antientropy.messages import Revoked
from meshpeer.core.errors import PeerFault
from meshpeer.core.records.revocation import Chain, Revocation

_HEAD_BYTES = 6
"""The CBOR heads of one revocation, or of one certificate."""


def told_in_frames(
    revocations: Iterable[Revocation], *, last: bool, signers: Iterable[bytes] = ()
) -> Iterator[Revoked]:
    """Yields the signers, then the revocations in order, each author's chain once a frame. With ``last``
    there is one frame at least, and the last one says that no more follow."""
    certificates = tuple(signers)
    if certificates:
        # Roots and issuers are few enough for one frame (``ROOTS_MAX``, ``ISSUERS_MAX``).
        yield Revoked(signers=certificates)
    chains: dict[Chain, int] = {}
    said: list[tuple[int, bytes]] = []
    size = 0
    for one in revocations:
        more = len(one.envelope) + sum(map(len, one.chain)) + _HEAD_BYTES * (2 + len(one.chain))
        if said and size + more > FACTS_BYTES_MAX:
            yield Revoked(chains=tuple(chains), said=tuple(said))
            chains, said, size = {}, [], 0
        if not one.chain or one.chain in chains:
            more = len(one.envelope) + _HEAD_BYTES
        said.append((chains.setdefault(one.chain, len(chains) + 1) if one.chain else 0, one.envelope))
        size += more
    if said or last:
        yield Revoked(chains=tuple(chains), said=tuple(said), last=last)


def read_told(message: Revoked) -> list[tuple[bytes, Chain]]:
    """Returns envelopes with their authors' chains; raises ``PeerFault`` for bad form."""
    chains = ((), *message.chains)
    if not all(0 <= place < len(chains) for place, _ in message.said):
        raise PeerFault("a revocation without its author's certificate")
    return [(data, chains[place]) for place, data in message.said]
