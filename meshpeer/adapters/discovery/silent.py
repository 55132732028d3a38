"""No discovery, for a node that is told not to look around."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import trio

from meshpeer.runtime.ports import FoundNode


class NoDiscovery:
    """Implements ``runtime.ports.Discovery``."""

    async def browse(self) -> AsyncIterator[FoundNode]:
        _never, nothing = trio.open_memory_channel[FoundNode](0)
        async for found in nothing:
            yield found

    async def announce(self, *, mesh_hint: str, node_hint: str, port: int, addresses: Sequence[str]) -> None:
        await trio.sleep_forever()
