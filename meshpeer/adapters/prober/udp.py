"""An echo over UDP on a node's own overlay addresses.

UDP, since it needs no right at all: an ICMP echo takes CAP_NET_RAW, which a machine may withhold, or the
machine's ``net.ipv4.ping_group_range``, which the kernel leaves empty. A probe is as long as its answer,
holds nothing but a number, and is answered on the overlay addresses only, so many times a second: nobody
gains by sending some.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import trio

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.node.messages import EchoAsked, EchoHeard

PORT = 51821
"""The number of the control port, in UDP."""
ANSWERS_PER_S_MAX = 2_000
_PACKET = struct.Struct("!4sBQ")
_MAGIC = b"mpec"
_ASK, _ANSWER = 1, 2


class UdpProber:
    """Implements ``runtime.ports.Prober``."""

    def __init__(self, port: int = PORT) -> None:
        self._port = port
        self._sockets: dict[int, socket.socket] = {}
        """By family; where none is open, nothing is sent."""
        self._second, self._answered = 0, 0

    async def serve(self, address: str, heard: Callable[[EchoAsked | EchoHeard], None]) -> None:
        """Answers on one address until cancelled; raises ``EnvironmentFault`` where it can't be had."""
        family = _family_of(address)
        with socket.socket(family, socket.SOCK_DGRAM) as plain:
            plain.setblocking(False)
            try:
                plain.bind((address, self._port))
            except OSError as error:
                raise EnvironmentFault(
                    f"probes can't be answered on {address}: {error.strerror}",
                    f"UDP port {self._port} of the overlay address must be free (ss -lunp)",
                ) from error
            self._sockets[family] = plain
            try:
                await self._receive(plain, heard)
            finally:
                del self._sockets[family]

    def ask(self, address: str, number: int) -> bool:
        """Sends one probe; False where that was not possible: it is lost, as others are on their way."""
        return self._send(_family_of(address), _PACKET.pack(_MAGIC, _ASK, number), address, self._port)

    async def _receive(self, plain: socket.socket, heard: Callable[[EchoAsked | EchoHeard], None]) -> None:
        while True:
            await trio.lowlevel.wait_readable(plain)
            try:
                data, source = plain.recvfrom(_PACKET.size + 1)
            except BlockingIOError:
                continue
            except OSError as error:
                raise EnvironmentFault(f"probes can't be received: {error.strerror}") from error
            if len(data) != _PACKET.size:
                continue
            magic, kind, number = _PACKET.unpack(data)
            if magic != _MAGIC:
                continue
            if kind == _ANSWER and source[1] == self._port:
                heard(EchoHeard(number=number, source=source[0]))
            elif kind == _ASK and self._may_answer():
                self._send(plain.family, _PACKET.pack(_MAGIC, _ANSWER, number), source[0], source[1])
                heard(EchoAsked(source=source[0]))

    def _send(self, family: int, data: bytes, address: str, port: int) -> bool:
        plain = self._sockets.get(family)
        if plain is None:
            return False
        try:
            plain.sendto(data, (address, port))
        except OSError:
            # No route, no endpoint of the tunnel, a full buffer, a firewall: whoever waits for an answer
            # learns what matters.
            return False
        return True

    def _may_answer(self) -> bool:
        second = int(trio.current_time())
        if second != self._second:
            self._second, self._answered = second, 0
        self._answered += 1
        return self._answered <= ANSWERS_PER_S_MAX


def _family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
