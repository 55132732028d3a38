"""What ``wg`` and ``ip`` print is read exactly, rubbish is a fault; what we render is complete."""

from __future__ import annotations

import base64
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.wgconf.after import device_after
from meshpeer.core.wgconf.diff import diff_device
from meshpeer.core.wgconf.model import DesiredDevice, DesiredPeer, ObservedPeer, RouteMtu
from meshpeer.core.wgconf.parse import Link, parse_dump, parse_links, parse_route_mtus, parse_routes
from meshpeer.core.wgconf.render import render_setconf, render_wg_quick

OWN, ALPHA, BETA = (WireGuardPrivateKey(bytes([number]) * 32) for number in (1, 2, 3))
SECRET = base64.b64encode(OWN.secret).decode()


def test_dump_is_read_with_canonical_prefixes_and_without_the_private_key() -> None:
    dump = parse_dump(
        f"{SECRET}\t{text(OWN)}\t51820\toff\n"
        f"{text(ALPHA)}\t(none)\t192.0.2.2:51820\tfd00:0::2/128,10.10.0.2/32\t1900000000\t148\t92\t25\n"
        f"{text(BETA)}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"
    )
    assert (dump.public_key, dump.listen_port) == (OWN.public, 51820)
    assert SECRET not in repr(dump)
    beta = ObservedPeer(
        public_key=BETA.public,
        allowed_ips=(),
        endpoint=None,
        keepalive_s=0,
        latest_handshake_unix_s=0,
        rx_bytes=0,
        tx_bytes=0,
    )
    alpha = ObservedPeer(
        public_key=ALPHA.public,
        allowed_ips=("10.10.0.2/32", "fd00::2/128"),
        endpoint="192.0.2.2:51820",
        keepalive_s=25,
        latest_handshake_unix_s=1_900_000_000,
        rx_bytes=148,
        tx_bytes=92,
    )
    assert dump.peers == tuple(sorted((alpha, beta), key=lambda peer: peer.public_key))


def test_dump_of_a_new_interface_has_no_key() -> None:
    assert parse_dump("(none)\t(none)\t0\toff\n").public_key == bytes(32)


@pytest.mark.parametrize(("printed", "mark"), [("off", 0), ("0x6d70", 0x6D70), ("0xffffffff", 2**32 - 1)])
def test_a_mark_is_read(printed: str, mark: int) -> None:
    assert parse_dump(f"(none)\t(none)\t0\t{printed}\n").fwmark == mark


@pytest.mark.parametrize(
    "rubbish",
    [
        "",
        "\n\n",
        "Unable to access interface: No such device",
        f"{SECRET}\tkey\t51820",
        "(none)\t(none)\t-1\toff",
        "(none)\t(none)\t70000\toff",
        "(none)\tQUJD\t1\toff",
        "(none)\t(none)\t0\toff\nkey\t(none)",
        "(none)\t(none)\t0\t7",
        "(none)\t(none)\t0\t0x",
        "(none)\t(none)\t0\t0x123456789",
        "(none)\t(none)\t0\t0x-1",
        "(none)\t(none)\t" + "9" * 5000 + "\toff",
    ],
)
def test_rubbish_for_a_dump_is_the_environments_fault(rubbish: str) -> None:
    with pytest.raises(EnvironmentFault):
        parse_dump(rubbish)


@settings(max_examples=200, deadline=None)
@given(st.text() | st.lists(st.text(alphabet="\t\n(none)0Az+/=.:,", max_size=60)).map("\t".join))
def test_no_text_crashes_a_reader(rubbish: str) -> None:
    for read in (parse_dump, parse_links, parse_routes, parse_route_mtus):
        try:
            read(rubbish)
        except EnvironmentFault as fault:
            assert fault.hint  # noqa: PT017


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["ifname", "mtu", "flags", "addr_info", "local", "prefixlen", "dst", "linkinfo"]
                ),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_no_json_crashes_a_reader(tree: object) -> None:
    for read in (parse_links, parse_routes):
        try:
            read(json.dumps(tree))
        except EnvironmentFault as fault:
            assert fault.hint  # noqa: PT017


