"""What every transport promises, asked of the real one on loopback and of the one in memory."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing
from transport_rigs import Handler, MemoryRig, Rig, TlsRig, chain_of, id_of

from meshpeer.adapters.transport import dialling, link, server
from meshpeer.core.counters import Counter, Counters
from meshpeer.core.errors import PeerFault
from meshpeer.core.wire.limits import FRAME_BYTES_MAX
from meshpeer.runtime.ports import DialFault, Link, LinkOver

PATIENCE_S = 10


@pytest.fixture(params=[TlsRig, MemoryRig], ids=["tls", "memory"])
def rig(request: pytest.FixtureRequest) -> Rig:
    made: Rig = request.param()
    return made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens how long a transport waits for others."""
    monkeypatch.setattr(dialling, "HANDSHAKE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(server, "HANDSHAKE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(link, "CLOSE_TIMEOUT_S", 0.1)


@pytest.fixture
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens how long a link bears with a peer that reads nothing."""
    monkeypatch.setattr(link, "STALL_LOOK_S", 0.05)


# --- dialling -----------------------------------------------------------------------------------------------


async def test_both_ends_learn_who_the_other_is(rig: Rig) -> None:
    met: list[tuple[bytes, bytes, bytes, str]] = []

    async def note(end: Link) -> None:
        met.append((end.peer, end.leaf, end.shown, end.dialled))
        await until_over(end)

    async with linked(rig, note) as end:
        assert (end.peer, end.leaf, end.shown) == (id_of(1), chain_of(1)[0], chain_of(2)[0])
        assert end.dialled == end.remote
        await until(lambda: len(met) == 1)
    assert met == [(id_of(2), chain_of(2)[0], chain_of(1)[0], "")]


async def test_dialled_address_and_port_are_those_of_the_listener(rig: Rig) -> None:
    async with rig.serving(until_over) as (address, transport), rig.dialler(2).dial([address]) as end:
        assert end.dialled == address
        assert transport.port == int(address.rpartition(":")[2])


async def test_nobody_there_is_a_refusal(rig: Rig) -> None:
    fault = await cant_dial(rig, await rig.nobody())
    assert (fault.refused, fault.foreign) == (True, False)
    assert fault.what.endswith(" refuses connections")


@pytest.mark.usefixtures("impatient")
async def test_silence_is_no_refusal(rig: Rig) -> None:
    async with rig.silent() as address:
        fault = await cant_dial(rig, address)
    assert (fault.refused, fault.foreign) == (False, True)
    assert fault.what == f"{address} accepts connections and then says nothing"


async def test_member_of_another_mesh_does_not_get_in(rig: Rig) -> None:
    entered: list[Link] = []

    async def note(end: Link) -> None:
        entered.append(end)

    async with rig.serving(note, mesh=2) as (address, _):
        fault = await cant_dial(rig, address)
    assert (fault.refused, fault.foreign) == (False, True)
    assert fault.what == f"{address} is not a member of this mesh"
    assert entered == []


@pytest.mark.usefixtures("impatient")
async def test_first_address_that_answers_wins(rig: Rig) -> None:
    dead = await rig.nobody()
    async with (
        rig.silent() as silent,
        rig.serving(until_over) as (address, _),
        rig.dialler(2).dial([dead, silent, "rubbish", address]) as end,
    ):
        assert end.dialled == address


@pytest.mark.parametrize("address", ["", "nohost", "host:", ":51821"])
async def test_address_that_is_none_is_a_fault(rig: Rig, address: str) -> None:
    fault = await cant_dial(rig, address)
    assert not fault.refused


async def test_every_address_that_failed_is_named(rig: Rig) -> None:
    dead = await rig.nobody()
    fault = await cant_dial(rig, dead, "nobody")
    assert fault.what == f"{dead} refuses connections; 'nobody' is not HOST:PORT"
    assert fault.refused
    assert (await cant_dial(rig)).what == "there is no address to dial"


async def test_dial_can_be_cancelled(rig: Rig) -> None:
    async with rig.silent() as silent:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cant_dial, rig, silent)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught


async def test_another_chain_is_shown_from_the_next_link_on(rig: Rig) -> None:
    leaves: list[bytes] = []
    later = chain_of(2, issued_after_s=60)

    async def note(end: Link) -> None:
        leaves.append(end.leaf)
        await until_over(end)

    dialler = rig.dialler(2)
    async with rig.serving(note) as (address, _), dialler.dial([address]) as first:
        dialler.show(later)
        async with dialler.dial([address]) as second:
            assert (first.shown, second.shown) == (chain_of(2)[0], later[0])
            await until(lambda: len(leaves) == 2)
    assert leaves == [chain_of(2)[0], later[0]]


async def test_listener_shows_another_chain_too(rig: Rig) -> None:
    later = chain_of(1, issued_after_s=60)
    async with rig.serving(until_over) as (address, transport), rig.dialler(2).dial([address]) as first:
        transport.show(later)
        async with rig.dialler(3).dial([address]) as second:
            assert (first.leaf, second.leaf) == (chain_of(1)[0], later[0])


# --- frames -------------------------------------------------------------------------------------------------


async def test_frames_keep_their_order_and_bounds_both_ways(rig: Rig) -> None:
    frames = [bytes([0]) + bytes(number) for number in range(100)]
    async with linked(rig, echo) as end:
        assert all(end.send_soon(frame) for frame in frames)
        with trio.fail_after(PATIENCE_S):
            assert [await end.receive() for _ in frames] == frames


async def test_largest_frame_gets_through(rig: Rig) -> None:
    frame = bytes(FRAME_BYTES_MAX)
    async with linked(rig, echo) as end:
        await end.send_bulk(frame)
        with trio.fail_after(PATIENCE_S):
            assert await end.receive() == frame


@pytest.mark.parametrize("excess", [1, 10_000_000])
async def test_larger_frame_is_the_senders_fault_and_ends_the_link(rig: Rig, excess: int) -> None:
    faults: list[str] = []
    tally = Counters()

    async def listen(end: Link) -> None:
        assert await end.receive() == b"\0fine"
        try:
            await end.receive()
        except PeerFault as fault:
            faults.append(fault.what)

    async with linked(rig, listen, tally=tally) as end:
        end.send_soon(b"\0fine")
        end.send_soon(bytes(FRAME_BYTES_MAX + excess))
        with pytest.raises(LinkOver), trio.fail_after(PATIENCE_S):
            await end.receive()
    assert faults == [f"a frame of more than {FRAME_BYTES_MAX} bytes"]
    assert tally.counted == {Counter.FRAMES_REFUSED: 1}


async def test_control_frames_overtake_bulk(rig: Rig) -> None:
    order: list[int] = []
    read, done = trio.Event(), trio.Event()

    async def collect(end: Link) -> None:
        await read.wait()
        while len(order) < 401:
            order.append((await end.receive())[0])
        done.set()
        await until_over(end)

    async with linked(rig, collect) as end, trio.open_nursery() as nursery:
        for _ in range(400):
            nursery.start_soon(end.send_bulk, b"\1" + bytes(60_000))
        await trio.testing.wait_all_tasks_blocked()
        end.send_soon(b"\0now")
        read.set()
        with trio.fail_after(3 * PATIENCE_S):
            await done.wait()
    assert order.index(0) < 400


# --- slow peers ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
async def test_queue_of_a_slow_peer_is_bounded_and_its_overflow_counted(rig: Rig) -> None:
    tally = Counters()
    async with (
        rig.serving(never_read) as (address, _),
        rig.dialler(2, tally=tally).dial([address]) as end,
    ):
        taken = 0
        while end.send_soon(bytes(60_000)):
            taken += 1
            await trio.lowlevel.checkpoint()
            assert taken < 10_000
        assert taken >= link.CONTROL_QUEUE_MAX
        assert not end.send_soon(b"\0")
        assert tally.counted == {Counter.QUEUE_OVERFLOWS: 2}


@pytest.mark.usefixtures("impatient")
async def test_slow_peer_holds_nobody_else_up(rig: Rig) -> None:
    async def slow_for_two(end: Link) -> None:
        await (never_read if end.peer == id_of(2) else echo)(end)

    async with (
        rig.serving(slow_for_two) as (address, _),
        rig.dialler(2).dial([address]) as slow,
        rig.dialler(3).dial([address]) as quick,
    ):
        await fill(slow)
        for number in range(50):
            quick.send_soon(bytes([0, number]))
            with trio.fail_after(PATIENCE_S):
                assert await quick.receive() == bytes([0, number])


@pytest.mark.usefixtures("impatient", "looking_often")
@pytest.mark.parametrize("bulk", [False, True])
async def test_peer_that_never_reads_is_closed_after_a_while(rig: Rig, bulk: bool) -> None:
    tally = Counters()
    async with (
        rig.serving(never_read) as (address, _),
        rig.dialler(2, tally=tally).dial([address]) as end,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(fill_with_bulk if bulk else fill, end)
        with pytest.raises(LinkOver, match="it reads nothing"), trio.fail_after(PATIENCE_S):
            await end.receive()
        with pytest.raises(LinkOver), trio.fail_after(PATIENCE_S):
            await end.send_bulk(b"\1late")
    assert tally.get(Counter.LINKS_STALLED) == 1


@pytest.mark.usefixtures("impatient")
async def test_deaf_peer_does_not_hold_up_a_close(rig: Rig) -> None:
    async with linked(rig, never_read) as end:
        await fill(end)
        end.close_soon("silent")
        with pytest.raises(LinkOver, match="silent"), trio.fail_after(PATIENCE_S):
            await end.receive()


# --- ends ---------------------------------------------------------------------------------------------------


async def test_reason_of_a_close_reaches_both_ends(rig: Rig) -> None:
    reasons: list[str] = []

    async def close(end: Link) -> None:
        end.close_soon("you are revoked")
        end.close_soon("a second reason")
        reasons.append(await end_of(end))

    async with linked(rig, close) as end:
        assert await end_of(end) == "you are revoked"
        await until(lambda: len(reasons) == 1)
    assert reasons == ["you are revoked"]


async def test_close_sends_what_was_queued_first(rig: Rig) -> None:
    got: list[bytes] = []
    async with linked(rig, collecting(got)) as end:
        for number in range(40):
            end.send_soon(bytes([0, number]))
        end.close_soon("enough")
        assert not end.send_soon(b"\0late")
        assert await end_of(end) == "enough"
        await until(lambda: len(got) == 40)
    assert got == [bytes([0, number]) for number in range(40)]


async def test_handler_that_returns_ends_its_link_after_its_frames(rig: Rig) -> None:
    got: list[bytes] = []

    async def burst(end: Link) -> None:
        for number in range(40):
            end.send_soon(bytes([0, number]))

    async with linked(rig, burst) as end:
        assert await end_of(end, got) == "done"
    assert got == [bytes([0, number]) for number in range(40)]


async def test_dialled_link_ends_with_its_context_after_its_frames(rig: Rig) -> None:
    got: list[bytes] = []
    over = trio.Event()
    async with rig.serving(collecting(got, over)) as (address, _):
        async with rig.dialler(2).dial([address]) as end:
            for number in range(40):
                end.send_soon(bytes([0, number]))
        with trio.fail_after(PATIENCE_S):
            await over.wait()
        with pytest.raises(LinkOver), trio.fail_after(PATIENCE_S):
            await end.receive()
    assert got == [bytes([0, number]) for number in range(40)]


async def test_cancelled_peer_sends_what_was_queued_and_ends_the_link(rig: Rig) -> None:
    got: list[bytes] = []
    over = trio.Event()
    async with rig.serving(collecting(got, over)) as (address, _):
        with trio.CancelScope() as scope:
            async with rig.dialler(2).dial([address]) as end:
                for number in range(20):
                    end.send_soon(bytes([0, number]))
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        with trio.fail_after(PATIENCE_S):
            await over.wait()
    assert got == [bytes([0, number]) for number in range(20)]


async def test_listener_that_stops_ends_its_links_and_refuses_new_ones(rig: Rig) -> None:
    started: list[str] = []
    stop, stopped = trio.Event(), trio.Event()

    async def serve_for_a_while() -> None:
        async with rig.serving(until_over) as (address, _):
            started.append(address)
            await stop.wait()
        stopped.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_for_a_while)
        await until(lambda: bool(started))
        async with rig.dialler(2).dial(started) as end:
            stop.set()
            assert await end_of(end)
        with trio.fail_after(PATIENCE_S):
            await stopped.wait()
    assert (await cant_dial(rig, *started)).refused


@pytest.mark.usefixtures("impatient")
async def test_waiting_bulk_ends_with_its_link(rig: Rig) -> None:
    outcomes: list[str] = []

    async def push(end: Link) -> None:
        await fill_with_bulk(end)
        outcomes.append("over")

    async with linked(rig, never_read) as end, trio.open_nursery() as nursery:
        nursery.start_soon(push, end)
        nursery.start_soon(push, end)
        await trio.testing.wait_all_tasks_blocked(0.01)
        end.close_soon("enough")
        with trio.fail_after(PATIENCE_S):
            await until(lambda: len(outcomes) == 2)
    assert outcomes == ["over", "over"]


@pytest.mark.parametrize("error", [PeerFault("rubbish"), LinkOver("gone")])
async def test_handler_that_fails_by_its_peer_ends_its_link_alone(rig: Rig, error: Exception) -> None:
    async def fail_for_two(end: Link) -> None:
        if end.peer == id_of(2):
            raise error
        await echo(end)

    async with rig.serving(fail_for_two) as (address, _), rig.dialler(3).dial([address]) as well:
        async with rig.dialler(2).dial([address]) as failed:
            assert await end_of(failed)
        well.send_soon(b"\0still here")
        with trio.fail_after(PATIENCE_S):
            assert await well.receive() == b"\0still here"


# --- helpers ------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def linked(rig: Rig, handler: Handler, *, tally: Counters | None = None) -> AsyncIterator[Link]:
    """A link from node 2 to node 1, which counts and runs the handler."""
    async with rig.serving(handler, tally=tally) as (address, _), rig.dialler(2).dial([address]) as end:
        yield end


async def cant_dial(rig: Rig, *addresses: str) -> DialFault:
    with pytest.raises(DialFault) as fault, trio.fail_after(PATIENCE_S):
        async with rig.dialler(2).dial(addresses):
            raise AssertionError("there was somebody to dial")
    return fault.value


async def until_over(end: Link) -> None:
    await end_of(end)


async def end_of(end: Link, got: list[bytes] | None = None) -> str:
    """Reads to the end of a link; returns why it ended."""
    try:
        while True:
            frame = await end.receive()
            if got is not None:
                got.append(frame)
    except LinkOver as over:
        return over.what


def collecting(got: list[bytes], over: trio.Event | None = None) -> Handler:
    async def collect(end: Link) -> None:
        await end_of(end, got)
        if over is not None:
            over.set()

    return collect


async def echo(end: Link) -> None:
    while True:
        end.send_soon(await end.receive())


async def never_read(end: Link) -> None:
    await trio.sleep_forever()


async def fill(end: Link) -> None:
    """Sends control frames for as long as the queue takes them."""
    while end.send_soon(bytes(60_000)):
        await trio.lowlevel.checkpoint()


async def fill_with_bulk(end: Link) -> None:
    with contextlib.suppress(LinkOver):
        while True:
            await end.send_bulk(b"\1" + bytes(60_000))


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.lowlevel.checkpoint()
