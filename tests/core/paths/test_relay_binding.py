"""A binding is read by whom it is for, and by nobody else, and is taken for nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from relay_packets_kit import cookie, data, initiation, response

from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.probe_packets import PROBE_BYTES, tag_of
from meshpeer.core.paths.relay_binding import (
    BINDING_BYTES,
    SECRET_BYTES,
    Binding,
    BindingKind,
    binding_secret,
    is_binding,
    read_binding,
    write_binding,
)
from meshpeer.core.paths.relay_packets import parse_packet

SECRETS = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)
BINDINGS = st.builds(Binding, st.sampled_from(BindingKind), st.integers(0, 2**64 - 1))
KEY = WireGuardKey(b"k" * 32)


@given(binding=BINDINGS, secret=SECRETS)
def test_what_is_written_is_read_with_the_same_secret(binding: Binding, secret: bytes) -> None:
    written = write_binding(binding, secret)
    assert len(written) == BINDING_BYTES
    assert is_binding(written)
    assert read_binding(written, secret) == binding


@given(binding=BINDINGS, secret=SECRETS, other=SECRETS, at=st.integers(0, BINDING_BYTES - 1))
def test_another_secret_or_a_changed_byte_reads_nothing(
    binding: Binding, secret: bytes, other: bytes, at: int
) -> None:
    written = write_binding(binding, secret)
    changed = written[:at] + bytes([written[at] ^ 1]) + written[at + 1 :]
    assert read_binding(changed, secret) is None
    assert other == secret or read_binding(written, other) is None
    assert read_binding(written, b"") is None


def test_a_kind_that_is_none_reads_nothing() -> None:
    secret = bytes(SECRET_BYTES)
    for kind in (0, 4, 255):
        assert read_binding(write_binding(Binding(kind, 1), secret), secret) is None  # type: ignore[arg-type]


def test_each_end_of_each_reservation_has_a_secret_of_its_own() -> None:
    made = {
        binding_secret(key, number, side)
        for key in (b"a" * 32, b"b" * 32)
        for number in (1, 2)
        for side in (0, 1)
    }
    assert len(made) == 8


def test_neither_wireguard_nor_a_probe_is_taken_for_a_binding_nor_the_other_way_round() -> None:
    for packet in (initiation(1, KEY), response(1, 2, KEY), cookie(1), data(1), data(1, 1452), b""):
        assert not is_binding(packet)
    written = write_binding(Binding(BindingKind.QUESTION, 7), bytes(SECRET_BYTES))
    assert parse_packet(written) is None
    assert tag_of(written) is None
    assert not is_binding(written + bytes(PROBE_BYTES - BINDING_BYTES))
