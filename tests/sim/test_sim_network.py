"""The virtual network: a link is a TCP connection, and what befalls hosts looks from outside as it does."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshpeer.core.identity.keys import SigningKey, WireGuardPrivateKey
from meshpeer.core.ids import LinkId
from meshpeer.core.membership.messages import DialFailed, LinkClosed, LinkOpened
from meshpeer.core.node.messages import FrameReceived
from meshpeer.core.wire.limits import FRAME_BYTES_MAX
from meshpeer.sim.heap import EventHeap
from meshpeer.sim.host import Host
from meshpeer.sim.meter import Meter, kind_of, wire_bytes
from meshpeer.sim.network import (
    QUEUE_FRAMES_MAX,
    RETRANSMISSIONS_MAX,
    RTO_MIN_S,
    SILENT_DIAL_S,
    Network,
    Terrain,
)

pytestmark = pytest.mark.sim


# --- links --------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(loss=st.sampled_from((0.0, 0.05, 0.3)), jitter=st.floats(0.0, 0.9), seed=st.integers(0, 2**32))
@example(loss=0.3, jitter=0.0, seed=4869290)
def test_link_delivers_everything_once_and_in_order(loss: float, jitter: float, seed: int) -> None:
    lab = Lab(Terrain(loss=loss, jitter=jitter), seed=seed)
    link = lab.open("a", "b")
    for number in range(200):
        lab.heap.after(number * 0.003, lab.network.send, lab.hosts["a"], link, number.to_bytes(2, "big"))
    lab.heap.run(600)
    got = lab.frames("b")
    if not lab.closed("a"):
        assert got == [number.to_bytes(2, "big") for number in range(200)]
    assert got == sorted(set(got))


def test_lost_segment_holds_back_what_follows_for_a_retransmission() -> None:
    lab = Lab(Terrain(latency_s=((0.01,),), jitter=0.0))
    link = lab.open("a", "b")
    cut = lab.network.part([[lab.hosts["a"]], [lab.hosts["b"]]])
    began = lab.heap.now_s
    lab.network.send(lab.hosts["a"], link, b"first")
    lab.heap.run(0.05)
    lab.network.heal(cut)
    lab.network.send(lab.hosts["a"], link, b"second")
    lab.heap.run(RTO_MIN_S)
    assert [at - began for at in lab.times("b")] == pytest.approx([RTO_MIN_S + 0.01] * 2)


def test_retransmissions_come_after_twice_the_time_of_the_one_before() -> None:
    lab = Lab(Terrain(latency_s=((0.01,),), jitter=0.0))
    link = lab.open("a", "b")
    cut = lab.network.part([[lab.hosts["a"]], [lab.hosts["b"]]])
    began = lab.heap.now_s
    lab.network.send(lab.hosts["a"], link, b"one")
    lab.heap.run(1.0)
    lab.network.heal(cut)
    lab.heap.run(1.0)
    # Sent at 0, again at 0.2, 0.6 (both lost) and 1.4.
    assert [at - began for at in lab.times("b")] == pytest.approx([1.41])


def test_connection_is_given_up_after_its_last_retransmission() -> None:
    lab = Lab()
    link = lab.open("a", "b")
    lab.network.part([[lab.hosts["a"]], [lab.hosts["b"]]])
    lab.network.send(lab.hosts["a"], link, b"one")
    lab.heap.run(RTO_MIN_S * (2**RETRANSMISSIONS_MAX - 1) - 0.5)
    assert not lab.closed("a")
    lab.heap.run(RTO_MIN_S * 2**RETRANSMISSIONS_MAX)
    assert lab.closed("a") == [link]
    assert not lab.closed("b")


def test_queue_of_a_stalled_link_is_bounded_and_its_overflow_counted() -> None:
    lab = Lab()
    link = lab.open("a", "b")
    lab.hosts["b"].reads = False
    for _ in range(QUEUE_FRAMES_MAX + 10):
        lab.network.send(lab.hosts["a"], link, b"x")
    assert lab.meter.overflows == 10


def test_closing_arrives_after_what_was_sent() -> None:
    lab = Lab()
    link = lab.open("a", "b")
    lab.network.send(lab.hosts["a"], link, b"last word")
    lab.network.close(lab.hosts["a"], link, "done")
    lab.heap.run(1)
    assert [type(event) for event in lab.events["b"][-2:]] == [FrameReceived, LinkClosed]


def test_silent_crash_is_told_to_nobody_until_they_send() -> None:
    lab = Lab()
    link = lab.open("a", "b")
    lab.hosts["b"].gone = True
    lab.network.drop_all(lab.hosts["b"], silent=True)
    lab.heap.run(60)
    assert not lab.closed("a")
    lab.network.send(lab.hosts["a"], link, b"hello?")
    lab.hosts["b"].gone = False
    lab.heap.run(1)
    assert lab.closed("a") == [link]


def test_frame_beyond_the_limit_closes_the_link_at_both_ends() -> None:
    lab = Lab()
    link = lab.open("a", "b")
    lab.network.send(lab.hosts["a"], link, bytes(FRAME_BYTES_MAX + 1))
    lab.heap.run(1)
    assert not lab.frames("b")
    assert (len(lab.closed("a")), len(lab.closed("b"))) == (1, 1)


# --- dialling -----------------------------------------------------------------------------------------------


def test_host_behind_a_nat_is_dialled_by_nobody_outside_and_dials_out() -> None:
    lab = Lab()
    lab.hosts["b"].nat = 7
    lab.dial("a", "b")
    lab.heap.run(SILENT_DIAL_S + 1)
    (failed,) = [event for event in lab.events["a"] if isinstance(event, DialFailed)]
    assert not failed.refused
    lab.open("b", "a")


def test_program_that_is_down_refuses_and_a_machine_that_is_off_does_not() -> None:
    for off in (False, True):
        lab = Lab()
        lab.hosts["b"].rogue, lab.hosts["b"].gone = None, off
        lab.dial("a", "b")
        lab.heap.run(SILENT_DIAL_S + 1)
        (failed,) = [event for event in lab.events["a"] if isinstance(event, DialFailed)]
        assert failed.refused is not off


def test_one_way_partition_lets_through_the_other_way() -> None:
    lab = Lab()
    link = lab.open("a", "b")
    back = next(iter(lab.hosts["b"].lanes))
    lab.network.part([[lab.hosts["a"]], [lab.hosts["b"]]], one_way=True)
    lab.network.send(lab.hosts["a"], link, b"lost")
    lab.network.send(lab.hosts["b"], back, b"found")
    lab.heap.run(5)
    assert (lab.frames("a"), lab.frames("b")) == ([b"found"], [])


def test_latency_is_that_of_the_pair_of_regions() -> None:
    lab = Lab(Terrain(latency_s=((0.001, 0.08), (0.08, 0.002)), jitter=0.0))
    lab.hosts["b"].region = 1
    link = lab.open("a", "b")
    began = lab.heap.now_s
    lab.network.send(lab.hosts["a"], link, b"x")
    lab.heap.run(1)
    assert [at - began for at in lab.times("b")] == pytest.approx([0.08])


# --- heap and meter -----------------------------------------------------------------------------------------


def test_actions_of_one_moment_run_in_the_order_in_which_they_were_put() -> None:
    heap = EventHeap()
    done: list[int] = []
    for number in range(50):
        heap.at(1.0, done.append, number)
    heap.run(2.0)
    assert done == list(range(50))
    assert heap.now_s == 2.0


def test_kind_of_a_frame_is_read_without_decoding_it() -> None:
    from meshpeer.core.membership.messages import Ping, Pong
    from meshpeer.core.node.codec import CODEC

    assert kind_of(CODEC.encode(Ping(number=5))) == "ping"
    assert kind_of(CODEC.encode(Pong(number=5))) == "pong"
    assert kind_of(b"\0\xff") == kind_of(b"") == "other"


def test_bytes_on_the_wire_grow_with_every_segment() -> None:
    sizes = [wire_bytes(size) for size in range(0, 10_000, 100)]
    assert all(left < right for left, right in pairwise(sizes))
    assert wire_bytes(10) == 10 + 6 + 22 + 52


# --- helpers ------------------------------------------------------------------------------------------------


class Mute:
    """A program that answers at its address, and says nothing."""

    def handle(self, event: object, now: object) -> list[object]:
        return []

    def next_deadline(self) -> None:
        return None


class Lab:
    """Two hosts without nodes on a network, and all that they are told."""

    def __init__(self, terrain: Terrain | None = None, *, seed: int = 1) -> None:
        self.heap, self.meter = EventHeap(), Meter()
        self.network = Network(self.heap, terrain or Terrain(), random.Random(seed), self.meter, self._posted)
        self.events: dict[str, list[object]] = {"a": [], "b": []}
        self._times: dict[str, list[float]] = {"a": [], "b": []}
        self.hosts = {name: host_named(name, index) for index, name in enumerate("ab")}
        for host in self.hosts.values():
            self.network.place(host)

    def _posted(self, host: Host, event: object) -> None:
        self.events[host.name].append(event)
        if isinstance(event, FrameReceived):
            self._times[host.name].append(self.heap.now_s)

    def dial(self, source: str, target: str) -> None:
        other = self.hosts[target]
        self.network.dial(self.hosts[source], other.id, (other.address,))

    def open(self, source: str, target: str) -> LinkId:
        """Dials until somebody answers: with losses a dial may fail."""

        def answered() -> bool:
            return any(isinstance(event, LinkOpened | DialFailed) for event in self.events[source])

        for _ in range(20):
            self.events[source].clear()
            self.dial(source, target)
            assert self.heap.run_until(answered, within_s=SILENT_DIAL_S + 1)
            if self.hosts[source].lanes:
                break
        (opened,) = [event for event in self.events[source] if isinstance(event, LinkOpened)]
        return opened.link

    def frames(self, name: str) -> list[bytes]:
        return [event.frame for event in self.events[name] if isinstance(event, FrameReceived)]

    def times(self, name: str) -> list[float]:
        return self._times[name]

    def closed(self, name: str) -> list[LinkId]:
        return [event.link for event in self.events[name] if isinstance(event, LinkClosed)]


def host_named(name: str, index: int) -> Host:
    seed = bytes([index + 1]) * 32
    return Host(
        index=index,
        name=name,
        address=f"192.0.2.{index + 1}:51821",
        key=SigningKey(seed),
        wireguard=WireGuardPrivateKey(seed),
        chain=(b"leaf",),
        roles=(),
        issuer=None,
        rogue=Mute(),
    )
