"""Packs what a ledger holds into frames of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from meshpeer.core.antientropy.messages import Facts
from meshpeer.core.ids import NodeId
from meshpeer.core.records.kinds import MemberRecord, Record
from meshpeer.core.records.ledger import CHARTER_ID, Chain, Ledger, Member

FACTS_BYTES_MAX = 48 * 1024
_HEAD_BYTES = 3
"""The CBOR head of a byte string or array of up to 64 KiB."""

Group = tuple[Sequence[Chain], Sequence[bytes]]


def facts_about(ledger: Ledger, nodes: Iterable[NodeId], *, push: bool = False) -> Iterator[Facts]:
    """Yields all that is held of these members, in frames of bounded size; the charter's author comes
    before it."""
    wanted = list(dict.fromkeys(nodes))
    groups: list[Group] = []
    if CHARTER_ID in wanted and ledger.charter:
        author = ledger.get(ledger.charter.author)
        groups += [group_of(author)] if author else []
        groups.append(((), (ledger.charter_envelope,)))
    for node in wanted:
        member = ledger.get(node)
        if member is not None:
            groups.append(group_of(member))
    return in_frames(groups, push=push)


def group_of(member: Member) -> Group:
    """Returns what one member's facts are: chains, own records, what others say of it."""
    chains = [admission.chain for _, admission in sorted(member.admissions.items())]
    records = member.proof or tuple(filter(None, (member.envelope,)))
    return chains, (*records, *(one.envelope for one in member.suspicions))


def chains_behind(ledger: Ledger, record: Record, before: Member | None) -> list[Chain]:
    """Returns the chains that a member's record stands on, for whoever hears of it for the first time; none
    where the record before it stood on the same."""
    if not isinstance(record, MemberRecord):
        return []
    if before is not None and before.record and before.record.certificate == record.certificate:
        return []
    member = ledger.get(record.node)
    if member is None or member.best is None:
        return []
    return list(dict.fromkeys(filter(None, (member.best.chain, ledger.chain_of(record)))))


def in_frames(groups: Iterable[Group], *, push: bool) -> Iterator[Facts]:
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
            yield Facts(chains=tuple(chains), records=tuple(records), push=push)
            chains, records, size = [], [], 0
        chains += more_chains
        records += more_records
        size += more
    if chains or records:
        yield Facts(chains=tuple(chains), records=tuple(records), push=push)
