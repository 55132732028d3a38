"""The watch: what this node sees of the mesh's paths, to be shown in its record, and of its own tunnels.

It brings together the plan (whom to probe), the probes and their outcome, the checks of this node's own
tunnels, and the round trips of links.
"""

from __future__ import annotations

from collections.abc import Callable

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import AskEcho, Note
from meshpeer.core.ids import NodeId
from meshpeer.core.node.channels import Channels
from meshpeer.core.node.messages import AnswerEchoes, EchoAsked, EchoHeard, EndpointsChanged
from meshpeer.core.node.roster import Roster
from meshpeer.core.node.tunnels import Tunnels
from meshpeer.core.paths.tunnel_checks import TunnelChecks, TunnelSeen
from meshpeer.core.records.kinds import LeaveRecord, MemberRecord, Seen
from meshpeer.core.topology.distances import MEASURE_EVERY_S, Distances
from meshpeer.core.topology.hub_aims import Aims, aims_of
from meshpeer.core.topology.hub_probes import HubProbes
from meshpeer.core.topology.plan import Routes
from meshpeer.core.wgconf.model import tunnel_works

LATE_S = 0.5
"""A delay that no answer's way explains; a busy machine is a tenth of a second late all the time."""
ASLEEP_S = 3.0
"""A process that was not let run for so long was stopped, or its machine slept: what stands on its other side
may have changed meanwhile."""


