"""Places: how many nodes stand on each invite, and who wanted to beyond its uses.

An invite's key can certify any number of keys. Issuers give its places to whom they admit first; until they
have judged, so many as it has uses, and a few more, are let in provisionally. Once all places are given away
nobody else stands on it, on any node: ledgers that held different ones of too many become equal again.

Several issuers may give the last place away at once, to a node each. Whoever hears of both sees it: leaves
name their invite, its uses and when their node was admitted. The earliest keep their places, the rest are
refused, by everybody alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.chains import VerifiedIdentity
from meshpeer.core.identity.constraints import UNIX_S_MAX
from meshpeer.core.ids import NodeId
from meshpeer.core.records.member import Member

PROVISIONAL_SPARE = 8
"""So many beyond an invite's uses are let in until an issuer has judged: nodes hear of them in any order."""
INVITES_REMEMBERED = 1_024
EXCESS_INVITES_MAX = 16
EXCESS_NODES_MAX = 16
"""Of each invite, so many nodes that came too late are remembered by name."""


class Places:
    """Counts of one ledger, kept in step by it."""

    def __init__(self) -> None:
        self._provisional: dict[bytes, int] = {}
        """By invite: members that no issuer has admitted yet."""
        self._durable: dict[bytes, dict[NodeId, int]] = {}
        """By invite: whom issuers have admitted, and when."""
        self._firsts: dict[bytes, VerifiedIdentity] = {}
        """By an invite's certificate: who wanted to stand on it first. What it allows can be read of that."""
        self.excess: dict[bytes, dict[NodeId, None]] = {}
        """By invite: nodes that came too late."""

    def copy(self) -> Places:
        """Returns counts that go their own way from here."""
        made = Places()
        made._provisional = dict(self._provisional)
        made._durable = {invite: dict(nodes) for invite, nodes in self._durable.items()}
        made._firsts = dict(self._firsts)
        made.excess = {invite: dict(nodes) for invite, nodes in self.excess.items()}
        return made

    def count(self, member: Member | None, by: int) -> None:
        best = member.best if member else None
        if best is None or not best.identity.invite:
            return
        invite = best.identity.invite
        if best.identity.durable:
            nodes = self._durable.setdefault(invite, {})
            if by > 0:
                nodes[best.identity.node] = best.identity.admitted_at
            else:
                nodes.pop(best.identity.node, None)
            if not nodes:
                del self._durable[invite]
            return
        self._provisional[invite] = self._provisional.get(invite, 0) + by
        if not self._provisional[invite]:
            del self._provisional[invite]

    def take(
        self,
        chain: Sequence[bytes],
        identity: VerifiedIdentity,
        held: Member | None,
        holders: Callable[[bytes], str],
    ) -> None:
        """Raises ``PeerFault`` where an identity finds no place on its invite; ``holders`` names those who
        have one."""
        if identity.durable:
            if identity.node in self.late(identity):
                self.note_excess(identity)
                raise PeerFault(_spent(identity, holders))
            return
        if len(self._firsts) < INVITES_REMEMBERED:
            self._firsts.setdefault(chain[1], identity)
        if held is not None and held.durable is not None:
            return
        if self.all_given(identity):
            self.note_excess(identity)
            raise PeerFault(_spent(identity, holders))
        on_it = self._provisional.get(identity.invite, 0)
        if held is not None and held.best is not None and held.best.identity.invite == identity.invite:
            on_it -= 1
        if on_it >= _room(identity):
            self.note_excess(identity)
            raise PeerFault("more nodes than its uses stand on this invite")

    def is_full(self, chain: Sequence[bytes]) -> bool:
        """Says, before anything of a chain is checked, whether it is one too many on its invite."""
        first = self._firsts.get(chain[1]) if len(chain) > 1 else None
        if first is None:
            return False
        waiting = self._provisional.get(first.invite, 0)
        return self.all_given(first) or waiting >= _room(first)

    def all_given(self, identity: VerifiedIdentity) -> bool:
        """Says whether issuers have given away all places of an identity's invite."""
        return len(self._durable.get(identity.invite, ())) >= identity.invite_uses

    def late(self, identity: VerifiedIdentity) -> tuple[NodeId, ...]:
        """Returns who came too late among those whom issuers admitted on an identity's invite, itself among
        them: who was admitted first comes first, and equal seconds go by node id."""
        nodes = self._durable.get(identity.invite, {})
        if not identity.invite or len(nodes.keys() | {identity.node}) <= identity.invite_uses:
            return ()
        came = {**nodes, identity.node: min(identity.admitted_at, nodes.get(identity.node, UNIX_S_MAX))}
        order = sorted((at, node) for node, at in came.items())
        return tuple(node for _, node in order[identity.invite_uses :])

    def note_excess(self, identity: VerifiedIdentity) -> None:
        if identity.invite in self.excess or len(self.excess) < EXCESS_INVITES_MAX:
            nodes = self.excess.setdefault(identity.invite, {})
            if len(nodes) < EXCESS_NODES_MAX:
                nodes[identity.node] = None


def _spent(identity: VerifiedIdentity, holders: Callable[[bytes], str]) -> str:
    uses, who = identity.invite_uses, holders(identity.invite)
    return f"the invite was used {uses} of {uses} times already (by {who})"


def _room(identity: VerifiedIdentity) -> int:
    """Returns how many may stand on an identity's invite before an issuer has judged."""
    return identity.invite_uses + PROVISIONAL_SPARE
