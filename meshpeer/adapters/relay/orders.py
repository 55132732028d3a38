"""What the agent and the relay's helper say to each other: one message per packet of a Unix socket."""

from __future__ import annotations

import msgspec

from meshpeer.core.paths.relay_crossing import Way

MESSAGE_BYTES_MAX = 128 * 1024
PAIRS_MAX = 256
"""So many pairs fit into one ``Looked``."""


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    number: int
    ports: tuple[int, int]
    keys: tuple[bytes, bytes]
    binds: tuple[bytes, bytes] = (b"", b"")


class Rekey(msgspec.Struct, frozen=True, kw_only=True, tag="rekey"):
    number: int
    ports: tuple[int, int]
    keys: tuple[tuple[bytes, ...], tuple[bytes, ...]]


class Close(msgspec.Struct, frozen=True, kw_only=True, tag="close"):
    number: int
    ports: tuple[int, int]


class Freeze(msgspec.Struct, frozen=True, kw_only=True, tag="freeze"):
    number: int
    ports: tuple[int, int]
    at_s: float


class Wake(msgspec.Struct, frozen=True, kw_only=True, tag="wake"):
    number: int
    ports: tuple[int, int]


class Look(msgspec.Struct, frozen=True, kw_only=True, tag="look"):
    number: int


Order = Open | Rekey | Close | Freeze | Wake | Look
"""From the agent; each is answered by one ``Done``."""


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What the helper itself carried for one pair; of each end, what it sent."""

    ports: tuple[int, int]
    packets: tuple[int, int]
    bytes: tuple[int, int]
    drops: dict[str, int]
    ways: tuple[Way | None, Way | None]
    frozen: bool


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    number: int
    error: str = ""
    counted: tuple[Counted, ...] = ()
    """The answer to ``Look``."""


class Settled(msgspec.Struct, frozen=True, kw_only=True, tag="settled"):
    """Both ends of a pair are proved to be there; None: not, or not any more, or it is to freeze."""

    ports: tuple[int, int]
    ways: tuple[Way, Way] | None


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The first word of a helper."""


Word = Done | Settled | Ready
"""From the helper."""

ENCODER = msgspec.msgpack.Encoder()
ORDERS: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
WORDS: msgspec.msgpack.Decoder[Word] = msgspec.msgpack.Decoder(Word)
