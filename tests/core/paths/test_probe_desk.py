"""The probe desk: who is answered, how often, where to, and which answers count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import MeshId, NodeId, WireGuardKey
from meshpeer.core.paths.probe_desk import (
    ANSWER_S_MAX,
    ANSWERS_BURST,
    ASKER_FORGOTTEN_S,
    OPEN_MAX,
    STAMPS_KEPT,
    AnswerSeen,
    ProbeDesk,
    ProbeFact,
    ProbeHeard,
    QuestionSeen,
    SendProbe,
)
from meshpeer.core.paths.probe_packets import (
    MAGIC,
    NONCE_BYTES,
    PROBE_BYTES,
    PROBE_BYTES_MAX,
    Probe,
    ProbeKind,
    probe_key,
    probe_tag,
    seal,
    tag_of,
    unseal,
)

MESH, OTHER_MESH = MeshId(b"m" * 32), MeshId(b"o" * 32)
LEFT, RIGHT = NodeId(b"l" * 32), NodeId(b"r" * 32)
AT_LEFT, AT_RIGHT = "192.0.2.1:51820", "[2001:db8::2]:51820"
LOW_ORDER = WireGuardKey(bytes(32))


class Pair:
    """Two desks that know each other, and a clock."""

    def __init__(self, mesh: MeshId = MESH) -> None:
        self.keys = (WireGuardPrivateKey(b"\1" * 32), WireGuardPrivateKey(b"\2" * 32))
        self.counters = Counters()
        self.drawn = 0
        self.left = ProbeDesk(mesh=mesh, key=self.keys[0], entropy=self.draw, counters=Counters())
        self.right = ProbeDesk(mesh=mesh, key=self.keys[1], entropy=self.draw, counters=self.counters)
        self.left.know([(RIGHT, self.keys[1].public)], ())
        self.right.know([(LEFT, self.keys[0].public)], ("10.10.0.0/24", "fd00::/48"))
        self.now = Instant(100.0, 1_800_000_000.0)

    def draw(self, count: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(count, "big")

    def later(self, by_s: float) -> None:
        self.now = Instant(self.now.mono_s + by_s, self.now.unix_s + by_s)

    def asked(self, probe_bytes: int = PROBE_BYTES) -> bytes:
        asked = self.left.ask(RIGHT, AT_RIGHT, self.now, probe_bytes=probe_bytes)
        assert asked is not None
        return asked[1].data

    def right_hears(
        self, data: bytes, source: str = AT_LEFT, *, answered: bool = False
    ) -> tuple[ProbeFact | None, list[SendProbe]]:
        heard = ProbeHeard(source=source, local="2001:db8::2", data=data)
        return self.right.on_heard(heard, self.now, lambda peer, at: answered)

    def left_hears(self, data: bytes, source: str = AT_RIGHT) -> ProbeFact | None:
        heard = ProbeHeard(source=source, local="192.0.2.1", data=data)
        return self.left.on_heard(heard, self.now, lambda peer, at: False)[0]

    @property
    def refused(self) -> int:
        return self.counters.get(Counter.PATH_PROBES_REFUSED)


def test_a_question_is_answered_to_where_it_came_from_and_says_what_was_seen() -> None:
    pair = Pair()
    asked = pair.left.ask(RIGHT, AT_RIGHT, pair.now, answered=True, probe_bytes=1_000)
    assert asked is not None
    number, sent = asked
    assert (sent.endpoint, sent.local, len(sent.data)) == (AT_RIGHT, "", 1_000)
    fact, answers = pair.right_hears(sent.data, answered=True)
    assert fact == QuestionSeen(peer=LEFT, source=AT_LEFT, answered=True)
    (answer,) = answers
    assert (answer.endpoint, answer.local, len(answer.data)) == (AT_LEFT, "2001:db8::2", PROBE_BYTES)
    pair.later(0.25)
    assert pair.left_hears(answer.data) == AnswerSeen(
        peer=RIGHT,
        endpoint=AT_RIGHT,
        number=number,
        probe_bytes=1_000,
        rtt_s=0.25,
        seen=AT_LEFT,
        answered=True,
    )


def test_an_answer_counts_once_in_time_and_only_from_where_its_question_went() -> None:
    pair = Pair()
    (answer,) = pair.right_hears(pair.asked())[1]
    assert pair.left_hears(answer.data, "192.0.2.9:51820") is None
    assert pair.left_hears(answer.data) is not None
    assert pair.left_hears(answer.data) is None
    (late,) = pair.right_hears(pair.asked())[1]
    pair.later(ANSWER_S_MAX + 0.1)
    assert pair.left_hears(late.data) is None


@given(probe_bytes=st.integers(0, 2 * PROBE_BYTES_MAX))
def test_no_answer_is_longer_than_its_question(probe_bytes: int) -> None:
    pair = Pair()
    question = pair.asked(probe_bytes)
    assert PROBE_BYTES <= len(question) <= PROBE_BYTES_MAX
    (answer,) = pair.right_hears(question)[1]
    assert len(answer.data) <= len(question)


def test_a_question_that_comes_again_is_not_answered_again() -> None:
    pair = Pair()
    first, second = pair.asked(), pair.asked()
    assert pair.right_hears(second)[1]
    assert pair.right_hears(first)[1], "one that was overtaken is new"
    for data in (first, second):
        assert pair.right_hears(data, "198.51.100.66:1") == (None, [])
    assert pair.refused == 2


def test_a_question_is_not_answered_again_however_many_came_since() -> None:
    pair = Pair()
    held = pair.asked()
    assert pair.right_hears(held)[1]
    for _ in range(2 * STAMPS_KEPT):
        pair.later(0.2)
        assert pair.right_hears(pair.asked())[1]
    assert pair.right_hears(held) == (None, [])


def test_one_whose_clock_was_set_back_is_answered_again_after_a_while() -> None:
    pair = Pair()
    for _ in range(STAMPS_KEPT + 1):
        pair.later(0.2)
        pair.right_hears(pair.asked())
    pair.left = Pair().left
    pair.now = Instant(pair.now.mono_s, pair.now.unix_s - 86_400)
    assert pair.right_hears(pair.asked()) == (None, [])
    pair.later(ASKER_FORGOTTEN_S)
    assert pair.right_hears(pair.asked())[1]


def test_so_many_of_one_asker_are_answered_at_once_and_no_more() -> None:
    pair = Pair()
    answered = sum(bool(pair.right_hears(pair.asked())[1]) for _ in range(3 * int(ANSWERS_BURST)))
    assert answered == ANSWERS_BURST
    pair.later(1.0)
    assert pair.right_hears(pair.asked())[1]


@pytest.mark.parametrize(
    "source", ["10.10.0.1:51820", "[fd00::1]:51820", "[fe80::1]:51820", "224.0.0.1:51820", "0.0.0.0:51820"]
)
def test_nothing_is_answered_through_a_tunnel_or_to_what_is_no_machine(source: str) -> None:
    pair = Pair()
    assert pair.right_hears(pair.asked(), source) == (None, [])
    assert pair.refused == 1


def test_whoever_is_no_member_is_not_answered() -> None:
    pair, stranger = Pair(), Pair(OTHER_MESH)
    assert pair.right_hears(stranger.asked()) == (None, [])
    question = pair.asked()
    pair.right.know((), ())
    assert pair.right_hears(question) == (None, [])
    assert pair.refused == 2


@given(st.binary(max_size=300), st.integers(0, PROBE_BYTES - 1), st.integers(1, 255))
def test_rubbish_is_refused_and_so_is_what_was_changed_on_the_way(data: bytes, at: int, by: int) -> None:
    pair = Pair()
    question = pair.asked()
    changed = question[:at] + bytes([question[at] ^ by]) + question[at + 1 :]
    for one in (data, MAGIC + data, question[:12] + data, changed, question[:-1], question + b"\0"):
        assert pair.right_hears(one) == (None, [])
    assert pair.refused == 6


def test_a_question_sent_back_to_its_sender_says_nothing() -> None:
    pair = Pair()
    assert pair.left_hears(pair.asked()) is None


def test_a_key_that_agrees_on_nothing_is_neither_asked_nor_answered() -> None:
    pair = Pair()
    pair.left.know([(RIGHT, LOW_ORDER)], ())
    assert pair.left.ask(RIGHT, AT_RIGHT, pair.now) is None
    heard = MAGIC + probe_tag(MESH, LOW_ORDER, pair.keys[0].public) + bytes(PROBE_BYTES - 12)
    assert pair.left_hears(heard) is None


@pytest.mark.parametrize("endpoint", ["alpha.example:51820", "192.0.2.2:0", "192.0.2.2", "[fe80::1]:51820"])
def test_what_is_no_address_of_a_machine_is_not_asked(endpoint: str) -> None:
    pair = Pair()
    assert pair.left.ask(RIGHT, endpoint, pair.now) is None


def test_questions_under_way_are_bounded_and_the_oldest_is_forgotten() -> None:
    pair = Pair()
    first = pair.right_hears(pair.asked())[1][0].data
    for _ in range(OPEN_MAX):
        pair.asked()
    assert pair.left_hears(first) is None


# --- bytes --------------------------------------------------------------------------------------------------


@given(
    st.builds(
        Probe,
        kind=st.sampled_from(ProbeKind),
        number=st.integers(0, 2**64 - 1),
        stamp=st.integers(0, 2**64 - 1),
        seen=st.sampled_from(["", "192.0.2.7:1", "[2001:db8::7]:65535"]),
        answered=st.booleans(),
    ),
    st.integers(0, PROBE_BYTES_MAX),
)
def test_what_is_sealed_is_unsealed_by_the_other_end_alone(probe: Probe, size: int) -> None:
    one, other, third = (WireGuardPrivateKey(bytes([number]) * 32) for number in (1, 2, 3))
    key, same = probe_key(MESH, one, other.public), probe_key(MESH, other, one.public)
    assert key is not None
    assert key == same
    tag = probe_tag(MESH, one.public, other.public)
    data = seal(probe, tag, key, b"n" * NONCE_BYTES, size)
    assert tag_of(data) == tag
    assert unseal(data, key) == probe
    for wrong in (probe_key(MESH, one, third.public), probe_key(OTHER_MESH, one, other.public)):
        assert wrong is not None
        assert unseal(data, wrong) is None


def test_wireguard_takes_no_probe_for_one_of_its_messages() -> None:
    assert int.from_bytes(MAGIC, "little") not in (1, 2, 3, 4)
