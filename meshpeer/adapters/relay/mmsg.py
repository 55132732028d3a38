"""``recvmmsg(2)`` and ``sendmmsg(2)``: many packets for one call, in memory that is laid out once.

A call costs about as much as a packet; Python's own socket methods make one call, and several objects, for
each. Here the kernel writes a batch of packets into one block, and sends them from where they lie.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence

from meshpeer.adapters.relay.addresses import CONTROL_BYTES, NAME_BYTES

BATCH = 64
"""Packets in one call."""
PACKET_BYTES_MAX = 9_216
"""A jumbo frame; what is longer is cut off, and dropped for that."""
MSG_DONTWAIT, MSG_TRUNC = 0x40, 0x20
_META_BYTES = 96
"""A packet's name, at 0, and its control message, at 32."""
_CONTROL_AT = 32

_libc = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class _Msghdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Mmsghdr(ctypes.Structure):
    _fields_ = [("hdr", _Msghdr), ("len", ctypes.c_uint)]


class Batch:
    """Packets as they came, in slots 0 to ``BATCH`` - 1, and those of them that go on to one target."""

    def __init__(self) -> None:
        self.data = bytearray(BATCH * PACKET_BYTES_MAX)
        self.meta = bytearray(BATCH * _META_BYTES)
        self._data_at = ctypes.addressof(ctypes.c_char.from_buffer(self.data))
        meta_at = ctypes.addressof(ctypes.c_char.from_buffer(self.meta))
        self._in_iov = (_Iovec * BATCH)()
        self._in = (_Mmsghdr * BATCH)()
        self._in_heads = [one.hdr for one in self._in]
        self._in_all = list(self._in)
        self._out_iov = (_Iovec * BATCH)()
        self._out = (_Mmsghdr * BATCH)()
        self._out_vectors = list(self._out_iov)
        self._out_heads = [one.hdr for one in self._out]
        self._lengths = (0, 0)
        self._name = ctypes.create_string_buffer(NAME_BYTES)
        self._control = ctypes.create_string_buffer(CONTROL_BYTES)
        size = ctypes.sizeof(_Iovec)
        for slot in range(BATCH):
            self._in_iov[slot] = _Iovec(self._data_at + slot * PACKET_BYTES_MAX, PACKET_BYTES_MAX)
            head = self._in_heads[slot]
            head.name, head.control = meta_at + slot * _META_BYTES, meta_at + slot * _META_BYTES + _CONTROL_AT
            head.iov, head.iovlen = ctypes.addressof(self._in_iov) + slot * size, 1
            head.namelen, head.controllen = NAME_BYTES, CONTROL_BYTES
            out = self._out_heads[slot]
            out.iov, out.iovlen = ctypes.addressof(self._out_iov) + slot * size, 1
            out.name, out.control = ctypes.addressof(self._name), ctypes.addressof(self._control)

    def receive(self, descriptor: int) -> list[int]:
        """Returns the sizes of packets that wait at a socket, by slot; -1 for one that was too long."""
        count = _libc.recvmmsg(descriptor, self._in, BATCH, MSG_DONTWAIT, None)
        if count < 0:
            code = ctypes.get_errno()
            if code in (errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED):
                return []
            raise OSError(code, os.strerror(code))
        for head in self._in_heads[:count]:
            # The kernel wrote how much it used: the next call has all the room again.
            head.namelen, head.controllen = NAME_BYTES, CONTROL_BYTES
        heads = self._in_heads
        return [
            -1 if heads[slot].flags & MSG_TRUNC else one.len for slot, one in enumerate(self._in_all[:count])
        ]

    def source(self, slot: int) -> bytearray:
        """Returns where a packet came from: equal bytes for equal senders and receiving addresses."""
        return self.meta[slot * _META_BYTES : (slot + 1) * _META_BYTES]

    def starts_with(self, slot: int, head: bytes) -> bool:
        at = slot * PACKET_BYTES_MAX
        return self.data[at : at + len(head)] == head

    def packet(self, slot: int, size: int) -> bytes:
        at = slot * PACKET_BYTES_MAX
        return bytes(self.data[at : at + size])

    def write(self, slot: int, data: bytes) -> None:
        """Puts something else, as long, where a packet lay."""
        at = slot * PACKET_BYTES_MAX
        self.data[at : at + len(data)] = data

    def send(self, descriptor: int, slots: Sequence[int], sizes: Sequence[int], target: Target) -> None:
        """Sends packets on from where they lie. What the kernel has no room for is lost, as on any wire."""
        name, control = target
        ctypes.memmove(self._name, name, len(name))
        ctypes.memmove(self._control, control, len(control))
        if self._lengths != (len(name), len(control)):
            self._lengths = (len(name), len(control))
            for head in self._out_heads:
                head.namelen, head.controllen = self._lengths
        for at, slot in enumerate(slots):
            vector = self._out_vectors[at]
            vector.base = self._data_at + slot * PACKET_BYTES_MAX
            vector.len = sizes[slot]
        done = 0
        while done < len(slots):
            first = ctypes.byref(self._out, done * ctypes.sizeof(_Mmsghdr))
            sent = _libc.sendmmsg(descriptor, first, len(slots) - done, MSG_DONTWAIT)
            # An error is about the first one: no route, an old ICMP message, a queue that is full.
            done += max(1, sent)


Target = tuple[bytes, bytes]
"""A name and a control message."""


def split_source(source: bytearray) -> Target:
    """Returns the name and the control message of a source."""
    return bytes(source[:NAME_BYTES]), bytes(source[_CONTROL_AT : _CONTROL_AT + CONTROL_BYTES])
