"""From the wish to retire a root to what the root that followed it is to sign.

What stands on a retired root counts for nothing, revocations among it: those that are to stay are signed anew
by the follower, before the retirement itself. Pure, and without the key: bodies come out, signatures are made
elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from meshpeer.core.errors import LocalFault, Refused
from meshpeer.core.identity.certificates import public_key_of
from meshpeer.core.ids import NodeId
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import RevocationRecord
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.records.revocation import ROOT
from meshpeer.core.wire import cbor


@dataclass(frozen=True, slots=True, kw_only=True)
class RetirementPlan:
    """What is to be signed, in order."""

    root: bytes
    """The key id of the root that is retired."""
    to_sign: tuple[bytes, ...]
    """Bodies of records; the last one is the retirement."""
    kept: int
    """Revocations among them, which would count no more."""
    members: tuple[NodeId, ...]
    """Who stands on that root alone, and would be out, in id order."""


def plan_retirement(ledger: Ledger, root: str, author: NodeId, *, now_unix_s: int) -> RetirementPlan:
    """Returns what ``author``, the public key of a root, is to sign. ``root``: 16 digits, or empty for the
    one before it. Raises ``LocalFault`` or ``Refused``."""
    keys, ids = [public_key_of(one) for one in ledger.roots], ledger.authorities.root_ids
    if author not in keys:
        raise Refused("this is the key of no root of this mesh", "see `meshpeer root list`")
    place = keys.index(author)
    if place == 0:
        raise LocalFault(
            "nothing came before this root", "`meshpeer root rotate` makes the one that follows it"
        )
    wanted = root or ids[place - 1].hex()
    if wanted not in [one.hex() for one in ids[:place]]:
        raise LocalFault(
            f"{wanted} is no root that came before this one",
            "name one by its 16 digits: `meshpeer root list`",
        )
    subject = bytes.fromhex(wanted)
    if ledger.revocations.of(ROOT, subject) is not None:
        raise LocalFault(f"the root {wanted} is retired already", "see `meshpeer root list`")
    record = RevocationRecord(what=ROOT, subject=subject, author=author, issued_at=now_unix_s)
    voided = ledger.revocations.voided_by(ledger.revocations.read(unsigned(record), (), proven=False))
    anew = [msgspec.structs.replace(one.record, author=author, issued_at=now_unix_s) for one in voided]
    return RetirementPlan(
        root=subject,
        to_sign=tuple(cbor.encode(one) for one in (*anew, record)),
        kept=len(anew),
        members=tuple(
            one.node
            for one in ledger
            if ledger.is_in(one.node) and one.best is not None and one.best.identity.root == subject
        ),
    )


def unsigned(record: RevocationRecord) -> bytes:
    """Returns an envelope that nobody has signed yet."""
    return cbor.encode(envelope.Signed(cbor.encode(record), bytes(64)))
