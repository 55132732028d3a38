"""Bringing the interface in step writes what changed and nothing else, however many members there are."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing

from meshpeer.adapters.wireguard.calls import IpBatch, WgSet, plan_calls
from meshpeer.core.deadline import Instant
from meshpeer.core.ids import WireGuardKey, wireguard_key_text
from meshpeer.core.records import envelope
from meshpeer.core.wgconf.model import DesiredDevice
from meshpeer.runtime.reconciler import Reconciler
from meshpeer.sim.host import Host
from meshpeer.sim.wireguard import MemoryWireGuard
from meshpeer.sim.world import World

MEMBERS = 200
READY_S = 5.0
"""By then every peer has its endpoint, whether it said a word or not."""


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh(MEMBERS)


async def test_what_is_in_step_is_looked_at_and_not_written(mesh: Mesh) -> None:
    async with in_step(mesh.device()) as interface:
        for _ in range(3):
            await interface.look(mesh.device())
        assert interface.written() == []


async def test_a_member_that_takes_another_address_is_one_wg_set_of_its_peer(mesh: Mesh) -> None:
    async with in_step(mesh.device()) as interface:
        host = mesh.others[7]
        mesh.publish(host, ipv4="10.0.200.1")
        await interface.look(mesh.device())
        (call,) = interface.written()
        assert isinstance(call, WgSet)
        key, _, allowed = call.words[1:]
        assert (call.words[0], key) == ("peer", wireguard_key_text(host.wireguard.public))
        assert "10.0.200.1/32" in allowed.split(",")


async def test_a_member_that_shows_another_key_is_one_wg_set_as_well(mesh: Mesh) -> None:
    async with in_step(mesh.device()) as interface:
        host, spare = mesh.others[9], mesh.others[9].wireguard.public[::-1]
        mesh.publish(host, wireguard_key=spare)
        await interface.look(mesh.device())
        (call,) = interface.written()
        assert isinstance(call, WgSet)
        assert [word for word in call.words if word in ("peer", "remove")] == ["peer", "remove", "peer"]


async def test_a_peer_that_changes_over_is_followed_in_one_wg_set_and_is_no_drift(mesh: Mesh) -> None:
    member, coming = mesh.others[3], WireGuardKey(b"k" * 32)
    mesh.publish(member, next_wireguard_key=bytes(coming))
    async with in_step(mesh.device()) as interface:
        held = interface.wireguard.device
        assert held is not None
        interface.wireguard.device = dataclasses.replace(
            held,
            peers=tuple(
                dataclasses.replace(one, latest_handshake_unix_s=10**9) if one.public_key == coming else one
                for one in held.peers
            ),
        )
        await interface.look(mesh.device())
        (call,) = interface.written()
        assert isinstance(call, WgSet)
        assert call.words.count("peer") == 2
        assert interface.reconciler.last_drift is None
    mesh.publish(member, next_wireguard_key=b"")


async def test_what_a_hand_took_away_is_put_back_in_one_call(mesh: Mesh) -> None:
    async with in_step(mesh.device()) as interface:
        held = interface.wireguard.device
        assert held is not None
        interface.wireguard.device = dataclasses.replace(held, peers=held.peers[1:])
        await interface.look(mesh.device())
        (call,) = interface.written()
        assert isinstance(call, WgSet)
        assert call.words[1] == wireguard_key_text(held.peers[0].public_key)


async def test_an_interface_of_two_hundred_members_is_filled_in_one_wg_set(mesh: Mesh) -> None:
    async with in_step(mesh.device()) as interface:
        calls = [call for steps in interface.first for call in plan_calls("wg0", steps)]
        (filling,) = (call for call in calls if isinstance(call, WgSet))
        assert filling.words.count("peer") == MEMBERS
        assert sum(isinstance(call, IpBatch) for call in calls) == 1


# --- helpers --------------------------------------------------------------------------------------------


class Mesh:
    """A full mesh of so many others, and what the interface of one member shall hold."""

    def __init__(self, members: int) -> None:
        self._world = World(seed=1)
        me, *self.others = self._world.grow(members + 1, topology="full")
        assert me.node is not None
        self._node = me.node
        self._derive(0)

    def device(self) -> DesiredDevice:
        return self._derive(READY_S)

    def publish(self, host: Host, **changes: object) -> None:
        """Brings the newer record of a member."""
        member = self._node.ledger.get(host.id)
        assert member is not None
        assert member.record is not None
        record = msgspec.structs.replace(member.record, sequence=member.record.sequence + 1, **changes)
        self._node.ledger.merge(envelope.sign(host.key, self._world.mesh, record), self._world.unix_s())

    def _derive(self, at_s: float) -> DesiredDevice:
        device = self._node.derived.device(Instant(at_s, self._world.unix_s() + at_s))
        desired = device or self._node.desired
        assert desired is not None
        return desired


class Interface:
    """A reconciler over an interface in memory."""

    def __init__(self) -> None:
        self.wireguard = MemoryWireGuard()
        self.heard: list[object] = []
        self.reconciler = Reconciler(self.wireguard, self, self.heard.append, _no_report, dict)
        self.first: list[tuple[object, ...]] = []

    def now(self) -> Instant:
        return Instant(0.0, 1e9)

    async def look(self, desired: DesiredDevice) -> None:
        """Wants a device, and returns once the interface was found as it should be."""
        self.reconciler.want(desired)
        await trio.testing.wait_all_tasks_blocked()
        assert self.heard
        assert self.reconciler.fault is None

    def written(self) -> list[object]:
        """Returns the calls of `wg` and `ip` since the interface was filled."""
        return [call for steps in self.wireguard.applied for call in plan_calls("wg0", steps)]


@asynccontextmanager
async def in_step(desired: DesiredDevice) -> AsyncIterator[Interface]:
    """Yields an interface that was filled and has nothing left to do."""
    interface = Interface()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(interface.reconciler.run)
        await interface.look(desired)
        interface.first, interface.wireguard.applied = interface.wireguard.applied, []
        yield interface
        nursery.cancel_scope.cancel()


def _no_report(level: str, what: str, fields: tuple[tuple[str, str], ...]) -> None:
    pass