def test_links_are_read_without_link_local_addresses() -> None:
    shown = json.dumps(
        [
            {},
            {
                "ifname": "wg0",
                "flags": ["POINTOPOINT", "NOARP", "UP", "LOWER_UP"],
                "mtu": 1380,
                "linkinfo": {"info_kind": "tun", "info_data": {"type": "tun"}},
                "ifalias": "meshpeer",
                "addr_info": [
                    {"family": "inet", "local": "10.10.0.1", "prefixlen": 24, "scope": "global"},
                    {"family": "inet6", "local": "fd00:0::1", "prefixlen": 64, "scope": "global"},
                    {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"},
                ],
            },
        ]
    )
    assert parse_links(shown) == (
        Link(
            name="wg0",
            mtu=1380,
            up=True,
            alias="meshpeer",
            kind="tun",
            addresses=("10.10.0.1/24", "fd00::1/64"),
        ),
    )


def test_routes_are_those_that_somebody_added() -> None:
    shown = json.dumps(
        [
            {"dst": "default", "scope": "link", "flags": []},
            {"dst": "default", "metric": 1024, "flags": [], "pref": "medium"},
            {
                "dst": "10.10.0.0/24",
                "protocol": "kernel",
                "scope": "link",
                "prefsrc": "10.10.0.1",
                "flags": [],
            },
            {"dst": "10.20.0.0/16", "scope": "link", "flags": []},
            {"dst": "10.30.0.9", "scope": "link", "flags": []},
            {"type": "local", "dst": "10.10.0.1", "table": "local", "protocol": "kernel", "flags": []},
            {"dst": "fd00:2::/64", "metric": 1024, "flags": [], "pref": "medium"},
        ]
    )
    assert parse_routes(shown) == ("0.0.0.0/0", "10.20.0.0/16", "10.30.0.9/32", "::/0", "fd00:2::/64")
    assert parse_routes("") == ()


def test_mtus_of_routes_are_those_that_somebody_set() -> None:
    shown = json.dumps(
        [
            {"dst": "10.10.0.2", "scope": "link", "metric": 4096, "flags": [], "metrics": [{"mtu": 1400}]},
            {"dst": "10.10.0.3", "scope": "link", "metric": 4096, "flags": []},
            {"dst": "10.10.0.0/24", "protocol": "kernel", "flags": [], "metrics": [{"mtu": 1300}]},
            {"dst": "fd00::2", "metrics": [{"mtu": 1280, "advmss": 1160}], "pref": "medium", "flags": []},
            {"dst": "fd00::3", "metrics": [{"hoplimit": 9}], "pref": "medium", "flags": []},
        ]
    )
    assert parse_route_mtus(shown) == (
        RouteMtu("10.10.0.2/32", 1400),
        RouteMtu("fd00::2/128", 1280, 1160),
    )
    assert parse_route_mtus("") == ()


def test_wg_quick_file_has_an_mtu_that_every_path_carries() -> None:
    mtus = (RouteMtu("10.10.0.2/32", 1216), RouteMtu("fd00::2/128", 1280, 1156))
    narrow = dataclasses.replace(device(), mtu=8960, route_mtus=mtus)
    assert "MTU = 1280\n" in render_wg_quick(narrow, {}), "IPv6 takes no less"
    assert "MTU = 1408\n" in render_wg_quick(
        dataclasses.replace(narrow, route_mtus=(RouteMtu("10.10.0.0/25", 1408),)), {}
    )


def test_wg_quick_file_holds_all_that_the_interface_does() -> None:
    assert render_wg_quick(device(), {ALPHA.public: "alpha"}) == (
        "[Interface]\n"
        f"PrivateKey = {SECRET}\n"
        "ListenPort = 51820\n"
        "Address = 10.10.0.1/24, fd00::1/64\n"
        "MTU = 1420\n"
        "\n"
        "[Peer]\n"
        "# alpha\n"
        f"PublicKey = {text(ALPHA)}\n"
        "AllowedIPs = 10.10.0.2/32, fd00::2/128\n"
        "Endpoint = 192.0.2.2:51820\n"
        "PersistentKeepalive = 25\n"
    )


def test_wg_quick_file_has_the_endpoint_that_works() -> None:
    observed = device_after(None, diff_device(None, device(endpoint="198.51.100.9:4711"), now_unix_s=0))
    assert observed is not None
    stale = render_wg_quick(device(), {}, observed=observed, now_unix_s=1_900_000_000)
    assert "Endpoint = 192.0.2.2:51820\n" in stale
    (peer,) = observed.peers
    working = dataclasses.replace(peer, latest_handshake_unix_s=1_899_999_990)
    fresh = dataclasses.replace(observed, peers=(working,))
    assert "Endpoint = 198.51.100.9:4711\n" in render_wg_quick(
        device(), {}, observed=fresh, now_unix_s=1_900_000_000
    )


def test_setconf_form_leaves_the_private_key_out() -> None:
    assert "PrivateKey" not in render_setconf(device(), {})
    assert SECRET not in render_setconf(device(), {})


def text(key: WireGuardPrivateKey) -> str:
    return base64.b64encode(key.public).decode()


def device(endpoint: str = "192.0.2.2:51820") -> DesiredDevice:
    return DesiredDevice(
        interface="wg0",
        private_key=OWN.secret,
        public_key=OWN.public,
        listen_port=51820,
        mtu=1420,
        addresses=("10.10.0.1/24", "fd00::1/64"),
        peers=(
            DesiredPeer(
                public_key=ALPHA.public,
                allowed_ips=("10.10.0.2/32", "fd00::2/128"),
                endpoint=endpoint,
                keepalive_s=25,
            ),
        ),
    )
