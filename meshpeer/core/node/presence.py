"""What this node shows of itself: its chain, its name and endpoints, the address it claims, and the record
that says so."""

from __future__ import annotations

import ipaddress

from meshpeer.core.addressing.claims import choose_ipv4
from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.errors import LocalFault
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import Digest
from meshpeer.core.node.config import NodeConfig
from meshpeer.core.node.own import OwnRecord, Profile
from meshpeer.core.node.roster import Roster
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import NOTHING_SEEN, MemberRecord
from meshpeer.core.records.ledger import Chain, Ledger
from meshpeer.core.records.revocation import Revocation

AWAY_MAX_S = 7 * 86_400
"""How long a record lasts before a charter says so."""


class Presence:
    """Keeps this node's own record in step with what holds for it."""

    def __init__(self, config: NodeConfig, ledger: Ledger, now: Instant) -> None:
        held = ledger.get(config.key.public)
        self._config = config
        self._ledger = ledger
        self.stored = held.current if held else None
        """What this node published last in an earlier run."""
        self._own = OwnRecord(config.key, ledger.mesh, stored=self.stored, now=now)
        self._previous_ipv4 = self.stored.ipv4 if self.stored else ""
        self._profile: Profile | None = None
        self.name = config.name
        self.hub = config.hub
        self.mode = ""
        """Which way this node derives the mesh, for those that have to agree with it."""
        self.warm = False
        """This node has the tunnels of a hub."""
        self.reflected: tuple[str, ...] = ()
        self.router = ""
        """Where others see this node, and what they make of its router."""
        self.routes: tuple[str, ...] = ()
        """LANs that it advertises."""
        self.seen = NOTHING_SEEN
        """What this node has seen of hubs and regions."""
        self.relay = False
        """It lends ports to pairs."""
        self.wireguard_key = config.wireguard_key.public
        self.next_wireguard_key = b""
        """The one that it is about to change to; empty for none."""
        self.control: tuple[str, ...] = ()
        self.wireguard: tuple[str, ...] = ()
        self.chain: Chain = config.chain
        self.has_left = False
        self.revoked: Revocation | None = None
        """What shut this node out; it publishes nothing then."""

    @property
    def is_silent(self) -> bool:
        """Says whether this node has nothing to say of itself any more."""
        return self.has_left or self.revoked is not None

    def adopt_chain(self) -> Chain | None:
        """Shows the best certificate that the mesh holds for this node; returns it where that is a new
        one."""
        member = self._ledger.get(self._config.key.public)
        best = member.best if member else None
        if best is None or best.chain == self.chain:
            return None
        self.chain = best.chain
        return self.chain

    def update(self, roster: Roster | None, now: Instant) -> bytes | None:
        """Returns a new signed record where one is due. ``roster``: None for a node without an interface."""
        if self._ledger.charter is None or self.is_silent:
            return None
        self._profile = self._profile_now(self._claim(roster, now) if roster else "")
        if not self._own.due(self._profile, now):
            return None
        return self._own.publish(self._profile, ttl_s=self._ttl_s(), now=now)

    def refute(self) -> None:
        """Somebody suspects this node: its next record, due at once, makes that void."""
        self._own.refute()

    def leave(self, now: Instant) -> bytes:
        """Returns the signed tombstone; nothing is published after it."""
        self.has_left = True
        return self._own.leave(ipv4=self._claimed, ttl_s=self._ttl_s(), now=now)

    def overtake(self) -> None:
        """Passes what others hold of this very node and it did not say: a restored backup, a clone."""
        held = self._ledger.get(self._config.key.public)
        if held and held.current:
            self._own.overtake(held.current, contradicted=held.proof is not None)

    @property
    def record(self) -> MemberRecord | None:
        """What this node published last in this run."""
        return self._own.record

    def resume(self, record: MemberRecord, *, published_at_s: float) -> None:
        """Takes a record that all hold of this node for what it published last: for a simulated node that was
        up for days."""
        self._profile = self._profile_now("")
        self._own.resume(record, self._profile, published_at_s)

    def next_deadline(self) -> Deadline | None:
        return self._own.next_deadline(self._profile) if self._profile and not self.is_silent else None

    # --- rules ----------------------------------------------------------------------------------------------

    @property
    def _claimed(self) -> str:
        """The address that this node claimed last, in this run or before it."""
        return self._own.record.ipv4 if self._own.record else self._previous_ipv4

    def _profile_now(self, ipv4: str) -> Profile:
        config = self._config
        return Profile(
            name=self.name,
            region=config.region,
            roles=config.roles,
            wireguard_key=self.wireguard_key,
            wireguard_port=config.wireguard_port,
            control_endpoints=self.control,
            wireguard_endpoints=self.wireguard if config.wireguard_port else (),
            ipv4=ipv4,
            certificate=Digest(envelope.digest_of(self.chain[0])),
            hub=self.hub if self._may(Capability.HUB) else "never",
            configured_endpoint=config.configured_endpoint,
            mode=self.mode,
            warm=self.warm,
            reflected_endpoints=self.reflected if config.wireguard_port else (),
            router=self.router,
            routes=self.routes if config.wireguard_port else (),
            seen=self.seen,
            relay=self.relay,
            next_wireguard_key=self.next_wireguard_key,
        )

    def _may(self, capability: Capability) -> bool:
        """Says whether this node may claim to be something; what no certificate denies it yet, it may."""
        member = self._ledger.get(self._config.key.public)
        best = member.best if member else None
        return best is None or capability in best.identity.capabilities

    def _claim(self, roster: Roster, now: Instant) -> str:
        """Keeps the address that this node holds; claims the lowest free one where it has none or lost it."""
        me, charter = self._config.key.public, self._ledger.charter
        if not self._config.wireguard_port or charter is None:
            return ""
        taken = {address: node for address, node in roster.taken.items() if node != me}
        resting = roster.resting(me, now.unix_s)
        subnet = ipaddress.IPv4Network(charter.subnet)
        try:
            return choose_ipv4(subnet, self._config.roles, taken, self._claimed, roster.ahead_of(me), resting)
        except LocalFault:
            return ""

    def _ttl_s(self) -> int:
        return self._ledger.charter.away_max_s if self._ledger.charter else AWAY_MAX_S
