"""Values of secrets are found wherever they stand, and hidden without moving anything."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.adapters.executor import masking
from meshpeer.adapters.executor.masking import holds_secret, mask, mask_file, reach

VALUES = st.lists(st.binary(min_size=8, max_size=12), min_size=1, max_size=3)
PIECES = st.lists(st.binary(max_size=20), max_size=4)


@settings(deadline=None)
@given(values=VALUES, pieces=PIECES)
def test_no_value_is_left_and_no_offset_moves(values: list[bytes], pieces: list[bytes]) -> None:
    text = b"".join(piece + value for piece, value in zip(pieces, values * 4, strict=False))

    masked = mask(text, values)

    assert len(masked) == len(text)
    assert not any(value in masked for value in values if b"*" not in value)


def test_value_that_holds_another_is_hidden_whole() -> None:
    assert mask(b"x abcdefgh-ijkl y", [b"abcdefgh", b"abcdefgh-ijkl"]) == b"x ************* y"


@pytest.mark.parametrize("offset", range(12))
def test_value_is_found_across_the_edge_of_a_block(monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    monkeypatch.setattr(masking, "BLOCK_BYTES", 16)
    with tempfile.TemporaryFile() as file:
        file.write(b"." * (8 + offset) + b"sesame-open" + b"." * 30)
        file.flush()

        assert holds_secret(file.fileno(), [("OTHER", b"something"), ("TOKEN", b"sesame-open")]) == "TOKEN"
        mask_file(file.fileno(), [b"sesame-open"])
        assert os.pread(file.fileno(), 100, 0) == b"." * (8 + offset) + b"*" * 11 + b"." * 30
        assert holds_secret(file.fileno(), [("TOKEN", b"sesame-open")]) == ""


def test_reach_is_what_may_stand_out_of_a_window() -> None:
    assert (reach([]), reach([b"12345678", b"1234567890"])) == (0, 9)
