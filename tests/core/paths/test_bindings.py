"""A node shows its relays where it is until they answered, and takes no other answer for one."""

from __future__ import annotations

import itertools

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.paths.bindings import OPEN_MAX, PEERS_MAX, Bindings, Place
from meshpeer.core.paths.probe_desk import ProbeHeard, SendProbe
from meshpeer.core.paths.probe_packets import PROBE_BYTES
from meshpeer.core.paths.probes import AGAIN_S, GAPS_S
from meshpeer.core.paths.relay_binding import Binding, BindingKind, read_binding, write_binding
from meshpeer.core.paths.relay_bucket import Bucket
from meshpeer.core.paths.relay_crossing import Crossing, Way

PEER, OTHER = NodeId(b"p" * 32), NodeId(b"o" * 32)
END, SECRET = "198.51.100.1:51830", b"s" * 32
HERE = Way("192.0.2.1", 51820)


def at(mono_s: float) -> Instant:
    return Instant(mono_s, 1_900_000_000.0 + mono_s)


def asked(one: Bindings, now_s: float) -> SendProbe:
    (sent,) = one.tick(at(now_s))
    return sent


def answer(sent: SendProbe, secret: bytes = SECRET) -> bytes:
    question = read_binding(sent.data, SECRET)
    assert question is not None
    assert question.kind is not BindingKind.ANSWER
    return write_binding(Binding(BindingKind.ANSWER, question.stamp), secret)


def heard(data: bytes, source: str = END) -> ProbeHeard:
    return ProbeHeard(source=source, local="192.0.2.1", data=data)


def aimed() -> Bindings:
    one = Bindings()
    one.aim(PEER, Place(END, SECRET), at(0))
    return one


def test_a_real_relay_answers_and_is_heard() -> None:
    one = aimed()
    keys = (WireGuardKey(b"a" * 32), WireGuardKey(b"b" * 32))
    crossing = Crossing(keys, Bucket(1e9, 1e9), Bucket(1e9, 1e9), (SECRET, b"t" * 32))
    sent = asked(one, 0)
    assert sent.endpoint == END
    answered = crossing.bind(0, HERE, sent.data, 0.0)
    assert answered is not None
    assert one.on_heard(heard(answered), at(0.02))
    assert one.answered(PEER) == (END, 0.02)
    assert one.has_news


def test_a_check_is_answered_as_well_and_an_aim_of_another_kind_begins_anew() -> None:
    one = Bindings()
    one.aim(PEER, Place(END, SECRET, BindingKind.CHECK), at(0))
    keys = (WireGuardKey(b"a" * 32), WireGuardKey(b"b" * 32))
    crossing = Crossing(keys, Bucket(1e9, 1e9), Bucket(1e9, 1e9), (SECRET, b"t" * 32))
    answered = crossing.bind(0, HERE, asked(one, 0).data, 0.0)
    assert answered is not None
    assert crossing.ends[0].way is None
    assert one.on_heard(heard(answered), at(0.02))
    assert one.answered(PEER) == (END, 0.02)
    one.aim(PEER, Place(END, SECRET), at(1))
    assert one.answered(PEER) is None
    assert crossing.bind(0, HERE, asked(one, 1).data, 1.0) is not None
    assert crossing.ends[0].proved


def test_only_the_answer_to_a_question_of_ours_from_where_it_went_counts() -> None:
    one = aimed()
    sent = asked(one, 0)
    unknown = write_binding(Binding(BindingKind.ANSWER, 1), SECRET)
    for event in (
        heard(answer(sent), "198.51.100.1:51831"),
        heard(answer(sent), "198.51.100.2:51830"),
        heard(answer(sent, b"x" * 32)),
        heard(sent.data),
        heard(unknown),
    ):
        assert one.on_heard(event, at(0.1))
    assert one.answered(PEER) is None
    assert not one.has_news
    assert not one.on_heard(heard(bytes(PROBE_BYTES)), at(0.1)), "that is for the probes"


def test_an_answer_counts_once_and_old_ones_not_at_all() -> None:
    one = aimed()
    first = asked(one, 0)
    second = asked(one, GAPS_S[0])
    one.on_heard(heard(answer(second)), at(0.2))
    for event in (heard(answer(second)), heard(answer(first))):
        one.on_heard(event, at(9))
    assert one.answered(PEER) == (END, 0.2)


def test_questions_come_often_at_first_and_then_as_often_as_it_takes_to_know() -> None:
    one, now_s, times = aimed(), 0.0, []
    while now_s < 20:
        times += [now_s] * len(one.tick(at(now_s)))
        deadline = one.next_deadline()
        assert deadline is not None
        now_s = deadline.at_s
    gaps = [round(later - earlier, 3) for earlier, later in itertools.pairwise(times)]
    assert gaps[: len(GAPS_S)] == list(GAPS_S)
    assert set(gaps[len(GAPS_S) :]) == {AGAIN_S}


def test_stamps_rise_even_where_the_clock_is_set_back() -> None:
    one, stamps = aimed(), []
    for now in (at(0), Instant(10, 1_000.0), Instant(20, 1_000.0)):
        (sent,) = one.tick(now)
        question = read_binding(sent.data, SECRET)
        assert question is not None
        stamps.append(question.stamp)
    assert stamps == sorted(set(stamps))
    assert len(one._aims[PEER].open) <= OPEN_MAX


def test_the_same_aim_goes_on_and_another_begins_anew() -> None:
    one = aimed()
    one.on_heard(heard(answer(asked(one, 0))), at(0.1))
    one.aim(PEER, Place(END, SECRET), at(1))
    assert one.answered(PEER) == (END, 0.1)
    one.aim(PEER, Place(END, b"n" * 32), at(1))
    assert one.answered(PEER) is None
    one.aim(PEER, None, at(1))
    assert one.next_deadline() is None


def test_what_is_no_address_is_passed_over_and_there_are_so_many_at_most() -> None:
    one = Bindings()
    one.aim(PEER, Place("relay.example:51830", SECRET), at(0))
    assert one.tick(at(0)) == []
    for number in range(PEERS_MAX + 5):
        assert one.has_room(NodeId(number.to_bytes(32, "big"))) == (number < PEERS_MAX)
        one.aim(NodeId(number.to_bytes(32, "big")), Place(f"198.51.100.1:{1000 + number}", SECRET), at(0))
    assert one.has_room(NodeId(bytes(32)))
    assert len(one.tick(at(0))) == PEERS_MAX


def test_an_ipv6_endpoint_is_known_however_it_was_written() -> None:
    one = Bindings()
    one.aim(PEER, Place("[2001:db8:0::1]:51830", SECRET), at(0))
    one.on_heard(heard(answer(asked(one, 0)), "[2001:db8::1]:51830"), at(0.1))
    assert one.answered(PEER) == ("[2001:db8:0::1]:51830", 0.1)
