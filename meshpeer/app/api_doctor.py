"""Gathers what an agent knows of itself, and lets the doctor judge it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from meshpeer.adapters.secrets import FileSecrets
from meshpeer.app.agreement import lasting_differences
from meshpeer.app.doctor.members import Standing, judge_agent, judge_clock, judge_standing
from meshpeer.app.doctor.pings import ping_through
from meshpeer.app.doctor.reached import judge_reached
from meshpeer.app.doctor.tasks import judge_python, judge_tasks
from meshpeer.app.doctor.tunnels import (
    InterfaceSeen,
    TunnelSeen,
    WidthSeen,
    judge_forwarding,
    judge_interface,
    judge_router,
    judge_routes,
    judge_tunnels,
    judge_widths,
)
from meshpeer.app.hub_words import own_troubles
from meshpeer.app.issuer_words import other_issuers
from meshpeer.app.reach import local_only
from meshpeer.app.revocation_words import own_lines
from meshpeer.app.views import name_of
from meshpeer.core.addressing.overlap import overlap_of
from meshpeer.core.errors import LocalFault
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.dialbacks import DialBacksWanted
from meshpeer.core.membership.opinions import State
from meshpeer.core.node.node import Node
from meshpeer.core.node.rights import overreach
from meshpeer.core.records.subnets import check_subnet
from meshpeer.core.wgconf.diff import diff_device
from meshpeer.runtime.dialbacks import KNOCK_S_MAX
from meshpeer.runtime.doctor import AgentFindings, Finding

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

WAIT_S = KNOCK_S_MAX + 1.5
"""How long members have to say whether they reach this node."""


class DoctorAnswers:
    """The part of the control API that looks for what is wrong."""

    _agent: Agent
    _dial_back_heard: trio.Event | None = None

    def on_dial_back_heard(self) -> None:
        """A member has said whether it reaches this node."""
        if self._dial_back_heard is not None:
            self._dial_back_heard.set()
            self._dial_back_heard = None

    async def doctor(self) -> AgentFindings:
        agent, node = self._agent, self._agent.node
        reached: list[Finding] = []
        answers: dict[str, bool] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask_members, reached)
            nursery.start_soon(_ping_peers, node, answers)
        now = agent.clock.now()
        tunnels = _tunnels(node, answers, now.unix_s)
        uptime_s = time.monotonic() - agent.started_at
        port, config = node.config.wireguard_port, node.config
        found: list[Finding] = [*judge_interface(_interface(agent, now.unix_s))]
        if port:
            own = node.presence.wireguard
            found += judge_tunnels(tunnels, port, uptime_s)
            shut = agent.tunnel_port.fault
            found += judge_widths(
                _widths(node), node.derived.charter_mtu, (shut.what, shut.hint) if shut else None
            )
            found += judge_router(
                node.tunnels.reflected(own, now)[1],
                port,
                fresh=any(one.is_fresh for one in tunnels),
                has_endpoint=config.configured_endpoint,
            )
            found += _forwarding(agent)
        found += reached
        names = {who: name_of(node, who) for who in node.links.peers}
        found += judge_clock({names[who]: ahead for who, ahead in node.links.clocks.ahead_s(names, now)})
        found += judge_standing(_standing(agent))
        found += judge_agent(agent.driver.lag_s, node.detector.health.score)
        if port:
            found += _routes(node)
        if node.scheduler.worker.accepting:
            found += judge_tasks(agent.executor.isolation, agent.executor.gaps, _secrets_fault(agent))
            found += await judge_python(agent.attempts.python.interpreter)
        mine = node.roster.get(node.me)
        return AgentFindings(
            findings=tuple(found),
            name=mine.name if mine else agent.state.node.name,
            interface=config.interface if port else "",
            wireguard_port=port,
            control_port=agent.transport.port,
            forwards=agent.forwarder.forwards,
            keeps_hosts=agent.chores.keeps_hosts,
        )

    async def _ask_members(self, found: list[Finding]) -> None:
        """Lets linked members try this node's control port. Those from elsewhere can tell most."""
        agent, node = self._agent, self._agent.node
        helpers = sorted(node.links.peers, key=lambda one: (local_only([node.links.remote_of(one)]), one))
        agent.driver.step_now(DialBacksWanted(helpers=tuple(helpers)))
        asked = node.dialbacks.asked
        with trio.move_on_after(WAIT_S):
            while node.dialbacks.asked == asked and not node.dialbacks.is_answered:
                # Two who ask at once wait for the same answers.
                if self._dial_back_heard is None:
                    self._dial_back_heard = trio.Event()
                await self._dial_back_heard.wait()
        endpoint = agent.state.node.endpoint
        found += judge_reached(
            [name_of(node, one) for one in asked],
            {name_of(node, one): tries for one, tries in node.dialbacks.heard.items()},
            agent.transport.port,
            endpoint=f"{endpoint.rpartition(':')[0]}:{agent.transport.port}" if endpoint else "",
            is_seed=node.ledger.may(node.me, Capability.ISSUER),
        )


