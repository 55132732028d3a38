"""The watch: what this node sees of the mesh's paths, to be shown in its record.

It brings together the plan (whom to probe), the probes and their outcome, and the round trips of links.
"""

from __future__ import annotations

from collections.abc import Callable

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.ids import NodeId
from meshpeer.core.node.messages import AnswerEchoes, EchoAsked, EchoHeard
from meshpeer.core.node.roster import Roster
from meshpeer.core.node.tunnels import Tunnels
from meshpeer.core.records.kinds import LeaveRecord, MemberRecord, Seen
from meshpeer.core.topology.distances import MEASURE_EVERY_S, Distances
from meshpeer.core.topology.hub_aims import aims_of
from meshpeer.core.topology.hub_probes import AskEcho, HubProbes


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
        now: Instant,
    ) -> None:
        self._tunnels = tunnels
        self._roster = roster
        self._rtt_s = rtt_s
        self.probes = HubProbes(entropy)
        if isinstance(stored, MemberRecord):
            self.probes.book.resume(stored.hubs_failed, now)
        self._distances = Distances()
        self._measure_at_s = now.mono_s + MEASURE_EVERY_S
        self._answering: tuple[str, ...] = ()
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
        """Says whether there is something to show that was not taken yet."""
        return self.seen != self._shown

    def take(self) -> Seen:
        """Returns what the record is to say from now on."""
        self._shown = self.seen
        return self._shown

    def next_deadline(self) -> Deadline | None:
        measure = Deadline(self._measure_at_s, "measure how far regions are")
        return earliest(self.probes.next_deadline(), measure if self._tells_distances else None)

    def follow_plan(self, now: Instant) -> list[AnswerEchoes]:
        """Takes the plan as it is now; returns on which addresses to answer, where that is something new."""
        routes = self._tunnels.routes
        if routes is None:
            return []
        keys = {peer.node: peer.public_key for peer in self._tunnels.plan.peers}
        shaken = {
            node
            for node, key in keys.items()
            if (tunnel := self._tunnels.observed_peer(key)) is not None and tunnel.latest_handshake_unix_s
        }
        aims = aims_of(routes, self._tunnels.plan, shaken)
        self.probes.update(aims, now)
        if aims.addresses == self._answering:
            return []
        self._answering = aims.addresses
        return [AnswerEchoes(addresses=aims.addresses)]

    def on_echo(self, event: EchoAsked | EchoHeard, now: Instant) -> None:
        match event:
            case EchoAsked(source=source):
                self.probes.on_asked(source)
            case EchoHeard(number=number, source=source):
                self.probes.on_answer(number, source, now)

    def tick(self, now: Instant) -> list[AskEcho]:
        """Returns the probes that are due."""
        if now.mono_s >= self._measure_at_s:
            self._measure(now)
        return self.probes.tick(now)

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
