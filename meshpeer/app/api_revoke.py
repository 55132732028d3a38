"""Answers who was revoked, and revokes: nodes, invites and issuers."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

import msgspec
import trio

from meshpeer.app.revocation_words import info_of
from meshpeer.app.state import load_root
from meshpeer.app.views import name_of
from meshpeer.core.errors import EnvironmentFault, LocalFault, Refused
from meshpeer.core.identity.certificates import public_key_of
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.identity.invites import PREFIX, id_of_invite
from meshpeer.core.ids import NodeId, key_text
from meshpeer.core.jobs.nearest import did_you_mean
from meshpeer.core.node.messages import CharterSigned, RevocationSigned
from meshpeer.core.node.roster import Listed
from meshpeer.core.records import envelope
from meshpeer.core.records.retiring import unsigned
from meshpeer.core.records.revocation import INVITE, ISSUER, NODE, Revocation
from meshpeer.core.records.revoking import KEEP, REVOKE, VOID, Author, Wish, decide
from meshpeer.runtime.control import RevocationInfo, RevocationMade, RevocationRequest

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

_AUTHORITY_ID = re.compile(r"[0-9a-f]{16}")
_NODE_ID = re.compile(r"[a-z2-7]{52}")
_VERSION_MAX = 2**62 - 1


class RevokeAnswers:
    """The part of the control API that is about shutting out."""

    _agent: Agent

    async def revocations(self) -> list[RevocationInfo]:
        node = self._agent.node
        ordered = sorted(node.ledger.revocations.counting, key=lambda one: -one.record.issued_at)
        return [info_of(node, one) for one in ordered]

    async def revoke(self, request: RevocationRequest) -> RevocationMade:
        """Signs a revocation and tells everybody; returns once it is on this node's disk.

        Raises ``Refused`` on a node that may not, ``LocalFault`` for what is not there or leaves open what it
        must say."""
        agent, node = self._agent, self._agent.node
        author = self._author(request)
        member = node.ledger.get(node.me)
        if member is None or member.best is None:
            raise Refused("this node is in the mesh no more", "see `meshpeer status`")
        decision = decide(
            self._wish(request),
            node.ledger,
            author,
            me=member.best.identity,
            name_of=lambda who: name_of(node, who),
            now_unix_s=int(agent.clock.now().unix_s),
        )
        members = tuple(name_of(node, one) for one in decision.members)
        warnings = self._warnings(decision.revocation, decision.members)
        if request.root_key:
            return RevocationMade(
                revocation=info_of(node, decision.revocation),
                done_before=decision.done,
                members=members,
                kept=decision.kept,
                invite=decision.invite.hex(),
                warnings=warnings,
                to_sign=tuple(envelope.body_of(signed) for signed, _ in decision.signed),
            )
        for signed, chain in decision.signed:
            agent.driver.step_now(RevocationSigned(envelope=signed, chain=chain))
        record = decision.revocation.record
        if node.ledger.revocations.of(record.what, record.subject) is None:
            raise Refused(
                "the revocation does not count: this node holds as many as it may, or is shut out itself",
                "see `meshpeer status`, or sign with the root's key (--root)",
            )
        self._renew_charter()
        written = trio.Event()
        agent.performer.once_written(node.revoking.written, written.set, written.set)
        await written.wait()
        return RevocationMade(
            revocation=info_of(node, decision.revocation),
            done_before=decision.done,
            members=members,
            kept=decision.kept,
            invite=decision.invite.hex(),
            warnings=warnings,
        )

    # --- rules ----------------------------------------------------------------------------------------------

    def _author(self, request: RevocationRequest) -> Author:
        agent, node = self._agent, self._agent.node
        mesh = node.ledger.mesh
        if request.root_key:
            if request.root_key not in map(public_key_of, node.ledger.roots):
                raise Refused("this is the key of no root of this mesh", "see `meshpeer root list`")
            return Author(node=NodeId(request.root_key), chain=(), sign=unsigned, proven=False)
        if request.root:
            try:
                root = load_root(agent.settings.state_dir)
            except EnvironmentFault as fault:
                raise Refused(
                    f"the root's key is not on this node: {fault.what}",
                    "revoke on the node that has it, or with its file: "
                    "`meshpeer root use FILE -- revoke ... --root`",
                ) from fault
            return Author(node=root.public, chain=(), sign=lambda body: envelope.sign(root, mesh, body))
        member = node.ledger.get(node.me)
        best = member.best if member else None
        if best is None or Capability.ADMIN not in best.identity.capabilities:
            raise Refused(
                "this node may not revoke: its certificate does not allow `admin`",
                "revoke on a node that may (the founder, or one that was invited with `--allow admin`)",
            )
        if not best.identity.durable:
            raise Refused(
                "this node may not revoke yet: no issuer has admitted it",
                "wait until `meshpeer status` says no more that it is provisional",
            )
        return Author(
            node=node.me, chain=best.chain, sign=lambda body: envelope.sign(agent.state.key, mesh, body)
        )

    def _wish(self, request: RevocationRequest) -> Wish:
        what, subject, name = self._target(request.target.strip())
        if what == NODE and (request.members or request.since is not None):
            raise LocalFault(
                f"{name or request.target} is a node: nobody is in by it", "leave the options on members out"
            )
        if request.since is not None and what != ISSUER:
            raise LocalFault("--since is for issuers", "for an invite say --keep-members or --with-members")
        if request.members not in ("", KEEP, REVOKE) or request.revocations not in ("", KEEP, VOID):
            raise LocalFault(
                "that is no answer to what becomes of others",
                f"members: {KEEP} or {REVOKE}; revocations: {KEEP} or {VOID}",
            )
        return Wish(
            what=what,
            subject=subject,
            name=name,
            reason=request.reason.strip(),
            members=request.members,
            since=None if request.since is None else int(request.since),
            theirs=request.revocations,
            keep_invite=request.keep_invite,
        )

    def _target(self, text: str) -> tuple[str, bytes, str]:
        """Returns what a text names: kind, subject, and what it is called."""
        node = self._agent.node
        listed = node.roster.named(text)
        if listed is not None:
            if listed.node == node.me:
                raise LocalFault(
                    "a node does not revoke itself", "`meshpeer leave` takes this node out for good"
                )
            return NODE, listed.node, listed.name
        if text.startswith(PREFIX):
            return INVITE, id_of_invite(text), ""
        if _AUTHORITY_ID.fullmatch(text):
            subject = bytes.fromhex(text)
            issuers = {one.id for one in node.ledger.authorities.issuers}
            return (ISSUER if subject in issuers else INVITE), subject, ""
        for member in node.ledger:
            current = member.current
            if text == key_text(member.node) or (current is not None and current.name == text):
                return NODE, member.node, current.name if current else ""
        for one in node.ledger.revocations.counting:
            if one.record.what == NODE and one.record.name == text:
                return NODE, one.record.subject, text
        if _NODE_ID.fullmatch(text):
            return NODE, _node_id(text), ""
        near = did_you_mean(text, (one.name for one in node.roster.members))
        raise LocalFault(
            f"there is no member {text!r}, and it is no invite",
            near or "name a member (`meshpeer peers`), an invite, or the 16 digits of an invite or issuer",
        )

    def _warnings(self, revocation: Revocation, members: tuple[NodeId, ...]) -> tuple[str, ...]:
        """Returns what a revocation leaves open that a person may not think of. Asked before it takes
        effect."""
        node, record = self._agent.node, revocation.record
        said: list[str] = []
        for who in members:
            listed = node.roster.get(who)
            issuer = node.ledger.authorities.held_by(who)
            if issuer is not None and node.ledger.revocations.of(ISSUER, issuer.id) is None:
                said.append(
                    f"{name_of(node, who)} holds an issuer's key, which is not revoked with it: it can admit "
                    f"new nodes until that is, too (`meshpeer revoke {issuer.id.hex()} --keep-members`)"
                )
            if listed is not None and revocation.identity and self._is_senior(listed, revocation):
                said.append(
                    f"{listed.name} is an admin that was admitted before this node: whoever has its key can "
                    "void this (on the founder, --root signs what nobody can void)"
                )
        if record.what == NODE and not members:
            said.append("no such node is in now; it can't come in with that key any more")
        return tuple(said)

    @staticmethod
    def _is_senior(listed: Listed, revocation: Revocation) -> bool:
        who = listed.identity
        return Capability.ADMIN in who.capabilities and (who.admitted_at, who.node) < revocation.rank

    def _renew_charter(self) -> None:
        """Signs the charter anew where its author was shut out: who joins later takes none of such a one."""
        agent, node = self._agent, self._agent.node
        charter = node.ledger.charter
        if charter is None or node.ledger.get(charter.author) is not None:
            return
        if not node.ledger.may(node.me, Capability.ADMIN):
            return
        new = msgspec.structs.replace(
            charter,
            version=charter.version + 1 if charter.version < _VERSION_MAX else 1,
            issued_at=int(agent.clock.now().unix_s),
            author=node.me,
        )
        agent.driver.step_now(CharterSigned(envelope=envelope.sign(agent.state.key, node.ledger.mesh, new)))


def _node_id(text: str) -> bytes:
    return base64.b32decode(text.upper() + "=" * (-len(text) % 8))
