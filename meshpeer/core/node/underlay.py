"""The underlay of this node's tunnels, as probes from WireGuard's own port find it: which endpoints of a peer
lead both ways, how wide the one in use is, and where peers see this node.

It hands the desk who may ask (whoever has a tunnel in the plan), follows the endpoints that the interface
shows, and turns what happens into probes. Whom to probe before a tunnel goes there is for those to say who
choose paths (``probes.aim``).
"""

from __future__ import annotations

from collections.abc import Callable

from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import MeshId, NodeId
from meshpeer.core.node.tunnels import Tunnels
from meshpeer.core.paths.bindings import Bindings
from meshpeer.core.paths.observers import Observers
from meshpeer.core.paths.path_mtus import PathMtus
from meshpeer.core.paths.probe_desk import AnswerSeen, ProbeHeard, ProbePortOpened, ProbeTooLong, SendProbe
from meshpeer.core.paths.probes import PathProbes
from meshpeer.core.wgconf.model import tunnel_works


class Underlay:
    """Of one node. Sans-IO."""

    def __init__(
        self,
        tunnels: Tunnels,
        *,
        mesh: MeshId,
        key: WireGuardPrivateKey,
        entropy: Callable[[int], bytes],
        counters: Counters,
    ) -> None:
        self._tunnels = tunnels
        self._own: tuple[str, ...] = ()
        self.probes = PathProbes(mesh=mesh, key=key, entropy=entropy, counters=counters)
        self.bindings = Bindings()
        self.mtus = PathMtus(self.probes.desk)
        self.observers = Observers(self.probes.desk, tunnels.reflections, salt=key.public)

    @property
    def has_news(self) -> bool:
        """Says whether MTUs are known that the tunnels do not have yet, a relay knows now where this node is,
        or a peer sees it elsewhere."""
        return self._is_found or self.mtus.found != self._tunnels.mtus

    def handle(self, event: ProbePortOpened | ProbeHeard | ProbeTooLong, now: Instant) -> list[SendProbe]:
        """Takes an event; returns the probes that follow from it at once."""
        match event:
            case ProbePortOpened():
                self.probes.able = True
            case ProbeHeard() if self.bindings.on_heard(event, now):
                return []
            case ProbeHeard():
                fact, sent = self.probes.on_heard(event, now)
                if isinstance(fact, AnswerSeen):
                    self.mtus.on_answer(fact, now)
                    self.observers.on_answer(fact, now)
                return sent
            case ProbeTooLong():
                self.mtus.on_too_long(event, now)
        return []

    def on_network(self, own: tuple[str, ...], now: Instant) -> None:
        """Takes this machine's own endpoints: where they changed, so may have its ways out."""
        if self._own and own != self._own:
            self.mtus.look_again(now)
        self._own = own
        self.observers.on_network(own, now)

    def rekey(self, key: WireGuardPrivateKey) -> None:
        """Sets this node's own key, from which those of probes follow."""
        self.probes.desk.rekey(key)

    def take(self) -> None:
        """Lets the tunnels have what is known of MTUs."""
        self._tunnels.mtus = self.mtus.found
        self.bindings.has_news = self.observers.has_news = False

    def follow_plan(self, charter_mtu: int, now: Instant) -> None:
        """Takes the plan and the interface's endpoints as they are now."""
        if not self.probes.able:
            return
        self.mtus.follow(self._follow_ways(now), charter_mtu, now)

    def tick(self, now: Instant) -> list[SendProbe]:
        """Returns the probes that are due."""
        return [
            *self.probes.tick(now),
            *self.mtus.tick(now),
            *self.bindings.tick(now),
            *self.observers.tick(now),
        ]

    def next_deadline(self) -> Deadline | None:
        return earliest(
            self.probes.next_deadline(),
            self.mtus.next_deadline(),
            self.bindings.next_deadline(),
            self.observers.next_deadline(),
        )

    @property
    def _is_found(self) -> bool:
        return self.bindings.has_news or self.observers.has_news

    def _follow_ways(self, now: Instant) -> dict[NodeId, tuple[str, bool]]:
        """Takes whom there are tunnels with; returns the endpoints of those that go by no relay, and whether
        they work."""
        peers = self._tunnels.plan.peers
        self.probes.know(((one.node, one.public_key) for one in peers), self._tunnels.inside)
        ways: dict[NodeId, tuple[str, bool]] = {}
        for one in peers:
            tunnel = self._tunnels.observed_peer(one.public_key)
            # A relay's port answers no probes; what goes through it has the usual MTU.
            if tunnel is not None and tunnel.endpoint and not self._tunnels.goes_through_relay(one.node):
                ways[one.node] = (tunnel.endpoint, tunnel_works(tunnel, now.unix_s))
        self.observers.follow({node: end for node, (end, works) in ways.items() if works}, now)
        return ways
