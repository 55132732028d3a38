"""Pickled calls as one file of a job: what the Python client uploads, and a worker takes one call out of.

    head     magic, Python's major and minor version, cloudpickle's version, how many calls
    rows     per call: where its function is, and where its arguments are, each as offset and length
    parts    the pickles

A thousand calls of one function are one file with one copy of the function. The versions stand in front of
anything that is unpickled, and a worker never unpickles: it cuts one call out (head, row, function,
arguments) for the task's own process. Offsets and lengths are 8 bytes, big-endian; all of it is checked,
since it comes from somebody else.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meshpeer.core.errors import PeerFault

MAGIC: Final = b"MPCALLS1"
CALLS_BYTES_MAX: Final = 16 * 1024 * 1024
"""All calls of a job; more data than that belongs into files."""
_HEAD = struct.Struct(">8sBB16sI")
_ROW = struct.Struct(">QQQQ")
HEAD_BYTES: Final = _HEAD.size
ROW_BYTES: Final = _ROW.size


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsHead:
    """What made the pickles, and how many calls there are."""

    python: str
    """``3.11``: pickles of functions by value hold byte code, which other versions can't run."""
    cloudpickle: str
    count: int


@dataclass(frozen=True, slots=True)
class Part:
    """A pickle within the file."""

    offset: int
    size: int


def encode_calls(python: tuple[int, int], cloudpickle: str, calls: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Returns the file of these calls, each a pickled function and its pickled arguments; equal pickles of
    functions stand there once."""
    offset = HEAD_BYTES + ROW_BYTES * len(calls)
    parts: list[bytes] = []
    functions: dict[bytes, int] = {}
    rows: list[bytes] = []
    for function, arguments in calls:
        at = functions.get(function)
        if at is None:
            at = functions[function] = offset
            parts.append(function)
            offset += len(function)
        rows.append(_ROW.pack(at, len(function), offset, len(arguments)))
        parts.append(arguments)
        offset += len(arguments)
    head = _HEAD.pack(MAGIC, *python, cloudpickle.encode("ascii"), len(calls))
    return b"".join((head, *rows, *parts))


def decode_head(data: bytes) -> CallsHead:
    """Reads the head; raises ``PeerFault`` for what is none."""
    if len(data) < HEAD_BYTES:
        raise PeerFault("the file of pickled calls is cut off")
    magic, major, minor, cloudpickle, count = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise PeerFault("this is no file of pickled calls, or one of another version of meshpeer")
    try:
        version = cloudpickle.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        version = ""
    if not version.isprintable() or not version:
        raise PeerFault("the file of pickled calls does not say what made it")
    return CallsHead(python=f"{major}.{minor}", cloudpickle=version, count=count)


def row_offset(call: int) -> int:
    """Returns where the row of a call (counted from 0) begins."""
    return HEAD_BYTES + ROW_BYTES * call


def decode_row(data: bytes, *, head: CallsHead, file_bytes: int) -> tuple[Part, Part]:
    """Reads where a call's function and arguments are; raises ``PeerFault`` where that is outside of the
    file."""
    if len(data) != ROW_BYTES:
        raise PeerFault("the file of pickled calls is cut off")
    function_at, function_bytes, arguments_at, arguments_bytes = _ROW.unpack(data)
    parts = Part(function_at, function_bytes), Part(arguments_at, arguments_bytes)
    for part in parts:
        if part.offset < row_offset(head.count) or part.offset + part.size > file_bytes or not part.size:
            raise PeerFault("the file of pickled calls points outside of itself")
    return parts
