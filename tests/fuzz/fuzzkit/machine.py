"""Targets that read what this machine, its tools and its network say: datagrams, printed tables, JSON."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import msgspec
import zeroconf

from fuzzkit import mesh, mutate
from fuzzkit.target import Target
from meshpeer.adapters.discovery.mdns import SERVICE, found_in
from meshpeer.adapters.hosts.block import BEGIN, END, names_in, replace_block
from meshpeer.adapters.network.observe import parse_links as parse_seen_links
from meshpeer.adapters.relay.fastpath import counters_in, route_in
from meshpeer.adapters.web.access import Access
from meshpeer.core.addressing.own_addresses import own_addresses
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.jobs.cgroups import counted, find_hierarchies
from meshpeer.core.paths.probe_packets import (
    NONCE_BYTES,
    Probe,
    ProbeKind,
    join_endpoint,
    probe_key,
    probe_tag,
    seal,
    split_endpoint,
    tag_of,
    unseal,
)
from meshpeer.core.paths.relay_bucket import Bucket
from meshpeer.core.paths.relay_crossing import Crossing, Way
from meshpeer.core.paths.relay_packets import has_mac1, mac1_key, mac1_of, parse_packet
from meshpeer.core.wgconf.parse import parse_dump, parse_links, parse_route_mtus, parse_routes
from meshpeer.core.wgconf.rulesets import Packet, RulesetUnreadable, judge_ruleset
from meshpeer.core.wire.unreadable import UNREADABLE
from meshpeer.runtime.board import Order

_THEIRS = WireGuardKey(mesh.WIREGUARD.public)
_MINE = mesh.WIREGUARD
_TAG = probe_tag(mesh.MESH, _THEIRS, _MINE.public)


# --- datagrams ----------------------------------------------------------------------------------------------


def _handshake(kind: int, body: int) -> bytes:
    head = bytes((kind, 0, 0, 0)) + bytes(range(body))
    return head + mac1_of(head, mac1_key(_THEIRS)) + bytes(16)


def _packets() -> list[bytes]:
    return [_handshake(1, 112), _handshake(2, 56), b"\x03" + bytes(63), b"\x04" + bytes(47)]


def _cross(data: bytes) -> object:
    """Carries a packet over a relay whose ends are known, from either side."""
    packet = parse_packet(data)
    if packet is None:
        return None
    has_mac1(data, mac1_key(_THEIRS))
    crossing = Crossing((_THEIRS, WireGuardKey(b"k" * 32)), _bucket(), _bucket())
    ways = Way("192.0.2.1", 1, "192.0.2.9", 2), Way("198.51.100.1", 1, "192.0.2.9", 2)
    return [crossing.carry(side, ways[side], data, 1.0) for side in (0, 1, 0)]


def _bucket() -> Bucket:
    return Bucket(1e6, 1e6)


def _hear_probe(data: bytes) -> object:
    key = probe_key(mesh.MESH, _MINE, _THEIRS)
    return tag_of(data), unseal(data, key or bytes(32))


def _hear_sealed(body: bytes) -> object:
    """Hears what a member sealed, whatever it says."""
    import nacl.bindings

    key = probe_key(mesh.MESH, _MINE, _THEIRS)
    assert key is not None
    head, nonce = b"mpP1" + _TAG, bytes(NONCE_BYTES)
    sealed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(body, head, nonce, key)
    data = head + nonce + sealed
    if tag_of(data) is None:
        return None
    said = unseal(data, key)
    return split_endpoint(said.seen) if said else None


def _probes() -> list[bytes]:
    key = probe_key(mesh.MESH, _MINE, _THEIRS)
    assert key is not None
    said = Probe(ProbeKind.ANSWER, 7, 8, "192.0.2.1:51820", True)
    return [seal(said, _TAG, key, bytes(NONCE_BYTES))]


def _read_endpoint(data: bytes) -> object:
    parts = split_endpoint(data.decode("utf-8", "replace"))
    return split_endpoint(join_endpoint(*parts)) if parts else None


def _hear_mdns(data: bytes) -> object:
    """Reads an announcement: four addresses' bytes, and the texts behind them."""
    info = zeroconf.ServiceInfo(
        SERVICE,
        f"x.{SERVICE}",
        port=int.from_bytes(data[:2], "big"),
        addresses=[data[2:6].ljust(4, b"\1"), data[6:22].ljust(16, b"\1")],
        properties=data[22:],
    )
    return found_in(info)


