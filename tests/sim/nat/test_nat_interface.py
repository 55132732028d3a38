"""One interface of a mix, and its timers."""

from __future__ import annotations

import math

import pytest

from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.wgconf.model import SetPeer
from meshpeer.sim.heap import EventHeap
from meshpeer.sim.nat.interface import UNANSWERED_S, Interface, Packet
from meshpeer.sim.nat.routers import End

HERE, THERE = End("11.0.0.1", 51820), End("11.0.0.2", 51820)
STOOD_STILL_S = 18.88326751702556 - 15.0 + 5 * math.ulp(3.88)
"""Sent then, a packet was due for an answer at one sum and late at another; time stood still."""

pytestmark = pytest.mark.sim


def test_what_is_not_answered_begins_a_handshake_and_time_goes_on() -> None:
    heap = EventHeap()
    keys = [WireGuardPrivateKey(bytes([number]) * 32) for number in (1, 2)]
    sent: list[Packet] = []
    ends: list[Interface] = []

    def put(sender: int, packet: Packet) -> None:
        sent.append(packet)
        ends[1 - sender].receive(packet, (HERE, THERE)[sender])

    for number, key in enumerate(keys):
        ends.append(
            Interface(
                key.public,
                heap,
                epoch_s=0.0,
                draw=lambda: 0.5,
                send=lambda _, packet, number=number: put(number, packet),
                arrived=lambda *_: None,
                heard=lambda *_: None,
                roamed=lambda: None,
            )
        )
    for end, key, address, place in zip(
        ends, reversed(keys), ("10.10.0.2", "10.10.0.1"), (THERE, HERE), strict=True
    ):
        end.apply(
            SetPeer(
                public_key=key.public, endpoint=f"{place.host}:{place.port}", allowed_ips=(f"{address}/32",)
            )
        )
    ends[0].route("10.10.0.2", None)
    heap.run(STOOD_STILL_S)
    ends[1].asleep = True
    ends[0].route("10.10.0.2", "nobody answers")
    sent.clear()
    heap.run(UNANSWERED_S + 1)
    assert [one.kind.name for one in sent] == ["INITIATION"]
