"""How much of each peer's packets its tunnel carries in one piece, found by probes of the underlay.

A ping inside the tunnel does not tell: WireGuard lets its own packets be fragmented, and the ping comes back
all the same. So the probes have the size that WireGuard's packets would have. One search per peer follows
the endpoint that its tunnel has; a new endpoint is a new path, of which nothing is known.

A packet of m bytes in the tunnel has m + 60 on the underlay by IPv4 and m + 80 by IPv6: headers of IP (20 or
40) and UDP (8), 16 of WireGuard's and its tag of 16 (whitepaper, section 5.4.6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.mtu_search import MtuSearch
from meshpeer.core.paths.probe_desk import AnswerSeen, ProbeDesk, ProbeTooLong, SendProbe
from meshpeer.core.paths.probe_packets import PROBE_BYTES, split_endpoint
from meshpeer.core.paths.relay_bucket import Bucket

USUAL_MTU = 1_420
"""Fits Ethernet's 1,500 bytes over either family. A charter that says so leaves it to the search to find
more."""
JUMBO_MTU = 8_960
"""The most that is looked for: it takes 9,020 bytes by IPv4, and 9,040 by IPv6."""
MTU_LEAST = 516
"""Every IPv4 host takes packets of 576 bytes (RFC 791)."""
ETHERNET = 1_500
PACKET_MAX = 65_535
UDP_OVER_IP = {4: 28, 6: 48}
TUNNEL_OVER_IP = {4: 60, 6: 80}
SEARCHED_MAX = 256
"""Peers whose paths are searched; others have the charter's MTU."""
SENT_PER_S, SENT_BURST = 50.0, 50.0
TURN_S = 0.1


def most_of(setting: int) -> int:
    """Returns the widest MTU of any peer, given the charter's: one that somebody chose is the most."""
    return JUMBO_MTU if setting == USUAL_MTU else setting


def tunnel_mtu(underlay_bytes: int, version: int, setting: int) -> int:
    """Returns a peer's MTU where the underlay carries packets of so many bytes, by IP ``version``.

    Ethernet's usual width gives the charter's value by either family, so that it does not change with it."""
    fits = underlay_bytes - TUNNEL_OVER_IP[version]
    return max(MTU_LEAST, min(fits, setting if underlay_bytes <= ETHERNET else most_of(setting)))


@dataclass(slots=True)
class _Path:
    endpoint: str
    version: int
    search: MtuSearch
    works: bool = True
    not_before_s: float = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class MtuLook:
    """What is known of one peer's path."""

    endpoint: str
    underlay_bytes: int | None
    """The widest packet that passed; None: the other end answered none, or has not yet."""
    mtu: int


class PathMtus:
    """Of one node, to all its peers. Sans-IO."""

    def __init__(self, desk: ProbeDesk) -> None:
        self._desk = desk
        self._setting = USUAL_MTU
        self._paths: dict[NodeId, _Path] = {}
        self._stale = False
        """What follows from the searches is to be put together anew."""
        self._found: Mapping[NodeId, int] = {}
        self._deadline: Deadline | None = None
        self._bucket = Bucket(SENT_PER_S, SENT_BURST)

    @property
    def found(self) -> Mapping[NodeId, int]:
        """Returns the MTU of each peer of which one was found."""
        self._put_together()
        return self._found

    def look(self, peer: NodeId) -> MtuLook | None:
        """Returns what is known of a peer's path; None where it is not searched."""
        path = self._paths.get(peer)
        if path is None:
            return None
        found = path.search.found
        mtu = self._setting if found is None else tunnel_mtu(found, path.version, self._setting)
        return MtuLook(endpoint=path.endpoint, underlay_bytes=found, mtu=mtu)

    def follow(self, paths: Mapping[NodeId, tuple[str, bool]], setting: int, now: Instant) -> None:
        """Takes the endpoint of each peer's tunnel, and whether that works now. Where it does not, what is
        known is kept, and nothing asked."""
        self._stale = True
        if setting != self._setting:
            self._setting, self._paths = setting, {}
        for peer in [one for one in self._paths if one not in paths]:
            del self._paths[peer]
        for peer, (endpoint, works) in paths.items():
            path = self._paths.get(peer)
            if path is not None and path.endpoint == endpoint:
                path.works = works
            elif works:
                self._paths.pop(peer, None)
                self._start(peer, endpoint, now)
            elif path is not None:
                path.works = False

    def look_again(self, now: Instant) -> None:
        """This machine's network changed."""
        self._stale = True
        for path in self._paths.values():
            path.search.look_again(now)

    def on_answer(self, fact: AnswerSeen, now: Instant) -> None:
        path = self._paths.get(fact.peer)
        if path is not None and path.endpoint == fact.endpoint:
            self._stale = True
            path.search.on_answer(fact.probe_bytes + UDP_OVER_IP[path.version], now)

    def on_too_long(self, event: ProbeTooLong, now: Instant) -> None:
        for path in self._paths.values():
            if path.endpoint == event.endpoint:
                self._stale = True
                path.search.on_too_long(event.probe_bytes + UDP_OVER_IP[path.version], now)

    def tick(self, now: Instant) -> list[SendProbe]:
        """Returns the probes that are due."""
        deadline = self.next_deadline()
        sent: list[SendProbe] = []
        if deadline is None or now.mono_s < deadline.at_s:
            return sent
        self._stale = True
        for peer, path in self._paths.items():
            if not path.works or now.mono_s < max(path.not_before_s, path.search.next_s()):
                continue
            if not self._bucket.holds(1.0, now.mono_s):
                path.not_before_s = now.mono_s + TURN_S
                continue
            for size in path.search.due(now):
                # The sizes of one search go together, or silence would mean something else.
                self._bucket.take(1.0, now.mono_s)
                length = size - UDP_OVER_IP[path.version]
                asked = self._desk.ask(peer, path.endpoint, now, probe_bytes=length)
                sent += [asked[1]] if asked else []
        return sent

    def next_deadline(self) -> Deadline | None:
        self._put_together()
        return self._deadline

    def _put_together(self) -> None:
        """Both are asked for at every event, and change with few."""
        if not self._stale:
            return
        self._stale = False
        self._found = {
            peer: tunnel_mtu(path.search.found, path.version, self._setting)
            for peer, path in self._paths.items()
            if path.search.found is not None
        }
        due = [max(one.not_before_s, one.search.next_s()) for one in self._paths.values() if one.works]
        self._deadline = Deadline(min(due), "find how wide a path is") if due else None

    def _start(self, peer: NodeId, endpoint: str, now: Instant) -> None:
        parts = split_endpoint(endpoint)
        if parts is None or not self._desk.may_carry(endpoint) or len(self._paths) >= SEARCHED_MAX:
            return
        version = parts[0].version
        least = PROBE_BYTES + UDP_OVER_IP[version]
        top = min(most_of(self._setting) + TUNNEL_OVER_IP[version], PACKET_MAX)
        search = MtuSearch(least=least, top=top, now=now)
        self._paths[peer] = _Path(endpoint, version, search)
