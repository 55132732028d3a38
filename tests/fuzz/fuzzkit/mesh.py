"""A small mesh of fixed seeds, and what its members sign: what targets are asked to believe."""

from __future__ import annotations

import hashlib

from meshpeer.core.identity.certificates import (
    make_durable_leaf,
    make_invite,
    make_issuer,
    make_provisional_leaf,
    make_root,
    mesh_id_of,
    public_key_of,
)
from meshpeer.core.identity.constraints import ALL, INVITE_DEFAULT
from meshpeer.core.identity.keys import SigningKey, WireGuardPrivateKey
from meshpeer.core.ids import Digest, MeshId
from meshpeer.core.records.judge import Judge
from meshpeer.core.records.kinds import (
    CharterRecord,
    HubReport,
    LeaveRecord,
    MemberRecord,
    RegionDistance,
    RevocationRecord,
    SuspectRecord,
)
from meshpeer.core.records.ledger import Chain, Ledger

NOW = 1_800_000_000
_SERIAL = bytes(range(1, 9))
ROOT = make_root(b"r" * 32, now_unix_s=NOW - 86_400, serial=_SERIAL)
ISSUER = make_issuer(ROOT, b"i" * 32, now_unix_s=NOW - 86_400, serial=_SERIAL)
INVITE = make_invite(
    ISSUER,
    b"v" * 32,
    capabilities=INVITE_DEFAULT,
    roles=("compute", "storage"),
    region="eu-west",
    routes=("10.20.0.0/16",),
    uses=9,
    expires_s=86_400,
    now_unix_s=NOW,
    serial=_SERIAL,
)
MESH: MeshId = mesh_id_of(public_key_of(ROOT.certificate))
ADMIN, OTHER, GUEST = SigningKey(b"a" * 32), SigningKey(b"b" * 32), SigningKey(b"g" * 32)
JUDGE = Judge()
"""Remembers whose chains it has judged, as an agent's does."""
WIREGUARD = WireGuardPrivateKey(b"w" * 32)


def durable(key: SigningKey) -> Chain:
    leaf = make_durable_leaf(
        ISSUER, key.public, capabilities=ALL, admitted_at=NOW, now_unix_s=NOW, serial=_SERIAL
    )
    return (leaf, ISSUER.certificate)


def provisional(key: SigningKey) -> Chain:
    leaf = make_provisional_leaf(INVITE, key.public, now_unix_s=NOW, serial=_SERIAL)
    return (leaf, INVITE.certificate, ISSUER.certificate)


ADMIN_CHAIN, OTHER_CHAIN, GUEST_CHAIN = durable(ADMIN), durable(OTHER), provisional(GUEST)


def ledger() -> Ledger:
    """Returns what knows who the members are, and nothing that they said."""
    made = Ledger(MESH, (ROOT.certificate,), JUDGE)
    for chain in (ADMIN_CHAIN, OTHER_CHAIN, GUEST_CHAIN):
        made.admit(chain, NOW)
    return made


MEMBER = MemberRecord(
    node=ADMIN.public,
    incarnation=NOW,
    sequence=3,
    issued_at=NOW,
    ttl_s=86_400,
    name="alpha",
    region="eu-west",
    roles=("compute", "storage"),
    wireguard_key=WIREGUARD.public,
    wireguard_port=51_820,
    control_endpoints=("192.0.2.1:51821", "[2001:db8::1]:51821"),
    wireguard_endpoints=("192.0.2.1:51820",),
    ipv4="10.10.0.1",
    certificate=Digest(hashlib.sha256(ADMIN_CHAIN[0]).digest()),
    hub="prefer",
    configured_endpoint=True,
    mode="regional",
    reflected_endpoints=("203.0.113.4:40000",),
    router="steady",
    warm=True,
    routes=("10.20.0.0/16",),
    hubs_failed=(HubReport(OTHER.public, NOW, "tunnel"),),
    answers=3,
    distances=(RegionDistance("us-east", 6),),
    relay=True,
)
LEAVE = LeaveRecord(
    node=ADMIN.public,
    incarnation=NOW,
    sequence=9,
    issued_at=NOW,
    ttl_s=86_400,
    name="alpha",
    ipv4="10.10.0.1",
)
CHARTER = CharterRecord(
    version=2,
    issued_at=NOW,
    author=ADMIN.public,
    mesh_name="studio",
    subnet="10.10.0.0/24",
    topology="regional",
)
SUSPECT = SuspectRecord(
    observer=ADMIN.public, subject=OTHER.public, incarnation=NOW, sequence=3, issued_at=NOW, closed=True
)
REVOCATION = RevocationRecord(
    what="node",
    subject=GUEST.public,
    author=ADMIN.public,
    issued_at=NOW,
    reason="the laptop was stolen",
    name="gamma",
)
INVITE_REVOKED = RevocationRecord(
    what="invite", subject=INVITE.id, author=ADMIN.public, issued_at=NOW, since=NOW - 60
)
