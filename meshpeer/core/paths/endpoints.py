"""Chooses a tunnel's endpoint: one candidate at a time, for as long as no handshake is fresh.

WireGuard itself roams to wherever the peer's last authenticated packet came from, so an endpoint is set only
to get a tunnel going; under a fresh handshake it is left alone, unless the tunnel is found mute
(``tunnel_checks``), and the one that works is the first to be tried when it goes stale. Candidates come best
first: an address on a network that this machine is attached to, the address of the control link, a configured
public endpoint, the rest. What must never carry a tunnel is no candidate: the mesh's own addresses and what
is routed into it (tunnel in tunnel), this machine's own endpoint, addresses that mean another machine on
every machine, and those of a family that this machine has no address of.

Many homes have the same prefix (192.168.1.0/24). So a private address on a network that this machine is
attached to is near only where nothing shows that it stands behind another router: if members see both
nodes at addresses that differ, it comes last, unless the control link goes there.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.paths.tries import Tries
from meshpeer.core.wgconf.model import handshake_is_fresh

TRY_S = 6.0
"""A candidate is tried a little longer than WireGuard's REKEY_TIMEOUT of 5 s, so each gets two
initiations."""
MUTE_TRY_S = 1.5
"""The same in the first round of a tunnel that shook hands lately and answers nothing (``tunnel_checks``):
its session holds, so a packet that gets there is answered after one round trip."""
TRY_MAX_S = 48.0
"""Each round through all candidates is twice as slow as the one before, up to this long for each; not
where the peer lives and waits for the tunnel, too."""

FAMILIES_REMEMBERED = 1_024
"""Of members' endpoints; they change seldom."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Source(enum.IntEnum):
    """Where a candidate is known from; what comes first is tried first."""

    NEAR = 0
    """An address on a network that this machine is attached to."""
    LINK = 1
    """The address that the control link has."""
    CONFIGURED = 2
    """What the peer's owner named."""
    PUBLIC = 3
    """A DNS name, or an address of the peer's own that can be reached from anywhere."""
    REFLECTED = 4
    """Where other members see the peer: it is behind a router."""
    PRIVATE = 5
    """Any other address of the peer's own."""
    RELAY = 6
    """A port that a relay lends to the pair."""


class Candidate(NamedTuple):
    endpoint: str
    source: Source


def rank_candidates(
    *,
    advertised: Sequence[str],
    reflected: Sequence[str] = (),
    configured: bool,
    link_remote: str,
    port: int,
    attached: Sequence[str],
    overlay: Iterable[str],
    mine: Sequence[str] = (),
    my_port: int = 0,
) -> tuple[Candidate, ...]:
    """Returns a peer's endpoints, best first, without duplicates.

    ``advertised``: from its record, the first one configured by a person where ``configured``.
    ``reflected``: where others see it.
    ``link_remote``: where its control link comes from or goes to. ``attached``: this machine's own addresses,
    with the lengths of their prefixes. ``overlay``: prefixes that must never carry a tunnel. ``mine``: where
    others see this node; ``my_port``: that of its interface.
    """
    own = [ipaddress.ip_interface(one) for one in attached]
    near, families = [one.network for one in own], {one.version for one in own}
    apart = _are_apart(mine, reflected)
    forbidden = [ipaddress.ip_network(one, strict=False) for one in overlay]
    linked_address = _address(link_remote)
    linked = f"{link_remote.rpartition(':')[0]}:{port}" if linked_address and port else ""
    # A loopback address names this very machine, unless the peer is on it too, as its link then tells.
    neighbour = linked_address is not None and linked_address.is_loopback
    scored: list[tuple[Source, int, str]] = []
    for position, endpoint in enumerate((*advertised, *([linked] if linked else []), *reflected)):
        if not _port(endpoint):
            continue
        address = _address(endpoint)
        if address is not None:
            if _in_any(address, forbidden) or address.is_unspecified or address.is_multicast:
                continue
            if address.is_link_local or (address.is_loopback and not neighbour):
                continue
            if families and address.version not in families and not address.is_loopback:
                continue
            if _port(endpoint) == my_port and address in [one.ip for one in own]:
                continue
        elsewhere = apart and endpoint != linked and address is not None and not address.is_global
        if address is not None and _in_any(address, near) and elsewhere:
            source = Source.PRIVATE
        elif address is not None and _in_any(address, near):
            source = Source.NEAR
        elif endpoint == linked:
            source = Source.LINK
        elif configured and position == 0:
            source = Source.CONFIGURED
        else:
            told = endpoint in reflected and endpoint not in advertised
            public = Source.PUBLIC if address is None or address.is_global else Source.PRIVATE
            source = Source.REFLECTED if told else public
        scored.append((source, position, endpoint))
    best: dict[str, Source] = {}
    for source, _, endpoint in sorted(scored):
        best.setdefault(endpoint, source)
    return tuple(Candidate(endpoint, source) for endpoint, source in best.items())


