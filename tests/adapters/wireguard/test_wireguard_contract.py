"""The contract of the port ``WireGuard``: what every backend with an interface does alike."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator

import pytest

from meshpeer.adapters.wireguard import CommandWireGuard, DryRunWireGuard, open_wireguard
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.wgconf.diff import diff_device
from meshpeer.core.wgconf.model import (
    AddAddress,
    AddRoute,
    DesiredDevice,
    DesiredPeer,
    ObservedDevice,
    RemoveAddress,
    RemovePeer,
    RemoveRoute,
    RouteMtu,
    SetMtu,
    SetPeer,
    SetPrivateKey,
)
from meshpeer.sim.wireguard import MemoryWireGuard

AnyWireGuard = MemoryWireGuard | DryRunWireGuard | CommandWireGuard

KEYS = [WireGuardPrivateKey(bytes([number]) * 32) for number in range(1, 7)]
PEERS = sorted(key.public for key in KEYS[2:])
BACKENDS = (
    [os.environ["MESHPEER_TEST_WIREGUARD"]]
    if "MESHPEER_TEST_WIREGUARD" in os.environ
    else ["memory", "dry-run"]
)


@pytest.fixture(params=BACKENDS)
async def wireguard(request: pytest.FixtureRequest) -> AsyncIterator[AnyWireGuard]:
    backend: AnyWireGuard
    if request.param == "memory":
        backend = MemoryWireGuard()
    elif request.param == "dry-run":
        backend = DryRunWireGuard("wgt0", lambda text: None)
    else:
        opened = await open_wireguard(request.param, "wgt0", owner="tests")
        assert isinstance(opened, CommandWireGuard)
        assert opened.backend == request.param
        backend = opened
    yield backend
    await backend.remove()


async def test_an_absent_interface_is_observed_as_none_and_removed_without_error(
    wireguard: AnyWireGuard,
) -> None:
    assert await wireguard.observe() is None
    await wireguard.remove()
    assert await wireguard.observe() is None


async def test_what_was_applied_is_what_is_observed(wireguard: AnyWireGuard) -> None:
    wanted = desired(
        peer(0, "10.10.0.2/32", "fd00::2/128", endpoint="192.0.2.2:51820", keepalive_s=25),
        peer(1, "10.10.0.3/32", endpoint="[2001:db8::3]:51820"),
        peer(2),
        addresses=("10.10.0.1/24", "fd00::1/64"),
        routes=("10.20.0.0/16", "fd00:2::/64"),
    )
    held = await settle(wireguard, wanted)
    assert (held.interface, held.up, held.mtu, held.listen_port) == ("wgt0", True, 1380, 51833)
    assert held.public_key == KEYS[0].public
    assert set(held.addresses) == {"10.10.0.1/24", "fd00::1/64"}
    assert held.routes == ("10.20.0.0/16", "fd00:2::/64")
    assert [(one.public_key, one.allowed_ips, one.endpoint, one.keepalive_s) for one in held.peers] == [
        (PEERS[0], ("10.10.0.2/32", "fd00::2/128"), "192.0.2.2:51820", 25),
        (PEERS[1], ("10.10.0.3/32",), "[2001:db8::3]:51820", 0),
        (PEERS[2], (), None, 0),
    ]
    assert held.fwmark == 0x6D70
    assert (await settle(wireguard, dataclasses.replace(wanted, fwmark=0))).fwmark == 0


async def test_applying_nothing_changes_nothing(wireguard: AnyWireGuard) -> None:
    before = await settle(wireguard, desired(peer(0, "10.10.0.2/32")))
    await wireguard.apply(())
    assert await wireguard.observe() == before


async def test_sources_are_chosen_anew_and_all_else_stays(wireguard: AnyWireGuard) -> None:
    await wireguard.renew_sources()
    assert await wireguard.observe() is None, "an absent interface stays so"
    before = await settle(wireguard, desired(peer(0, "10.10.0.2/32", endpoint="192.0.2.2:51820"), peer(1)))
    await wireguard.renew_sources()
    assert await wireguard.observe() == before


async def test_two_peers_swap_their_allowed_ips(wireguard: AnyWireGuard) -> None:
    await settle(wireguard, desired(peer(0, "10.10.0.2/32"), peer(1, "10.10.0.3/32")))
    held = await settle(wireguard, desired(peer(0, "10.10.0.3/32"), peer(1, "10.10.0.2/32")))
    assert [one.allowed_ips for one in held.peers] == [("10.10.0.3/32",), ("10.10.0.2/32",)]


async def test_an_allowed_ip_has_one_owner_the_last_writer(wireguard: AnyWireGuard) -> None:
    await settle(wireguard, desired(peer(0, "10.10.0.2/32"), peer(1, "10.10.0.3/32")))
    await wireguard.apply((SetPeer(public_key=PEERS[1], allowed_ips=("10.10.0.2/32",)),))
    held = await wireguard.observe()
    assert held is not None
    assert [one.allowed_ips for one in held.peers] == [(), ("10.10.0.2/32",)]


async def test_a_change_of_one_field_leaves_the_others(wireguard: AnyWireGuard) -> None:
    await settle(wireguard, desired(peer(0, "10.10.0.2/32", endpoint="192.0.2.2:51820", keepalive_s=25)))
    await wireguard.apply((SetPeer(public_key=PEERS[0], keepalive_s=0),))
    held = await wireguard.observe()
    assert held is not None
    (one,) = held.peers
    assert (one.allowed_ips, one.endpoint, one.keepalive_s) == (("10.10.0.2/32",), "192.0.2.2:51820", 0)


async def test_a_removed_peer_is_gone_and_removing_it_again_is_no_error(wireguard: AnyWireGuard) -> None:
    await settle(wireguard, desired(peer(0, "10.10.0.2/32"), peer(1, "10.10.0.3/32")))
    await wireguard.apply((RemovePeer(public_key=PEERS[0]), RemovePeer(public_key=PEERS[0])))
    held = await wireguard.observe()
    assert held is not None
    assert [one.public_key for one in held.peers] == [PEERS[1]]


async def test_a_new_private_key_keeps_the_peers(wireguard: AnyWireGuard) -> None:
    await settle(wireguard, desired(peer(0, "10.10.0.2/32")))
    await wireguard.apply((SetPrivateKey(private_key=KEYS[1].secret),))
    held = await wireguard.observe()
    assert held is not None
    assert held.public_key == KEYS[1].public
    assert [one.public_key for one in held.peers] == [PEERS[0]]


async def test_addresses_and_routes_follow(wireguard: AnyWireGuard) -> None:
    kept = "10.40.0.0/16"
    await settle(wireguard, desired(addresses=("10.10.0.1/24", "fd00::1/64"), routes=("10.20.0.0/16", kept)))
    held = await settle(
        wireguard, desired(addresses=("10.10.0.9/24", "fd00::1/64"), routes=("10.30.0.0/16", kept))
    )
    assert set(held.addresses) == {"10.10.0.9/24", "fd00::1/64"}
    assert held.routes == ("10.30.0.0/16", kept)


async def test_a_primary_address_goes_and_its_secondary_stays(wireguard: AnyWireGuard) -> None:
    await settle(wireguard, desired(addresses=("10.10.0.1/24", "10.10.0.9/24"), routes=("10.20.0.0/16",)))
    held = await settle(wireguard, desired(addresses=("10.10.0.9/24",), routes=("10.20.0.0/16",)))
    assert held.addresses == ("10.10.0.9/24",)


async def test_a_primary_and_its_secondary_go_together(wireguard: AnyWireGuard) -> None:
    await settle(wireguard, desired(addresses=("10.10.0.1/24", "10.10.0.9/24")))
    held = await settle(wireguard, desired(addresses=("10.30.0.1/24",)))
    assert held.addresses == ("10.30.0.1/24",)


@pytest.mark.parametrize(("old", "new"), [(24, 20), (20, 24)])
async def test_the_prefix_of_an_address_grows_and_shrinks(
    wireguard: AnyWireGuard, old: int, new: int
) -> None:
    routes = ("10.20.0.0/16",)
    before = await settle(
        wireguard, desired(peer(0, "10.10.0.2/32"), addresses=(f"10.10.0.1/{old}",), routes=routes)
    )
    held = await settle(
        wireguard, desired(peer(0, "10.10.0.2/32"), addresses=(f"10.10.0.1/{new}",), routes=routes)
    )
    assert held.addresses == (f"10.10.0.1/{new}",)
    assert (held.routes, held.peers) == (routes, before.peers)


async def test_one_address_is_held_with_two_prefix_lengths_at_once(wireguard: AnyWireGuard) -> None:
    await settle(wireguard, desired(addresses=("10.10.0.1/24",)))
    await wireguard.apply((AddAddress(address="10.10.0.1/20"),))
    held = await wireguard.observe()
    assert held is not None
    assert held.addresses == ("10.10.0.1/24", "10.10.0.1/20")


async def test_an_ipv6_address_is_held_once_and_changes_its_prefix(wireguard: AnyWireGuard) -> None:
    before = await settle(wireguard, desired(addresses=("fd00::1/64",)))
    await wireguard.apply((AddAddress(address="fd00::1/48"),))
    assert await wireguard.observe() == before
    held = await settle(wireguard, desired(addresses=("fd00::1/48",)))
    assert held.addresses == ("fd00::1/48",)


async def test_mtus_of_routes_and_of_the_interface_follow(wireguard: AnyWireGuard) -> None:
    addresses, routes = ("10.10.0.1/24", "fd00::1/64"), ("10.10.0.2/32", "fd00::2/128", "fd00::3/128")
    plain = desired(addresses=addresses, routes=routes)
    narrow = (RouteMtu("10.10.0.2/32", 1216), RouteMtu("fd00::2/128", 1280, 1156))
    for mtu, said in (
        (1380, narrow),
        (8960, (*narrow, RouteMtu("fd00::3/128", 1380))),
        (1420, ()),
        (1380, narrow),
    ):
        wanted = dataclasses.replace(plain, mtu=mtu, route_mtus=said)
        held = await settle(wireguard, wanted)
        assert (held.mtu, held.route_mtus) == (mtu, said)


async def test_what_is_not_there_can_not_be_removed(wireguard: AnyWireGuard) -> None:
    before = await settle(wireguard, desired())
    for step in (RemoveAddress(address="10.10.0.1/20"), RemoveRoute(prefix="10.20.0.0/16")):
        with pytest.raises(EnvironmentFault):
            await wireguard.apply((step,))
    assert await wireguard.observe() == before


async def test_a_removed_interface_can_be_made_again(wireguard: AnyWireGuard) -> None:
    await settle(wireguard, desired(peer(0, "10.10.0.2/32")))
    await wireguard.remove()
    assert await wireguard.observe() is None
    await settle(wireguard, desired(peer(1, "10.10.0.3/32")))


async def test_a_step_without_an_interface_is_the_environments_fault(wireguard: AnyWireGuard) -> None:
    for step in (SetMtu(mtu=1380), SetPeer(public_key=PEERS[0]), AddRoute(prefix="10.20.0.0/16")):
        with pytest.raises(EnvironmentFault):
            await wireguard.apply((step,))
    assert await wireguard.observe() is None


async def settle(wireguard: AnyWireGuard, wanted: DesiredDevice) -> ObservedDevice:
    """Applies what differs, and proves that nothing differs then."""
    await wireguard.apply(diff_device(await wireguard.observe(), wanted, now_unix_s=0))
    held = await wireguard.observe()
    assert held is not None
    assert diff_device(held, wanted, now_unix_s=0) == ()
    return held


def peer(number: int, *allowed_ips: str, endpoint: str | None = None, keepalive_s: int = 0) -> DesiredPeer:
    return DesiredPeer(
        public_key=PEERS[number], allowed_ips=tuple(allowed_ips), endpoint=endpoint, keepalive_s=keepalive_s
    )


def desired(
    *peers: DesiredPeer, addresses: tuple[str, ...] = ("10.10.0.1/24",), routes: tuple[str, ...] = ()
) -> DesiredDevice:
    return DesiredDevice(
        interface="wgt0",
        private_key=KEYS[0].secret,
        public_key=KEYS[0].public,
        listen_port=51833,
        mtu=1380,
        addresses=addresses,
        peers=peers,
        routes=routes,
        fwmark=0x6D70,
    )
