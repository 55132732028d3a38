"""The table of the fast path takes exactly the data packets of two known ends, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshpeer.adapters.relay.fastpath import ENTRY_S, FastPair, FastPath, Route, render_table
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.paths.relay_crossing import Way

PAIR = FastPair(
    ports=(51830, 51831),
    ways=(Way("192.0.2.1", 51820, "10.0.0.1", 2), Way("198.51.100.2", 40000, "10.0.0.9", 3)),
    routes=(Route(device="eth0", hop="10.0.0.254"), Route(device="eth1", hop="198.51.100.2")),
    arrivals=("eth0", "eth1"),
)
SIX = replace(
    PAIR,
    ports=(51832, 51833),
    ways=(Way("2001:db8::1", 51820, "2001:db8::9", 2), Way("2001:db8:1::2", 40000, "2001:db8::9", 2)),
    routes=(Route(device="eth0", hop="fe80::1"), Route(device="eth0", hop="fe80::1")),
    arrivals=("eth0", "eth0"),
)


def rendered(*pairs: FastPair) -> str:
    return render_table("meshpeer_relay", pairs, rate=50_000_000, total=125_000_000)


def test_a_pair_is_two_chains_each_from_one_end_to_the_other() -> None:
    lines = [line.strip() for line in rendered(PAIR).splitlines()]
    first = lines[lines.index("chain to51830 {") + 1]
    assert first == (
        'iifname "eth0" ip saddr 192.0.2.1 ip daddr 10.0.0.1 udp sport 51820 ip frag-off & 0x3fff == 0'
        " udp length >= 40 @th,64,32 0x04000000 goto carry51830"
    )
    at = lines.index("chain carry51830 {")
    assert lines[at + 1 : at + 5] == [
        'limit name "p51830" drop',
        'limit name "total" drop',
        'counter name "c51830"',
        "ip saddr set 10.0.0.9 ip daddr set 198.51.100.2 udp sport set 51831 udp dport set 40000"
        ' fwd ip to 198.51.100.2 device "eth1"',
    ]
    back = lines[lines.index("chain carry51831 {") + 4]
    assert back == (
        "ip saddr set 10.0.0.1 ip daddr set 192.0.2.1 udp sport set 51830 udp dport set 51820"
        ' fwd ip to 10.0.0.254 device "eth0"'
    )


def test_each_port_has_an_entry_that_ends_by_itself() -> None:
    text = rendered(PAIR, SIX)
    for port in (51830, 51831, 51832, 51833):
        assert f"{port} timeout {ENTRY_S}s : goto to{port}" in text
    assert 'devices = { "eth0", "eth1" }' in text


def test_ipv6_is_written_as_ipv6() -> None:
    text = rendered(SIX)
    assert "ip6 saddr 2001:db8::1 ip6 daddr 2001:db8::9 udp sport 51820 ip6 nexthdr udp" in text
    assert 'fwd ip6 to fe80::1 device "eth0"' in text
    assert " ip saddr" not in text


def test_what_the_way_on_has_no_room_for_is_left_to_the_process() -> None:
    text = rendered(replace(PAIR, lengths_max=(1480, None)))
    assert "udp sport 51820 ip frag-off & 0x3fff == 0 udp length 40-1480 @th" in text
    assert "udp sport 40000 ip frag-off & 0x3fff == 0 udp length >= 40 @th" in text


async def test_the_narrower_device_bounds_what_is_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = {"192.0.2.1": '[{"dev": "eth2"}]', "198.51.100.2": '[{"dev": "eth3"}]'}

    async def run(name: str, *arguments: str, stdin: str = "") -> str:
        return routes[arguments[4]] if name == "ip" else ""

    monkeypatch.setattr("meshpeer.adapters.relay.fastpath._run", run)
    monkeypatch.setattr("socket.if_indextoname", lambda number: f"eth{number}")
    monkeypatch.setattr(
        "meshpeer.adapters.relay.fastpath._mtu", lambda device: {"eth2": 9000, "eth3": 1500}[device]
    )
    fast = FastPath(1e6, 1e6)
    await fast.set_pairs({PAIR.ports: PAIR.ways})
    assert [pair.lengths_max for pair in fast.carried] == [(1480, None)]


async def test_a_pair_of_two_families_or_on_this_very_machine_stays_with_the_process() -> None:
    fast = FastPath(1e6, 1e6, table="meshpeer_relay_test")
    here = Way("127.0.0.1", 1, "127.0.0.1", 1)
    await fast.set_pairs({(1, 2): (PAIR.ways[0], SIX.ways[1]), (3, 4): (here, here)})
    assert fast.pairs == frozenset()
    assert await fast.count() == {}


async def test_a_table_that_can_not_be_written_is_no_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    async def run(name: str, *arguments: str, stdin: str = "") -> str:
        ran.append(stdin or " ".join((name, *arguments)))
        if name == "ip":
            return '[{"dst": "192.0.2.1", "dev": "eth0", "gateway": "10.0.0.254"}]'
        if "chain" in stdin:
            raise EnvironmentFault("`nft` failed: no such device")
        return ""

    monkeypatch.setattr("meshpeer.adapters.relay.fastpath._run", run)
    monkeypatch.setattr("socket.if_indextoname", lambda number: f"eth{number}")
    monkeypatch.setattr("meshpeer.adapters.relay.fastpath._mtu", lambda device: 1500)
    fast = FastPath(1e6, 1e6)
    with pytest.raises(EnvironmentFault, match="no such device"):
        await fast.set_pairs({PAIR.ports: PAIR.ways})
    assert fast.pairs == frozenset()
    assert ran[-1] == "table netdev meshpeer_relay\ndelete table netdev meshpeer_relay\n"
    assert 'fwd ip to 10.0.0.254 device "eth0"' in ran[-2]


async def test_counts_go_on_when_the_table_is_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = '{"nftables": [{"metainfo": {}}, {"counter": {"name": "c51830", "packets": 3, "bytes": 300}}]}'

    async def run(name: str, *arguments: str, stdin: str = "") -> str:
        if name == "ip":
            return '[{"dev": "eth0"}]'
        return counters if "counters" in arguments else ""

    monkeypatch.setattr("meshpeer.adapters.relay.fastpath._run", run)
    monkeypatch.setattr("socket.if_indextoname", lambda number: f"eth{number}")
    monkeypatch.setattr("meshpeer.adapters.relay.fastpath._mtu", lambda device: 1500)
    fast = FastPath(1e6, 1e6)
    await fast.set_pairs({PAIR.ports: PAIR.ways})
    assert await fast.count() == {PAIR.ports: ((3, 0), (300, 0))}
    await fast.set_pairs({PAIR.ports: PAIR.ways})
    assert await fast.count() == {PAIR.ports: ((6, 0), (600, 0))}
    await fast.set_pairs({})
    assert await fast.count() == {PAIR.ports: ((6, 0), (600, 0))}
    fast.forget(PAIR.ports)
    assert await fast.count() == {}


async def test_routes_are_asked_for_once_until_they_are_to_be_looked_at_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def run(name: str, *arguments: str, stdin: str = "") -> str:
        if name == "ip":
            asked.append(arguments[-3])
        return '[{"dev": "eth0"}]' if name == "ip" else '{"nftables": []}'

    monkeypatch.setattr("meshpeer.adapters.relay.fastpath._run", run)
    monkeypatch.setattr("socket.if_indextoname", lambda number: f"eth{number}")
    monkeypatch.setattr("meshpeer.adapters.relay.fastpath._mtu", lambda device: 1500)
    fast = FastPath(1e6, 1e6)
    await fast.set_pairs({PAIR.ports: PAIR.ways})
    await fast.set_pairs({PAIR.ports: PAIR.ways, SIX.ports: SIX.ways})
    assert asked == [way.host for way in (*PAIR.ways, *SIX.ways)]
    await fast.set_pairs({PAIR.ports: PAIR.ways}, anew=True)
    assert asked[4:] == [way.host for way in PAIR.ways]
    roamed = (PAIR.ways[0], PAIR.ways[1]._replace(port=40001))
    await fast.set_pairs({PAIR.ports: roamed})
    assert len(asked) == 8
    assert [pair.ways for pair in fast.carried] == [roamed]
