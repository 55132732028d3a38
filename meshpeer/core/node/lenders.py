"""Lenders: which members lend ports, which of them relay which pair of this node, and where it reaches each.

Records say who lends, and where each stands in its network. This node adds what it alone knows: whose tunnel
with it does not work, and whose ports did not answer it.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Collection, Iterable, Mapping

from meshpeer.core.deadline import Instant
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import NodeId
from meshpeer.core.node.derived import Derived
from meshpeer.core.node.roster import Listed
from meshpeer.core.paths.endpoints import Candidate, Source, families_of, is_public
from meshpeer.core.paths.outlook import Outlook, Stand, outlook_of
from meshpeer.core.paths.relay_choice import RelayCandidate, choose_relays
from meshpeer.core.paths.relayed import RelayedPath
from meshpeer.core.records.kinds import MemberRecord
from meshpeer.core.wgconf.model import tunnel_works
from meshpeer.core.wire.limits import MEMBERS_MAX

SHUT_S = 600.0
"""For how long a relay comes last for all pairs of this node whose port did not answer it."""
RELAYS_KNOWN_MAX = 8
"""Relays that one pair may fall back on, the two that serve it first among them."""
_Choice = tuple[object, ...]
"""What the relays of a pair are chosen from: the lenders with where they stand, the families of both ends,
who is doubted and who is silent."""
_is_public = functools.lru_cache(maxsize=MEMBERS_MAX)(is_public)


class Lenders:
    """Of one node: ``find`` takes the roster, ``look`` begins a look at all pairs. Sans-IO."""

    def __init__(self, me: NodeId, derived: Derived) -> None:
        self._me = me
        self._derived = derived
        self._tunnels = derived.tunnels
        self.all: tuple[Listed, ...] = ()
        """Every member that lends ports, but this node."""
        self._by_id: dict[NodeId, Listed] = {}
        self._facts: tuple[tuple[NodeId, bool, bool, frozenset[int]], ...] = ()
        """All of them that a choice depends on: who may be public, is seen to be, and of which families. Most
        news of members leaves it as it is."""
        self._doubted: tuple[NodeId, ...] = ()
        self._silent: tuple[NodeId, ...] = ()
        """Those of them with whom this node has a tunnel that does not work, as one look finds it, and those
        whose ports did not answer it of late."""
        self._shut: dict[NodeId, float] = {}
        """The latter, and until when that counts (monotonic)."""
        self._choices: dict[NodeId, tuple[_Choice, tuple[NodeId, ...]]] = {}
        """The relays of each pair, by its other end, and what they were chosen from."""
        self._reached: dict[NodeId, str] = {}
        """Where this node reaches relays, as one look finds it."""
        self._hosts: dict[str, Listed] = {}
        """Where members that lend ports have their tunnels."""
        self._roster: object = None

    # --- events ---------------------------------------------------------------------------------------------

    def find(self) -> None:
        """Takes the members as the roster has them now."""
        roster = self._derived.roster
        if roster is self._roster:
            return
        self._roster = roster
        self.all = tuple(one for one in roster.members if one.node != self._me and _lends(one))
        self._by_id = {one.node: one for one in self.all}
        stands = [(one, _stand(one.record)) for one in self.all]
        facts = tuple(
            (one.node, not stand.behind, stand.open, families_of(one.record.wireguard_endpoints))
            for one, stand in stands
        )
        # The same one where nothing changed: all pairs compare it at every look.
        self._facts = self._facts if facts == self._facts else facts
        self._hosts = {}
        for one in self.all:
            for endpoint in one.record.wireguard_endpoints:
                self._hosts.setdefault(endpoint.rpartition(":")[0], one)

    def look(self, planned: Collection[NodeId], now: Instant) -> None:
        """Begins a look at all pairs; ``planned`` are those with whom this node has a tunnel."""
        self._reached.clear()
        ours = [one for one in self.all if one.node in planned]
        unusual = self._derived.detector.unusual
        self._doubted = tuple(one for one in self._by_id if one in unusual)
        self._shut = {node: until_s for node, until_s in self._shut.items() if now.mono_s < until_s}
        silent = {one.node for one in ours if not self._works(one, now)}
        self._silent = tuple(sorted(silent.union(self._shut)))

    def note(self, found: Mapping[NodeId, bool], now: Instant) -> None:
        """Takes which relays' ports answered a pair of this node, and which did not."""
        for relay, reached in found.items():
            self._shut.pop(relay, None)
            if not reached:
                self._shut[relay] = now.mono_s + SHUT_S

    def forget(self, peer: NodeId) -> None:
        """A pair is over."""
        self._choices.pop(peer, None)

    # --- reading --------------------------------------------------------------------------------------------

    def choose(self, relayed: RelayedPath) -> tuple[tuple[NodeId, str], ...]:
        """Returns the relays of a pair, best first, with the host at which this node reaches each."""
        chosen = self._chosen(relayed)
        # One that is in use stays, whatever is said of it now, until its pair left it.
        known = [*chosen, *(one for one in relayed.kept if one not in chosen)]
        hosts = [(node, self._host_at(node)) for node in known]
        return tuple((node, host) for node, host in hosts if host)

    def shut_among(self, relays: Collection[NodeId]) -> tuple[NodeId, ...]:
        """Returns those whose ports did not answer this node of late."""
        return tuple(one for one in relays if one in self._shut)

    def through(self, endpoint: str | None) -> NodeId | None:
        """Returns the member that lends ports on the host of an endpoint, which is not its own tunnel's."""
        if not endpoint:
            return None
        host, _, port = endpoint.rpartition(":")
        one = self._hosts.get(host)
        return one.node if one is not None and port != str(one.record.wireguard_port) else None

    def outlook(self, mine: Listed, listed: Listed, own: Iterable[Candidate]) -> Outlook:
        """Returns what is to be expected of direct tries to a member with these endpoints of its own."""
        if not _share_family(mine.record, listed.record):
            return Outlook.HOPELESS
        sources = {one.source for one in own}
        return outlook_of(
            _stand(mine.record),
            _stand(listed.record),
            near=Source.NEAR in sources,
            linked=Source.LINK in sources,
        )

    # --- rules ----------------------------------------------------------------------------------------------

    def _chosen(self, relayed: RelayedPath) -> tuple[NodeId, ...]:
        """Returns the relays of a pair, best first. Every second asks for them, and they change with the
        roster, with who is doubted or silent, and with the one in use."""
        # Who is in use is changed by its pair, with care.
        doubted = tuple(one for one in self._doubted if one != relayed.used)
        silent = tuple(one for one in self._silent if one != relayed.used)
        roster = self._derived.roster
        ends = [
            families_of(end.record.wireguard_endpoints) for one in relayed.pair if (end := roster.get(one))
        ]
        choice: _Choice = (self._facts, *ends, doubted, silent)
        held = self._choices.get(relayed.peer)
        if held is not None and held[0] == choice:
            return held[1]
        candidates = [
            RelayCandidate(
                node=node,
                permitted=True,
                accepts=True,
                public=public,
                seen=seen,
                silent=node in silent,
                spans=all(not (families and end) or bool(families & end) for end in ends),
                doubted=node in doubted,
            )
            for node, public, seen, families in self._facts
        ]
        chosen = choose_relays(relayed.pair, candidates, RELAYS_KNOWN_MAX)
        self._choices[relayed.peer] = (choice, chosen)
        return chosen

    def _host_at(self, relay: NodeId) -> str:
        """Returns where this node reaches a relay, the same for all pairs of one look; empty for nowhere."""
        if relay not in self._reached:
            listed = self._derived.roster.get(relay)
            self._reached[relay] = self._host_of(listed) if listed is not None else ""
        return self._reached[relay]

    def _works(self, one: Listed, now: Instant) -> bool:
        held = self._tunnels.observed_peer(one.record.wireguard_key)
        return tunnel_works(held, now.unix_s) and one.node not in self._tunnels.mute

    def _host_of(self, relay: Listed) -> str:
        """Returns where this node reaches a relay, as an address; empty where it knows none."""
        held = self._tunnels.observed_peer(relay.record.wireguard_key)
        own = self._tunnels.candidates(relay, self._derived.links.remote_of(relay.node))
        endpoints = [one.endpoint for one in sorted(own, key=lambda one: one.source is not Source.LINK)]
        if (
            held
            and held.endpoint
            and held.latest_handshake_unix_s
            and not self._tunnels.goes_through_relay(relay.node)
        ):
            endpoints.insert(0, held.endpoint)
        return next((host for one in endpoints if _is_address(host := one.rpartition(":")[0])), "")


def _lends(one: Listed) -> bool:
    return one.record.relay and Capability.RELAY in one.identity.capabilities


def _stand(record: MemberRecord) -> Stand:
    return Stand(
        router=record.router,
        reflected=bool(record.reflected_endpoints),
        configured=record.configured_endpoint,
        public=any(_is_public(one) for one in record.wireguard_endpoints),
    )


def _share_family(one: MemberRecord, other: MemberRecord) -> bool:
    """Says whether two may have a packet from each other, by IPv4 or IPv6; yes where one does not say what it
    has."""
    here, there = families_of(one.wireguard_endpoints), families_of(other.wireguard_endpoints)
    return not (here and there) or bool(here & there)


@functools.lru_cache(maxsize=MEMBERS_MAX)
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
