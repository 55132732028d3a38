"""A packet is what WireGuard sends, to the byte, or nothing; a first mac names its receiver."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relay_packets_kit import cookie, data, initiation, response

from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.relay_packets import Kind, Packet, has_mac1, mac1_key, parse_packet

ALPHA, BRAVO = WireGuardKey(b"a" * 32), WireGuardKey(b"b" * 32)


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (initiation(7, ALPHA), Packet(Kind.INITIATION, 7, 0)),
        (response(8, 7, ALPHA), Packet(Kind.RESPONSE, 8, 7)),
        (cookie(9), Packet(Kind.COOKIE, 0, 9)),
        (data(0xFFFFFFFF), Packet(Kind.DATA, 0, 0xFFFFFFFF)),
        (data(1, 1472), Packet(Kind.DATA, 0, 1)),
        # A full packet of an interface whose MTU is 1420: no multiple of 16.
        (data(1, 1452), Packet(Kind.DATA, 0, 1)),
    ],
)
def test_each_kind_says_its_indices(packet: bytes, said: Packet) -> None:
    assert parse_packet(packet) == said


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        *((kind, length) for kind in (1, 2, 3, 4) for length in (0, 3, 16, 31)),
        *((kind, length) for kind in (1, 2, 3) for length in (32, 63, 65, 91, 93, 147, 149)),
    ],
)
def test_a_packet_of_another_length_is_none(kind: int, length: int) -> None:
    assert parse_packet((bytes([kind, 0, 0, 0]) + bytes(200))[:length]) is None


@pytest.mark.parametrize("packet", [initiation(1, ALPHA), response(1, 2, ALPHA), cookie(1), data(1)])
def test_reserved_bytes_are_zero(packet: bytes) -> None:
    assert parse_packet(packet[:2] + b"\1" + packet[3:]) is None


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_whatever_comes_is_parsed_or_none(packet: bytes) -> None:
    said = parse_packet(packet)
    assert said is None or packet[0] == said.kind


@pytest.mark.parametrize("packet", [initiation(1, ALPHA), response(1, 2, ALPHA)])
def test_a_first_mac_holds_for_its_receiver_alone(packet: bytes) -> None:
    assert has_mac1(packet, mac1_key(ALPHA))
    assert not has_mac1(packet, mac1_key(BRAVO))
    assert not has_mac1(packet[:20] + b"\1" + packet[21:], mac1_key(ALPHA))


def test_the_first_mac_is_that_of_wireguard() -> None:
    # An initiation that wireguard-go made for the holder of this public key.
    key, packet = WireGuardKey(bytes.fromhex(_PUBLIC)), bytes.fromhex(_CAPTURED)
    assert parse_packet(packet) == Packet(Kind.INITIATION, int.from_bytes(packet[4:8], "little"), 0)
    assert has_mac1(packet, mac1_key(key))
    assert not has_mac1(packet, mac1_key(ALPHA))


_PUBLIC = "21d833127eeb3b77e40cd5c185e33df0c6ff3fa29b8eb297d5f8c94f764e5265"
_CAPTURED = (
    "01000000da07800c471aeae550475d41937aa029e278926334ed24cbc24d912e8cb980a7d28b0d12b9ab516bbd10c427"
    "c55818ac7aad76619a86045b27f3d5e6d189fc7e9cdbd5234a74a889d3c0d2958b49b85a23dfab67667cb6f0a65c9a05"
    "67ab52df14d88af83f2c3fb7c37bb2bd0e386cb6351575ed65504c50d254195ee35ac634000000000000000000000000"
    "00000000"
)
