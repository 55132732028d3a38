"""The issuer's work: provisional leaves that were heard of become durable ones, as far as their invites go,
and durable ones are renewed.

The provisional chain that travels as gossip is the request, and the durable chain that travels back is the
answer: no issuer needs to be reachable by the joiner, and any issuer may answer.

Whether this node is an issuer is not settled when it starts: it is one as soon as a root has signed a
certificate for the issuer's key that it keeps.
"""

from __future__ import annotations

from collections.abc import Callable

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.identity.admission import issue_durable, judge_admission
from meshpeer.core.identity.certificates import BACKDATED_S, SERIAL_BYTES, Authority, constraints_of
from meshpeer.core.identity.chains import VerifiedIdentity
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.identity.renewal import can_renew, renewal_at, turn_of
from meshpeer.core.ids import NodeId
from meshpeer.core.records.authorities import Issuer
from meshpeer.core.records.ledger import Chain, Ledger

LOOK_S = 3_600.0
"""Between two looks for what is to be renewed: clocks are set, and members come back."""
FIRST_LOOK_S = 5.0
"""After a start: another issuer may have renewed meanwhile, and this node has to hear of that first."""
BATCH_MAX = 16
BATCH_PAUSE_S = 1.0
"""So many are renewed at once, and the next ones after a pause: each is a fact that goes to everybody."""
NAMED_TURN_S = 60
"""How long each issuer has to say in the leaf of a new one that it is one."""


class Issuing:
    """Holds the issuer's key of this node, where it has one. Sans-IO."""

    def __init__(self, seed: bytes, ledger: Ledger, entropy: Callable[[int], bytes], now: Instant) -> None:
        """``seed``: empty for a node that keeps no issuer's key."""
        self.seed = b""
        self._public = b""
        self._ledger = ledger
        self._entropy = entropy
        self._look_at_s = now.mono_s + FIRST_LOOK_S
        if seed:
            self.keep(seed)

    def keep(self, seed: bytes) -> None:
        """Takes the issuer's key that this node keeps from now on."""
        self.seed, self._public = seed, SigningKey(seed).public

    @property
    def authority(self) -> Authority | None:
        """Returns what this node signs with; None where no root signed its key, or one that is retired, or it
        was revoked."""
        if not self.seed:
            return None
        issuer = self._ledger.authorities.of_key(self._public)
        if issuer is None or not self._stands(issuer):
            return None
        return Authority(self.seed, issuer.certificate)

    @property
    def issuers(self) -> list[Issuer]:
        """Returns the mesh's issuers that were not revoked and whose root is not retired, in order of their
        keys."""
        return [one for one in self._ledger.authorities.issuers if self._stands(one)]

    def _stands(self, issuer: Issuer) -> bool:
        root = self._ledger.authorities.root_ids[issuer.place]
        return self._ledger.revocations.of_issuer(issuer.id, root) is None

    # --- admitting ------------------------------------------------------------------------------------------

    def judge(self, node: NodeId, now: Instant) -> Chain | None:
        """Returns the durable chain to spread for a node that has a place on its invite.

        One node at a time: what is issued must be in the ledger before the next use is counted. With the last
        place the ledger drops whoever waited in vain.
        """
        authority = self.authority
        member = self._ledger.get(node) if authority else None
        best = member.best if member else None
        if best is None or best.identity.durable or member is None or member.record is None:
            return None
        if best.leaf != member.record.certificate:
            # Whoever holds the invite's key can sign a leaf for this node; only its record says which it
            # shows.
            return None
        durable = [one.best.identity for one in self._ledger if one.best and one.best.identity.durable]
        if authority is None or judge_admission(best.identity, durable) is not None:
            return None
        return self._sign(authority, best.identity, now)

    # --- renewing -------------------------------------------------------------------------------------------

    def look_soon(self, now: Instant) -> None:
        """Somebody is an issuer now who was none before."""
        self._look_at_s = min(self._look_at_s, now.mono_s)

    def tick(self, now: Instant) -> list[Chain]:
        """Returns the chains to spread for those whose turn it is, as long as a look is due."""
        authority = self.authority
        if authority is None or now.mono_s < self._look_at_s:
            return []
        self._look_at_s = now.mono_s + LOOK_S
        due: list[VerifiedIdentity] = []
        ids = [one.id for one in self.issuers]
        for node in self._ledger.ids:
            member = self._ledger.get(node)
            if member is None or member.durable is None:
                continue
            held = member.durable.identity
            at = self._due_at(authority, held, ids)
            if at > now.unix_s:
                self._look_at_s = min(self._look_at_s, now.mono_s + (at - now.unix_s))
            elif can_renew(authority, held, int(now.unix_s)) or self._is_unnamed(authority, held, now):
                due.append(held)
        if len(due) > BATCH_MAX:
            self._look_at_s = now.mono_s + BATCH_PAUSE_S
        return [self._sign(authority, held, now) for held in due[:BATCH_MAX]]

    def next_deadline(self) -> Deadline | None:
        if self.authority is None:
            # No look is made then, so none would move the deadline on.
            return None
        return Deadline(self._look_at_s, "look whose certificate is to be renewed")

    def _due_at(self, authority: Authority, held: VerifiedIdentity, ids: list[bytes]) -> int:
        """``ids``: of all issuers that take turns."""
        issuer = self._ledger.authorities.held_by(held.node)
        if issuer is not None and Capability.ISSUER not in held.capabilities:
            turn = turn_of(held.node, authority.id, ids)
            return max(issuer.begins_at, held.signed_from) + BACKDATED_S + 1 + turn * NAMED_TURN_S
        return renewal_at(held, authority.id, ids)

    def _is_unnamed(self, authority: Authority, held: VerifiedIdentity, now: Instant) -> bool:
        """Says whether a node is an issuer by the root's word, not by its leaf, and this one may say so."""
        hands_on = constraints_of(authority.certificate).capabilities
        return (
            Capability.ISSUER not in held.capabilities
            and self._ledger.authorities.held_by(held.node) is not None
            and {*held.capabilities, Capability.ISSUER} <= set(hands_on)
            and now.unix_s > held.signed_from + BACKDATED_S
        )

    def _sign(self, authority: Authority, identity: VerifiedIdentity, now: Instant) -> Chain:
        return issue_durable(
            authority,
            identity,
            now_unix_s=int(now.unix_s),
            serial=self._entropy(SERIAL_BYTES),
            holder=self._ledger.authorities.held_by(identity.node) is not None,
        )
