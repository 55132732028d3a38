"""Moves peers' endpoints at an instant, under sessions that go on.

A reconciliation reads the interface first, and would come too late: a move is one call, made when its instant
has come. What comes of it shows when the interface is looked at, right after.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import WireGuardKey, wireguard_key_text
from meshpeer.core.paths.relay_messages import MoveEndpoint
from meshpeer.core.wgconf.model import SetPeer
from meshpeer.runtime.ports import Clock, WireGuard

MOVES_MAX = 256
"""Moves under way; one peer has one."""


class EndpointMoves:
    """Owns the moves of one interface for the lifetime of the agent."""

    def __init__(
        self,
        wireguard: WireGuard,
        clock: Clock,
        look: Callable[[], None],
        report: Callable[[str, str, tuple[tuple[str, str], ...]], None],
        nursery: trio.Nursery,
    ) -> None:
        """``look``: has the interface looked at soon."""
        self._wireguard = wireguard
        self._clock = clock
        self._look = look
        self._report = report
        self._nursery = nursery
        self._moving: dict[WireGuardKey, MoveEndpoint] = {}

    def order(self, move: MoveEndpoint) -> None:
        """Begins a move, instead of one of the same peer that waits; never blocks."""
        if move.public_key in self._moving or len(self._moving) < MOVES_MAX:
            self._moving[move.public_key] = move
            self._nursery.start_soon(self._make, move)

    async def _make(self, move: MoveEndpoint) -> None:
        key = move.public_key
        try:
            await trio.sleep(max(0.0, move.at_s - self._clock.now().mono_s))
            if self._moving.get(key) is move:
                await self._wireguard.apply((SetPeer(public_key=key, endpoint=move.endpoint),))
        except EnvironmentFault as fault:
            words = (("peer", wireguard_key_text(key)), ("endpoint", move.endpoint), ("reason", fault.what))
            self._report("warning", "a peer's endpoint can't be moved", words)
        finally:
            if self._moving.get(key) is move:
                del self._moving[key]
            self._look()
