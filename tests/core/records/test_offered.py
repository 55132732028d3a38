"""What a person offers of signed certificates, and is told where it would count for nothing."""

from __future__ import annotations

import pytest
from revocation_cases import ISSUER, MESH, NOW, PLAIN, ROOT, ROOT_KEY, SERIAL, signed

from meshpeer.core.errors import Refused
from meshpeer.core.identity.certificates import Authority, certify_issuer, make_root, public_key_of
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.records.authorities import ISSUERS_MAX
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.records.offered import check_offered

SECOND = make_root(b"2" * 32, now_unix_s=NOW, serial=SERIAL, above=ROOT)


def test_an_issuer_that_a_retired_root_signs_is_refused_and_one_of_its_follower_is_not() -> None:
    ledger = Ledger(MESH, (ROOT.certificate,))
    check_offered(ledger, (SECOND.certificate, issuer_by(ROOT)))
    ledger.authorize([SECOND.certificate], NOW)
    ledger.revoke(ledger.revocations.read(signed(SigningKey(SECOND.seed), "root", ROOT.id), ()))
    with pytest.raises(Refused, match="it is retired"):
        check_offered(ledger, (issuer_by(ROOT),))
    check_offered(ledger, (SECOND.certificate, issuer_by(SECOND)))
    assert ledger.authorities.issuers == [], "it changes nothing"


def test_a_revoked_issuers_key_is_refused_although_it_is_known() -> None:
    ledger = Ledger(MESH, (ROOT.certificate,))
    ledger.authorize([ISSUER.certificate], NOW)
    ledger.revoke(ledger.revocations.read(signed(ROOT_KEY, "issuer", ISSUER.id), ()))
    again = certify_issuer(
        ROOT, public_key_of(ISSUER.certificate), holder=b"", now_unix_s=NOW + 9, serial=SERIAL
    )
    for one in (ISSUER.certificate, again):
        with pytest.raises(Refused, match="was revoked"):
            check_offered(ledger, (one,))


def test_an_issuer_beyond_the_most_is_refused_whomever_it_would_push_out() -> None:
    ledger = Ledger(MESH, (ROOT.certificate,))
    keys = sorted(SigningKey(bytes([number]) * 32).public for number in range(ISSUERS_MAX + 1))
    made = [certify_issuer(ROOT, one, holder=one, now_unix_s=NOW, serial=SERIAL) for one in keys]
    ledger.authorize(made[1:], NOW)
    with pytest.raises(Refused, match="take the place of another"):
        check_offered(ledger, made[:1])
    check_offered(ledger, made[1:2])


def test_what_no_root_of_this_mesh_signed_is_refused() -> None:
    stranger = make_root(b"s" * 32, now_unix_s=NOW, serial=SERIAL)
    with pytest.raises(Refused, match="does not hold in this mesh"):
        check_offered(Ledger(MESH, (ROOT.certificate,)), (issuer_by(stranger),))


def issuer_by(root: Authority) -> bytes:
    return certify_issuer(root, PLAIN.public, holder=PLAIN.public, now_unix_s=NOW, serial=SERIAL)
