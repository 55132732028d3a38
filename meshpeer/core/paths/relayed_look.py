"""What one end of a pair sees of it, and how far it has come with a relay."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from meshpeer.core.ids import NodeId
from meshpeer.core.paths.direct_trial import TrialMeant
from meshpeer.core.paths.outlook import Outlook
from meshpeer.core.paths.relay_messages import RelayRequest
from meshpeer.core.wgconf.model import ObservedPeer

Said = tuple[NodeId, RelayRequest | TrialMeant]
"""What to say to whom: to relays, and to the other end."""


class Phase(enum.StrEnum):
    DIRECT = "direct"
    """No relay is in use."""
    CLEARING = "clearing"
    """The peer leaves the interface, so that its next packet is a handshake."""
    TRYING = "trying"
    RELAYED = "relayed"
    HELD = "held"
    """The pair left for a way of its own; the relay is frozen, and kept for a while."""
    LEAVING = "leaving"
    """As clearing, for a direct trial."""
    TRIAL = "trial"
    """The relay is kept, and direct is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLook:
    """What one end sees of its pair."""

    wanted: bool
    """The plan has a tunnel, and the other end seems alive."""
    outlook: Outlook = Outlook.UNKNOWN
    ways: tuple[str, ...] = ()
    """The peer's own endpoints, best first."""
    relays: tuple[tuple[NodeId, str], ...] = ()
    """Those that could relay, best first, with the host at which this node reaches each."""
    linked: frozenset[NodeId] = frozenset()
    """Those of them that this node has a link to, and takes for alive."""
    held: ObservedPeer | None = None
    """The peer as the interface has it."""
    tells: bool = False
    """There is a link to the other end."""
    alone: bool = False
    """There is no link to anybody: no relay hears what this end says."""
    tries: bool = False
    """WireGuard has an endpoint of the peer's own to try."""
    mute: bool = False
    """The tunnel shook hands lately, and answers nothing (``tunnel_checks``)."""
    probes: bool = False
    """This machine can probe ways from WireGuard's own port."""
    checks: bool = False
    """It can ask, from there, whether a relay's port is reached."""
    proved: tuple[tuple[str, float], ...] = ()
    """Endpoints of the peer's own that probes went to both ways of late, best first, and when each was
    answered last (monotonic)."""
    leaving: bool = False
    """The relay in use should relay no more, as its record and certificate say."""
    bound: tuple[str, float] | None = None
    """The lent endpoint that this end binds to, or checks, and when it was answered last (monotonic)."""
    through: NodeId | None = None
    """The relay that the tunnel seems to go through, by its endpoint; after a restart, nothing else tells."""

    @property
    def facts(self) -> tuple[object, ...]:
        """Returns what the outcome of a direct try may depend on."""
        return self.outlook, self.ways
