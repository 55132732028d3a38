"""The journal's rows of the ledger: how facts rest, and how they are read back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from meshpeer.core.effects import Change, Delete, Put, Table
from meshpeer.core.ids import NodeId, key_text
from meshpeer.core.records.ledger import Chain, Ledger, Member
from meshpeer.core.records.revocation import Revocation
from meshpeer.core.wire import cbor

CHARTER_KEY = "charter"
REVOCATION_PREFIX = "revocation/"
SIGNER_PREFIX = "signer/"
CHAINS_BYTES_MAX = 64 * 1024


def rows_of(ledger: Ledger) -> list[Change]:
    """Returns the journal rows of all that a ledger holds, as ``Gossip.restore`` reads them."""
    rows: list[Change] = [row_of_signer(one) for one in ledger.authorities]
    rows += [row_of_revocation(one) for one in ledger.revocations]
    for member in ledger:
        if member.admissions:
            rows.append(row_of_chains_of(member))
        if member.envelope:
            rows.append(row_of_record(member))
    if ledger.charter_envelope:
        rows.append(row_of_charter(ledger.charter_envelope))
    return rows


def row_of_chains(node: NodeId, chains: Iterable[Chain]) -> Put:
    """Returns the row of a node's certificate chains; ``unpack_chains`` reads it."""
    return Put(table=Table.CERTIFICATES, key=key_text(node), value=cbor.encode(list(chains)))


def row_of_chains_of(member: Member) -> Put:
    return row_of_chains(member.node, (member.admissions[leaf].chain for leaf in sorted(member.admissions)))


def row_of_record(member: Member) -> Put:
    return Put(table=Table.RECORDS, key=key_text(member.node), value=member.envelope)


def rows_gone(node: NodeId) -> list[Delete]:
    return [Delete(table=table, key=key_text(node)) for table in (Table.CERTIFICATES, Table.RECORDS)]


def rows_of_member(member: Member) -> list[Change]:
    """Returns the rows of a member that lost some of its facts, and takes back the row of a record that
    went."""
    record: Change = (
        row_of_record(member) if member.envelope else Delete(table=Table.RECORDS, key=key_text(member.node))
    )
    return [row_of_chains_of(member), record]


def row_of_revocation(one: Revocation) -> Put:
    value = cbor.encode([one.envelope, list(one.chain)])
    return Put(table=Table.META, key=_revocation_key(one), value=value)


def row_of_revocation_gone(one: Revocation) -> Delete:
    return Delete(table=Table.META, key=_revocation_key(one))


def unpack_revocation(packed: bytes) -> tuple[bytes, Chain]:
    """Reads a row of a revocation: its envelope, and its author's chain."""
    return cbor.decode(packed, tuple[bytes, tuple[bytes, ...]], bytes_max=CHAINS_BYTES_MAX)


def row_of_signer(certificate: bytes) -> Put:
    """Returns the row of a root that followed another, or of an issuer."""
    return Put(table=Table.META, key=_signer_key(certificate), value=certificate)


def row_of_signer_gone(certificate: bytes) -> Delete:
    return Delete(table=Table.META, key=_signer_key(certificate))


def _signer_key(certificate: bytes) -> str:
    return SIGNER_PREFIX + key_text(hashlib.sha256(certificate).digest())


def _revocation_key(one: Revocation) -> str:
    return REVOCATION_PREFIX + key_text(one.digest)


def row_of_charter(envelope: bytes) -> Put:
    return Put(table=Table.META, key=CHARTER_KEY, value=envelope)


def unpack_chains(packed: bytes) -> list[Chain]:
    """Reads a row of the table of certificates."""
    return list(cbor.decode(packed, tuple[tuple[bytes, ...], ...], bytes_max=CHAINS_BYTES_MAX))