def _secrets_fault(agent: Agent) -> tuple[str, str] | None:
    path = Path(agent.settings.file.jobs.secrets_file)
    try:
        FileSecrets(path).load()
    except LocalFault as fault:
        return f"{path}: {fault.what}", fault.hint
    return None


def _interface(agent: Agent, unix_s: float) -> InterfaceSeen:
    node, observed = agent.node, agent.node.tunnels.observed
    desired = agent.node.desired
    steps = diff_device(observed, desired, now_unix_s=unix_s) if desired else ()
    fault, drift = agent.reconciler.fault, agent.reconciler.last_drift
    return InterfaceSeen(
        name=node.config.interface,
        backend=agent.wireguard.backend,
        there=observed is not None,
        up=observed.up if observed else False,
        mtu=observed.mtu if observed else 0,
        mtu_wanted=desired.mtu if desired else 0,
        steps=tuple(dict.fromkeys(type(step).__name__ for step in steps)),
        fault=(fault.what, fault.hint) if fault else None,
        drift_ago_s=unix_s - drift[0] if drift else None,
        drift=drift[1] if drift else (),
    )


async def _ping_peers(node: Node, answers: dict[str, bool]) -> None:
    if node.tunnels.observed is not None:
        found = [_address_of(node, peer.node) for peer in node.tunnels.plan.peers]
        answers |= await ping_through([one for one in found if one])


def _address_of(node: Node, who: NodeId) -> str:
    listed = node.roster.get(who)
    return (listed.ipv4 or listed.ipv6) if listed else ""


def _tunnels(node: Node, answers: dict[str, bool], unix_s: float) -> list[TunnelSeen]:
    seen: list[TunnelSeen] = []
    for peer in node.tunnels.plan.peers:
        observed = node.tunnels.observed_peer(peer.public_key)
        at = observed.latest_handshake_unix_s if observed else 0
        alive = node.detector.opinion(peer.node).state is State.ALIVE
        seen.append(
            TunnelSeen(
                name=peer.name,
                handshake_ago_s=unix_s - at if at else None,
                alive=alive,
                answers=answers.get(_address_of(node, peer.node)),
            )
        )
    return sorted(seen, key=lambda one: one.name)


def _widths(node: Node) -> list[WidthSeen]:
    looks = [(peer.name, node.underlay.mtus.look(peer.node)) for peer in node.tunnels.plan.peers]
    return sorted(
        (
            WidthSeen(name=name, mtu=look.mtu, underlay_bytes=look.underlay_bytes)
            for name, look in looks
            if look is not None and look.underlay_bytes is not None
        ),
        key=lambda one: one.name,
    )


def _forwarding(agent: Agent) -> list[Finding]:
    fault, lans = agent.forwarder.fault, agent.node.tunnels.lans
    return judge_forwarding(
        hub=agent.node.tunnels.plan.forwards,
        lans=lans.offered,
        fault=(fault.what, fault.hint) if fault else None,
        said=own_troubles(agent.node),
    )


def _standing(agent: Agent) -> Standing:
    node, now = agent.node, agent.clock.now()
    others = [one for one in node.roster.members if one.node != node.me]
    member = node.ledger.get(node.me)
    best = member.best.identity if member and member.best else None
    used_up = best is not None and node.ledger.places.all_given(best)
    return Standing(
        linked=len(node.links.peers),
        others=len(others),
        dead=tuple(one.name for one in others if node.detector.opinion(one.node).state is not State.ALIVE),
        refused_by={
            name_of(node, peer): reason
            for peer, reason in agent.refusals.items()
            if node.links.link_to(peer) is None
        },
        durable=best is not None and best.durable,
        ends_in_s=best.not_after - now.unix_s if best else None,
        why_provisional="its invite has admitted as many as it may" if used_up else "",
        only_issuer=node.issuing.authority is not None and len(others) > 1 and not other_issuers(node),
        differ=tuple(lasting_differences(node, now)),
        agree=node.agreement.report(now).agree,
        shut_out=tuple(name_of(node, one) for one in node.links.banned(now)),
        overreaching={one.name: claims for one in others if (claims := overreach(one))},
        contradicting=tuple(one.name for one in node.roster.members if one.quarantined),
        revoked="".join(own_lines(node)[:1]),
    )


def _routes(node: Node) -> list[Finding]:
    charter, lans = node.ledger.charter, node.tunnels.lans
    if charter is None:
        return []
    overlap = overlap_of(check_subnet(charter.subnet), lans.routes, interface=node.config.interface)
    found = [(overlap.route.prefix, overlap.route.device, overlap.refuse)] if overlap else []
    left_out = [
        (f"{one.prefix} behind {name_of(node, one.node)} is not routed here: {one.why}", one.hint)
        for one in lans.left_out
    ]
    withheld = [(f"{one.prefix} is not advertised: {one.why}", one.hint) for one in lans.withheld]
    return judge_routes(charter.subnet, found, [*left_out, *withheld])
