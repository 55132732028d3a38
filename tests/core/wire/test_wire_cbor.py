from __future__ import annotations

import cbor2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.errors import PeerFault
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import CBOR_DEPTH_MAX

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=30)
    | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

TELLING_BYTES = b"\x00\x18\x41\x61\x80\x81\xa0\xa1\xc0\xf6\xf7\xf9\xff"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    key: bytes
    at: tuple[int, ...] = ()


class PointOfLaterVersion(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    key: bytes
    at: tuple[int, ...] = ()
    colour: str


@given(PLAIN)
@settings(max_examples=150, deadline=None)
def test_what_is_encoded_decodes_to_the_same_value(value: object) -> None:
    assert cbor.decode_plain(cbor.encode(value), bytes_max=65_536) == value


@given(st.binary(max_size=24) | st.lists(st.sampled_from(TELLING_BYTES), max_size=12))
@settings(max_examples=400, deadline=None)
def test_bytes_are_refused_or_are_the_one_encoding_of_what_they_say(data: bytes | list[int]) -> None:
    data = bytes(data)
    try:
        plain = cbor.decode_plain(data, bytes_max=64)
    except PeerFault:
        return
    assert cbor.encode(plain) == data


@given(PLAIN, st.data())
@settings(max_examples=100, deadline=None)
def test_every_proper_prefix_is_truncated(value: object, data: st.DataObject) -> None:
    encoded = cbor.encode(value)
    with pytest.raises(PeerFault, match="truncated"):
        cbor.decode_plain(encoded[: data.draw(st.integers(0, len(encoded) - 1))], bytes_max=65_536)


@given(PLAIN, st.binary(min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_trailing_bytes_are_refused(value: object, rest: bytes) -> None:
    with pytest.raises(PeerFault, match="trailing bytes"):
        cbor.decode_plain(cbor.encode(value) + rest, bytes_max=65_536)


@pytest.mark.parametrize(
    ("hexed", "why"),
    [
        ("1800", "not canonically"),  # 0 in two bytes
        ("190001", "not canonically"),
        ("5801ff", "not canonically"),
        ("a2616201616102", "not canonically"),  # keys in the wrong order
        ("a2626161016162f6", "not canonically"),  # longer key first
        ("a2616101616102", "not canonically"),  # one key twice
        ("9f01ff", "indefinite"),
        ("bf616101ff", "indefinite"),
        ("5f41aaff", "indefinite"),
        ("1c", "reserved"),
        ("c001", "tags"),
        ("d9d9f700", "tags"),
        ("81c24101", "tags"),  # a bignum
        ("a10101", "not text"),
        ("a1416101", "not text"),
        ("a1a0a0", "not text"),
        ("f93e00", "floats"),
        ("fb3ff8000000000000", "floats"),
        ("f97e00", "floats"),
        ("f7", "simple values"),
        ("e0", "simple values"),
        ("f8ff", "simple values"),
        ("ff", "simple values"),
        ("61ff", "malformed"),  # not UTF-8
        ("62c328", "malformed"),
        ("63eda080", "malformed"),  # a lone surrogate
        ("", "truncated"),
        ("98", "truncated"),
        ("9b", "truncated"),
        ("9bffffffffffffffff", "truncated"),
        ("bb7fffffffffffffff", "truncated"),
        ("5bffffffffffffffff", "truncated"),
        ("8201", "truncated"),
        ("0000", "trailing"),
    ],
)
def test_what_lies_outside_the_canonical_world_is_refused_by_its_rule(hexed: str, why: str) -> None:
    with pytest.raises(PeerFault, match=why):
        cbor.decode_plain(bytes.fromhex(hexed), bytes_max=64)


def test_nesting_is_allowed_up_to_its_limit_and_not_beyond() -> None:
    deepest = b"\x81" * CBOR_DEPTH_MAX + b"\x00"
    assert cbor.encode(cbor.decode_plain(deepest, bytes_max=64)) == deepest
    with pytest.raises(PeerFault, match="nests deeper"):
        cbor.decode_plain(b"\x81" + deepest, bytes_max=64)


def test_depth_counts_nesting_not_neighbours() -> None:
    wide: list[list[list[int]]] = [[[]] for _ in range(10 * CBOR_DEPTH_MAX)]
    assert cbor.decode_plain(cbor.encode(wide), bytes_max=65_536) == wide


def test_a_bomb_of_nesting_is_refused_without_recursion() -> None:
    with pytest.raises(PeerFault, match="nests deeper"):
        cbor.decode_plain(b"\x81" * 60_000, bytes_max=65_536)


def test_size_is_judged_before_anything_else() -> None:
    assert cbor.decode_plain(b"\x43abc", bytes_max=4) == b"abc"
    with pytest.raises(PeerFault, match="message of 4 bytes exceeds 3"):
        cbor.decode_plain(b"\x43abc", bytes_max=3)


@pytest.mark.parametrize(
    "value", [1.5, float("nan"), 2**64, -(2**64) - 1, {1: 2}, {b"k": 2}, [[[[{"x": 0.0}]]]]]
)
def test_what_no_decoder_takes_back_is_not_encoded(value: object) -> None:
    with pytest.raises(ValueError, match="can't be encoded"):
        cbor.encode(value)


def test_sets_are_encoded_in_order_whatever_the_hash_seed() -> None:
    names = {f"name-{number}" for number in range(50)}
    assert cbor.encode(names) == cbor.encode(frozenset(sorted(names))) == cbor.encode(sorted(names))


def test_keys_are_ordered_as_the_rfc_says() -> None:
    assert cbor.encode({"b": 1, "aa": 2, "a": 3}) == bytes.fromhex("a3616103616201626161" + "02")


@given(st.dictionaries(st.text(max_size=40), st.none(), max_size=10))
@settings(max_examples=50, deadline=None)
def test_length_first_order_is_bytewise_order_for_text_keys(value: dict[str, None]) -> None:
    encoded_keys = [cbor.encode(key) for key in value]
    head = cbor.encode(list(range(len(value))))[:1]
    assert cbor.encode(value)[1:] == b"".join(key + b"\xf6" for key in sorted(encoded_keys))
    assert head[0] + 0x20 == cbor.encode(value)[0]


def test_fields_of_a_later_version_are_ignored() -> None:
    later = PointOfLaterVersion(name="a", key=b"k", colour="red")
    assert cbor.decode(cbor.encode(later), Point, bytes_max=100) == Point(name="a", key=b"k")


def test_a_shape_that_is_off_names_the_field() -> None:
    for value, field in [
        ({"name": 1, "key": b""}, "name"),
        ({"name": "a"}, "key"),
        ({"name": "a", "key": b"", "at": [True]}, "at"),
    ]:
        with pytest.raises(PeerFault, match=field):
            cbor.decode(cbor.encode(value), Point, bytes_max=100)


def test_base64_text_is_not_taken_for_bytes() -> None:
    with pytest.raises(PeerFault, match="key"):
        cbor.decode(cbor.encode({"name": "a", "key": "aGk="}), Point, bytes_max=100)


def test_encoding_is_plain_cbor_that_others_read() -> None:
    point = Point(name="a", key=b"k", at=(1, -2))
    assert cbor2.loads(cbor.encode(point)) == {"name": "a", "key": b"k", "at": [1, -2]}
