"""What a person offers of signed roots and issuers: whether it counts here, before anybody is told."""

from __future__ import annotations

from collections.abc import Sequence

from meshpeer.core.errors import Refused
from meshpeer.core.identity.chains import kind_of, verify_issuer
from meshpeer.core.identity.constraints import Kind
from meshpeer.core.identity.profile import key_id
from meshpeer.core.records.authorities import ISSUERS_MAX
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.records.revocation import ROOT


def check_offered(ledger: Ledger, certificates: Sequence[bytes]) -> None:
    """Raises ``Refused`` where a certificate leads to no root of this mesh, or where an issuer would be none:
    its key was revoked, or the root that signed it is retired."""
    authorities = ledger.authorities.copy()
    refused = authorities.take(certificates, settled=ledger.retired).refused
    if refused:
        raise Refused(
            f"what was signed does not hold in this mesh: {refused[0]}",
            "is the root's key of this mesh, and was it signed for it? see `meshpeer root list`",
        )
    for one in certificates:
        if kind_of(one, ledger.mesh) is not Kind.ISSUER:
            continue
        public, place = verify_issuer(one, authorities.line, ledger.mesh)
        key, root = key_id(public), authorities.root_ids[place]
        ended = ledger.revocations.of_issuer(key, root)
        if ended is None:
            if ledger.authorities.of_key(public) is None and len(ledger.authorities.issuers) >= ISSUERS_MAX:
                raise Refused(
                    f"the mesh has {ISSUERS_MAX} issuers, and one more would take the place of another",
                    "let one of them do it: `meshpeer issuer list`",
                )
            continue
        if ended.record.what == ROOT:
            raise Refused(
                f"nobody takes what the root {root.hex()} signs: it is retired",
                "sign it with the key of the root that followed: see `meshpeer root list`",
            )
        raise Refused(
            f"the issuer's key {key.hex()} was revoked, and stays so whoever signs it",
            "make another member an issuer: `meshpeer issuer add NODE`",
        )