def _announcements() -> list[bytes]:
    texts = b"".join(bytes((len(one),)) + one for one in (b"mesh=abcdef", b"node=ghij", b"v=1", b"x"))
    return [
        (51_821).to_bytes(2, "big")
        + socket.inet_pton(socket.AF_INET, "192.0.2.1")
        + socket.inet_pton(socket.AF_INET6, "fe80::1")
        + texts
    ]


# --- what tools print ---------------------------------------------------------------------------------------


def _of_text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("utf-8", "replace"))


_DUMP = (
    b"cGFzc3dvcmRwYXNzd29yZHBhc3N3b3JkcGFzc3dvcmQ=\tYWxwaGFhbHBoYWFscGhhYWxwaGFhbHBoYWFscGhhYWw=\t51820\toff\n"
    b"YmV0YWJldGFiZXRhYmV0YWJldGFiZXRhYmV0YWJldGE=\t(none)\t192.0.2.1:51820\t10.10.0.2/32,fd00::2/128\t1800000000"
    b"\t148\t92\t25\n"
    b"Z2FtbWFnYW1tYWdhbW1hZ2FtbWFnYW1tYWdhbW1hZ2E=\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"
)
_LINKS = json.dumps(
    [
        {},
        {
            "ifname": "wg0",
            "flags": ["POINTOPOINT", "UP"],
            "mtu": 1380,
            "master": "br0",
            "linkinfo": {"info_kind": "tun"},
            "ifalias": "meshpeer",
            "addr_info": [
                {"family": "inet", "local": "10.10.0.1", "prefixlen": 24, "scope": "global"},
                {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link", "temporary": True},
            ],
        },
    ]
).encode()
_ROUTES = json.dumps(
    [
        {"dst": "default", "flags": [], "pref": "medium"},
        {"dst": "10.20.0.0/16", "protocol": "static", "metrics": [{"mtu": 1400, "advmss": 1360}]},
        {"dst": "fd00:2::/64", "table": "local"},
    ]
).encode()
_RULESET = json.dumps(
    {
        "nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {
                "chain": {
                    "family": "inet",
                    "table": "filter",
                    "name": "input",
                    "type": "filter",
                    "hook": "input",
                    "policy": "drop",
                }
            },
            {
                "rule": {
                    "family": "inet",
                    "table": "filter",
                    "chain": "input",
                    "expr": [
                        {
                            "match": {
                                "op": "==",
                                "left": {"payload": {"protocol": "udp", "field": "dport"}},
                                "right": {"set": [53, {"range": [51_800, 51_900]}]},
                            }
                        },
                        {"counter": {"packets": 0}},
                        {"jump": {"target": "input"}},
                        {
                            "vmap": {
                                "key": {"ct": {"key": "state"}},
                                "data": {"set": [["new", {"accept": None}]]},
                            }
                        },
                        {"accept": None},
                    ],
                }
            },
        ]
    }
).encode()


def _read_routes(data: bytes) -> object:
    text = data.decode("utf-8", "replace")
    return parse_routes(text), parse_route_mtus(text)


def _see_links(data: bytes) -> object:
    return own_addresses(parse_seen_links(data), interface="wg0")


def _judge_ruleset(data: bytes) -> object:
    packet = Packet(hook="input", protocol="udp", dport=51_820)
    return judge_ruleset(data, packet), judge_ruleset(
        data, Packet(hook="forward", iifname="wg0", oifname="wg0")
    )


def _read_fastpath(data: bytes) -> object:
    text = data.decode("utf-8", "replace")
    if text.startswith("["):
        return route_in(text, Way("192.0.2.1", 1, "192.0.2.9", 2))
    return counters_in(text)


def _find_groups(data: bytes) -> object:
    said, _, mounts = data.decode("utf-8", "replace").partition("\f")
    counted(said, "oom_kill")
    return find_hierarchies(said, mounts)


def _look_for_session(data: bytes) -> object:
    access = Access(bytes, lambda: 0.0)
    access.exchange(access.token)
    cookies = data.decode("latin-1")
    assert not access.may_order(cookies, 51_822, cookies)
    return access.session_of(cookies, 51_822)


def _read_hosts(data: bytes) -> object:
    text = data.decode("utf-8", "surrogateescape")
    return names_in(text), replace_block(text, f"{BEGIN}\n10.10.0.1\talpha\n{END}\n")


