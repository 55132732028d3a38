"""What services say when they call back: what is taken, and that nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.jobs.callbacks import (
    CALLBACK_BYTES_MAX,
    ERROR_CHARACTERS_MAX,
    RESULT_BYTES_MAX,
    Callback,
    one_line,
    read_callback,
)
from meshpeer.core.jobs.rules import Fault


@pytest.mark.parametrize(
    ("body", "callback"),
    [
        (b'{"status": "succeeded"}', Callback(succeeded=True, result=b"", error="")),
        (
            b'{"status":"succeeded","result":{"b": 1.50},"more":2}',
            Callback(succeeded=True, result=b'{"b": 1.50}', error=""),
        ),
        (
            b'{"status":"failed","error":"out of\\nmemory\\u001b[31m"}',
            Callback(succeeded=False, result=b"", error="out of memory [31m"),
        ),
    ],
)
def test_call_backs_are_read(body: bytes, callback: Callback) -> None:
    assert read_callback(body) == callback


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"status": "done"}',
        b'{"status": true}',
        b'{"status": "failed", "error": 7}',
        b'{"status": "succeeded", "result": }',
        b'{"status": "succeeded"} {}',
        b'{"status": "succeeded", "result": NaN}',
        b"status=succeeded&result=1",
        b'\xff{"status": "succeeded"}',
        b"[" * 100_000,
        b'{"status":"succeeded","result":"' + b"x" * RESULT_BYTES_MAX + b'"}',
        b" " * (CALLBACK_BYTES_MAX + 1),
    ],
)
def test_anything_else_is_refused_and_said(body: bytes) -> None:
    fault = read_callback(body)
    assert isinstance(fault, Fault)
    assert fault.what
    assert len(fault.what) < 300


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_crash(body: bytes) -> None:
    read_callback(body)


@given(st.text())
def test_what_a_service_writes_is_one_bounded_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable() or not line
    assert len(line) <= ERROR_CHARACTERS_MAX
    line.encode("utf-8")


def test_result_is_kept_as_it_was_written() -> None:
    result = b'{ "big": 123456789012345678901234567890, "n": 1e400 }'
    read = read_callback(b'{"status":"succeeded","result":' + result + b"}")
    assert isinstance(read, Callback)
    assert read.result == result
    assert json.loads(read.result)["big"] == 123456789012345678901234567890
