"""The outlook of a pair: whether two nodes can meet directly, as far as their records tell."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from meshpeer.core.paths.reflections import CHANGING, NONE, STEADY


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Where one node stands in its network."""

    router: str = ""
    """As its record says: ``none``, ``steady``, ``changing`` or empty."""
    reflected: bool = False
    """Others see it elsewhere than at its own addresses."""
    configured: bool = False
    """A person named an endpoint for it: a public address, or a forwarded port."""
    public: bool = False
    """One of its own addresses can be reached from anywhere."""

    @property
    def behind(self) -> bool:
        """Says whether a router stands before it that lets in nothing new."""
        return not self.open and (self.reflected or self.router in (STEADY, CHANGING))

    @property
    def open(self) -> bool:
        return self.configured or self.public or self.router == NONE


class Outlook(enum.Enum):
    """What is to be expected of direct tries."""

    LIKELY = "likely"
    """They share a network, reach each other's control port, or one of them lets new packets in."""
    UNKNOWN = "unknown"
    """Nobody can tell yet."""
    OPEN = "open"
    """Both are behind routers, and only tries by both at once can tell. A first packet that comes before the
    other router expects it is sent again after 5 s only (REKEY_TIMEOUT), so a relay serves them meanwhile."""
    HOPELESS = "hopeless"
    """Both are behind routers, and one of these gives each destination another port, so that nobody can know
    the one that leads to its node."""


def outlook_of(one: Stand, other: Stand, *, near: bool, linked: bool = False) -> Outlook:
    """Returns what is to be expected of a pair, the same for both ends. ``near``: they share a network;
    ``linked``: one reaches the other's control port, and not through a tunnel."""
    if near or linked or one.open or other.open:
        return Outlook.LIKELY
    if not (one.behind and other.behind):
        return Outlook.UNKNOWN
    return Outlook.HOPELESS if CHANGING in (one.router, other.router) else Outlook.OPEN
