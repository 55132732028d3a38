"""Peers are told of addresses that lead here from elsewhere, and of no others."""

from __future__ import annotations

import pytest

from meshpeer.core.addressing.own_addresses import AddressSeen, LinkSeen, own_addresses

LOOPBACK = LinkSeen(name="lo", addresses=(AddressSeen(address="127.0.0.1", prefix_length=8, scope="host"),))
CABLE = LinkSeen(name="eth0", addresses=(AddressSeen(address="192.168.7.2", prefix_length=24),))
MESH = LinkSeen(name="wg0", kind="wireguard", addresses=(AddressSeen(address="10.10.0.2", prefix_length=24),))


def test_a_cable_is_told_and_loopback_and_the_mesh_itself_are_not() -> None:
    own = own_addresses((LOOPBACK, MESH, CABLE), interface="wg0")
    assert own.usable == ("192.168.7.2",)
    assert own.attached == ("192.168.7.2/24",)
    assert own.held == ("10.10.0.2", "127.0.0.1", "192.168.7.2")


def test_ipv4_comes_first() -> None:
    both = link("eth1", "2001:db8::2", "198.51.100.2")
    assert own_addresses((both,), interface="wg0").usable == ("198.51.100.2", "2001:db8::2")


def test_loopback_is_told_where_there_is_nothing_else() -> None:
    own = own_addresses((LOOPBACK, MESH), interface="wg0")
    assert (own.usable, own.attached) == (("127.0.0.1",), ())


@pytest.mark.parametrize(
    "name",
    ["docker0", "br-0123456789ab", "veth1a2b3c4", "virbr0", "vnet3", "cni0", "podman1", "lxcbr0", "cali12"],
)
def test_what_container_engines_make_is_not_told(name: str) -> None:
    assert own_addresses((CABLE, link(name, "172.17.0.1")), interface="wg0").usable == ("192.168.7.2",)


@pytest.mark.parametrize("name", ["br0", "br-lan", "bridge"])
def test_a_bridge_with_a_cable_is_this_machines_lan(name: str) -> None:
    bridge = link(name, "192.168.8.2", kind="bridge")
    port = LinkSeen(name="eth7", master=name)
    assert own_addresses((bridge, port), interface="wg0").usable == ("192.168.8.2",)


@pytest.mark.parametrize("kind", ["veth", "tun"])
def test_a_bridge_of_guests_alone_is_not_told(kind: str) -> None:
    bridge = link("internal", "10.0.3.1", kind="bridge")
    port = LinkSeen(name="guest", kind=kind, master="internal")
    assert own_addresses((CABLE, bridge, port), interface="wg0").usable == ("192.168.7.2",)
    assert own_addresses((CABLE, bridge), interface="wg0").usable == ("192.168.7.2",)


def test_a_container_has_a_veth_of_its_own() -> None:
    assert own_addresses((link("eth0", "172.17.0.2", kind="veth"),), interface="wg0").usable == (
        "172.17.0.2",
    )


@pytest.mark.parametrize("kind", ["wireguard", "tun", "gre"])
def test_another_tunnel_counts_only_where_there_is_nothing_else(kind: str) -> None:
    vpn = link("vpn0", "10.99.0.2", kind=kind)
    assert own_addresses((CABLE, vpn), interface="wg0").usable == ("192.168.7.2",)
    assert own_addresses((LOOPBACK, vpn), interface="wg0").usable == ("10.99.0.2",)


def test_a_link_without_a_carrier_is_not_told() -> None:
    unplugged = LinkSeen(
        name="eth1", carries=False, addresses=(AddressSeen(address="192.168.9.2", prefix_length=24),)
    )
    own = own_addresses((CABLE, unplugged), interface="wg0")
    assert own.usable == ("192.168.7.2",)
    assert "192.168.9.2" in own.held, "what it has stays its own"


def test_link_local_and_passing_addresses_are_not_told() -> None:
    many = LinkSeen(
        name="eth1",
        addresses=(
            AddressSeen(address="fe80::1", prefix_length=64, scope="link"),
            AddressSeen(address="2001:db8::77", prefix_length=64, passing=True),
            AddressSeen(address="2001:db8::2", prefix_length=64),
        ),
    )
    assert own_addresses((many,), interface="wg0").usable == ("2001:db8::2",)


def link(name: str, *addresses: str, kind: str = "") -> LinkSeen:
    return LinkSeen(
        name=name,
        kind=kind,
        addresses=tuple(
            AddressSeen(address=one, prefix_length=64 if ":" in one else 24) for one in addresses
        ),
    )
