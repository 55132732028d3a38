"""The keys and certificates of a virtual mesh, drawn from the world's own dice."""

from __future__ import annotations

from collections.abc import Callable

from meshpeer.core.identity.certificates import (
    SERIAL_BYTES,
    Authority,
    make_durable_leaf,
    make_invite,
    make_issuer,
    make_provisional_leaf,
    make_root,
    mesh_id_of,
    public_key_of,
)
from meshpeer.core.identity.constraints import ALL, INVITE_DEFAULT
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.records.ledger import Chain

DEFAULT_USES = 20_000
"""Of the invite that all hosts of a world join with."""
DAYS_S = 86_400


class Office:
    """Holds the root and the issuer of a mesh, and signs for hosts."""

    def __init__(self, entropy: Callable[[int], bytes], *, founded_unix_s: int) -> None:
        self._bytes = entropy
        self.root = make_root(entropy(32), now_unix_s=founded_unix_s, serial=entropy(SERIAL_BYTES))
        self.issuer = make_issuer(
            self.root, entropy(32), now_unix_s=founded_unix_s, serial=entropy(SERIAL_BYTES)
        )
        self.mesh = mesh_id_of(public_key_of(self.root.certificate))

    def invite(
        self, *, uses: int, expires_s: int, now_unix_s: int, routes: tuple[str, ...] = ()
    ) -> Authority:
        return make_invite(
            self.issuer,
            self._bytes(32),
            capabilities=INVITE_DEFAULT,
            roles=("compute",),
            region="",
            routes=routes,
            uses=uses,
            expires_s=expires_s,
            now_unix_s=now_unix_s,
            serial=self._bytes(SERIAL_BYTES),
        )

    def durable(self, key: SigningKey, *, founder: bool, now_unix_s: int) -> Chain:
        """Returns the chain of a host that an issuer has admitted."""
        leaf = make_durable_leaf(
            self.issuer,
            key.public,
            capabilities=ALL if founder else INVITE_DEFAULT,
            roles=() if founder else ("compute",),
            admitted_at=now_unix_s,
            now_unix_s=now_unix_s,
            serial=self._bytes(SERIAL_BYTES),
        )
        return (leaf, self.issuer.certificate)

    def provisional(self, key: SigningKey, invite: Authority, *, now_unix_s: int) -> Chain:
        """Returns the chain that a host shows as it joins."""
        leaf = make_provisional_leaf(
            invite, key.public, now_unix_s=now_unix_s, serial=self._bytes(SERIAL_BYTES)
        )
        return (leaf, invite.certificate, self.issuer.certificate)