class Watch:
    """Of one node. Sans-IO."""

    def __init__(
        self,
        tunnels: Tunnels,
        *,
        roster: Callable[[], Roster],
        rtt_s: Callable[[NodeId], float | None],
        entropy: Callable[[int], bytes],
        stored: MemberRecord | LeaveRecord | None,
        channels: Channels | None = None,
        now: Instant,
    ) -> None:
        """``channels``: None for a node that does not look whether its tunnels answer."""
        self._tunnels = tunnels
        self._channels = channels
        self._roster = roster
        self._rtt_s = rtt_s
        self.probes = HubProbes(entropy)
        self.checks = TunnelChecks(entropy)
        if isinstance(stored, MemberRecord):
            self.probes.book.resume(stored.hubs_failed, now)
        self._distances = Distances()
        self._measure_at_s = now.mono_s + MEASURE_EVERY_S
        self._answering: tuple[str, ...] = ()
        self._network: tuple[object, ...] | None = None
        """Addresses and the way out, as they were seen last."""
        self._shown = self.seen

    @property
    def seen(self) -> Seen:
        """Returns what the record is to say."""
        return Seen(
            hubs_failed=self.probes.book.shown,
            answers=self.probes.answers,
            distances=self._distances.shown,
        )

    @property
    def has_news(self) -> bool:
        """Says whether there is something to show, or to act upon, that was not taken yet."""
        turned = self._channels is not None and self._channels.has_news
        return turned or self.seen != self._shown or self.checks.mute != self._tunnels.mute

    def take(self) -> Seen:
        """Returns what the record is to say from now on; tunnels that answer nothing count as such."""
        self._tunnels.mute = self.checks.mute
        self._shown = self.seen
        return self._shown

    def next_deadline(self) -> Deadline | None:
        measure = Deadline(self._measure_at_s, "measure how far regions are")
        return earliest(
            self.probes.next_deadline(),
            self.checks.next_deadline(),
            self._channels.next_deadline() if self._channels else None,
            measure if self._tells_distances else None,
        )

    def follow_plan(self, now: Instant) -> list[AnswerEchoes]:
        """Takes the plan as it is now; returns on which addresses to answer, where that is something new."""
        routes = self._tunnels.routes
        if routes is None:
            return []
        self.probes.update(self._aims(routes), now)
        self.checks.update(self._seen(routes, now), self._tunnels.looks, now)
        for node in self._tunnels.take_moved():
            self.checks.suspect(node, now)
        if self._channels is not None:
            self._channels.follow(
                self._tunnels.plan, routes.shape.by_node, now, self._tunnels.successors.followed
            )
        mine = routes.mine if self._tunnels.plan.peers else None
        addresses = tuple(one for one in (mine.ipv4, mine.ipv6) if one) if mine else ()
        if addresses == self._answering:
            return []
        self._answering = addresses
        return [AnswerEchoes(addresses=addresses)]

    def _aims(self, routes: Routes) -> Aims:
        """Returns which hubs to probe, and how."""
        shaken = {
            peer.node
            for peer in self._tunnels.plan.peers
            if (tunnel := self._tunnels.observed_peer(peer.public_key)) is not None
            and tunnel.latest_handshake_unix_s
        }
        return aims_of(routes, self._tunnels.plan, shaken)

    def on_observed(self, now: Instant) -> None:
        """Takes what the interface shows."""
        routes = self._tunnels.routes
        if self._channels is not None and routes is not None:
            self._channels.observe(self._tunnels.held, routes.shape.view.keepalive_s, now)

    def _seen(self, routes: Routes, now: Instant) -> dict[NodeId, TunnelSeen]:
        """Returns the tunnels that lead to their peer's own addresses, as they were seen last."""
        members = routes.shape.by_node
        seen: dict[NodeId, TunnelSeen] = {}
        for planned in self._tunnels.plan.peers:
            peer, member = self._tunnels.observed_peer(planned.public_key), members.get(planned.node)
            if peer is None or member is None:
                continue
            own = ((member.ipv6, 128), (member.ipv4, 32))
            seen[planned.node] = TunnelSeen(
                addresses=tuple(one for one, bits in own if f"{one}/{bits}" in planned.allowed_ips),
                fresh=tunnel_works(peer, now.unix_s),
                handshake_unix_s=peer.latest_handshake_unix_s,
                rx_bytes=peer.rx_bytes,
                endpoint=peer.endpoint,
            )
        return seen

    def on_network(self, event: EndpointsChanged, now: Instant) -> None:
        """Takes what this machine's network is now. Routes by gateways come and go on a router all day; only
        the way out counts."""
        ways = tuple(one for one in event.routes if one.on_link or one.prefix.endswith("/0"))
        network = (event.control, event.wireguard, ways)
        if self._network not in (None, network):
            self.checks.suspect_all(now)
            self._tunnels.reflections.on_network_changed()
        self._network = network

    def on_lag(self, lag_s: float, now: Instant) -> None:
        """This process ran late."""
        self.probes.on_lag(now)
        if lag_s >= LATE_S:
            self.checks.on_lag(now)
        if lag_s >= ASLEEP_S:
            self.checks.suspect_all(now)

    def on_echo(self, event: EchoAsked | EchoHeard, now: Instant) -> None:
        match event:
            case EchoAsked(source=source):
                self.probes.on_asked(source)
            case EchoHeard(number=number, source=source) if not self.checks.on_answer(number, source, now):
                self.probes.on_answer(number, source, now)
                if self._channels is not None:
                    self._channels.on_echo(number, source, now)

    def tick(self, now: Instant) -> list[AskEcho | Note]:
        """Returns the probes and echoes that are due, and what is worth a line in the log."""
        if now.mono_s >= self._measure_at_s:
            self._measure(now)
        echoes = self.checks.tick(now)
        return [
            *self.probes.tick(now),
            *echoes,
            *(self._channels.tick(now) if self._channels else ()),
        ]

    # --- distances ------------------------------------------------------------------------------------------

    @property
    def _tells_distances(self) -> bool:
        """Says whether anybody needs this node's figures: those of hubs, and of whom no hub is near."""
        routes = self._tunnels.routes
        if routes is None or routes.mine is None or not routes.cells:
            return False
        region = routes.mine.region
        return routes.is_hub(routes.mine.node) or all(
            hub.region != region for hub in routes.cells[region].hubs
        )

    def _measure(self, now: Instant) -> None:
        self._measure_at_s = now.mono_s + MEASURE_EVERY_S
        if not self._tells_distances:
            self._distances.hide()
            return
        routes = self._tunnels.routes
        mine = routes.mine.region if routes and routes.mine else ""
        rtts_s: dict[str, list[float]] = {}
        for one in self._roster().members:
            rtt_s = self._rtt_s(one.node)
            if rtt_s is not None and one.record.region != mine:
                rtts_s.setdefault(one.record.region, []).append(rtt_s)
        regions = {one.record.region for one in self._roster().members} - {mine}
        self._distances.update(rtts_s, regions)
