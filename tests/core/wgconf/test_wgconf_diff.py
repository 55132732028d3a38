"""``diff_device`` gets to what is desired in the fewest steps, by WireGuard's rules (``device_after``)."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.wgconf.after import device_after
from meshpeer.core.wgconf.diff import describe_drift, diff_device
from meshpeer.core.wgconf.model import (
    AddAddress,
    AddRoute,
    CreateInterface,
    DesiredDevice,
    DesiredPeer,
    DeviceStep,
    ObservedDevice,
    RemoveAddress,
    RemovePeer,
    RemoveRoute,
    RouteMtu,
    SetListenPort,
    SetMtu,
    SetPeer,
    SetPrivateKey,
    SetUp,
    handshake_is_fresh,
)

KEYS = [WireGuardPrivateKey(bytes([number]) * 32) for number in range(1, 9)]
PEERS = sorted(key.public for key in KEYS[2:])
NOW = 1_900_000_000.0


def test_absent_interface_is_made_whole_with_wireguard_first() -> None:
    device = desired(
        peer(0, "10.10.0.2/32", endpoint="192.0.2.2:51820", keepalive_s=25), routes=("10.20.0.0/16",)
    )
    assert diff_device(None, device, now_unix_s=NOW) == (
        CreateInterface(interface="wg0"),
        SetPrivateKey(private_key=KEYS[0].secret),
        SetListenPort(port=51820),
        SetPeer(
            public_key=PEERS[0], allowed_ips=("10.10.0.2/32",), endpoint="192.0.2.2:51820", keepalive_s=25
        ),
        SetMtu(mtu=1380),
        AddAddress(address="10.10.0.1/24"),
        SetUp(),
        AddRoute(prefix="10.20.0.0/16"),
    )


def test_a_fresh_handshake_keeps_its_endpoint_unless_the_tunnel_is_mute() -> None:
    device = desired(peer(0, "10.10.0.2/32", endpoint="192.0.2.2:51820", keepalive_s=25))
    after = device_after(None, diff_device(None, device, now_unix_s=NOW))
    assert after is not None
    (held,) = after.peers
    shaken = dataclasses.replace(held, endpoint="192.0.2.9:4711", latest_handshake_unix_s=int(NOW) - 5)
    observed = dataclasses.replace(after, peers=(shaken,))
    assert diff_device(observed, device, now_unix_s=NOW) == ()
    mute = dataclasses.replace(device, peers=(dataclasses.replace(device.peers[0], mute=True),))
    assert diff_device(observed, mute, now_unix_s=NOW) == (
        SetPeer(public_key=PEERS[0], endpoint="192.0.2.2:51820"),
    )


def test_nothing_to_change_means_no_step() -> None:
    device = desired(
        peer(0, "10.10.0.2/32", keepalive_s=25), peer(1, "10.10.0.3/32"), routes=("10.20.0.0/16",)
    )
    assert diff_device(holding(device), device, now_unix_s=NOW) == ()


def test_one_changed_peer_leaves_the_others_alone() -> None:
    before = desired(peer(0, "10.10.0.2/32"), peer(1, "10.10.0.3/32"), peer(2, "10.10.0.4/32"))
    after = desired(peer(0, "10.10.0.2/32"), peer(1, "10.10.0.3/32", keepalive_s=25), peer(2, "10.10.0.4/32"))
    assert diff_device(holding(before), after, now_unix_s=NOW) == (
        SetPeer(public_key=PEERS[1], keepalive_s=25),
    )


def test_an_allowed_ip_that_moves_is_taken_away_before_it_is_given() -> None:
    before = desired(peer(0, "10.10.0.2/32", "10.10.0.9/32"), peer(1, "10.10.0.3/32"))
    after = desired(peer(0, "10.10.0.2/32"), peer(1, "10.10.0.3/32", "10.10.0.9/32"))
    assert diff_device(holding(before), after, now_unix_s=NOW) == (
        SetPeer(public_key=PEERS[0], allowed_ips=("10.10.0.2/32",)),
        SetPeer(public_key=PEERS[1], allowed_ips=("10.10.0.3/32", "10.10.0.9/32")),
    )


def test_an_allowed_ip_that_nobody_gains_costs_one_step() -> None:
    before, after = desired(peer(0, "10.10.0.2/32")), desired(peer(0, "10.10.0.7/32"))
    assert diff_device(holding(before), after, now_unix_s=NOW) == (
        SetPeer(public_key=PEERS[0], allowed_ips=("10.10.0.7/32",)),
    )


def test_a_peer_that_is_out_goes_before_its_addresses_are_given_on() -> None:
    before, after = desired(peer(1, "10.10.0.2/32")), desired(peer(0, "10.10.0.2/32"))
    assert diff_device(holding(before), after, now_unix_s=NOW) == (
        RemovePeer(public_key=PEERS[1]),
        SetPeer(public_key=PEERS[0], allowed_ips=("10.10.0.2/32",)),
    )


@pytest.mark.parametrize(
    ("handshake_age_s", "written"),
    [(None, True), (10, False), (179, False), (181, True), (-10, False), (-3600, True)],
)
def test_an_endpoint_is_rewritten_only_where_no_handshake_is_fresh(
    handshake_age_s: int | None, written: bool
) -> None:
    wanted = desired(peer(0, "10.10.0.2/32", endpoint="192.0.2.2:51820"))
    roamed = handshaken(holding(wanted), endpoint="198.51.100.9:4711", age_s=handshake_age_s)
    steps = (SetPeer(public_key=PEERS[0], endpoint="192.0.2.2:51820"),) if written else ()
    assert diff_device(roamed, wanted, now_unix_s=NOW) == steps


def test_a_desired_endpoint_of_none_clears_nothing() -> None:
    held = holding(desired(peer(0, "10.10.0.2/32", endpoint="192.0.2.2:51820")))
    assert diff_device(held, desired(peer(0, "10.10.0.2/32")), now_unix_s=NOW) == ()


def test_an_interface_that_is_down_is_brought_up_with_its_routes() -> None:
    wanted = desired(routes=("10.20.0.0/16",))
    down = dataclasses.replace(holding(wanted), up=False, routes=())
    assert diff_device(down, wanted, now_unix_s=NOW) == (SetUp(), AddRoute(prefix="10.20.0.0/16"))


def test_an_old_address_goes_before_the_new_one_comes() -> None:
    held = dataclasses.replace(holding(desired()), addresses=("10.10.0.77/24",), routes=("10.66.0.0/16",))
    assert diff_device(held, desired(), now_unix_s=NOW) == (
        RemoveRoute(prefix="10.66.0.0/16"),
        RemoveAddress(address="10.10.0.77/24"),
        AddAddress(address="10.10.0.1/24"),
    )


def test_routes_that_the_last_ipv4_address_takes_along_are_added_again() -> None:
    wanted = desired(routes=("10.20.0.0/16", "fd00:2::/64"))
    held = dataclasses.replace(holding(wanted), addresses=("10.10.0.77/24",))
    assert diff_device(held, wanted, now_unix_s=NOW) == (
        RemoveAddress(address="10.10.0.77/24"),
        AddAddress(address="10.10.0.1/24"),
        AddRoute(prefix="10.20.0.0/16"),
    )


def test_a_secondary_address_that_goes_with_its_primary_is_added_again() -> None:
    held = dataclasses.replace(holding(desired()), addresses=("10.10.0.77/24", "10.10.0.1/24"))
    assert diff_device(held, desired(), now_unix_s=NOW) == (
        RemoveAddress(address="10.10.0.77/24"),
        AddAddress(address="10.10.0.1/24"),
    )


@pytest.mark.parametrize(("old", "new"), [(24, 20), (20, 24), (24, 16)])
def test_an_address_is_held_throughout_while_its_prefix_grows_or_shrinks(old: int, new: int) -> None:
    wanted = dataclasses.replace(desired(routes=("10.20.0.0/16",)), addresses=(f"10.10.0.1/{new}",))
    held = dataclasses.replace(holding(wanted), addresses=(f"10.10.0.1/{old}",))
    assert diff_device(held, wanted, now_unix_s=NOW) == (
        AddAddress(address=f"10.10.0.1/{new}"),
        RemoveAddress(address=f"10.10.0.1/{old}"),
    )


def test_a_prefix_grows_into_the_subnet_of_an_address_that_goes_and_nothing_is_lost() -> None:
    """Added beside that one, it would be its secondary, and go with it."""
    wanted = dataclasses.replace(desired(), addresses=("10.10.0.9/20",))
    held = dataclasses.replace(holding(wanted), addresses=("10.10.0.9/24", "10.10.0.1/20"))
    assert diff_device(held, wanted, now_unix_s=NOW) == (
        RemoveAddress(address="10.10.0.1/20"),
        AddAddress(address="10.10.0.9/20"),
        RemoveAddress(address="10.10.0.9/24"),
    )


def test_an_ipv6_address_goes_before_it_comes_with_another_prefix() -> None:
    wanted = dataclasses.replace(desired(), addresses=("10.10.0.1/24", "fd00::1/48"))
    held = dataclasses.replace(holding(wanted), addresses=("10.10.0.1/24", "fd00::1/64"))
    assert diff_device(held, wanted, now_unix_s=NOW) == (
        RemoveAddress(address="fd00::1/64"),
        AddAddress(address="fd00::1/48"),
    )
    assert device_after(held, (AddAddress(address="fd00::1/48"),)) == held


def test_an_address_stays_although_another_one_goes_while_the_prefix_grows() -> None:
    wanted = dataclasses.replace(desired(), addresses=("10.10.0.1/20",))
    held = dataclasses.replace(holding(wanted), addresses=("10.10.0.77/24", "10.10.0.1/24"))
    assert diff_device(held, wanted, now_unix_s=NOW) == (
        AddAddress(address="10.10.0.1/20"),
        RemoveAddress(address="10.10.0.1/24"),
        RemoveAddress(address="10.10.0.77/24"),
    )


@pytest.mark.parametrize(
    ("held", "gone", "left"),
    [
        # Of one subnet and prefix length: a secondary goes with its primary, and alone it goes alone.
        (("10.10.0.1/24", "10.10.0.9/24"), "10.10.0.1/24", ()),
        (("10.10.0.1/24", "10.10.0.9/24"), "10.10.0.9/24", ("10.10.0.1/24",)),
        # Of one network, but not of one prefix length: neither is the other's secondary.
        (("10.10.0.1/24", "10.10.0.1/20"), "10.10.0.1/24", ("10.10.0.1/20",)),
        (("10.10.0.1/20", "10.10.0.1/24"), "10.10.0.1/20", ("10.10.0.1/24",)),
        (("10.10.0.1/24", "10.10.0.9/20"), "10.10.0.1/24", ("10.10.0.9/20",)),
        (("10.10.0.1/24", "10.10.0.1/20", "10.10.0.9/20"), "10.10.0.1/20", ("10.10.0.1/24",)),
        (("fd00::1/64", "fd00::9/64"), "fd00::1/64", ("fd00::9/64",)),
    ],
)
def test_what_goes_with_an_address(held: tuple[str, ...], gone: str, left: tuple[str, ...]) -> None:
    device = dataclasses.replace(holding(desired()), addresses=held)
    after = device_after(device, (RemoveAddress(address=gone),))
    assert after is not None
    assert after.addresses == left


@pytest.mark.parametrize("step", [RemoveAddress(address="10.10.0.1/20"), RemoveRoute(prefix="10.66.0.0/16")])
def test_what_is_not_there_can_not_be_removed(step: DeviceStep) -> None:
    with pytest.raises(EnvironmentFault, match="to remove"):
        device_after(holding(desired()), (step,))


def test_ipv6_is_not_asked_for_where_the_kernel_has_none() -> None:
    wanted = dataclasses.replace(desired(routes=("fd00:2::/64",)), addresses=("10.10.0.1/24", "fd00::1/64"))
    held = dataclasses.replace(holding(wanted), addresses=("10.10.0.1/24",), routes=(), ipv6=False)
    assert diff_device(held, wanted, now_unix_s=NOW) == ()
    assert describe_drift(held, wanted, {}) == []


def test_drift_is_described_in_words() -> None:
    wanted = desired(peer(0, "10.10.0.2/32", keepalive_s=25), peer(1, "10.10.0.3/32"))
    names = {PEERS[0]: "beta", PEERS[1]: "gamma"}
    assert describe_drift(None, wanted, names) == ["interface wg0 was gone"]
    assert describe_drift(holding(wanted), wanted, names) == []
    tampered = dataclasses.replace(
        holding(desired(peer(1, "10.10.0.4/32"))),
        listen_port=9,
        mtu=9000,
        addresses=("10.9.9.9/24",),
        up=False,
    )
    assert describe_drift(tampered, wanted, names) == [
        "peer beta was removed by hand",
        "peer gamma had other allowed IPs: 10.10.0.4/32",
        "the listen port was 9",
        "the MTU was 9000",
        "address 10.10.0.1/24 was removed by hand",
        "address 10.9.9.9/24 was added by hand",
        "interface wg0 was down",
    ]


def test_a_route_that_gets_another_mtu_is_changed_and_no_other() -> None:
    wanted = desired(routes=("10.10.0.2/32", "fd00::2/128"))
    narrow = dataclasses.replace(wanted, route_mtus=(RouteMtu("fd00::2/128", 1280, 1156),))
    assert diff_device(holding(wanted), narrow, now_unix_s=NOW) == (
        AddRoute(prefix="fd00::2/128", mtu=1280, advmss=1156),
    )
    assert diff_device(holding(narrow), wanted, now_unix_s=NOW) == (AddRoute(prefix="fd00::2/128"),)
    assert describe_drift(holding(wanted), narrow, {}) == ["route fd00::2/128 had MTU 1380"]


def test_ipv6_routes_that_follow_the_mtu_of_the_interface_are_set_again() -> None:
    """What the kernel does (``fib6_nh_mtu_change``): one that says as much as the interface goes with it."""
    said = (RouteMtu("10.10.0.2/32", 1380), RouteMtu("fd00::2/128", 1380), RouteMtu("fd00::3/128", 1300))
    routes = tuple(one.prefix for one in said)
    held = holding(dataclasses.replace(desired(routes=routes), route_mtus=said))
    wider = dataclasses.replace(desired(routes=routes), route_mtus=said, mtu=8960)
    assert diff_device(held, wider, now_unix_s=NOW) == (
        SetMtu(mtu=8960),
        AddRoute(prefix="fd00::2/128", mtu=1380),
    )
    narrower = dataclasses.replace(desired(routes=routes), route_mtus=said, mtu=1290)
    assert diff_device(held, narrower, now_unix_s=NOW) == (
        SetMtu(mtu=1290),
        AddRoute(prefix="fd00::2/128", mtu=1380),
        AddRoute(prefix="fd00::3/128", mtu=1300),
    )


def test_a_private_key_shows_in_no_repr() -> None:
    device = desired()
    for shown in (repr(device), repr(diff_device(None, device, now_unix_s=NOW))):
        assert repr(KEYS[0].secret)[2:12] not in shown
        assert KEYS[0].secret.hex() not in shown


def test_a_route_needs_an_interface_that_is_up() -> None:
    with pytest.raises(EnvironmentFault):
        device_after(None, (SetUp(),))
    with pytest.raises(EnvironmentFault):
        device_after(None, (CreateInterface(interface="wg0"), AddRoute(prefix="10.20.0.0/16")))


def test_no_handshake_is_not_fresh() -> None:
    assert not handshake_is_fresh(0, 100.0)


OWN_ADDRESSES = [
    *("10.10.0.1/24", "10.10.0.1/20", "10.10.0.9/24", "10.10.0.9/20", "10.30.0.1/24"),
    *("fd00::1/64", "fd00::1/48"),
]
ROUTES = ["10.20.0.0/16", "10.30.0.0/16", "fd00:2::/64", "fd00::9/128"]
ADDRESSES = [f"10.10.0.{number}/32" for number in range(2, 9)]


@st.composite
def devices(draw: st.DrawFn) -> DesiredDevice:
    """Any interface whose allowed IPs are disjoint."""
    members = draw(st.lists(st.integers(0, len(PEERS) - 1), unique=True))
    owners = {address: draw(st.sampled_from([None, *members])) for address in ADDRESSES}
    peers = [
        peer(
            number,
            *(address for address in ADDRESSES if owners[address] == number),
            endpoint=draw(st.sampled_from([None, "192.0.2.2:51820", "[2001:db8::2]:51820"])),
            keepalive_s=draw(st.sampled_from([0, 25])),
        )
        for number in members
    ]
    return DesiredDevice(
        interface="wg0",
        private_key=(own := draw(st.sampled_from(KEYS[:2]))).secret,
        public_key=own.public,
        listen_port=draw(st.sampled_from([51820, 51821])),
        mtu=draw(st.sampled_from([1380, 1420])),
        fwmark=draw(st.sampled_from([0, 0x6D70])),
        addresses=tuple(draw(st.lists(st.sampled_from(OWN_ADDRESSES), unique_by=ip_of))),
        peers=tuple(sorted(peers, key=lambda one: one.public_key)),
        routes=(routes := tuple(sorted(draw(st.sets(st.sampled_from(ROUTES)))))),
        route_mtus=tuple(
            RouteMtu(one, mtu, draw(st.sampled_from([0, 1160])))
            for one in routes
            if (mtu := draw(st.sampled_from([0, 1280, 1380, 1420])))
        ),
    )


@settings(max_examples=300, deadline=None)
@given(devices(), devices(), st.booleans())
def test_diff_leads_from_any_interface_to_any_other(
    before: DesiredDevice, after: DesiredDevice, absent: bool
) -> None:
    """What is held may have addresses that a hand added; a node wants one IPv4 address at most."""
    after = dataclasses.replace(after, addresses=one_ipv4_at_most(after.addresses))
    device = None if absent else device_after(None, diff_device(None, before, now_unix_s=NOW))
    steps = diff_device(device, after, now_unix_s=NOW)
    for step in steps:
        held = {one.public_key: one for one in device.peers} if device else {}
        if isinstance(step, SetPeer):
            others = [one for key, one in held.items() if key != step.public_key]
            stolen = {ip for one in others for ip in one.allowed_ips} & set(step.allowed_ips or ())
            assert not stolen, "an allowed IP was taken from a peer that still held it"
        ipv4_before = {ip_of(one) for one in device.addresses if ":" not in one} if device else set()
        device = device_after(device, (step,))
        assert device is not None
        if len(ipv4_before) == 1 and not ipv4_before & {ip_of(one) for one in device.addresses}:
            assert not ipv4_before & set(map(ip_of, after.addresses)), "the one address that stays was gone"
    assert device is not None
    assert diff_device(device, after, now_unix_s=NOW) == ()
    assert {one.public_key: set(one.allowed_ips) for one in device.peers} == {
        one.public_key: set(one.allowed_ips) for one in after.peers
    }
    assert device.up
    assert set(device.addresses) == set(after.addresses)
    assert set(device.routes) == set(after.routes)
    assert set(device.route_mtus) == set(after.route_mtus)
    kept = {one.public_key for one in before.peers} & {one.public_key for one in after.peers}
    assert absent or not [one for one in steps if isinstance(one, RemovePeer) and one.public_key in kept]


def ip_of(address: str) -> str:
    return address.partition("/")[0]


def one_ipv4_at_most(addresses: tuple[str, ...]) -> tuple[str, ...]:
    ipv4 = [one for one in addresses if ":" not in one]
    return tuple(one for one in addresses if one not in ipv4[1:])


def peer(number: int, *allowed_ips: str, endpoint: str | None = None, keepalive_s: int = 0) -> DesiredPeer:
    return DesiredPeer(
        public_key=PEERS[number], allowed_ips=tuple(allowed_ips), endpoint=endpoint, keepalive_s=keepalive_s
    )


def desired(*peers: DesiredPeer, routes: tuple[str, ...] = ()) -> DesiredDevice:
    return DesiredDevice(
        interface="wg0",
        private_key=KEYS[0].secret,
        public_key=KEYS[0].public,
        listen_port=51820,
        mtu=1380,
        addresses=("10.10.0.1/24",),
        peers=peers,
        routes=routes,
    )


def holding(device: DesiredDevice) -> ObservedDevice:
    """The interface of a machine where this was applied."""
    observed = device_after(None, diff_device(None, device, now_unix_s=NOW))
    assert observed is not None
    return observed


def handshaken(device: ObservedDevice, *, endpoint: str, age_s: int | None) -> ObservedDevice:
    last = 0 if age_s is None else int(NOW) - age_s
    peers = tuple(
        dataclasses.replace(one, endpoint=endpoint, latest_handshake_unix_s=last) for one in device.peers
    )
    return dataclasses.replace(device, peers=peers)
