"""What the tree says on links; the payload itself is ``antientropy.messages.Facts``."""

from __future__ import annotations

import msgspec


class IHave(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="ihave"):
    """Announces news that the sender holds: 16 bytes of each fact's SHA-256."""

    ids: tuple[bytes, ...]


class Graft(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="graft"):
    """Asks for announced news that did not come, and makes the link part of the tree."""

    ids: tuple[bytes, ...]


class Prune(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="prune"):
    """What the receiver pushes comes another way: announce from now on."""


FRAMES = (IHave, Graft, Prune)
