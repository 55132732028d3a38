"""Dial-backs: whether others reach this node's control port, found by asking linked members to try.

A node can't tell from inside whether a router or a firewall lets others in. So it asks a few members to dial
it and to say what came of it (AutoNAT of libp2p does the same). What is dialled are the control endpoints
that the asker's own signed record names, and never an address from the question: nobody can be made to
knock at a stranger's door beyond what gossip makes every member do anyway. Each asker is served a few times
a minute, and few dials are under way at once.

WireGuard's port can't be tried like this: it answers nothing to strangers (whitepaper, section 5.3).
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.rates import Buckets

ASKS_PER_S = 0.1
ASKS_BURST = 3.0
"""Of one asker: a person who looks again and again is served, a loop is not."""
DIALS_MAX = 4
"""Dial-backs under way at once, for whomever."""
ENDPOINTS_TRIED_MAX = 4
HELPERS_MAX = 3
"""How many members are asked."""
ENDPOINT_BYTES_MAX = 300


class Outcome(enum.StrEnum):
    """What came of dialling one endpoint."""

    REACHED = "reached"
    """The asker itself answered, and proved its key."""
    REFUSED = "refused"
    """A machine is there, and its port is closed."""
    SILENT = "silent"
    """Nothing came back."""
    STRANGER = "stranger"
    """Another node or program answers there."""
    BUSY = "busy"
    """It was not tried: too many dial-backs are under way, or were asked for."""


class Try(msgspec.Struct, frozen=True, kw_only=True):
    endpoint: str
    outcome: str
    """An ``Outcome``, or one of a later version."""


class DialBackAsked(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="dialback"):
    """Dial my control endpoints, and say what came of it."""

    number: int


class DialBackAnswered(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="dialled"):
    number: int
    tries: tuple[Try, ...]


FRAMES = (DialBackAsked, DialBackAnswered)


@dataclass(frozen=True, slots=True, kw_only=True)
class DialBacksWanted:
    """Event: somebody at this node wants to know; these members are linked, best asked first."""

    helpers: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DialledBack:
    """Event: a dial-back on behalf of another is over."""

    asker: NodeId
    number: int
    tries: tuple[Try, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DialBack:
    """Effect: dial each of these endpoints, expect the asker there, hang up; end with ``DialledBack``."""

    asker: NodeId
    number: int
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DialBackHeard:
    """Effect: a helper has answered; see ``DialBacks.heard``."""


Said = tuple[NodeId, DialBackAsked | DialBackAnswered] | DialBack | DialBackHeard
"""A message to a member, or an effect."""


class DialBacks:
    """Both ends of the exchange, for one node. Sans-IO."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._allowed: Buckets[NodeId] = Buckets(ASKS_PER_S, ASKS_BURST)
        self._dialling: set[tuple[NodeId, int]] = set()
        self._number = 0
        self._asked: tuple[NodeId, ...] = ()
        self.heard: dict[NodeId, tuple[Try, ...]] = {}
        """What helpers said since the question was put last."""

    @property
    def asked(self) -> tuple[NodeId, ...]:
        """Returns whom the last question went to."""
        return self._asked

    @property
    def is_answered(self) -> bool:
        return all(one in self.heard for one in self._asked)

    def handle(self, event: DialBacksWanted | DialledBack) -> list[Said]:
        if isinstance(event, DialledBack):
            self._dialling.discard((event.asker, event.number))
            return [(event.asker, DialBackAnswered(number=event.number, tries=event.tries))]
        self._number += 1
        self._asked, self.heard = event.helpers[:HELPERS_MAX], {}
        return [(helper, DialBackAsked(number=self._number)) for helper in self._asked]

    def on_message(
        self,
        peer: NodeId,
        message: DialBackAsked | DialBackAnswered,
        endpoints: Sequence[str],
        overlay: Iterable[str],
        now: Instant,
    ) -> list[Said]:
        """Takes a peer's message; ``endpoints`` are the control endpoints in its record, ``overlay`` prefixes
        of the mesh itself. Raises ``PeerFault`` for an answer beyond all bounds."""
        if isinstance(message, DialBackAsked):
            return self._on_asked(peer, message, endpoints, overlay, now)
        if len(message.tries) > ENDPOINTS_TRIED_MAX or any(
            len(one.endpoint) > ENDPOINT_BYTES_MAX or len(one.outcome) > ENDPOINT_BYTES_MAX
            for one in message.tries
        ):
            raise PeerFault("an answer to a dial-back is too long")
        if message.number != self._number or peer not in self._asked or peer in self.heard:
            return []
        self.heard[peer] = message.tries
        return [DialBackHeard()]

    def _on_asked(
        self,
        peer: NodeId,
        message: DialBackAsked,
        endpoints: Sequence[str],
        overlay: Iterable[str],
        now: Instant,
    ) -> list[Said]:
        forbidden = [ipaddress.ip_network(one, strict=False) for one in overlay]
        wanted = tuple(one for one in endpoints if _may_be_dialled(one, forbidden))[:ENDPOINTS_TRIED_MAX]
        key = (peer, message.number)
        if not wanted:
            return [(peer, DialBackAnswered(number=message.number, tries=()))]
        if len(self._dialling) >= DIALS_MAX or key in self._dialling or not self._allowed.take(peer, now):
            self._counters.add(Counter.DIAL_BACKS_REFUSED)
            busy = tuple(Try(endpoint=one, outcome=Outcome.BUSY.value) for one in wanted)
            return [(peer, DialBackAnswered(number=message.number, tries=busy))]
        self._counters.add(Counter.DIAL_BACKS)
        self._dialling.add(key)
        return [DialBack(asker=peer, number=message.number, endpoints=wanted)]


def _may_be_dialled(
    endpoint: str, forbidden: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> bool:
    """Says whether an endpoint can mean the asker at all: a loopback address means this machine, one of the
    mesh goes through the tunnel."""
    host, _, port = endpoint.rpartition(":")
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or not 0 < int(port) < 65_536:
        return False
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        # RFC 6761, section 6.3: whatever ends so means the machine that looks it up.
        name = host.lower().rstrip(".")
        return bool(name) and name != "localhost" and not name.endswith(".localhost")
    if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
        return False
    return not any(address.version == one.version and address in one for one in forbidden)
