"""What an operator should know: troubles keep a node from its work, notices do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshpeer.app.agreement import lasting_differences
from meshpeer.app.hub_words import lines_of, own_troubles, unwatched_hubs
from meshpeer.app.issuer_words import notices_of_issuers, own_certificate_lines
from meshpeer.app.reach import local_only, ports_to_open
from meshpeer.app.revocation_words import own_lines, void_lines
from meshpeer.app.spare import troubles_of_channel
from meshpeer.app.views import name_of
from meshpeer.core.node.rights import overreach
from meshpeer.runtime.control import rfc3339

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent
    from meshpeer.core.node.node import Node

DRIFT_SHOWN_S = 600.0
"""How long a repair by hand is still mentioned."""


def troubles_of(agent: Agent) -> list[str]:
    """Returns what keeps this node from doing its work, worst first."""
    node = agent.node
    troubles: list[str] = own_lines(node)
    fault = agent.reconciler.fault
    if fault is not None:
        troubles.append(f"the interface is not as it should be: {fault.what} ({fault.hint})")
    unable = agent.forwarder.fault
    if unable is not None:
        troubles.append(f"this node can't forward for others: {unable.what} ({unable.hint})")
    if node.relays.unable:
        troubles.append(f"this node can't relay for others: {node.relays.unable}")
    troubles += [
        f"{one.prefix} is not advertised: {one.why} ({one.hint})" for one in node.tunnels.lans.withheld
    ]
    troubles += own_troubles(node)
    member = node.ledger.get(node.me)
    best = member.best if member else None
    if best is not None and not best.identity.durable:
        minutes = int((best.identity.not_after - agent.clock.now().unix_s) / 60)
        why = "no issuer has admitted it yet, and its invite ends"
        if node.ledger.places.all_given(best.identity):
            uses = best.identity.invite_uses
            why = f"its invite has admitted the {uses} it may (join with another one); it ends"
        troubles.append(f"this node is provisional: {why} in {minutes} min")
    if node.presence.revoked is not None:
        return troubles
    troubles += own_certificate_lines(node, agent.clock.now().unix_s)
    troubles += troubles_of_channel(node, agent.clock.now().unix_s)
    if len(node.roster.members) > 1 and not node.links.peers:
        troubles.append("no member can be reached: see `meshpeer peers`, and the network of this machine")
    troubles += [
        f"{name_of(node, peer)} refuses this node: {reason}"
        for peer, reason in agent.refusals.items()
        if node.links.link_to(peer) is None
    ]
    return troubles


def notices_of(agent: Agent) -> list[str]:
    """Returns what is worth knowing although the node works."""
    node = agent.node
    notices: list[str] = list(getattr(agent.wireguard, "notes", ()))
    if node.scheduler.worker.accepting:
        notices += [f"{gap.what} ({gap.hint})" for gap in agent.executor.gaps]
    if agent.store.copied_from is not None:
        notices.append(agent.store.copied_from.explanation)
    for one in node.roster.members:
        if one.quarantined:
            notices.append(f"{one.name} contradicts itself: is a copy of its state folder in use somewhere?")
        if claims := overreach(one):
            notices.append(f"{one.name} says that it is {claims}, which its certificate does not allow")
        if one.name != one.record.name:
            notices.append(f"{one.name} asked for the name {one.record.name}, which another member has")
    notices += lasting_differences(node, agent.clock.now())
    notices += lines_of(node)
    notices += unwatched_hubs(node, agent.clock.now().unix_s)
    banned = node.links.banned(agent.clock.now())
    for who, offence in node.offences.items():
        shut_out = ", and is shut out for a while" if who in banned else ""
        at = rfc3339(offence.unix_s)[11:19]
        notices.append(f"{name_of(node, who)} broke the protocol at {at} UTC: {offence.what}{shut_out}")
    for invite, nodes in node.ledger.places.excess.items():
        whose = ", ".join(name_of(node, one) for one in nodes)
        notices.append(
            f"invite {invite.hex()} was used more often than it allows: refused {whose}; "
            f"its places are held by {node.ledger.holders_of(invite) or 'nobody yet'}"
        )
    notices += void_lines(node)
    notices += _about_lans(node)
    notices += agent.files.notices()
    pages = agent.chores.pages_fault
    if pages is not None:
        notices.append(f"{pages.what} ({pages.hint})")
    drift = agent.reconciler.last_drift
    if drift is not None and agent.clock.now().unix_s - drift[0] < DRIFT_SHOWN_S:
        notices.append(f"repaired at {rfc3339(drift[0])[11:19]} UTC: {'; '.join(drift[1])}")
    return notices + notices_of_issuers(node, agent.clock.now().unix_s)


def _about_lans(node: Node) -> list[str]:
    """Returns which LANs of others this machine does not route, and which of its own another leads to."""
    lans = node.tunnels.lans
    notices = [
        f"{one.prefix} behind {name_of(node, one.node)} is not routed here: {one.why} ({one.hint})"
        for one in lans.left_out
    ]
    return notices + [
        f"{lan} is reached through {name_of(node, holder)}, which leads to it, too; "
        "this node takes over when that one is gone"
        for lan in lans.offered
        if (holder := lans.holders.get(lan, node.me)) != node.me
    ]


def next_steps_of(agent: Agent) -> tuple[str, ...]:
    """Returns what a person would type next."""
    if agent.node.issuing.authority is not None and len(agent.node.roster.members) == 1:
        return (
            "meshpeer invite      make an invite, then type on the other machine: meshpeer join INVITE",
            "meshpeer status",
            "meshpeer root export FILE    take the root's key away from this machine, under a passphrase",
            "meshpeer issuer add NODE     once another member is in: so that losing this one loses nothing",
            *_for_those_elsewhere(agent),
        )
    return (
        "meshpeer peers       who is in, and how they are reached",
        "meshpeer jobs submit FILE    run a job on all of them",
    )


def _for_those_elsewhere(agent: Agent) -> tuple[str, ...]:
    record = agent.node.presence.record
    if agent.state.node.endpoint or record is None or not local_only(record.control_endpoints):
        return ()
    ports = ports_to_open(agent.transport.port, agent.node.config.wireguard_port)
    return (
        "Only this local network can reach this node. For machines elsewhere found the mesh with "
        f"--endpoint HOST, and open to it {ports}.",
    )
