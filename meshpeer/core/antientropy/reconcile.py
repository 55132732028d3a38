"""Compares digests with a ledger: pure functions, no state.

The plain digest lists every member: 60 B each, one frame up to 800 members, more in ranges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from meshpeer.core.antientropy.messages import Digest, Entry, Facts, Want
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.records.ledger import Chain, Ledger, Member

ENTRIES_MAX = 700
"""Entries of one digest frame: at most 85 B each, under 64 KiB."""
WANT_MAX = 1_500
FACTS_BYTES_MAX = 48 * 1024
PREFIX_BYTES = 8
_HEAD_BYTES = 3
"""The CBOR head of a byte string or array of up to 64 KiB."""


def digests(ledger: Ledger) -> list[Digest]:
    """Returns the ledger's digest in as many frames as it takes, covering the whole id space."""
    entries = [entry_of(member) for member in ledger]
    pages = [entries[at : at + ENTRIES_MAX] for at in range(0, len(entries), ENTRIES_MAX)] or [[]]
    bounds = [b"", *(page[0].node for page in pages[1:]), b""]
    return [
        Digest(
            low=bounds[number],
            high=bounds[number + 1],
            entries=tuple(page),
            charter_version=ledger.charter.version if ledger.charter else 0,
            charter=ledger.charter_digest[:PREFIX_BYTES],
        )
        for number, page in enumerate(pages)
    ]


def entry_of(member: Member) -> Entry:
    current, best = member.current, member.best
    return Entry(
        node=member.node,
        incarnation=current.incarnation if current else 0,
        sequence=current.sequence if current else 0,
        record=member.digest[:PREFIX_BYTES],
        leaf=best.leaf[:PREFIX_BYTES] if best else b"",
        proof=member.proof is not None,
    )


def compare(ledger: Ledger, theirs: Digest) -> tuple[list[NodeId], Want | None]:
    """Returns whose facts the other side lacks, and what to ask it for; raises ``PeerFault`` for an unsorted
    digest."""
    held = {entry.node: entry for entry in theirs.entries}
    if list(held) != sorted(held) or len(held) != len(theirs.entries) or len(held) > ENTRIES_MAX:
        raise PeerFault("digest is not sorted or too long")
    if not all(_covers(theirs, node) for node in held):
        raise PeerFault("digest has entries outside its range")
    mine = {member.node: entry_of(member) for member in ledger if _covers(theirs, member.node)}
    push = [node for node, entry in mine.items() if node not in held or _has_more(entry, held[node])]
    pull = [node for node, entry in held.items() if node not in mine or _has_more(entry, mine[node])]
    my_version = ledger.charter.version if ledger.charter else 0
    charter = theirs.charter_version > my_version or (
        theirs.charter_version == my_version and theirs.charter != ledger.charter_digest[:PREFIX_BYTES]
    )
    wants = Want(nodes=tuple(pull[:WANT_MAX]), charter=charter) if pull or charter else None
    return push, wants


def facts_about(ledger: Ledger, nodes: Iterable[NodeId], *, charter: bool = False) -> Iterator[Facts]:
    """Yields all that is held of these members, in frames of bounded size; the charter's author comes
    first."""
    wanted = list(dict.fromkeys(nodes))
    if charter and ledger.charter:
        wanted = [ledger.charter.author, *(node for node in wanted if node != ledger.charter.author)]
    groups: list[tuple[list[Chain], list[bytes]]] = []
    for node in wanted:
        member = ledger.get(node)
        if member is not None:
            chains = [admission.chain for _, admission in sorted(member.admissions.items())]
            groups.append((chains, list(member.proof or filter(None, (member.envelope,)))))
    if charter and ledger.charter:
        groups.append(([], [ledger.charter_envelope]))
    return in_frames(groups)


def in_frames(groups: Iterable[tuple[Sequence[Chain], Sequence[bytes]]]) -> Iterator[Facts]:
    """Packs chains and records into frames, in order; what stands in one group shares a frame.

    A group is what one member has at most, a few leaves and two records, and fits a frame.
    """
    chains: list[Chain] = []
    records: list[bytes] = []
    size = 0
    for more_chains, more_records in groups:
        more = sum(len(one) + _HEAD_BYTES for chain in more_chains for one in (b"", *chain)) + sum(
            len(one) + _HEAD_BYTES for one in more_records
        )
        if size and size + more > FACTS_BYTES_MAX:
            yield Facts(chains=tuple(chains), records=tuple(records))
            chains, records, size = [], [], 0
        chains += more_chains
        records += more_records
        size += more
    if chains or records:
        yield Facts(chains=tuple(chains), records=tuple(records))


def _covers(digest: Digest, node: NodeId) -> bool:
    return digest.low <= node and (not digest.high or node < digest.high)


def _has_more(mine: Entry, theirs: Entry) -> bool:
    """Whether ``mine`` may hold news for ``theirs``. Equal precedence with other bytes goes both ways: that
    is the proof."""
    if (mine.incarnation, mine.sequence) > (theirs.incarnation, theirs.sequence):
        return True
    if (mine.incarnation, mine.sequence) == (theirs.incarnation, theirs.sequence):
        if mine.record and mine.record != theirs.record:
            return True
        if mine.proof and not theirs.proof:
            return True
    return bool(mine.leaf) and mine.leaf != theirs.leaf
