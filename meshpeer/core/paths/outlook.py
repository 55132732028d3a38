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
    """They share a network, one of them lets new packets in, or both routers keep one mapping for all."""
    OPEN = "open"
    """Nobody can tell."""
    HOPELESS = "hopeless"
    """Both are behind routers, and one of these gives each destination another port, so that nobody can know
    the one that leads to its node."""


def outlook_of(one: Stand, other: Stand, *, near: bool) -> Outlook:
    """Returns what is to be expected of a pair, the same for both ends. ``near``: they share a network."""
    if near or not (one.behind and other.behind):
        return Outlook.LIKELY
    if CHANGING in (one.router, other.router):
        return Outlook.HOPELESS
    return Outlook.LIKELY if one.router == other.router == STEADY else Outlook.OPEN
