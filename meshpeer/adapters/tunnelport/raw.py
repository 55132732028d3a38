"""Raw sockets on a UDP port that WireGuard owns.

A raw socket of protocol UDP (raw(7)) sends what has a UDP header of our own making, so its source port is
WireGuard's: to routers and firewalls on the way both are one flow. What arrives is seen by WireGuard and by
us; each drops what is the other's, we in the kernel (``filters``). Packets are never fragmented, and the
kernel's own notion of the path's MTU is passed over (``IP_PMTUDISC_PROBE``, ip(7) and ipv6(7)): whoever asks
wants to find out. It takes CAP_NET_RAW, which covers the mark, too (since Linux 5.17; before, that one takes
CAP_NET_ADMIN).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable

import trio

from meshpeer.adapters.tunnelport.filters import UDP_HEADER_BYTES, attach
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.paths.probe_desk import ProbeHeard, SendProbe
from meshpeer.core.paths.probe_packets import MAGIC, PROBE_BYTES_MAX, Address, join_endpoint, split_endpoint
from meshpeer.runtime.ports import Sending

HEARD_PER_S_MAX = 500
"""Datagrams a second that are looked at; the kernel drops what its queue can't hold meanwhile."""
QUEUE_BYTES = 256 * 1024
_SO_MARK = 36
_IP_PKTINFO, _IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _IPV6_DONTFRAG, _PMTUDISC_PROBE = 8, 10, 23, 62, 3
"""The standard library of Python 3.11 does not name them."""
_IPV6_CHECKSUM_AT = 6
_HEADER = struct.Struct("!HHHH")
_ANCILLARY_BYTES = 64


class RawTunnelPort:
    """Implements ``runtime.ports.TunnelPort``."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._port, self._mark = 0, 0
        self._second, self._heard = 0, 0

    async def serve(
        self,
        port: int,
        mark: int,
        heard: Callable[[ProbeHeard], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Hears and can send until cancelled; raises ``EnvironmentFault`` where that is not allowed."""
        with contextlib.ExitStack() as stack:
            self._port, self._mark = port, mark
            for family in (socket.AF_INET, socket.AF_INET6):
                opened = _open(family, port, mark)
                if opened is not None:
                    self._sockets[family] = stack.enter_context(opened)
            stack.callback(self._sockets.clear)
            if not self._sockets:
                raise EnvironmentFault("this machine has neither IPv4 nor IPv6")
            task_status.started()
            async with trio.open_nursery() as nursery:
                for one in self._sockets.values():
                    nursery.start_soon(self._receive, one, heard)

    def send(self, probe: SendProbe) -> Sending:
        """Sends one datagram; never blocks."""
        parts = split_endpoint(probe.endpoint)
        raw = self._sockets.get(_family_of(parts[0])) if parts else None
        if parts is None or raw is None:
            return Sending.LOST
        address, port = parts
        try:
            local = probe.local or self._source_for(raw.family, address, port)
            packet = _with_header(self._port, port, probe.data, local, address)
            raw.sendmsg([packet], [_from(local)], 0, (str(address), 0))
        except OSError as error:
            # No route, a full queue, a firewall: whoever waits for the answer learns what matters.
            return Sending.TOO_LONG if error.errno == errno.EMSGSIZE else Sending.LOST
        return Sending.SENT

    def _source_for(self, family: int, address: Address, port: int) -> str:
        """Returns the address that the route to a target is taken with: it is part of the checksum."""
        with socket.socket(family, socket.SOCK_DGRAM) as plain:
            if self._mark:
                plain.setsockopt(socket.SOL_SOCKET, _SO_MARK, self._mark)
            plain.connect((str(address), port))
            return str(plain.getsockname()[0])

    async def _receive(self, raw: socket.socket, heard: Callable[[ProbeHeard], None]) -> None:
        while True:
            await trio.lowlevel.wait_readable(raw)
            if not self._may_look():
                await trio.sleep_until(self._second + 1)
                continue
            try:
                data, ancillary, _, source = raw.recvmsg(PROBE_BYTES_MAX + 128, _ANCILLARY_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise EnvironmentFault(f"probes can't be received: {error.strerror}") from error
            event = _parsed(raw.family, data, ancillary, source[0], self._port)
            if event is not None:
                heard(event)

    def _may_look(self) -> bool:
        second = int(trio.current_time())
        if second != self._second:
            self._second, self._heard = second, 0
        self._heard += 1
        return self._heard <= HEARD_PER_S_MAX


def _open(family: int, port: int, mark: int) -> socket.socket | None:
    """Returns a raw socket of a family; None where this machine lacks the family."""
    try:
        raw = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_UDP)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return None
        raise _not_allowed(error) from error
    try:
        attach(raw, port, MAGIC)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)
        if family == socket.AF_INET:
            raw.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        else:
            raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
            raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, _IPV6_CHECKSUM_AT)
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        if mark:
            raw.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
    except OSError as error:
        raw.close()
        raise _not_allowed(error) from error
    return raw


def _not_allowed(error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"probes can't be sent from WireGuard's own port: {error.strerror}",
        "that takes CAP_NET_RAW: run as root, or let `meshpeer service install` write the unit anew",
    )


def _with_header(source: int, target: int, data: bytes, local: str, remote: Address) -> bytes:
    """Returns the datagram with its UDP header (RFC 768); of IPv6 the kernel makes the checksum."""
    length = UDP_HEADER_BYTES + len(data)
    if remote.version == 6:
        return _HEADER.pack(source, target, length, 0) + data
    pseudo = socket.inet_aton(local) + remote.packed + struct.pack("!BBH", 0, socket.IPPROTO_UDP, length)
    total = checksum(pseudo + _HEADER.pack(source, target, length, 0) + data)
    return _HEADER.pack(source, target, length, total or 0xFFFF) + data


def checksum(data: bytes) -> int:
    """Returns the ones' complement sum of RFC 1071, complemented."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _from(local: str) -> tuple[int, int, bytes]:
    """Returns the control message by which a packet leaves from an address of this machine."""
    if ":" in local:
        info = socket.inet_pton(socket.AF_INET6, local) + struct.pack("@I", 0)
        return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info
    return socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("@i4s4s", 0, socket.inet_aton(local), b"\0" * 4)


def _parsed(
    family: int, data: bytes, ancillary: list[tuple[int, int, bytes]], source: str, port: int
) -> ProbeHeard | None:
    """Returns what came; None for what is not for us, which was there before the filter was."""
    # A raw IPv6 socket hands out no IP header.
    start = (data[0] & 15) * 4 if family == socket.AF_INET and data else 0
    if len(data) < start + _HEADER.size:
        return None
    from_port, to_port, _, _ = _HEADER.unpack_from(data, start)
    payload = data[start + _HEADER.size :]
    if to_port != port or not from_port or not payload.startswith(MAGIC):
        return None
    local = _local_of(family, data, ancillary)
    remote = split_endpoint(f"[{source}]:{from_port}" if ":" in source else f"{source}:{from_port}")
    # A link-local source is one on every link, and its interface is not known.
    if not local or remote is None or remote[0].is_link_local:
        return None
    return ProbeHeard(source=join_endpoint(*remote), local=local, data=payload)


def _local_of(family: int, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> str:
    """Returns to which address of this machine a packet came."""
    if family == socket.AF_INET:
        return socket.inet_ntoa(data[16:20])
    for level, kind, info in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return socket.inet_ntop(socket.AF_INET6, info[:16])
    return ""


def _family_of(address: Address) -> int:
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET
