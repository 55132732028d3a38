"""Answers what is asked about the mesh: status, peers, plan, invites, ping, stop, leave."""

from __future__ import annotations

import collections
import os
import re
import time
from typing import TYPE_CHECKING

import trio

from meshpeer import __version__
from meshpeer.app import views
from meshpeer.app.agreement import agreement_view
from meshpeer.app.hub_words import reports_of
from meshpeer.app.issuer_words import other_issuers
from meshpeer.app.reach import local_only, ports_to_open
from meshpeer.app.retiring import retire_relay
from meshpeer.app.revocation_words import newest, revoked_peers
from meshpeer.app.spare import channel_view, link_via, silent_since
from meshpeer.app.troubles import notices_of, troubles_of
from meshpeer.core.errors import EnvironmentFault, LocalFault, Refused
from meshpeer.core.identity.certificates import SERIAL_BYTES, make_invite
from meshpeer.core.identity.constraints import INVITE_DEFAULT, Capability, describe
from meshpeer.core.identity.invites import Invite, encode_invite
from meshpeer.core.ids import key_text, wireguard_key_text
from meshpeer.core.node.farewell import Farewell
from meshpeer.core.node.messages import LeaveAsked
from meshpeer.core.node.node import Node
from meshpeer.core.records.routes import check_routes
from meshpeer.core.scheduler.views import job_state
from meshpeer.core.wgconf.render import render_wg_quick
from meshpeer.runtime.control import (
    InviteMade,
    InviteRequest,
    MeshInfo,
    NodeInfo,
    Peer,
    PingAnswer,
    Plan,
    Status,
    rfc3339,
)

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

LOG_PIECE_BYTES = 256 * 1024
LOG_WAIT_S = 20.0
MANIFEST_BYTES_MAX = 32 * 1024 * 1024
SPEC_BYTES_MAX = 64 * 1024 * 1024
DRIFT_SHOWN_S = 600.0
FAREWELL_MAX_S = 5.0
"""How long a node that leaves waits for its peers to confirm that they have read so."""


