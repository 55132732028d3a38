"""The door that strangers stand at: how many shake hands at once, and who has to go when one more comes.

A handshake is the one thing that a stranger makes us do. Where as many are under way as may be, whoever came
next would have to be refused, and a stranger who holds all places would keep members out for as long as it
likes, for nothing. So it is the one who has stood longest that goes: an honest handshake takes a few round
trips, and one that takes much longer is in nobody's way until others come. Those go first whose source has
the most under way, and of these those who have said nothing yet. A source is an address or, in IPv6, a
network of /64, since one machine has a whole one.

Who has proved a certificate of the mesh is no stranger, and is not sent away.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import resource
from collections.abc import Iterator
from dataclasses import dataclass

import trio

HANDSHAKES_MAX = 1_024
"""Incoming handshakes under way at once; each holds a descriptor and, once it spoke, 40 KB of TLS."""
HANDSHAKES_PER_SOURCE_MAX = 8
"""The same from one source: one machine can't use up all. Several members may live behind a NAT."""
STAY_MIN_S = 0.5
"""What everybody is given who was let in: below, newcomers are refused instead."""
_DESCRIPTORS_SHARE = 4
"""A quarter of the descriptors that this process may have, at most, is held by strangers."""
_SOURCE_V6_BITS = 64


@dataclass(slots=True, eq=False)
class Guest:
    """One handshake under way."""

    source: str
    number: int
    since_s: float
    scope: trio.CancelScope
    spoke: bool = False
    """Its first byte has come."""
    proved: bool = False
    """It has shown a certificate of the mesh."""
    sent_away: bool = False


class Door:
    """Counts handshakes under way, and makes room for the next."""

    def __init__(self) -> None:
        self._guests: dict[int, Guest] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._guests)

    @contextlib.contextmanager
    def entered(self, source: str) -> Iterator[Guest | None]:
        """Yields a guest while its handshake is under way, in a scope that ends when it is sent away; None
        where there is no room, and none can be made."""
        if not self._make_room(source):
            yield None
            return
        with trio.CancelScope() as scope:
            guest = Guest(source, next(self._numbers), trio.current_time(), scope)
            self._guests[guest.number] = guest
            try:
                yield guest
            finally:
                self._guests.pop(guest.number, None)

    def _make_room(self, source: str) -> bool:
        same = [one for one in self._guests.values() if one.source == source]
        if len(same) >= HANDSHAKES_PER_SOURCE_MAX:
            return self._send_away(same)
        if len(self._guests) < room():
            return True
        return self._send_away(self._largest())

    def _largest(self) -> list[Guest]:
        """Returns those of the source that has the most under way; where several have, all of theirs."""
        by_source: dict[str, list[Guest]] = {}
        for one in self._guests.values():
            by_source.setdefault(one.source, []).append(one)
        most = max(map(len, by_source.values()), default=0)
        return [one for ones in by_source.values() if len(ones) == most for one in ones]

    def _send_away(self, guests: list[Guest]) -> bool:
        """Ends the handshake of the one who has stood longest, of the silent ones where there are some; says
        whether that made room."""
        until_s = trio.current_time() - STAY_MIN_S
        strangers = [one for one in guests if not one.proved and one.since_s <= until_s]
        oldest = min(strangers, key=lambda one: (one.spoke, one.number), default=None)
        if oldest is None:
            return False
        oldest.sent_away = True
        oldest.scope.cancel()
        # Its place is free at once; its task closes the connection when it is next run.
        del self._guests[oldest.number]
        return True


def room() -> int:
    """Returns how many strangers may stand at the door: fewer where this process may have few descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return HANDSHAKES_MAX if soft < 0 else max(1, min(HANDSHAKES_MAX, soft // _DESCRIPTORS_SHARE))


def source_of(host: str) -> str:
    """Returns what counts as one machine: an IPv4 address, or an IPv6 network."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((address, _SOURCE_V6_BITS), strict=False))
