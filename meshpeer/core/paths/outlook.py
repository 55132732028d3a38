"""The outlook of a pair: whether two nodes can meet directly, as far as their records tell."""

from __future__ import annotations

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


def is_hopeless(one: Stand, other: Stand, *, near: bool) -> bool:
    """Says whether direct tries are in vain: both are behind routers, and one of these gives each destination
    another port, so that nobody can know the one that leads to its node. ``near``: they share a network."""
    return not near and one.behind and other.behind and CHANGING in (one.router, other.router)
