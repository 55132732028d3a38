"""Gets files that this node needs from whoever has them, and shows how far that is.

One file is moved at a time by as many as need it (``exchange``). Cut off, the next holder is asked for the
rest; how long that goes on is decided by ``core.jobs.search``. What this machine itself can't do (its disk is
full) is nobody else's fault, and ends the search at once.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import trio

from meshpeer.core.errors import EnvironmentFault, PeerFault, StoreFailed
from meshpeer.core.ids import Digest, NodeId
from meshpeer.core.jobs.search import PAUSE_S, Next, Search
from meshpeer.runtime.exchange import HolderLacksIt
from meshpeer.runtime.ports import BlobRef, Blobs

SHOWN_BYTES_MIN = 1_000_000
"""Smaller files are here before anybody has looked."""


class Unobtainable(EnvironmentFault):
    """None of the holders gives a file; the text says why the last one did not."""


@dataclass(slots=True)
class Wanted:
    """A file that is searched for: how many need it, and how much of it has come."""

    ref: BlobRef
    needs: int = 0
    received: int = 0


class Transfers:
    """The files on their way to this node."""

    def __init__(
        self,
        me: NodeId,
        blobs: Blobs,
        pull: Callable[[BlobRef, NodeId, Callable[[int], None]], Awaitable[None]],
    ) -> None:
        """``pull`` gets a blob, or the rest of one, from a holder, and says how much is here."""
        self._me = me
        self._blobs = blobs
        self._pull = pull
        self._wanted: dict[Digest, Wanted] = {}

    async def fetch(self, ref: BlobRef, holders: Iterable[NodeId]) -> None:
        """Makes a blob present here, from the first of the holders that gives it; raises ``Unobtainable``,
        and ``StoreFailed`` where there is no room for it."""
        if self._blobs.path(ref.digest) is not None:
            self._blobs.used(ref.digest)
            return
        wanted = self._wanted.setdefault(ref.digest, Wanted(ref))
        wanted.needs += 1
        try:
            await self._search(wanted, Search(one for one in holders if one != self._me))
        finally:
            wanted.needs -= 1
            if not wanted.needs:
                del self._wanted[ref.digest]

    def under_way(self) -> list[tuple[BlobRef, int]]:
        """Returns the larger files on their way, and how much of each is here."""
        return [(one.ref, one.received) for one in self._wanted.values() if one.ref.size >= SHOWN_BYTES_MIN]

    def received(self, ref: BlobRef) -> int:
        """Returns how much of a file is here."""
        if self._blobs.path(ref.digest) is not None:
            return ref.size
        wanted = self._wanted.get(ref.digest)
        return wanted.received if wanted is not None else 0

    async def _search(self, wanted: Wanted, search: Search) -> None:
        # Whose pieces stand there; None for those of an earlier search.
        sources: set[NodeId | None] = {None}
        while True:
            step = search.next()
            if step is Next.GIVE_UP:
                raise Unobtainable(search.reason)
            if step is Next.PAUSE:
                await trio.sleep(PAUSE_S)
                continue
            assert not isinstance(step, Next)
            before = wanted.received
            try:
                await self._pull(wanted.ref, step, functools.partial(_note, wanted, sources, step))
                return
            except StoreFailed:
                raise
            except HolderLacksIt as fault:
                search.on_missing(step, fault.what)
            except PeerFault as fault:
                wanted.received = 0
                if sources == {step}:
                    search.on_wrong(step, fault.what)
                else:
                    # Somebody's pieces were wrong; whose, shows when all come from one.
                    search.on_cut(step, fault.what, moved=False)
            except EnvironmentFault as fault:
                search.on_cut(step, fault.what, moved=wanted.received > before)


def _note(wanted: Wanted, sources: set[NodeId | None], holder: NodeId, received: int) -> None:
    """Notes how much is here, and that from here on it comes from this holder."""
    if not received:
        sources.clear()
    sources.add(holder)
    wanted.received = received
