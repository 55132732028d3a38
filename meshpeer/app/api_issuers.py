"""Answers who may sign for the mesh, and spreads what a root's key has signed.

The root's key itself never comes here: commands sign, and hand over certificates and signed statements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from meshpeer.app.issuer_words import list_issuers
from meshpeer.app.views import name_of
from meshpeer.core.errors import EnvironmentFault, LocalFault, PeerFault, Refused
from meshpeer.core.identity.certificates import begin_of, end_of
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import NodeId
from meshpeer.core.jobs.nearest import did_you_mean
from meshpeer.core.node.handover import IssuerKeyShown, IssuerKeyWanted
from meshpeer.core.node.messages import RevocationSigned, SignersMade
from meshpeer.core.records.issuer_request import read_request
from meshpeer.core.records.offered import check_offered
from meshpeer.core.records.retiring import plan_retirement
from meshpeer.core.records.revocation import ROOT
from meshpeer.runtime.control import (
    IssuerInfo,
    IssuerKey,
    Retirement,
    RootInfo,
    Roots,
    SignedAdded,
    rfc3339,
)

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

ISSUER_KEY_WAIT_S = 12.0
ASK_AGAIN_S = 0.5


class IssuerAnswers:
    """The part of the control API that is about issuers and roots."""

    _agent: Agent
    _issuer_key: IssuerKeyShown | None = None
    _issuer_key_came: trio.Event | None = None

    def on_issuer_key(self, shown: IssuerKeyShown) -> None:
        self._issuer_key = shown
        if self._issuer_key_came is not None:
            self._issuer_key_came.set()

    def _take_issuer_key(self) -> IssuerKeyShown | None:
        shown, self._issuer_key, self._issuer_key_came = self._issuer_key, None, None
        return shown

    async def issuers(self) -> list[IssuerInfo]:
        return list_issuers(self._agent.node, self._agent.clock.now().unix_s)

    async def issuer_key(self, name: str) -> IssuerKey:
        """Returns what a root is to sign so that a member (this node: an empty name) is an issuer. The member
        makes the key where it has none, which takes a link to it."""
        agent, node = self._agent, self._agent.node
        who = self._member(name)
        mine = node.ledger.get(who)
        best = mine.best if mine else None
        if best is None or not best.identity.durable:
            raise Refused(
                f"{name or 'this node'} can't be an issuer yet: no issuer has admitted it",
                "wait until its `meshpeer status` says no more that it is provisional",
            )
        if who != node.me and not node.ledger.may(node.me, Capability.ADMIN):
            raise Refused(
                "this node may not make others issuers: its certificate does not allow `admin`",
                f"run it on an admin's node, or carry it by hand: `meshpeer issuer request` on {name}",
            )
        self._issuer_key, self._issuer_key_came = None, trio.Event()
        with trio.move_on_after(ISSUER_KEY_WAIT_S):
            while self._issuer_key is None:
                agent.driver.step_now(IssuerKeyWanted(node=who))
                with trio.move_on_after(ASK_AGAIN_S):
                    await self._issuer_key_came.wait()
        shown = self._take_issuer_key()
        if shown is None or shown.node != who:
            raise EnvironmentFault(
                f"{name or 'this node'} did not show an issuer's key within {ISSUER_KEY_WAIT_S:.0f} s",
                "is it up, and of this version? else carry it by hand: `meshpeer issuer request` there",
            )
        try:
            read_request(shown.request, node.ledger.mesh)
        except PeerFault as fault:
            raise Refused(f"{name} showed a key that is none: {fault.what}", "look at its log") from fault
        return IssuerKey(node=name_of(node, who), request=shown.request, chain=best.chain)

    async def roots(self) -> Roots:
        node = self._agent.node
        ledger = node.ledger
        ids = ledger.authorities.root_ids
        standing = [member.best.identity.root for member in ledger if member.best is not None]
        found = []
        for place, certificate in enumerate(ledger.roots):
            retired = ledger.revocations.of(ROOT, ids[place])
            found.append(
                RootInfo(
                    id=ids[place].hex(),
                    number=place + 1,
                    since=rfc3339(begin_of(certificate)),
                    until=rfc3339(end_of(certificate)),
                    retired_at=rfc3339(retired.record.issued_at) if retired else None,
                    members=standing.count(ids[place]),
                    certificate=certificate,
                )
            )
        return Roots(
            mesh=ledger.mesh,
            roots=tuple(found),
            issuers=tuple(one.certificate for one in node.issuing.issuers),
        )

    async def add_signed(self, certificates: tuple[bytes, ...], statements: tuple[bytes, ...]) -> SignedAdded:
        """Spreads certificates of issuers and roots, and statements that a root signed; returns once they are
        on this node's disk. Raises ``Refused`` where one does not count."""
        agent, node = self._agent, self._agent.node
        check_offered(node.ledger, certificates)
        try:
            roots = node.ledger.revocations
            read = [roots.read(one, ()) for one in statements]
        except PeerFault as fault:
            raise Refused(
                f"what was signed does not hold in this mesh: {fault.what}", "see `meshpeer root list`"
            ) from fault
        if certificates:
            agent.driver.step_now(SignersMade(certificates=certificates))
        for one in read:
            agent.driver.step_now(RevocationSigned(envelope=one.envelope, chain=()))
        written = trio.Event()
        agent.performer.once_written(node.revoking.written, written.set, written.set)
        await written.wait()
        return SignedAdded(certificates=len(certificates), statements=len(read))

    async def retirement(self, root: str, key: bytes) -> Retirement:
        """Returns what the root with this public key is to sign so that an earlier one (by its digits; empty:
        the one before it) is retired."""
        agent, node = self._agent, self._agent.node
        plan = plan_retirement(node.ledger, root, NodeId(key), now_unix_s=int(agent.clock.now().unix_s))
        return Retirement(
            root=plan.root.hex(),
            to_sign=plan.to_sign,
            kept=plan.kept,
            members=tuple(name_of(node, one) for one in plan.members),
        )

    def _member(self, name: str) -> NodeId:
        node = self._agent.node
        if not name:
            return node.me
        listed = node.roster.named(name)
        if listed is None:
            near = did_you_mean(name, (one.name for one in node.roster.members))
            raise LocalFault(f"there is no member {name!r}", near or "see `meshpeer peers`")
        return listed.node