class MeshAnswers:
    """The part of the control API that is about the mesh."""

    _agent: Agent

    # --- the mesh -------------------------------------------------------------------------------------------

    async def status(self) -> Status:
        agent, node = self._agent, self._agent.node
        mine, charter, member = node.roster.get(node.me), node.ledger.charter, node.ledger.get(node.me)
        best = member.best if member else None
        counts = views.count_members(node)
        troubles = troubles_of(agent)
        states = collections.Counter(job_state(owner) for owner in node.scheduler.owned.values())
        return Status(
            mesh=MeshInfo(
                id=key_text(node.ledger.mesh),
                name=charter.mesh_name if charter else "",
                subnet=charter.subnet if charter else "",
                topology=charter.topology if charter else "",
                topology_mode=node.tunnels.plan.mode,
                hubs=node.tunnels.plan.hubs,
            ),
            node=NodeInfo(
                id=key_text(node.me),
                name=mine.name if mine else agent.state.node.name,
                region=agent.state.node.region,
                roles=agent.state.node.roles,
                ipv4=mine.ipv4 if mine else "",
                ipv6=mine.ipv6 if mine and agent.wireguard.backend != "none" else "",
                public_key=wireguard_key_text(node.rekeying.rotation.shown),
                backend=agent.wireguard.backend,
                interface=""
                if agent.wireguard.backend == "none"
                else agent.settings.file.wireguard.interface,
                port=node.config.wireguard_port,
                mtu=node.desired.mtu if node.desired else charter.mtu if charter else 0,
                mtu_differs=views.mtu_differs(node),
                control_port=agent.transport.port,
                isolation=agent.executor.isolation,
                slots=agent.executor.slots if node.scheduler.worker.accepting else 0,
                busy=node.scheduler.worker.busy,
                admission="revoked"
                if node.presence.revoked
                else "durable"
                if best and best.identity.durable
                else "provisional",
                certificate_ends=rfc3339(best.identity.not_after) if best else "",
                version=__version__,
                uptime_s=round(time.monotonic() - agent.started_at, 1),
                routes=node.presence.record.routes if node.presence.record else (),
                relay=node.relays.lends,
                relays_for=len(node.relays.desk.reservations),
                relayed_by=views.relayed_by(node),
                drained=node.scheduler.worker.drained,
            ),
            members=counts,
            health=_health(node, counts.total, troubles),
            warnings=(*troubles, *notices_of(agent)),
            jobs=states,
            # Nobody answers a node that was shut out, so it can't know either.
            agreement=None if node.presence.revoked else agreement_view(node, agent.clock.now()),
            channel=None if node.presence.revoked else channel_view(node),
            revocations=newest(node),
            files=agent.files.use(),
        )

    async def peers(self) -> list[Peer]:
        node, now = self._agent.node, self._agent.clock.now().unix_s
        reports = reports_of(node)
        listed = [
            views.peer_view(node, one, now, reports.get(one.node))
            for one in node.roster.members
            if one.node != node.me
        ]
        left = [
            views.left_view(one.leave) for one in node.ledger if one.leave is not None and one.node != node.me
        ]
        return sorted(listed, key=lambda one: one.name) + left + revoked_peers(node)

    async def plan(self) -> Plan:
        return views.plan_view(self._agent.node, self._agent.clock.now().unix_s)

    async def export_wg_quick(self) -> str:
        desired = self._agent.node.desired
        if desired is None:
            raise LocalFault("this node has no interface (backend none)", "there is nothing to export")
        node = self._agent.node
        names = {one.record.wireguard_key: one.name for one in node.roster.members}
        return render_wg_quick(
            desired, names, observed=node.tunnels.observed, now_unix_s=self._agent.clock.now().unix_s
        )

    async def invite(self, request: InviteRequest) -> InviteMade:
        agent = self._agent
        issuer = agent.node.issuing.authority
        if issuer is None:
            raise Refused(
                "this node can't make invites: it is no issuer",
                "make it on one (`meshpeer issuer list`), or make this node one: `meshpeer issuer add`",
            )
        if not 60 <= request.expires_s <= 90 * 86_400 or not 1 <= request.uses <= 1_000:
            raise LocalFault(
                "an invite holds for 1 minute to 90 days and 1 to 1000 uses",
                "choose --expires and --uses within that",
            )
        routes = check_routes(request.routes, "--route")
        capabilities = (INVITE_DEFAULT | _capabilities(request.allow)) - _capabilities(request.deny)
        seeds, warnings = self._seeds_for_invite()
        now = int(agent.clock.now().unix_s)
        authority = make_invite(
            issuer,
            os.urandom(32),
            capabilities=capabilities,
            roles=request.roles,
            region=request.region,
            routes=routes,
            uses=request.uses,
            expires_s=request.expires_s,
            now_unix_s=now,
            serial=os.urandom(SERIAL_BYTES),
        )
        charter = agent.node.ledger.charter
        invite = Invite(
            authority=authority,
            issuer=issuer.certificate,
            roots=agent.node.ledger.roots,
            seeds=seeds,
            mesh_name=charter.mesh_name if charter else "",
        )
        return InviteMade(
            invite=encode_invite(invite),
            id=invite.id.hex(),
            mesh=charter.mesh_name if charter else "",
            fingerprint=invite.fingerprint,
            expires_at=rfc3339(now + request.expires_s),
            uses=request.uses,
            roles=request.roles,
            region=request.region,
            may=describe(capabilities),
            seeds=seeds,
            warnings=warnings,
            routes=routes,
        )

    async def ping(self, node: str, count: int) -> PingAnswer:
        mind = self._agent.node
        listed = mind.roster.named(node)
        if listed is None:
            known = ", ".join(one.name for one in mind.roster.members)
            raise LocalFault(f"there is no member {node!r}", f"members are: {known}")
        count = min(max(count, 1), 100)
        address = listed.ipv4 or listed.ipv6
        if (
            self._agent.wireguard.backend == "none"
            or not listed.record.wireguard_port
            or listed.node == mind.me
            or (silent_since(mind, listed.node) is not None and mind.links.link_to(listed.node) is not None)
        ):
            rtt = mind.detector.rtt_s(listed.node)
            return PingAnswer(
                node=listed.name,
                address=mind.links.remote_of(listed.node) or f"via {link_via(mind, listed.node) or 'nobody'}",
                over="link",
                rtt_ms=(rtt * 1000 if rtt else None,),
            )
        try:
            done = await trio.run_process(
                ["ping", "-n", "-c", str(count), "-i", "0.2", "-W", "1", address],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise EnvironmentFault(
                "`ping` is not installed",
                "apt install iputils-ping (Debian, Ubuntu) or dnf install iputils (Fedora)",
            ) from error
        times = {
            int(one[0]): float(one[1])
            for one in re.findall(rb"icmp_seq=(\d+).*time=([\d.]+) ms", done.stdout)
        }
        return PingAnswer(
            node=listed.name,
            address=address,
            over="tunnel",
            rtt_ms=tuple(times.get(number) for number in range(1, count + 1)),
        )

    async def stop(self, *, take_down: bool) -> str:
        self._agent.take_down = take_down
        self._stop_soon()
        return "the agent stops and the interface goes" if take_down else "the agent stops; tunnels stay up"

    async def leave(self, *, force: bool) -> str:
        agent = self._agent
        others = [one for one in agent.node.roster.members if one.node != agent.node.me]
        is_issuer = agent.node.issuing.authority is not None
        if is_issuer and others and not other_issuers(agent.node) and not force:
            raise Refused(
                "this node is the mesh's last issuer: without it nobody can be admitted or renewed",
                "make another one first (`meshpeer issuer add NODE`), or leave all the same with --force: "
                "members stay connected until their certificates end",
            )
        if agent.node.presence.has_left or agent.node.relays.stops:
            raise Refused("this node is leaving already", "it ends in a moment")
        await retire_relay(agent)
        agent.driver.step_now(LeaveAsked())
        agent.take_down = True
        (agent.settings.state_dir / "node.json").rename(
            agent.settings.state_dir / f"left-{int(time.time())}.json"
        )
        try:
            with trio.move_on_after(FAREWELL_MAX_S):
                await agent.farewell_over.wait()
        finally:
            self._stop_soon()
        return (
            f"this node has left the mesh; {_who_heard(agent.node.farewell, bool(others))}. "
            "Its keys are kept in the state folder, and are of no use any more"
        )

    # --- helpers --------------------------------------------------------------------------------------------

    def _seeds_for_invite(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns addresses for an invite, best first, and what a person should know about them."""
        record = self._agent.node.presence.record
        seeds = record.control_endpoints[:3] if record else ()
        if self._agent.state.node.endpoint:
            return seeds, ()
        ports = ports_to_open(self._agent.transport.port, self._agent.node.config.wireguard_port)
        note = (
            "the seeds are addresses of a local network: a joiner elsewhere can't reach them. "
            f"Found the mesh with --endpoint HOST, and open to this machine {ports}"
        )
        return seeds, (note,) if local_only(seeds) else ()

    def _stop_soon(self) -> None:
        async def stop() -> None:
            await trio.sleep(0.3)
            self._agent.stopping.set()

        self._agent.spawn(stop)


def _health(node: Node, members: int, troubles: list[str]) -> str:
    if node.presence.revoked:
        return "revoked"
    return "alone" if members > 1 and not node.links.peers else "degraded" if troubles else "ok"


def _who_heard(farewell: Farewell, others: bool) -> str:
    told, addressed = len(farewell.told), farewell.addressed
    if not others:
        return "nobody else was in it"
    if not told:
        return "no member could be told: they drop it when its last record expires"
    if told < addressed:
        return f"{told} of {addressed} linked members confirmed it, and the mesh hears it from them"
    members = "one member" if told == 1 else f"{told} members"
    return f"{members} confirmed it, and the mesh hears it from them"


def _capabilities(names: tuple[str, ...]) -> frozenset[Capability]:
    try:
        return frozenset(Capability(name) for name in names)
    except ValueError as error:
        raise LocalFault(f"{error.args[0]}", f"capabilities are: {', '.join(Capability)}") from error
