"""Moves that go on when the request that began them has been answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from meshpeer.core.errors import MeshpeerError
from meshpeer.core.ids import Digest
from meshpeer.runtime.ports import BlobRef

MOVES_MAX = 64
"""Moves at once; who asks for more is answered that nothing has come yet, and asks again."""


class Moves:
    """Files that somebody waits for."""

    def __init__(self, spawn: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        self._spawn = spawn
        self._under_way: dict[Digest, trio.Event] = {}
        self._faults: dict[Digest, MeshpeerError] = {}

    async def have(self, ref: BlobRef, move: Callable[[], Awaitable[None]]) -> None:
        """Waits for a move, beginning it where it is not under way; cancelled, the move goes on. Raises what
        it raised, once."""
        event = self._under_way.get(ref.digest)
        if event is None and ref.digest not in self._faults:
            if len(self._under_way) >= MOVES_MAX:
                await trio.sleep_forever()
            event = self._under_way[ref.digest] = trio.Event()
            self._spawn(lambda: self._run(ref.digest, move))
        if event is not None:
            await event.wait()
        fault = self._faults.pop(ref.digest, None)
        if fault is not None:
            raise fault

    async def _run(self, digest: Digest, move: Callable[[], Awaitable[None]]) -> None:
        try:
            await move()
        except MeshpeerError as fault:
            # For who asks next: the one who began it may have been answered.
            while len(self._faults) >= MOVES_MAX:
                self._faults.pop(next(iter(self._faults)))
            self._faults[digest] = fault
        finally:
            self._under_way.pop(digest).set()