_ROUTE = b'[{"dst": "192.0.2.1", "gateway": "192.0.2.254", "dev": "eth0", "type": "unicast"}]'
_COUNTERS = (
    b'{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"counter": {"family": "netdev", "name": "c51830",'
    b' "table": "x", "handle": 2, "packets": 7, "bytes": 1036}}]}'
)
_GROUPS = (
    b"12:memory:/docker/abc\n0::/init.scope\n\f"
    b"31 23 0:28 /docker /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
    b"42 23 0:26 / /sys/fs/cgroup\\040x rw - cgroup2 cgroup2 rw\n"
)
_HOSTS = f"127.0.0.1\tlocalhost # here\n{BEGIN}\n10.10.0.1\talpha.mesh\n{END}\nfd00::1 x\n".encode()

_ORDER = b'{"what": "retry", "job": "jabc", "node": "alpha", "tasks": ["render[3]", "film"]}'
_COOKIE = b'meshpeer-51822=abc-DEF_123; other="quoted \\073"; x'

TARGETS = (
    Target(
        name="machine.order",
        run=lambda data: msgspec.json.decode(data, type=Order),
        refusals=UNREADABLE,
        seeds=lambda: [_ORDER],
        mutate=mutate.json_text,
        bytes_max=4_096,
    ),
    Target(
        name="machine.cookie",
        run=_look_for_session,
        refusals=(),
        seeds=lambda: [_COOKIE],
        mutate=mutate.text("=", ";", '"', "\\", "meshpeer-51822="),
        bytes_max=4_096,
    ),
    Target(name="paths.relayed", run=_cross, refusals=(), seeds=_packets, bytes_max=300),
    Target(name="paths.probe", run=_hear_probe, refusals=(), seeds=_probes, bytes_max=300),
    Target(
        name="paths.sealed",
        run=_hear_sealed,
        refusals=(),
        seeds=lambda: [b"\1\0" + bytes(16) + bytes(10) + b"\xff\xff\xc0\0\2\1\xca\x6c", bytes(36)],
        bytes_max=128,
    ),
    Target(
        name="paths.endpoint",
        run=_read_endpoint,
        refusals=(),
        seeds=lambda: [b"192.0.2.1:51820", b"[2001:db8::1%eth0]:51820"],
        mutate=mutate.text("[", "]", ":", "%", "::", "0"),
        bytes_max=200,
    ),
    Target(name="machine.mdns", run=_hear_mdns, refusals=(), seeds=_announcements, bytes_max=600),
    Target(
        name="machine.wg-dump",
        run=_of_text(parse_dump),
        refusals=(EnvironmentFault,),
        seeds=lambda: [_DUMP],
        mutate=mutate.text("\t", "\n", "(none)", "off", "0x1f", "/0"),
    ),
    Target(
        name="machine.links",
        run=_of_text(parse_links),
        refusals=(EnvironmentFault,),
        seeds=lambda: [_LINKS],
        mutate=mutate.json_text,
        bytes_max=16_384,
    ),
    Target(
        name="machine.seen-links",
        run=_see_links,
        refusals=(),
        seeds=lambda: [_LINKS],
        mutate=mutate.json_text,
        bytes_max=16_384,
    ),
    Target(
        name="machine.routes",
        run=_read_routes,
        refusals=(EnvironmentFault,),
        seeds=lambda: [_ROUTES],
        mutate=mutate.json_text,
        bytes_max=16_384,
    ),
    Target(
        name="machine.ruleset",
        run=_judge_ruleset,
        refusals=(RulesetUnreadable,),
        seeds=lambda: [_RULESET],
        mutate=mutate.json_text,
        bytes_max=16_384,
    ),
    Target(
        name="machine.fastpath",
        run=_read_fastpath,
        refusals=(EnvironmentFault,),
        seeds=lambda: [_ROUTE, _COUNTERS],
        mutate=mutate.json_text,
        bytes_max=16_384,
    ),
    Target(
        name="machine.cgroups",
        run=_find_groups,
        refusals=(),
        seeds=lambda: [_GROUPS],
        mutate=mutate.text(":", "/", " - ", "cgroup2", "\\040", "\\777", "/.."),
    ),
    Target(
        name="machine.hosts",
        run=_read_hosts,
        refusals=(),
        seeds=lambda: [_HOSTS],
        mutate=mutate.text(BEGIN, END, "#", "\t", "\n"),
    ),
)
