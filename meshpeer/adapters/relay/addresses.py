"""Socket addresses and ``PKTINFO`` as bytes: what tells where a packet came from, and to which address.

An answer has to leave from the very address that the question went to: a NAT or firewall before an end lets
nothing else in, and a machine may have several (temporary IPv6 addresses, ipv6(7) ``IPV6_PKTINFO``).
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Protocol

from meshpeer.core.paths.relay_crossing import Way

NAME_BYTES, CONTROL_BYTES = 28, 64
"""Room for either family's address, and for its control message."""
_MAPPED = b"\0" * 10 + b"\xff\xff"
_LINK_LOCAL = b"\xfe\x80"
_IP_PKTINFO, _IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER = 8, 10, 23
"""ip(7) and ipv6(7); the standard library of Python 3.11 does not name them."""
_PMTUDISC_DONT = 0
_CONTROL_V6 = struct.Struct("@Nii16sI4x")
_CONTROL_V4 = struct.Struct("@NiiI4s4s4x")
_HEADER_BYTES = struct.calcsize("@Nii")


class Family(Protocol):
    """How one kind of socket writes addresses."""

    def open(self, port: int) -> socket.socket:
        """Returns a socket on all of this machine's addresses; raises ``OSError``."""
        ...

    def read(self, name: bytes, control: bytes) -> Way | None: ...

    def write(self, way: Way) -> tuple[bytes, bytes]:
        """Returns a packet's name and control message, to send it that way."""
        ...


class DualStack:
    """IPv6 sockets, which carry IPv4 as mapped addresses (RFC 3493, 3.7)."""

    def open(self, port: int) -> socket.socket:
        opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            # What is too long for the way on is fragmented, as WireGuard lets it be.
            opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
            opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
            opened.bind(("::", port))
        except BaseException:
            opened.close()
            raise
        return opened

    def read(self, name: bytes, control: bytes) -> Way | None:
        length, level, kind, local, device = _CONTROL_V6.unpack_from(control)
        if (length, level, kind) != (_HEADER_BYTES + 20, socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return None
        (port,) = struct.unpack_from("!H", name, 2)
        return Way(_text(name[8:24]), port, _text(local), device)

    def write(self, way: Way) -> tuple[bytes, bytes]:
        host, local = _packed(way.host), _packed(way.local)
        device = way.device if host.startswith(_LINK_LOCAL) else 0
        name = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16s", way.port, 0, host)
        return name + struct.pack("=I", device), _CONTROL_V6.pack(
            _HEADER_BYTES + 20, socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local, device
        )


class Ipv4Only:
    """IPv4 sockets, for machines without IPv6."""

    def open(self, port: int) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
            opened.bind(("0.0.0.0", port))
        except BaseException:
            opened.close()
            raise
        return opened

    def read(self, name: bytes, control: bytes) -> Way | None:
        length, level, kind, device, local, _ = _CONTROL_V4.unpack_from(control)
        if (length, level, kind) != (_HEADER_BYTES + 12, socket.IPPROTO_IP, _IP_PKTINFO):
            return None
        (port,) = struct.unpack_from("!H", name, 2)
        return Way(socket.inet_ntoa(name[4:8]), port, socket.inet_ntoa(local), device)

    def write(self, way: Way) -> tuple[bytes, bytes]:
        host, local = socket.inet_aton(way.host), socket.inet_aton(way.local)
        name = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", way.port, host)
        return name, _CONTROL_V4.pack(
            _HEADER_BYTES + 12, socket.IPPROTO_IP, _IP_PKTINFO, 0, local, b"\0\0\0\0"
        )


def choose_family() -> Family:
    """Returns what this machine can do: both, or IPv4 alone; raises ``OSError`` for neither."""
    try:
        DualStack().open(0).close()
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return Ipv4Only()
    return DualStack()


def _text(address: bytes) -> str:
    if address.startswith(_MAPPED):
        return socket.inet_ntoa(address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def _packed(text: str) -> bytes:
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return _MAPPED + socket.inet_aton(text)
