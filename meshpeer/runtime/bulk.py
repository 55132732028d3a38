"""Bulk frames of all links, sorted by what they belong to: pieces of files, words about them, bytes of
carried links, and questions."""

from __future__ import annotations

from meshpeer.core.ids import LinkId
from meshpeer.core.wire.frames import Channel, Codec
from meshpeer.runtime import asking, circuit_stream, exchange, file_words
from meshpeer.runtime.asking import Asking
from meshpeer.runtime.circuits import Circuits
from meshpeer.runtime.exchange import Exchange
from meshpeer.runtime.file_words import FileWords
from meshpeer.runtime.ports import Link

CODEC = Codec(Channel.BULK, (*exchange.FRAMES, *file_words.FRAMES, *circuit_stream.FRAMES, *asking.FRAMES))


class Bulk:
    """Implements ``linkkeeper.BulkHandler``."""

    def __init__(self, exchange: Exchange, words: FileWords, circuits: Circuits, asking: Asking) -> None:
        self._exchange = exchange
        self._words = words
        self._circuits = circuits
        self._asking = asking

    def attach(self, link: LinkId, open_link: Link) -> None:
        self._exchange.attach(link, open_link)
        self._words.attach(link, open_link)
        self._circuits.attach(link, open_link)
        self._asking.attach(link, open_link)

    def detach(self, link: LinkId) -> None:
        self._exchange.detach(link)
        self._words.detach(link)
        self._circuits.detach(link)
        self._asking.detach(link)

    def on_frame(self, link: LinkId, frame: bytes) -> None:
        message = CODEC.decode(frame)
        if isinstance(message, circuit_stream.FRAMES):
            self._circuits.on_message(link, message)
        elif message is not None and isinstance(message, file_words.FRAMES):
            self._words.on_message(link, message)
        elif isinstance(message, asking.FRAMES):
            self._asking.on_message(link, message)
        else:
            self._exchange.on_message(link, message)
