"""Probing: it answers on the addresses of the moment, waits for those that are on their way, and says why not
once."""

from __future__ import annotations

import trio
import trio.testing

from meshpeer.core.effects import AskEcho
from meshpeer.core.node.messages import EchoAsked, EchoHeard
from meshpeer.runtime.probing import RETRY_S, TOLD_AFTER, Probing
from meshpeer.sim.prober import MemoryOverlay, MemoryProber

MINE, OLD, THEIRS = "10.10.0.1", "10.10.0.9", "10.10.0.2"


class Lab:
    def __init__(self) -> None:
        self.overlay = MemoryOverlay()
        self.posted: list[object] = []
        self.said: list[str] = []
        self.heard: list[object] = []
        self.interface = trio.Event()
        self.probing = Probing(
            MemoryProber(self.overlay),
            self.posted.append,
            lambda level, fact, fields: self.said.append(fact),
        )


async def test_nothing_is_answered_before_there_is_an_interface(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lab = Lab()
    lab.probing.want((MINE,))
    nursery.start_soon(lab.probing.run, lab.interface)
    await trio.sleep(10)
    assert not lab.overlay.served
    lab.interface.set()
    await trio.sleep(1)
    assert set(lab.overlay.served) == {MINE}


async def test_addresses_follow_what_core_wants_and_none_is_silence(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lab = Lab()
    lab.interface.set()
    nursery.start_soon(lab.probing.run, lab.interface)
    for wanted in ((OLD,), (MINE, "fd00::1"), (), (MINE,)):
        lab.probing.want(wanted)
        await trio.sleep(1)
        assert set(lab.overlay.served) == set(wanted)


async def test_probes_and_answers_reach_the_node(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lab = Lab()
    lab.interface.set()
    lab.probing.ask(AskEcho(number=1, address=THEIRS))
    lab.probing.want((MINE,))
    nursery.start_soon(lab.probing.run, lab.interface)
    other = MemoryProber(lab.overlay)
    nursery.start_soon(other.serve, THEIRS, lab.heard.append)
    await trio.sleep(1)
    lab.probing.ask(AskEcho(number=2, address=THEIRS))
    other.ask(MINE, 3)
    assert lab.posted == [EchoHeard(number=2, source=THEIRS), EchoAsked(source=THEIRS)]


async def test_an_address_that_can_not_be_had_yet_is_tried_again_and_told_once(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lab = Lab()
    lab.interface.set()
    lab.overlay.served[MINE] = lab.heard.append
    lab.probing.want((MINE,))
    nursery.start_soon(lab.probing.run, lab.interface)
    await trio.sleep(RETRY_S * (TOLD_AFTER - 1) - 0.1)
    assert lab.said == []
    await trio.sleep(10 * RETRY_S)
    assert lab.said == ["members can't probe this node"]
    del lab.overlay.served[MINE]
    await trio.sleep(RETRY_S + 0.1)
    assert MINE in lab.overlay.served
