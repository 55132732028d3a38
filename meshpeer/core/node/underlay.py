"""The underlay of this node's tunnels, as probes from WireGuard's own port find it: which endpoints of a peer
lead both ways.

It hands the desk who may ask (whoever has a tunnel in the plan), and turns what happens into probes. Whom to
probe is for those to say who choose paths (``probes.aim``).
"""

from __future__ import annotations

from collections.abc import Callable

from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import MeshId
from meshpeer.core.node.tunnels import Tunnels
from meshpeer.core.paths.probe_desk import ProbeHeard, ProbePortOpened, ProbeTooLong, SendProbe
from meshpeer.core.paths.probes import PathProbes


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
        self.probes = PathProbes(mesh=mesh, key=key, entropy=entropy, counters=counters)

    def handle(self, event: ProbePortOpened | ProbeHeard | ProbeTooLong, now: Instant) -> list[SendProbe]:
        match event:
            case ProbePortOpened():
                self.probes.able = True
            case ProbeHeard():
                return self.probes.on_heard(event, now)[1]
            case ProbeTooLong():
                pass
        return []

    def follow_plan(self) -> None:
        """Takes the plan as it is now."""
        peers = self._tunnels.plan.peers
        self.probes.know(((one.node, one.public_key) for one in peers), self._tunnels.inside)

    def tick(self, now: Instant) -> list[SendProbe]:
        return self.probes.tick(now)

    def next_deadline(self) -> Deadline | None:
        return self.probes.next_deadline()
