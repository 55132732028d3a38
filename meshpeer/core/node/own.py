"""What this node says of itself: its member record, raised and signed on every change.

The first record of a run has incarnation max(stored + 1, Unix seconds), so a node whose clock fell back still
moves on. A
new record waits for the journal before anyone hears of it: a crash must not lead to two bodies of one
precedence.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import Digest, MeshId, WireGuardKey
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import NOTHING_SEEN, LeaveRecord, MemberRecord, Seen
from meshpeer.core.wire.limits import RECORD_BYTES_MAX

REPUBLISH_S = 86_400.0
CHANGE_PAUSE_S = 1.0
"""Pause between two changes of one's own record (others allow one a second, with bursts)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What the record says besides its counters; equal profiles need no new record."""

    name: str
    region: str
    roles: tuple[str, ...]
    wireguard_key: WireGuardKey
    wireguard_port: int
    control_endpoints: tuple[str, ...]
    wireguard_endpoints: tuple[str, ...]
    ipv4: str
    certificate: Digest
    hub: str
    configured_endpoint: bool
    mode: str = ""
    warm: bool = False
    reflected_endpoints: tuple[str, ...] = ()
    router: str = ""
    routes: tuple[str, ...] = ()
    seen: Seen = NOTHING_SEEN
    relay: bool = False
    next_wireguard_key: bytes = b""


class OwnRecord:
    """Keeps this node's record in step with its profile."""

    def __init__(
        self, key: SigningKey, mesh: MeshId, *, stored: MemberRecord | LeaveRecord | None, now: Instant
    ) -> None:
        self._key = key
        self._mesh = mesh
        self._incarnation = max((stored.incarnation + 1) if stored else 0, int(now.unix_s))
        self._sequence = 0
        self._published: Profile | None = None
        self._published_at_s = float("-inf")
        self._ahead_of = (stored.incarnation, stored.sequence) if stored else (0, 0)
        self._refuting = False
        self.record: MemberRecord | None = None

    def due(self, profile: Profile, now: Instant) -> bool:
        """Says whether a new record is due: the profile changed (at most once a second), or a day went by."""
        if self._published is None:
            return True
        since = now.mono_s - self._published_at_s
        changed = self._refuting or profile != self._published
        return since >= REPUBLISH_S or (changed and since >= CHANGE_PAUSE_S)

    def next_deadline(self, profile: Profile) -> Deadline:
        changed = self._refuting or self._published != profile
        return Deadline(
            self._published_at_s + (CHANGE_PAUSE_S if changed else REPUBLISH_S), "publish this node's record"
        )

    def publish(self, profile: Profile, *, ttl_s: int, now: Instant) -> bytes:
        """Returns the signed record of the profile, with raised counters."""
        self._sequence += 1
        record = MemberRecord(
            node=self._key.public,
            incarnation=self._incarnation,
            sequence=self._sequence,
            issued_at=int(now.unix_s),
            ttl_s=ttl_s,
            name=profile.name,
            region=profile.region,
            roles=profile.roles,
            wireguard_key=profile.wireguard_key,
            wireguard_port=profile.wireguard_port,
            control_endpoints=profile.control_endpoints,
            wireguard_endpoints=profile.wireguard_endpoints,
            ipv4=profile.ipv4,
            certificate=profile.certificate,
            hub=profile.hub,
            configured_endpoint=profile.configured_endpoint,
            mode=profile.mode,
            warm=profile.warm,
            reflected_endpoints=profile.reflected_endpoints,
            router=profile.router,
            routes=profile.routes,
            hubs_failed=profile.seen.hubs_failed,
            answers=profile.seen.answers,
            distances=profile.seen.distances,
            relay=profile.relay,
            next_wireguard_key=profile.next_wireguard_key,
        )
        if (record.incarnation, record.sequence) <= self._ahead_of:
            raise InvariantBroken(
                f"own record {record.incarnation}.{record.sequence} does not pass {self._ahead_of}"
            )
        signed = envelope.sign(self._key, self._mesh, record)
        while len(signed) > RECORD_BYTES_MAX and (less := _with_less(record)) is not None:
            record = less
            signed = envelope.sign(self._key, self._mesh, record)
        self._published, self._published_at_s, self.record = profile, now.mono_s, record
        self._refuting = False
        return signed

    def resume(self, record: MemberRecord, profile: Profile, published_at_s: float) -> None:
        """Goes on from a record of this very run."""
        self._incarnation, self._sequence = record.incarnation, record.sequence
        self._published, self._published_at_s, self.record = profile, published_at_s, record

    def refute(self) -> None:
        """Makes a new record due although nothing changed: whatever was said of the one before is void then
        (SWIM, section 4.2: only the member itself raises its incarnation)."""
        self._refuting = True

    def overtake(self, seen: MemberRecord | LeaveRecord, *, contradicted: bool) -> None:
        """Passes a record of this very node that others hold and this one does not: a restored backup, a
        clone. Where both have one precedence, others hold it against this node until it says something
        newer."""
        mine = (self._incarnation, self._sequence)
        if (seen.incarnation, seen.sequence) > mine or contradicted:
            self._incarnation = seen.incarnation + 1
            self._sequence = 0
            self._published = None

    def leave(self, *, ipv4: str, ttl_s: int, now: Instant) -> bytes:
        """Returns the signed tombstone, with the address that is given back."""
        record = LeaveRecord(
            node=self._key.public,
            incarnation=self._incarnation,
            sequence=self._sequence + 1,
            issued_at=int(now.unix_s),
            ttl_s=ttl_s,
            name=self.record.name if self.record else "",
            ipv4=ipv4,
        )
        return envelope.sign(self._key, self._mesh, record)


def _with_less(record: MemberRecord) -> MemberRecord | None:
    """Returns a shorter record; None where nothing can be spared.

    What a node is comes before what it saw. Long names and many routes leave room for fewer endpoints, of
    which the best come first."""
    if record.distances:
        return msgspec.structs.replace(record, distances=())
    if record.hubs_failed:
        return msgspec.structs.replace(record, hubs_failed=())
    if record.reflected_endpoints:
        return msgspec.structs.replace(record, reflected_endpoints=())
    control, wireguard = record.control_endpoints, record.wireguard_endpoints
    if max(len(control), len(wireguard)) < 2:
        return None
    if len(control) >= len(wireguard):
        return msgspec.structs.replace(record, control_endpoints=control[:-1])
    return msgspec.structs.replace(record, wireguard_endpoints=wireguard[:-1])
