from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.errors import PeerFault
from meshpeer.core.jobs.calls import (
    HEAD_BYTES,
    ROW_BYTES,
    CallsHead,
    decode_head,
    decode_row,
    encode_calls,
    row_offset,
)

PICKLES = st.binary(min_size=1, max_size=40)
CALLS = st.lists(st.tuples(PICKLES, PICKLES), min_size=1, max_size=20)


def cut(data: bytes, number: int) -> tuple[bytes, bytes]:
    """One call as a worker takes it out."""
    head = decode_head(data[:HEAD_BYTES])
    row = data[row_offset(number) : row_offset(number) + ROW_BYTES]
    function, arguments = decode_row(row, head=head, file_bytes=len(data))
    return (
        data[function.offset : function.offset + function.size],
        data[arguments.offset : arguments.offset + arguments.size],
    )


@given(calls=CALLS)
def test_each_call_is_found_again(calls: list[tuple[bytes, bytes]]) -> None:
    data = encode_calls((3, 11), "3.1.2", calls)
    assert decode_head(data) == CallsHead(python="3.11", cloudpickle="3.1.2", count=len(calls))
    assert [cut(data, number) for number in range(len(calls))] == calls


def test_a_function_stands_there_once() -> None:
    function = b"f" * 1_000
    one, many = (encode_calls((3, 11), "3", [(function, b"a")] * count) for count in (1, 100))
    assert len(many) - len(one) == 99 * (ROW_BYTES + 1)


@given(data=st.binary(max_size=HEAD_BYTES + ROW_BYTES))
def test_what_is_no_file_of_calls_is_refused(data: bytes) -> None:
    with pytest.raises(PeerFault):
        decode_head(data)


@given(row=st.binary(min_size=0, max_size=ROW_BYTES), file_bytes=st.integers(0, 2**24))
def test_a_row_never_leads_outside_of_its_file(row: bytes, file_bytes: int) -> None:
    head = CallsHead(python="3.11", cloudpickle="3", count=3)
    try:
        parts = decode_row(row, head=head, file_bytes=file_bytes)
    except PeerFault:
        return
    for part in parts:
        assert row_offset(3) <= part.offset
        assert part.offset + part.size <= file_bytes


@pytest.mark.parametrize("version", ["", "\x01", "ä"])
def test_a_head_without_a_version_is_refused(version: str) -> None:
    head = bytearray(encode_calls((3, 11), "3.1.2", [(b"f", b"a")])[:HEAD_BYTES])
    head[10:26] = version.encode("latin-1").ljust(16, b"\0")
    with pytest.raises(PeerFault, match="does not say what made it"):
        decode_head(bytes(head))
