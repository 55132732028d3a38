"""Tries: what became of each endpoint of one peer, for whoever asks why. Decides nothing.

One entry per endpoint, those that were touched last; times are Unix seconds, of this agent's own run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from meshpeer.core.deadline import Instant

TRIES_MAX = 16
"""Endpoints remembered of one peer."""


@dataclass(slots=True, kw_only=True)
class Try:
    """What became of one endpoint."""

    endpoint: str
    since_unix_s: float
    """When it was taken up last."""
    given_up_unix_s: float | None = None
    """When it was left without a handshake; None while it is in use, or once it works."""
    works_since_unix_s: float | None = None
    """The first handshake since which there was always a fresh one; None where there is none now."""
    handshake_unix_s: float | None = None
    """The last handshake there ever was."""


@dataclass(slots=True)
class Tries:
    """The tries of one peer, in the order in which they were touched last."""

    _held: dict[str, Try] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Try]:
        return iter(self._held.values())

    def of(self, endpoint: str) -> Try | None:
        return self._held.get(endpoint)

    def worked_last(self) -> str | None:
        """Returns the endpoint of the last handshake; None where there never was one."""
        shaken = [one for one in self._held.values() if one.handshake_unix_s is not None]
        return max(shaken, key=lambda one: one.handshake_unix_s or 0.0).endpoint if shaken else None

    def took_up(self, endpoint: str, now: Instant) -> None:
        before = self._held.pop(endpoint, None)
        shaken = before.handshake_unix_s if before else None
        self._held[endpoint] = Try(endpoint=endpoint, since_unix_s=now.unix_s, handshake_unix_s=shaken)
        while len(self._held) > TRIES_MAX:
            del self._held[next(iter(self._held))]

    def gave_up(self, endpoint: str, now: Instant) -> None:
        held = self._held.get(endpoint)
        if held is not None:
            held.given_up_unix_s, held.works_since_unix_s = now.unix_s, None

    def saw(self, endpoint: str, handshake_unix_s: float | None, now: Instant) -> None:
        """Notes a fresh handshake of the endpoint in use, or None: there is no fresh one.

        The endpoint may be one that nobody chose: WireGuard roams."""
        held = self._held.get(endpoint)
        if handshake_unix_s is None:
            if held is not None and held.works_since_unix_s is not None:
                held.since_unix_s, held.works_since_unix_s = now.unix_s, None
            return
        if held is None:
            self.took_up(endpoint, now)
            held = self._held[endpoint]
        held.given_up_unix_s, held.handshake_unix_s = None, handshake_unix_s
        if held.works_since_unix_s is None:
            held.works_since_unix_s = handshake_unix_s
