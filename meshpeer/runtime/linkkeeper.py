"""Keeps the open links: dials, accepts, reads, writes, and tells the node.

A link's task reads frames for as long as it lives. Control frames become events; bulk frames go to the blob
exchange and never pass
through core.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import Protocol

import trio

from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import LinkId
from meshpeer.core.membership.messages import CloseLink, Dial, DialFailed, LinkClosed, LinkOpened
from meshpeer.core.node.messages import BulkHeard, FrameReceived, SendFrame
from meshpeer.core.wire.frames import Channel
from meshpeer.runtime.ports import DialFault, Link, LinkOver, Transport

HEARD_EVERY_S = 0.5
"""How often the node is told that bulk frames come by a link: each of them proves that its peer lives."""
ADDRESS_GONE = "this machine's address is gone"


class BulkHandler(Protocol):
    """Who takes the bulk frames of all links."""

    def attach(self, link: LinkId, open_link: Link) -> None: ...

    def detach(self, link: LinkId) -> None: ...

    def on_frame(self, link: LinkId, frame: bytes) -> None:
        """Raises ``PeerFault`` for rubbish."""
        ...


class LinkKeeper:
    """Performs ``Dial``, ``SendFrame`` and ``CloseLink``; posts what happens."""

    def __init__(
        self, transport: Transport, bulk: BulkHandler, post: Callable[[object], None], nursery: trio.Nursery
    ) -> None:
        self._transport = transport
        self._bulk = bulk
        self._post = post
        self._nursery = nursery
        self._links: dict[LinkId, Link] = {}
        self._numbers = itertools.count(1)
        self._told: set[LinkId] = set()
        """Links whose end was told before it came: they say goodbye into a void for a moment."""
        self.dial_faults: dict[tuple[str, ...], DialFault] = {}
        """Why the last dial of these addresses failed, for ``status`` and ``doctor``."""

    async def serve(self) -> None:
        await self._transport.serve(self._run)

    def send(self, effect: SendFrame) -> None:
        link = self._links.get(effect.link)
        if link is not None:
            link.send_soon(effect.frame)

    def close(self, effect: CloseLink) -> None:
        link = self._links.pop(effect.link, None)
        if link is not None:
            self._bulk.detach(effect.link)
            link.close_soon(effect.reason)

    def keep_from(self, addresses: Collection[str]) -> None:
        """Ends links from addresses that this machine has no more: nothing comes back to those, and TCP would
        take minutes to say so."""
        for number, link in list(self._links.items()):
            if link.local and link.local not in addresses:
                self.close(CloseLink(link=number, reason=ADDRESS_GONE))
                self._told.add(number)
                self._post(LinkClosed(link=number, reason=ADDRESS_GONE))

    def dial(self, effect: Dial) -> None:
        self._nursery.start_soon(self._dial, effect)

    async def _dial(self, effect: Dial) -> None:
        try:
            async with self._transport.dial(effect.addresses) as link:
                self.dial_faults.pop(effect.addresses, None)
                if effect.target is not None and link.peer != effect.target:
                    self._fail(effect, DialFault("another node answers at this address"))
                await self._run(link)
        except DialFault as fault:
            self.dial_faults[effect.addresses] = fault
            self._fail(effect, fault)

    def _fail(self, effect: Dial, fault: DialFault) -> None:
        self._post(
            DialFailed(
                target=effect.target, addresses=effect.addresses, reason=fault.what, refused=fault.refused
            )
        )

    async def run(self, link: Link) -> None:
        """Reads a link that came in, for as long as it lives."""
        await self._run(link)

    async def _run(self, link: Link) -> None:
        number = LinkId(next(self._numbers))
        self._links[number] = link
        self._bulk.attach(number, link)
        self._post(
            LinkOpened(
                link=number,
                peer=link.peer,
                leaf=link.leaf,
                remote=link.remote,
                dialled=link.dialled,
                shown=link.shown,
                carrier=link.carrier,
            )
        )
        reason, fault = "this agent stops", False
        told_s = -HEARD_EVERY_S
        try:
            while True:
                frame = await link.receive()
                if frame[:1] == bytes((Channel.BULK,)):
                    self._bulk.on_frame(number, frame)
                    if trio.current_time() - told_s >= HEARD_EVERY_S:
                        told_s = trio.current_time()
                        self._post(BulkHeard(link=number))
                else:
                    self._post(FrameReceived(link=number, frame=frame))
        except LinkOver as over:
            reason = over.what
        except PeerFault as broken:
            reason, fault = broken.what, True
            link.close_soon(reason)
        finally:
            self._links.pop(number, None)
            self._bulk.detach(number)
            if number in self._told:
                self._told.remove(number)
            else:
                self._post(LinkClosed(link=number, reason=reason, fault=fault))
