"""What a charter may say, and which one may follow which."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.errors import LocalFault, PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.records.bounds import check_charter
from meshpeer.core.records.charters import check_successor
from meshpeer.core.records.kinds import CharterRecord
from meshpeer.core.records.subnets import check_subnet

NOW = 1_800_000_000
OLD = CharterRecord(
    version=4, issued_at=NOW, author=NodeId(bytes(32)), mesh_name="office", subnet="10.10.0.0/24"
)

# --- subnets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["10.10.0.0/24", "192.168.64.0/29", "172.16.0.0/16", "100.64.0.0/16"])
def test_a_private_subnet_is_taken(text: str) -> None:
    assert str(check_subnet(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.10.0.1/24",
        "10.0.0.0/8",
        "10.10.0.0/30",
        "8.8.8.0/24",
        "0.0.0.0/16",
        "127.0.0.0/16",
        "224.0.0.0/16",
        "169.254.0.0/16",
        "fd00::/64",
    ],
)
def test_another_subnet_is_refused(text: str) -> None:
    with pytest.raises(LocalFault) as refused:
        check_subnet(text)
    assert refused.value.hint == "use private IPv4 addresses, /16 to /29, for example 10.10.0.0/24"


# --- what all members accept --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"subnet": "10.0.0.0/8"},
        {"subnet": "10.10.0.0/30"},
        {"subnet": "100.64.0.0/10"},
        {"topology": "hexagonal"},
        {"keepalive_s": 0},
        {"keepalive_s": 65_535},
        {"mtu": 1_280},
        {"mtu": 65_535},
        {"hubs": 8},
        {"idle_s": 5},
        {"idle_s": 86_400},
        {"away_max_s": 1},
    ],
)
def test_a_charter_in_its_form_is_accepted(changes: dict[str, object]) -> None:
    check_charter(changed(OLD, **changes), NOW)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"subnet": "10.10.0.1/24"}, "subnet that is none"),
        ({"subnet": "fd00::/64"}, "subnet that is none"),
        *(
            ({"subnet": subnet}, "subnet that no mesh can use")
            for subnet in (
                *("10.0.0.0/7", "0.0.0.0/0", "10.10.0.0/31", "10.10.0.1/32", "8.8.8.0/24", "11.0.0.0/8"),
                *("0.0.0.0/8", "0.0.0.0/24", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/8", "239.1.0.0/16"),
            )
        ),
        ({"topology": "no label"}, "no DNS label"),
        ({"topology": ""}, "no DNS label"),
        ({"mesh_name": "UPPER"}, "no DNS label"),
        ({"version": 0}, "version out of range"),
        ({"version": 2**62}, "version out of range"),
        ({"issued_at": NOW + 301}, "issued in the future"),
        *(
            ({setting: value}, f"{setting} {value}, which is out of range")
            for setting, value in (
                *(("wireguard_port", 0), ("wireguard_port", 65_536)),
                *(("keepalive_s", -1), ("keepalive_s", 65_536)),
                *(("mtu", 1_279), ("mtu", 65_536)),
                *(("away_max_s", 0), ("away_max_s", 366 * 86_400 + 1)),
                *(("hubs", 0), ("hubs", 9)),
                *(("idle_s", 4), ("idle_s", 86_401)),
            )
        ),
    ],
)
def test_a_charter_out_of_its_form_is_refused(changes: dict[str, object], what: str) -> None:
    with pytest.raises(PeerFault, match=what):
        check_charter(changed(OLD, **changes), NOW)


def test_a_charter_of_an_older_version_has_the_defaults() -> None:
    plain = msgspec.to_builtins(OLD, builtin_types=(bytes,))
    del plain["hubs"], plain["idle_s"]
    assert msgspec.convert(plain, CharterRecord) == OLD


# --- what may follow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"subnet": "10.10.0.0/20"},
        {"subnet": "10.10.0.0/16"},
        {"topology": "full"},
        {"topology": "regional", "hubs": 8, "idle_s": 5},
        {"keepalive_s": 0, "mtu": 1_280},
        {"away_max_s": 3_600},
        {"mesh_name": "other"},
    ],
)
def test_a_change_that_renumbers_nobody_is_let_through(changes: dict[str, object]) -> None:
    new = successor(**changes)
    check_successor(OLD, new, ["10.10.0.1", "10.10.0.200"])
    check_charter(new, NOW)


@pytest.mark.parametrize(
    ("changes", "what", "hint"),
    [
        ({"version": 4}, "charter 4 does not follow charter 4", "ask again"),
        ({"version": 6}, "charter 6 does not follow charter 4", "ask again"),
        (
            {"subnet": "10.11.0.0/20"},
            "10.11.0.0/20 does not contain 10.10.0.0/24: 2 members would get other addresses",
            "a subnet only ever grows, for example to 10.10.0.0/20",
        ),
        (
            {"subnet": "10.10.0.0/25"},
            "10.10.0.0/25 does not contain 10.10.0.0/24: 1 member would get other addresses",
            "for example to 10.10.0.0/20",
        ),
        ({"subnet": "10.10.0.1/20"}, "is no subnet", "for example 10.10.0.0/24"),
        ({"subnet": "10.0.0.0/8"}, "too wide", "/16 to /29"),
        ({"wireguard_port": 51_900}, "can't be changed: it is 51820", "--listen-port"),
        ({"topology": "hexagonal"}, "'hexagonal' is no topology", "use one of auto, full, regional"),
        ({"mesh_name": "Two Words"}, "'Two Words' can't be a name", "small letters"),
        ({"keepalive_s": -1}, "keepalive_s -1 is out of range", "use 0 to 65,535"),
        ({"mtu": 1_000}, "mtu 1000 is out of range", "use 1,280 to 65,535"),
        ({"hubs": 9}, "hubs 9 is out of range", "use 1 to 8"),
        ({"idle_s": 4}, "idle_s 4 is out of range", "use 5 to 86,400"),
        ({"away_max_s": 3_599}, "away_max_s 3599 is out of range", "use 3,600 to 31,622,400"),
    ],
)
def test_a_change_that_would_do_harm_is_refused_with_what_to_do(
    changes: dict[str, object], what: str, hint: str
) -> None:
    with pytest.raises(LocalFault) as refused:
        check_successor(OLD, successor(**changes), ["10.10.0.1", "10.10.0.200"])
    assert what in refused.value.what
    assert hint in refused.value.hint


def test_a_subnet_of_full_size_is_told_to_stay() -> None:
    old = changed(OLD, subnet="10.10.0.0/16")
    with pytest.raises(LocalFault, match="members would get other addresses") as refused:
        check_successor(old, changed(old, version=5, subnet="10.11.0.0/16"))
    assert "leave it as it is" in refused.value.hint


subnets = st.builds(
    lambda base, prefix: str(ipaddress.IPv4Network((base, prefix), strict=False)),
    st.integers(int(ipaddress.IPv4Address("10.10.0.0")), int(ipaddress.IPv4Address("10.11.255.255"))),
    st.integers(16, 29),
)


@settings(deadline=None)
@given(subnets, subnets)
def test_whatever_follows_is_accepted_by_all_and_keeps_every_address(before: str, after: str) -> None:
    old, new = changed(OLD, subnet=before), successor(subnet=after)
    try:
        check_successor(old, new)
    except LocalFault:
        kept = ipaddress.IPv4Network(before).subnet_of(ipaddress.IPv4Network(after))
        assert not kept
        return
    check_charter(new, NOW)
    held, given = ipaddress.IPv4Network(before), ipaddress.IPv4Network(after)
    first, last = held.network_address + 1, held.broadcast_address - 1
    assert given.network_address < first <= last < given.broadcast_address


def changed(charter: CharterRecord, **changes: object) -> CharterRecord:
    return msgspec.structs.replace(charter, **changes)


def successor(**changes: object) -> CharterRecord:
    return changed(OLD, **{"version": 5, **changes})
