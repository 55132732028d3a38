"""Issuers and certificates as people read them: who may admit, who was heard of when, and what ends soon."""

from __future__ import annotations

from meshpeer.app.views import name_of
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.identity.renewal import DAY_S, WARN_BELOW_S
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.opinions import State
from meshpeer.core.node.node import Node
from meshpeer.core.records.authorities import Issuer
from meshpeer.runtime.control import IssuerInfo, rfc3339

SILENT_AFTER_S = 3 * DAY_S
"""No issuer was heard of for so long: nobody is admitted or renewed meanwhile."""
ISSUER_ENDS_BELOW_S = 400 * DAY_S
"""An issuer with less than this left gives leaves that last less than a year."""


def holder_of(node: Node, issuer: Issuer) -> NodeId | None:
    """Returns who keeps an issuer's key; of one that an earlier version made, the founder."""
    if issuer.holder:
        return NodeId(issuer.holder)
    mine = node.issuing.authority
    if mine is not None and mine.id == issuer.id:
        return node.me
    for one in node.roster.members:
        if Capability.ISSUER in one.identity.capabilities and not one.identity.invite:
            return one.node
    return None


def heard_at(node: Node, holder: NodeId | None, now_unix_s: float) -> float | None:
    """Returns when an issuer's node was heard of last; None for one of which nothing is held any more."""
    if holder is None:
        return None
    if holder == node.me or (node.detector.opinion(holder).state is State.ALIVE and node.roster.get(holder)):
        return now_unix_s
    member = node.ledger.get(holder)
    return float(member.record.issued_at) if member and member.record else None


def last_heard(node: Node, now_unix_s: float) -> float | None:
    """Returns when the issuer that was heard of last was; None where nothing is held of any."""
    heard = [heard_at(node, holder_of(node, one), now_unix_s) for one in node.issuing.issuers]
    return max((at for at in heard if at is not None), default=None)


def other_issuers(node: Node) -> list[Issuer]:
    """Returns the issuers that other members keep."""
    others = [(one, holder_of(node, one)) for one in node.issuing.issuers]
    return [one for one, who in others if who is not None and who != node.me and node.ledger.is_in(who)]


def list_issuers(node: Node, now_unix_s: float) -> list[IssuerInfo]:
    """Returns every issuer that was not revoked, the one that was first signed first."""
    given: dict[bytes, int] = {}
    for member in node.ledger:
        if member.durable is not None:
            issuer = member.durable.identity.issuer
            given[issuer] = given.get(issuer, 0) + 1
    found: list[IssuerInfo] = []
    for one in sorted(node.issuing.issuers, key=lambda each: (each.begins_at, each.public)):
        holder = holder_of(node, one)
        heard = heard_at(node, holder, now_unix_s)
        its = node.ledger.get(holder) if holder is not None else None
        leave = its.leave if its is not None else None
        found.append(
            IssuerInfo(
                id=one.id.hex(),
                node=leave.name if leave and leave.name else name_of(node, holder) if holder else "",
                me=holder == node.me,
                left=leave is not None,
                alive=holder is not None and heard == now_unix_s,
                since=rfc3339(one.begins_at),
                until=rfc3339(one.ends_at),
                heard_at=rfc3339(heard) if heard is not None else None,
                issued=given.get(one.id, 0),
                root=node.ledger.authorities.root_ids[one.place].hex(),
            )
        )
    return found


def own_certificate_lines(node: Node, now_unix_s: float) -> list[str]:
    """Returns what is wrong with this node's own certificate: it ends, or its place went to somebody else."""
    member = node.ledger.get(node.me)
    best = member.best if member else None
    if best is None or not best.identity.durable:
        return []
    lines: list[str] = []
    if node.me in node.ledger.places.late(best.identity):
        uses = best.identity.invite_uses
        lines.append(
            f"this node came too late on its invite, which admits {uses}: its place was given to another one "
            "(`meshpeer leave`, then join with another invite)"
        )
    left_s = best.identity.not_after - now_unix_s
    if left_s < WARN_BELOW_S:
        lines.append(
            f"this node's certificate ends in {_days(left_s)}, and no issuer has renewed it for "
            f"{_days(now_unix_s - best.identity.signed_from)} (`meshpeer issuer list` tells who should)"
        )
    return lines


def notices_of_issuers(node: Node, now_unix_s: float) -> list[str]:
    """Returns what is worth knowing of the mesh's issuers although this node works."""
    issuers = node.issuing.issuers
    others = [one for one in node.roster.members if one.node != node.me]
    notices: list[str] = []
    if node.issuing.authority is not None and len(others) > 1 and not other_issuers(node):
        notices.append(
            "this node is the only issuer: if it is lost, nobody can join or be renewed any more "
            "(`meshpeer issuer add NODE` makes another one)"
        )
    last = last_heard(node, now_unix_s)
    if issuers and (last is None or last < now_unix_s - SILENT_AFTER_S):
        since = f"since {rfc3339(last)[:10]}" if last is not None else "for longer than records last"
        notices.append(
            f"no issuer was heard of {since}: nobody can join, and no certificate is renewed "
            "(`meshpeer issuer list`)"
        )
    for one in issuers:
        if one.ends_at - now_unix_s < ISSUER_ENDS_BELOW_S:
            holder = holder_of(node, one)
            who = name_of(node, holder) if holder else one.id.hex()
            notices.append(
                f"the issuer's certificate of {who} ends in {_days(one.ends_at - now_unix_s)}, and what it "
                f"signs with it (`meshpeer issuer add {who}` signs it anew, with the root's key)"
            )
    return notices


def _days(seconds: float) -> str:
    days = max(0, int(seconds // DAY_S))
    return f"{days} day{'' if days == 1 else 's'}"
