"""What the relay's process does beyond the contract: how it starts, ends, and survives a machine without
IPv6."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import trio
import trio.testing
from relay_packets_kit import data, initiation, response
from relay_rigs import free_ports

from meshpeer.adapters.relay.addresses import DualStack, Ipv4Only, choose_family
from meshpeer.adapters.relay.mmsg import BATCH, PACKET_BYTES_MAX, Batch, split_source
from meshpeer.adapters.relay.process import ProcessRelay
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.relay_crossing import Way

KEYS = (WireGuardKey(b"a" * 32), WireGuardKey(b"b" * 32))


async def test_a_helper_that_dies_ends_the_relay_with_a_reason() -> None:
    relay = ProcessRelay(rate=1e9, total=1e9, fast=None)
    with pytest.RaisesGroup(pytest.RaisesExc(EnvironmentFault, match="helper ended")):
        async with trio.open_nursery() as nursery:
            before = _helpers()
            await nursery.start(relay.run)
            (helper,) = _helpers() - before
            os.kill(helper, signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match="does not run"):
        await relay.look()


async def test_an_order_that_waits_when_the_helper_dies_is_told() -> None:
    relay, said = ProcessRelay(rate=1e9, total=1e9, fast=None), list[str]()

    async def look() -> None:
        try:
            await relay.look()
        except EnvironmentFault as fault:
            said.append(fault.what)

    before = _helpers()
    with pytest.RaisesGroup(pytest.RaisesExc(EnvironmentFault, match="helper ended")):
        async with trio.open_nursery() as nursery:
            await nursery.start(relay.run)
            (helper,) = _helpers() - before
            os.kill(helper, signal.SIGSTOP)
            nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(helper, signal.SIGKILL)
    assert said == ["the relay's helper is gone"]


async def test_nothing_of_it_is_left_when_it_is_cancelled() -> None:
    relay = ProcessRelay(rate=1e9, total=1e9, fast=None)
    ports, before = free_ports(), _helpers()
    async with trio.open_nursery() as nursery:
        await nursery.start(relay.run)
        await relay.open(ports, KEYS)
        nursery.cancel_scope.cancel()
    assert _helpers() == before
    for port in ports:
        DualStack().open(port).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
async def test_a_helper_of_root_is_nobody() -> None:
    relay = ProcessRelay(rate=1e9, total=1e9, fast=None)
    before = _helpers()
    async with trio.open_nursery() as nursery:
        await nursery.start(relay.run)
        (helper,) = _helpers() - before
        status = await trio.Path(f"/proc/{helper}/status").read_text()
        nursery.cancel_scope.cancel()
    assert "Uid:\t65534\t65534\t65534\t65534" in status
    assert "CapEff:\t0000000000000000" in status


@pytest.mark.parametrize("family", [DualStack(), Ipv4Only()])
def test_a_batch_says_where_packets_came_from_and_sends_them_back_from_there(
    family: DualStack | Ipv4Only,
) -> None:
    with (
        family.open(0) as relay,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end,
    ):
        end.bind(("127.0.0.1", 0))
        end.settimeout(10)
        # Not the address that an answer would leave from by itself.
        for number in range(3):
            end.sendto(bytes([number]) * (number + 1), ("127.7.7.7", relay.getsockname()[1]))
        batch = Batch()
        sizes = batch.receive(relay.fileno())
        assert sizes == [1, 2, 3]
        ways = [family.read(*split_source(batch.source(slot))) for slot in range(3)]
        assert ways == [Way("127.0.0.1", end.getsockname()[1], "127.7.7.7", 1)] * 3
        assert batch.source(0) == batch.source(2)
        assert ways[0] is not None
        batch.send(relay.fileno(), [2, 0], sizes, family.write(ways[0]))
        for content in (b"\2\2\2", b"\0"):
            assert end.recvfrom(100) == (content, ("127.7.7.7", relay.getsockname()[1]))


def test_a_batch_is_bounded_and_a_packet_that_is_cut_off_has_no_size() -> None:
    with Ipv4Only().open(0) as relay, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        port = relay.getsockname()[1]
        end.sendto(bytes(PACKET_BYTES_MAX + 1), ("127.0.0.1", port))
        for _ in range(BATCH):
            end.sendto(b"x", ("127.0.0.1", port))
        batch = Batch()
        assert batch.receive(relay.fileno()) == [-1, *[1] * (BATCH - 1)]
        assert batch.receive(relay.fileno()) == [1]
        assert batch.receive(relay.fileno()) == []


def test_ipv6_addresses_are_written_as_they_were_read() -> None:
    way = Way("2001:db8::7", 51820, "2001:db8::1", 3)
    name, control = DualStack().write(way)
    assert DualStack().read(name, control) == way._replace(device=0)
    near = Way("fe80::7", 51820, "fe80::1", 3)
    assert DualStack().read(*DualStack().write(near)) == near


def test_this_machine_has_some_family() -> None:
    choose_family().open(0).close()


async def test_a_rate_holds() -> None:
    relay = ProcessRelay(rate=100_000, total=1e9, fast=None)
    ports = free_ports()
    async with trio.open_nursery() as nursery:
        await nursery.start(relay.run)
        await relay.open(ports, KEYS)
        with _bound() as alpha, _bound() as bravo:
            bravo.sendto(initiation(1, KEYS[0]), ("127.0.0.1", ports[1]))
            while not (await relay.look())[0].drops:
                pass
            alpha.sendto(initiation(5, KEYS[1]), ("127.0.0.1", ports[0]))
            assert bravo.recv(200)[0] == 1
            bravo.sendto(response(6, 5, KEYS[0]), ("127.0.0.1", ports[1]))
            assert alpha.recv(200)[0] == 2
            for _ in range(50):
                alpha.sendto(data(6, 1472), ("127.0.0.1", ports[0]))
            with trio.fail_after(10):
                while "rate" not in (shown := (await relay.look())[0]).drops:
                    pass
            assert shown.packets[0] + sum(shown.drops.values()) - 1 <= 51
            assert 1 < shown.packets[0] < 51, "some of a batch cross, although not all may"
        nursery.cancel_scope.cancel()


def _bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.settimeout(10)
    return made


def _helpers() -> set[int]:
    """Returns this process's own helpers."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1] if words else ""
        except OSError:
            continue
        if b"meshpeer.adapters.relay.helper" in words and parent == str(os.getpid()):
            found.add(int(entry.name))
    return found
