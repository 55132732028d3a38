"""What greetings say beside who is there, as far as links know it: one word each way, and a proof for
whoever is refused. What it means is ``node.revoking``'s business."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from meshpeer.core.deadline import Instant
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import LinkId


class Words(Protocol):
    """What greetings say beside who is there: which revocations either end holds."""

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The roots that followed the founding one, in line."""
        ...

    def hear_roots(self, roots: Sequence[bytes], now: Instant) -> None:
        """Takes those that a peer shows, before its chain is judged; raises ``PeerFault`` for too many."""
        ...

    def say(self, link: LinkId) -> bytes:
        """Returns what to say of this node's."""
        ...

    def hear(self, link: LinkId, word: bytes) -> None:
        """Takes what a peer that was let in says of its own."""
        ...

    def over(self, link: LinkId) -> None:
        """The link is closed."""
        ...

    def proof(self, fault: PeerFault) -> Sequence[msgspec.Struct]:
        """Returns what to show a peer that is refused, before it is told why."""
        ...


class NoWords:
    """Greetings that say nothing more."""

    roots: tuple[bytes, ...] = ()

    def hear_roots(self, roots: Sequence[bytes], now: Instant) -> None: ...

    def say(self, link: LinkId) -> bytes:
        return b""

    def hear(self, link: LinkId, word: bytes) -> None: ...

    def over(self, link: LinkId) -> None: ...

    def proof(self, fault: PeerFault) -> Sequence[msgspec.Struct]:
        return ()
