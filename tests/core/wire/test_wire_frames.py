from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.errors import PeerFault
from meshpeer.core.wire import cbor
from meshpeer.core.wire.frames import Channel, Codec
from meshpeer.core.wire.limits import FRAME_BYTES_MAX


class Greeting(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="greeting"):
    words: str


class Question(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="question"):
    number: int
    about: bytes = b""


class Impostor(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="greeting"):
    words: str


class Untagged(msgspec.Struct, frozen=True, kw_only=True):
    words: str


class OtherwiseTagged(msgspec.Struct, frozen=True, kw_only=True, tag_field="k", tag="member"):
    words: str


@given(
    st.builds(Greeting, words=st.text())
    | st.builds(Question, number=st.integers(0, 2**63), about=st.binary())
)
@settings(max_examples=50, deadline=None)
def test_a_message_survives_its_frame(message: msgspec.Struct) -> None:
    assert control().decode(control().encode(message)) == message


def test_a_frame_starts_with_its_channel() -> None:
    message = Greeting(words="hi")
    assert control().encode(message) == b"\x00" + cbor.encode(message)
    assert Codec(Channel.BULK, [Greeting]).encode(message) == b"\x01" + cbor.encode(message)


def test_a_frame_of_another_channel_is_refused() -> None:
    frame = Codec(Channel.BULK, [Greeting]).encode(Greeting(words="hi"))
    with pytest.raises(PeerFault, match="another channel"):
        control().decode(frame)


def test_an_unknown_kind_is_skipped() -> None:
    assert control().decode(b"\x00" + cbor.encode({"t": "of-a-later-version", "x": 1})) is None


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", "empty"),
        (b"\x00", "truncated"),
        (b"\x00" + cbor.encode([1]), "no kind"),
        (b"\x00" + cbor.encode({"words": "hi"}), "no kind"),
        (b"\x00" + cbor.encode({"t": 1}), "no kind"),
        (b"\x00" + cbor.encode({"t": "greeting"}), "words"),
        (b"\x00" + cbor.encode({"t": "greeting", "words": b"hi"}), "words"),
        (b"\x00" + bytes(FRAME_BYTES_MAX + 1), "exceeds"),
    ],
)
def test_rubbish_is_refused_by_its_rule(frame: bytes, why: str) -> None:
    with pytest.raises(PeerFault, match=why):
        control().decode(frame)


@given(st.binary(max_size=64))
@settings(max_examples=200, deadline=None)
def test_whatever_the_bytes_decoding_answers_or_refuses(frame: bytes) -> None:
    try:
        message = control().decode(b"\x00" + frame)
    except PeerFault:
        return
    assert message is None or isinstance(message, Greeting | Question)


def test_the_largest_frame_goes_both_ways_and_no_larger_one_is_made() -> None:
    overhead = len(control().encode(Question(number=0, about=bytes(60_000)))) - 60_000
    largest = control().encode(Question(number=0, about=bytes(FRAME_BYTES_MAX - overhead)))
    assert len(largest) == FRAME_BYTES_MAX
    assert control().decode(largest) is not None
    with pytest.raises(ValueError, match="exceeds a frame"):
        control().encode(Question(number=0, about=bytes(FRAME_BYTES_MAX - overhead + 1)))


@pytest.mark.parametrize("kinds", [[Greeting, Impostor], [Untagged], [OtherwiseTagged]])
def test_kinds_need_a_tag_each_of_their_own(kinds: list[type[msgspec.Struct]]) -> None:
    with pytest.raises(TypeError):
        Codec(Channel.CONTROL, kinds)


def control() -> Codec:
    return Codec(Channel.CONTROL, [Greeting, Question])
