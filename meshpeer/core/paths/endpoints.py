"""Chooses a tunnel's endpoint: one candidate at a time, for as long as no handshake is fresh.

WireGuard itself roams to wherever the peer's last authenticated packet came from, so an endpoint is set only to get a tunnel
going; under a fresh handshake it is left alone. Candidates come best first: an address on a network that this machine is
attached to, a configured public endpoint, the address that the control link goes to, the rest.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshpeer.core.deadline import Deadline, Instant

HANDSHAKE_FRESH_S = 180
"""WireGuard's REJECT_AFTER_TIME (whitepaper, section 6.1)."""
TRY_S = 6.0
"""A candidate is tried a little longer than WireGuard's REKEY_TIMEOUT of 5 s, so that each gets two initiations."""


def rank_candidates(
    *, advertised: Sequence[str], configured: bool, link_remote: str, port: int, attached: Iterable[str], overlay: Iterable[str]
) -> tuple[str, ...]:
    """Returns a peer's endpoints, best first, without duplicates.

    ``advertised``: from its record, the first one configured by a person where ``configured``. ``link_remote``: where its control
    link comes from or goes to. ``attached``: prefixes of this machine's own networks. ``overlay``: prefixes that
    must never carry a tunnel (tunnel in tunnel).
    """
    networks = [ipaddress.ip_network(one, strict=False) for one in attached]
    forbidden = [ipaddress.ip_network(one, strict=False) for one in overlay]
    linked = f"{link_remote.rpartition(':')[0]}:{port}" if link_remote and port else ""
    scored: list[tuple[int, int, str]] = []
    for position, endpoint in enumerate((*advertised, *([linked] if linked else []))):
        address = _address(endpoint)
        if address is not None and any(address.version == one.version and address in one for one in forbidden):
            continue
        near = address is not None and any(address.version == one.version and address in one for one in networks)
        if near:
            score = 0
        elif endpoint == linked:
            score = 1
        elif configured and position == 0:
            score = 2
        else:
            score = 3 if address is None or address.is_global else 4
        scored.append((score, position, endpoint))
    return tuple(dict.fromkeys(endpoint for _, _, endpoint in sorted(scored)))


@dataclass(slots=True)
class EndpointChoice:
    """The endpoint in use for one peer. Two doors: ``update`` and ``next_deadline``."""

    candidates: tuple[str, ...] = ()
    chosen: str | None = None
    tried_since_s: float = 0.0
    fresh: bool = False

    def update(self, candidates: tuple[str, ...], handshake_unix_s: int, now: Instant) -> str | None:
        """Returns the endpoint to set, given the candidates and the last handshake (Unix seconds, 0 for never)."""
        self.fresh = handshake_unix_s > 0 and now.unix_s - handshake_unix_s < HANDSHAKE_FRESH_S
        self.candidates = candidates
        if self.fresh and self.chosen is not None:
            return self.chosen
        if not candidates:
            return self.chosen
        if self.chosen not in candidates:
            self.chosen, self.tried_since_s = candidates[0], now.mono_s
        elif len(candidates) > 1 and now.mono_s >= self.tried_since_s + TRY_S:
            following = (candidates.index(self.chosen) + 1) % len(candidates)
            self.chosen, self.tried_since_s = candidates[following], now.mono_s
        return self.chosen

    def next_deadline(self) -> Deadline | None:
        if self.fresh or len(self.candidates) < 2:
            return None
        return Deadline(self.tried_since_s + TRY_S, "try the next endpoint of a peer")


def _address(endpoint: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(endpoint.rpartition(":")[0].strip("[]"))
    except ValueError:
        return None
