"""One small mesh, made of fixed seeds, that all tests of identity share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest

from meshpeer.core.identity.admission import issue_durable
from meshpeer.core.identity.certificates import (
    Authority,
    constraints_of,
    make_invite,
    make_issuer,
    make_provisional_leaf,
    make_root,
)
from meshpeer.core.identity.chains import verify_chain
from meshpeer.core.identity.constraints import INVITE_DEFAULT
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import MeshId

NOW = 1_800_000_000


@dataclass(frozen=True)
class World:
    now: int
    root: Authority
    issuer: Authority
    invite: Authority
    node: SigningKey
    provisional: tuple[bytes, ...]
    durable: tuple[bytes, ...]

    @property
    def mesh(self) -> MeshId:
        return constraints_of(self.root.certificate).mesh

    @property
    def roots(self) -> tuple[bytes, ...]:
        return (self.root.certificate,)


def make_world(name: str) -> World:
    def seed(part: str) -> bytes:
        return hashlib.sha256(f"{name} {part}".encode()).digest()

    root = make_root(seed("root"), now_unix_s=NOW, serial=seed("1")[:8])
    issuer = make_issuer(root, seed("issuer"), now_unix_s=NOW, serial=seed("2")[:8])
    invite = make_invite(
        issuer,
        seed("invite"),
        capabilities=INVITE_DEFAULT,
        roles=("compute", "storage"),
        region="eu-west",
        routes=("10.20.0.0/16",),
        uses=2,
        expires_s=86_400,
        now_unix_s=NOW,
        serial=seed("3")[:8],
    )
    node = SigningKey(seed("node"))
    provisional = (
        make_provisional_leaf(invite, node.public, now_unix_s=NOW, serial=seed("4")[:8]),
        invite.certificate,
        issuer.certificate,
    )
    mesh = constraints_of(root.certificate).mesh
    durable = issue_durable(
        issuer,
        verify_chain(provisional, (root.certificate,), mesh, NOW),
        now_unix_s=NOW + 60,
        serial=seed("5")[:8],
    )
    return World(NOW, root, issuer, invite, node, provisional, durable)


@pytest.fixture(scope="session")
def world() -> World:
    return make_world("first")


@pytest.fixture(scope="session")
def other_world() -> World:
    return make_world("second")
