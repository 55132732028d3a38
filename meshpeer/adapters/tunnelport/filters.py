"""Classic BPF programs (Linux: Documentation/networking/filter.rst) that let through what comes to one UDP
port with a magic at the payload's start. All else, WireGuard's own traffic first of all, is dropped in
the kernel and wakes nobody.
"""

from __future__ import annotations

import ctypes
import socket
import struct

SO_ATTACH_FILTER = 26
"""socket(7); asm-generic, so on every machine that Python's ``socket`` leaves it unnamed on."""
UDP_HEADER_BYTES = 8
_LDX_IPV4_HEADER, _LD_HALF_X, _LD_WORD_X, _LD_HALF, _LD_WORD = 0xB1, 0x48, 0x40, 0x28, 0x20
_JUMP_IF_EQUAL, _RETURN = 0x15, 0x06
_TARGET_PORT_AT = 2
_ALL = 0xFFFF_FFFF
_INSTRUCTION = struct.Struct("=HBBI")


def attach(raw: socket.socket, port: int, magic: bytes) -> None:
    """Makes a raw UDP socket of either family hear datagrams to ``port`` that begin with ``magic`` (4 bytes)
    only; raises ``OSError``."""
    program = ipv4_filter(port, magic) if raw.family == socket.AF_INET else ipv6_filter(port, magic)
    code = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(code))
    raw.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)


def ipv4_filter(port: int, magic: bytes) -> bytes:
    """Returns the program for packets that begin with their IPv4 header."""
    loads = [(_LD_HALF_X, _TARGET_PORT_AT), (_LD_WORD_X, UDP_HEADER_BYTES)]
    return _INSTRUCTION.pack(_LDX_IPV4_HEADER, 0, 0, 0) + _compared(loads, port, magic)


def ipv6_filter(port: int, magic: bytes) -> bytes:
    """Returns the program for packets that begin with their UDP header, as raw IPv6 sockets see them."""
    return _compared([(_LD_HALF, _TARGET_PORT_AT), (_LD_WORD, UDP_HEADER_BYTES)], port, magic)


def _compared(loads: list[tuple[int, int]], port: int, magic: bytes) -> bytes:
    (load_port, port_at), (load_magic, magic_at) = loads
    return b"".join(
        _INSTRUCTION.pack(*one)
        for one in (
            (load_port, 0, 0, port_at),
            (_JUMP_IF_EQUAL, 0, 3, port),
            (load_magic, 0, 0, magic_at),
            (_JUMP_IF_EQUAL, 0, 1, int.from_bytes(magic, "big")),
            (_RETURN, 0, 0, _ALL),
            (_RETURN, 0, 0, 0),
        )
    )