@functools.lru_cache(maxsize=FAMILIES_REMEMBERED)
def families_of(endpoints: tuple[str, ...]) -> frozenset[int]:
    """Returns the IP versions of endpoints; both where one of them is a name."""
    addresses = [_address(one) for one in endpoints if _port(one)]
    return frozenset(version for one in addresses for version in ((one.version,) if one else (4, 6)))


def lacks_family(endpoints: Iterable[str], attached: Iterable[str]) -> bool:
    """Says whether all of a peer's endpoints are of a family that this machine has no address of."""
    families = {ipaddress.ip_interface(one).version for one in attached}
    versions = [address.version if (address := _address(one)) else None for one in endpoints]
    return bool(families and versions) and not any(one is None or one in families for one in versions)


def is_public(endpoint: str) -> bool:
    """Says whether an endpoint has an address that can be reached from anywhere."""
    address = _address(endpoint)
    return address is not None and address.is_global and bool(_port(endpoint))


@dataclass(slots=True)
class EndpointChoice:
    """The endpoint in use for one peer. Two doors: ``update`` and ``next_deadline``."""

    candidates: tuple[str, ...] = ()
    chosen: str | None = None
    tried_since_s: float = 0.0
    tries: int = 0
    """Candidates given up since the tunnel worked last, or since the candidates changed."""
    fresh: bool = False
    """The last handshake is so, and the tunnel not mute: the choice works."""
    hurried: bool = False
    """The peer lives, and its tunnel answers nothing: whatever kept packets away may end at any time."""
    mute: bool = False
    """The tunnel shook hands lately and answers nothing: its endpoint is to be written all the same."""
    moved: bool = False
    """The candidates changed under a fresh handshake: what it leads to may be there no more. For the caller
    to take back."""
    history: Tries = field(default_factory=Tries)
    known: dict[str, float] = field(default_factory=dict)
    """Since when each candidate is one (Unix seconds)."""
    _resume: str | None = None
    """Whose turn it was when the endpoint that worked last took it."""

    def update(
        self,
        candidates: tuple[str, ...],
        handshake_unix_s: float,
        now: Instant,
        working: str | None = None,
        *,
        mute: bool = False,
        idle: tuple[str, ...] = (),
    ) -> str | None:
        """Returns the endpoint to set, given the candidates and the last handshake (Unix seconds, 0 for
        never).

        ``working`` is the endpoint that the interface has now; under a fresh handshake it is the choice,
        unless the tunnel is found ``mute``. ``idle`` are known, and not to be tried now.
        """
        known = dict.fromkeys((*candidates, *idle))
        if known.keys() != self.known.keys():
            self.known = {one: self.known.get(one, now.unix_s) for one in known}
        shaken = handshake_is_fresh(handshake_unix_s, now.unix_s)
        falls_silent = shaken and mute and not self.mute
        self.fresh, self.mute = shaken and not mute, shaken and mute
        if candidates != self.candidates:
            self.moved = shaken and bool(self.candidates)
            better = bool(candidates) and candidates[0] not in self.candidates
            position = self.candidates.index(self.chosen) if self.chosen in self.candidates else 0
            self.candidates, self.tries = candidates, 0
            if not self.fresh and (better or self.chosen not in candidates):
                # Two behind routers have to try each other's at about one time: when they hear of it. Where
                # one is gone and none is better, those behind it get their turn.
                if self.chosen is not None:
                    self.history.gave_up(self.chosen, now)
                self.chosen = None
                if candidates and not better:
                    self.chosen = candidates[min(position, len(candidates) - 1)]
                    self.tried_since_s = now.mono_s
        if self.fresh:
            self.chosen = working or self.chosen
            self.tried_since_s, self.tries = now.mono_s, 0
        if falls_silent:
            self.chosen, self.tries = working or self.chosen, 1
            # From the best one on: news of where the peer is now stands first.
            self._take(next((one for one in candidates if one != self.chosen), self.chosen), now)
            return self.chosen
        if self.chosen is not None:
            self.history.saw(self.chosen, handshake_unix_s if self.fresh else None, now)
        if self.chosen is not None and (self.fresh or now.mono_s < self._given_up_at_s()):
            return self.chosen
        self._take_next(candidates, now)
        return self.chosen

    def next_deadline(self) -> Deadline | None:
        """Returns when the candidate in use is given up; None where nothing else could be tried."""
        others = [one for one in self.candidates if one != self.chosen]
        if self.fresh or not others:
            return None
        return Deadline(self._given_up_at_s(), "try the next endpoint of a peer")

    def _take_next(self, candidates: tuple[str, ...], now: Instant) -> None:
        if not candidates:
            return
        if self.chosen in candidates:
            following = candidates[(candidates.index(self.chosen) + 1) % len(candidates)]
            worked = self.history.worked_last()
            if self.hurried and worked in candidates and worked != self.chosen:
                # What worked last is the likeliest: every other turn is its.
                self._resume, following = following if following != worked else None, worked
            else:
                following, self._resume = self._resume if self._resume in candidates else following, None
            self.tries += 1
        else:
            following = candidates[0]
        self._take(following, now)

    def _take(self, following: str | None, now: Instant) -> None:
        if following is not None and following != self.chosen:
            if self.chosen is not None:
                self.history.gave_up(self.chosen, now)
            self.history.took_up(following, now)
        self.chosen, self.tried_since_s = following, now.mono_s

    def _given_up_at_s(self) -> float:
        rounds = 0 if self.hurried else min(self.tries // max(1, len(self.candidates)), 8)
        if self.mute and not rounds:
            return self.tried_since_s + MUTE_TRY_S
        return self.tried_since_s + min(TRY_S * 2.0**rounds, TRY_MAX_S)


def _are_apart(mine: Iterable[str], theirs: Iterable[str]) -> bool:
    """Says whether both are seen, in IPv4, and at addresses that differ: behind two routers."""
    here, there = (
        {address for one in ends if (address := _address(one)) and address.version == 4}
        for ends in (mine, theirs)
    )
    return bool(here and there) and not here & there


def _in_any(address: _Address, networks: Iterable[_Network]) -> bool:
    return any(address.version == one.version and address in one for one in networks)


def _address(endpoint: str) -> _Address | None:
    """Returns the endpoint's address; None for a DNS name."""
    try:
        return ipaddress.ip_address(endpoint.rpartition(":")[0].strip("[]"))
    except ValueError:
        return None


def _port(endpoint: str) -> int:
    """Returns the endpoint's port; 0 for what is no endpoint."""
    host, _, port = endpoint.rpartition(":")
    number = int(port) if host and port.isascii() and port.isdigit() and len(port) <= 5 else 0
    return number if number <= 65_535 else 0
