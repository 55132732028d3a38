"""The contract of the port ``Prober``: over UDP on loopback, and in memory."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from meshpeer.adapters.prober import UdpProber
from meshpeer.adapters.prober.udp import ANSWERS_PER_S_MAX
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.node.messages import EchoAsked, EchoHeard
from meshpeer.runtime.ports import Prober
from meshpeer.sim.prober import MemoryOverlay, MemoryProber

HERE, THERE = "127.0.0.2", "127.0.0.3"
BOUND_S = 10.0


@dataclass
class Rig:
    """Two probers that can reach each other, and what each has heard."""

    here: Prober
    there: Prober
    port: int
    heard: list[EchoAsked | EchoHeard] = field(default_factory=list)
    heard_there: list[EchoAsked | EchoHeard] = field(default_factory=list)


@pytest.fixture(params=["udp", "memory"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "memory":
        overlay = MemoryOverlay()
        yield Rig(MemoryProber(overlay), MemoryProber(overlay), 0)
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((HERE, 0))
        port = free.getsockname()[1]
    yield Rig(UdpProber(port), UdpProber(port), port)


async def test_a_probe_is_answered_and_both_ends_hear_so(rig: Rig, nursery: trio.Nursery) -> None:
    await serve_both(rig, nursery)
    assert rig.here.ask(THERE, 2**64 - 1)
    await until(lambda: rig.heard == [EchoHeard(number=2**64 - 1, source=THERE)])
    assert rig.heard_there == [EchoAsked(source=HERE)]


async def test_both_ends_may_ask_at_once(rig: Rig, nursery: trio.Nursery) -> None:
    await serve_both(rig, nursery)
    assert rig.here.ask(THERE, 1)
    assert rig.there.ask(HERE, 2)
    await until(lambda: len(rig.heard) == len(rig.heard_there) == 2)
    assert set(rig.heard) == {EchoAsked(source=THERE), EchoHeard(number=1, source=THERE)}
    assert set(rig.heard_there) == {EchoAsked(source=HERE), EchoHeard(number=2, source=HERE)}


async def test_nothing_is_sent_before_there_is_an_address_to_send_from(rig: Rig) -> None:
    assert not rig.here.ask(THERE, 1)


async def test_nobody_hears_of_a_probe_that_nobody_answers(rig: Rig, nursery: trio.Nursery) -> None:
    nursery.start_soon(rig.here.serve, HERE, rig.heard.append)
    await until(lambda: rig.here.ask(THERE, 1))
    await trio.testing.wait_all_tasks_blocked()
    assert rig.heard == []


async def test_whoever_stops_answering_can_begin_again(rig: Rig, nursery: trio.Nursery) -> None:
    async with trio.open_nursery() as first:
        await serve_both(rig, first)
        first.cancel_scope.cancel()
    assert not rig.here.ask(THERE, 1)
    await serve_both(rig, nursery)
    assert rig.here.ask(THERE, 2)
    await until(lambda: EchoHeard(number=2, source=THERE) in rig.heard)


async def test_an_address_that_is_taken_is_the_environments_fault(rig: Rig, nursery: trio.Nursery) -> None:
    await serve_both(rig, nursery)
    with pytest.raises(EnvironmentFault, match=f"on {HERE}"):
        await rig.there.serve(HERE, rig.heard_there.append)


# --- over UDP alone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rig", ["udp"], indirect=True)
@pytest.mark.parametrize(
    "data", [b"", b"mpec\x01", b"mpec\x01" + bytes(9), b"mpee\x01" + bytes(8), b"mpec\x07" + bytes(8)]
)
async def test_rubbish_is_neither_answered_nor_told(rig: Rig, nursery: trio.Nursery, data: bytes) -> None:
    await serve_both(rig, nursery)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.4", 0))
        other.setblocking(False)
        other.sendto(data, (THERE, rig.port))
        rig.here.ask(THERE, 1)
        await until(lambda: bool(rig.heard))
        assert rig.heard_there == [EchoAsked(source=HERE)]
        with pytest.raises(BlockingIOError):
            other.recv(64)


@pytest.mark.parametrize("rig", ["udp"], indirect=True)
async def test_so_many_a_second_are_answered_and_no_more(rig: Rig, nursery: trio.Nursery) -> None:
    prober = rig.there
    assert isinstance(prober, UdpProber)
    answered = sum(prober._may_answer() for _ in range(2 * ANSWERS_PER_S_MAX))
    assert ANSWERS_PER_S_MAX <= answered <= 2 * ANSWERS_PER_S_MAX
    assert not all(prober._may_answer() for _ in range(ANSWERS_PER_S_MAX + 1))


async def test_an_address_that_is_not_there_is_the_environments_fault() -> None:
    with pytest.raises(EnvironmentFault, match=r"on 192\.0\.2\.7"):
        await UdpProber().serve("192.0.2.7", lambda event: None)


# --- helpers ------------------------------------------------------------------------------------------------


async def serve_both(rig: Rig, nursery: trio.Nursery) -> None:
    nursery.start_soon(rig.here.serve, HERE, rig.heard.append)
    nursery.start_soon(rig.there.serve, THERE, rig.heard_there.append)
    await trio.testing.wait_all_tasks_blocked()


async def until(condition: object) -> None:
    with trio.fail_after(BOUND_S):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - a network does not tell
            await trio.sleep(0.001)
