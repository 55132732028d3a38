"""The contract of the port ``TunnelPort``: raw sockets on loopback, and in memory."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from meshpeer.adapters.tunnelport import RawTunnelPort
from meshpeer.adapters.tunnelport.raw import HEARD_PER_S_MAX, checksum
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.paths.probe_desk import ProbeHeard, SendProbe
from meshpeer.core.paths.probe_packets import MAGIC
from meshpeer.runtime.ports import Sending, TunnelPort
from meshpeer.sim.tunnelport import MemoryTunnelPort, MemoryUnderlay

HERE, THERE, HERE_V6 = "127.0.0.2", "127.0.0.3", "::1"
BOUND_S = 10.0
SAID = MAGIC + bytes(84)
_rooted = pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets take root")


@dataclass
class Rig:
    """Two machines with a tunnel's port each, and what came to it beside the tunnel's own."""

    here: TunnelPort
    there: TunnelPort
    port: int
    owners: list[socket.socket]
    """Who has bound the ports, as WireGuard does."""
    heard: list[ProbeHeard] = field(default_factory=list)
    heard_there: list[ProbeHeard] = field(default_factory=list)

    def at(self, host: str) -> str:
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@pytest.fixture(params=[pytest.param("raw", marks=_rooted), "memory"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "memory":
        underlay = MemoryUnderlay(wide=dict.fromkeys((HERE, THERE, HERE_V6), 65_536))
        yield Rig(MemoryTunnelPort(underlay, HERE, HERE_V6), MemoryTunnelPort(underlay, THERE), 51820, [])
        return
    # One machine has one raw socket for both: what goes to the other's port is told apart by address.
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as owner:
        owner.bind(("::", 0))
        owner.setblocking(False)
        yield Rig(RawTunnelPort(), RawTunnelPort(), owner.getsockname()[1], [owner])


async def test_a_datagram_leaves_from_the_port_of_whoever_owns_it(rig: Rig, nursery: trio.Nursery) -> None:
    await serve_both(rig, nursery)
    assert rig.here.send(SendProbe(endpoint=rig.at(THERE), data=SAID, local=HERE)) is Sending.SENT
    await until(lambda: bool(heard_at(rig.heard_there, THERE)))
    assert heard_at(rig.heard_there, THERE) == [ProbeHeard(source=rig.at(HERE), local=THERE, data=SAID)]


async def test_an_answer_leaves_from_the_address_that_was_asked(rig: Rig, nursery: trio.Nursery) -> None:
    await serve_both(rig, nursery)
    rig.here.send(SendProbe(endpoint=rig.at(THERE), data=SAID, local=HERE))
    await until(lambda: bool(heard_at(rig.heard_there, THERE)))
    (asked,) = heard_at(rig.heard_there, THERE)
    rig.there.send(SendProbe(endpoint=asked.source, data=SAID, local=asked.local))
    await until(lambda: bool(heard_at(rig.heard, HERE)))
    assert heard_at(rig.heard, HERE) == [ProbeHeard(source=rig.at(THERE), local=HERE, data=SAID)]


async def test_ipv6_is_carried_as_well(rig: Rig, nursery: trio.Nursery) -> None:
    await serve_both(rig, nursery)
    assert rig.here.send(SendProbe(endpoint=rig.at(HERE_V6), data=SAID)) is Sending.SENT
    await until(lambda: bool(rig.heard))
    assert rig.heard == [ProbeHeard(source=rig.at(HERE_V6), local=HERE_V6, data=SAID)]


async def test_nothing_is_sent_before_it_is_opened_or_after_it_is_closed(rig: Rig) -> None:
    probe = SendProbe(endpoint=rig.at(THERE), data=SAID)
    assert rig.here.send(probe) is Sending.LOST
    async with trio.open_nursery() as nursery:
        await serve_both(rig, nursery)
        assert rig.here.send(probe) is Sending.SENT
        nursery.cancel_scope.cancel()
    assert rig.here.send(probe) is Sending.LOST


@pytest.mark.parametrize("endpoint", ["alpha.example:51820", "127.0.0.3", "127.0.0.3:0", "", ":51820"])
async def test_what_is_no_endpoint_in_numbers_is_lost(rig: Rig, nursery: trio.Nursery, endpoint: str) -> None:
    await serve_both(rig, nursery)
    assert rig.here.send(SendProbe(endpoint=endpoint, data=SAID)) is Sending.LOST


async def test_an_address_that_is_not_this_machines_sends_nothing(rig: Rig, nursery: trio.Nursery) -> None:
    await serve_both(rig, nursery)
    probe = SendProbe(endpoint=rig.at(THERE), data=SAID, local="192.0.2.7")
    assert rig.here.send(probe) is Sending.LOST


@pytest.mark.parametrize("host", [THERE, HERE_V6])
async def test_what_is_longer_than_the_way_out_is_wide_is_too_long(
    rig: Rig, nursery: trio.Nursery, host: str
) -> None:
    await serve_both(rig, nursery)
    probe = SendProbe(endpoint=rig.at(host), data=MAGIC + bytes(65_505))
    assert rig.here.send(probe) is Sending.TOO_LONG
    await trio.testing.wait_all_tasks_blocked()
    assert rig.heard == rig.heard_there == []


async def test_what_has_another_magic_is_not_heard(rig: Rig, nursery: trio.Nursery) -> None:
    await serve_both(rig, nursery)
    rig.here.send(SendProbe(endpoint=rig.at(THERE), data=b"\4\0\0\0" + bytes(84), local=HERE))
    rig.here.send(SendProbe(endpoint=rig.at(THERE), data=SAID, local=HERE))
    await until(lambda: bool(rig.heard_there))
    await trio.testing.wait_all_tasks_blocked()
    assert [one.data for one in rig.heard_there] == [SAID]


# --- raw sockets alone --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rig", [pytest.param("raw", marks=_rooted)], indirect=True)
@pytest.mark.parametrize("host", [THERE, HERE_V6])
async def test_the_owner_of_the_port_gets_what_is_sent_with_a_checksum_that_holds(
    rig: Rig, nursery: trio.Nursery, host: str
) -> None:
    await serve_both(rig, nursery)
    (owner,) = rig.owners
    for data in (SAID, SAID + b"\1"):
        rig.here.send(SendProbe(endpoint=rig.at(host), data=data))
        await trio.lowlevel.wait_readable(owner)
        # The kernel drops what fails its checksum before a socket sees it.
        assert owner.recvfrom(256)[0] == data


@pytest.mark.parametrize("rig", [pytest.param("raw", marks=_rooted)], indirect=True)
async def test_a_flood_is_looked_at_so_many_times_a_second(rig: Rig) -> None:
    port = rig.here
    assert isinstance(port, RawTunnelPort)
    looked = sum(port._may_look() for _ in range(3 * HEARD_PER_S_MAX))
    assert HEARD_PER_S_MAX <= looked <= 2 * HEARD_PER_S_MAX


@_rooted
async def test_without_the_right_to_raw_sockets_it_is_the_environments_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*words: object) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("meshpeer.adapters.tunnelport.raw.socket.socket", refuse)
    with pytest.raises(EnvironmentFault, match="Operation not permitted") as fault:
        await RawTunnelPort().serve(51820, 0, lambda event: None)
    assert "CAP_NET_RAW" in fault.value.hint


def test_checksums_are_those_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF
    assert checksum(b"\1") == ~0x0100 & 0xFFFF


# --- helpers ------------------------------------------------------------------------------------------------


def heard_at(heard: list[ProbeHeard], local: str) -> list[ProbeHeard]:
    return [one for one in heard if one.local == local]


async def serve_both(rig: Rig, nursery: trio.Nursery) -> None:
    await nursery.start(rig.here.serve, rig.port, 0, rig.heard.append)
    await nursery.start(rig.there.serve, rig.port, 0, rig.heard_there.append)


async def until(condition: object) -> None:
    with trio.fail_after(BOUND_S):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - a network does not tell
            await trio.sleep(0.001)
