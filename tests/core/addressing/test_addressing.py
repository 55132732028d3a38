"""One answer on every node, whatever it heard first; and a clear error where there is none."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.addressing.claims import Claim, choose_ipv4, resolve_ipv4, resolve_names, winners
from meshpeer.core.addressing.labels import check_name, suffixed, suggest_name
from meshpeer.core.addressing.overlap import Overlap, Route, overlap_of
from meshpeer.core.addressing.ula import mesh_prefix, ula_address
from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import MeshId, NodeId

MESH = MeshId(bytes(range(16)))
SUBNET = ipaddress.IPv4Network("10.10.0.0/24")
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

# --- IPv6 ---------------------------------------------------------------------------------------------------


def test_ula_is_derived_from_mesh_and_node_alone() -> None:
    assert str(mesh_prefix(MESH)) == "fd1a:5ed0:df6b::/64"
    assert str(ula_address(MESH, node(1))) == "fd1a:5ed0:df6b:0:d0f0:c60b:5f2c:3b92"


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32))
def test_ula_is_locally_assigned_in_subnet_zero_of_the_mesh(mesh: bytes, node_id: bytes) -> None:
    address = ula_address(MeshId(mesh), NodeId(node_id))
    assert address in ipaddress.IPv6Network("fd00::/8")
    assert address in mesh_prefix(MeshId(mesh))
    assert address.packed[6:8] == b"\0\0"


def test_nodes_and_meshes_differ_in_their_own_part_of_the_address() -> None:
    addresses = {ula_address(MESH, node(number)) for number in range(200)}
    assert len(addresses) == 200
    assert mesh_prefix(MESH) != mesh_prefix(MeshId(bytes(16)))


# --- IPv4 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subnet", "scheduler", "compute", "other"),
    [
        ("10.10.0.0/16", "10.10.0.1", "10.10.0.10", "10.10.128.0"),
        ("10.10.0.0/24", "10.10.0.1", "10.10.0.10", "10.10.0.128"),
        ("10.10.0.0/26", "10.10.0.1", "10.10.0.10", "10.10.0.32"),
        ("10.10.0.0/27", "10.10.0.1", "10.10.0.2", "10.10.0.16"),
        ("10.10.0.0/29", "10.10.0.1", "10.10.0.2", "10.10.0.4"),
    ],
)
def test_each_role_starts_at_its_place(subnet: str, scheduler: str, compute: str, other: str) -> None:
    network = ipaddress.IPv4Network(subnet)
    assert choose_ipv4(network, ("scheduler", "compute"), ()) == scheduler
    assert choose_ipv4(network, ("compute",), ()) == compute
    assert choose_ipv4(network, (), ()) == other


def test_the_lowest_free_address_from_the_start_is_taken() -> None:
    assert choose_ipv4(SUBNET, ("compute",), ("10.10.0.10", "10.10.0.12")) == "10.10.0.11"


def test_a_claim_sticks_while_it_is_free_and_inside() -> None:
    assert choose_ipv4(SUBNET, ("compute",), (), "10.10.0.77") == "10.10.0.77"
    assert choose_ipv4(SUBNET, ("compute",), ("10.10.0.77",), "10.10.0.77") == "10.10.0.10"
    for outside in ("10.11.0.1", "10.10.0.0", "10.10.0.255", "fd00::1", "rubbish"):
        assert choose_ipv4(SUBNET, ("compute",), (), outside) == "10.10.0.10"


@pytest.mark.parametrize("prefix", [24, 26, 29])
@pytest.mark.parametrize("roles", [("scheduler",), ("compute",), ()])
def test_every_host_of_a_subnet_is_given_once_and_then_it_is_full(
    prefix: int, roles: tuple[str, ...]
) -> None:
    subnet = ipaddress.IPv4Network(f"10.10.0.0/{prefix}")
    taken: list[str] = []
    for _ in subnet.hosts():
        taken.append(choose_ipv4(subnet, roles, taken))
    assert sorted(map(ipaddress.IPv4Address, taken)) == list(subnet.hosts())
    if "scheduler" not in roles:
        assert taken[-1] == "10.10.0.1"
    with pytest.raises(LocalFault, match=f"10.10.0.0/{prefix} is full: all {len(taken)} addresses") as full:
        choose_ipv4(subnet, roles, taken)
    assert full.value.hint.endswith(f"`meshpeer charter set --subnet 10.10.0.0/{prefix - 4}`")


def test_the_widest_subnet_is_not_told_to_grow() -> None:
    subnet = ipaddress.IPv4Network("10.10.0.0/16")
    with pytest.raises(LocalFault) as full:
        choose_ipv4(subnet, (), {str(host) for host in subnet.hosts()})
    assert "--subnet" not in full.value.hint


@settings(deadline=None)
@given(st.data(), st.integers(16, 28))
def test_nobody_is_renumbered_when_the_subnet_grows(data: st.DataObject, wider: int) -> None:
    grown = ipaddress.IPv4Network(f"10.10.0.0/{wider}")
    base = data.draw(st.integers(0, grown.num_addresses // 8 - 1))
    subnet = ipaddress.IPv4Network((int(grown.network_address) + 8 * base, 29))
    held = [claim(number, str(host)) for number, host in enumerate(subnet.hosts())]
    assert resolve_ipv4(held, grown) == resolve_ipv4(held, subnet)
    assert len(resolve_ipv4(held, grown)) == 6
    for one in held:
        assert choose_ipv4(grown, ("compute",), (), one.value) == one.value


def test_an_address_that_rests_goes_to_nobody_while_another_is_free() -> None:
    assert choose_ipv4(SUBNET, ("compute",), ("10.10.0.10",), resting={"10.10.0.11": 9}) == "10.10.0.12"
    # Those that join at one moment step over it, too.
    assert choose_ipv4(SUBNET, ("compute",), (), ahead=1, resting={"10.10.0.11": 9}) == "10.10.0.12"


def test_a_holder_keeps_its_address_whoever_gave_it_back() -> None:
    assert choose_ipv4(SUBNET, ("compute",), (), "10.10.0.77", resting={"10.10.0.77": 9}) == "10.10.0.77"


def test_where_all_else_is_taken_the_one_that_rested_longest_is_given() -> None:
    subnet = ipaddress.IPv4Network("10.10.0.0/29")
    resting = {"10.10.0.3": 30, "10.10.0.5": 10, "10.10.0.6": 20}
    taken = [str(host) for host in subnet.hosts() if str(host) not in resting]
    given = [choose_ipv4(subnet, ("compute",), taken, ahead=ahead, resting=resting) for ahead in range(4)]
    assert given == ["10.10.0.5", "10.10.0.6", "10.10.0.3", "10.10.0.3"]
    with pytest.raises(LocalFault, match="is full"):
        choose_ipv4(subnet, ("compute",), [*taken, *resting], resting=resting)


hosts_of_29 = st.sampled_from([str(host) for host in ipaddress.IPv4Network("10.10.0.0/29").hosts()])


@settings(deadline=None)
@given(
    taken=st.sets(hosts_of_29),
    resting=st.dictionaries(hosts_of_29, st.integers(1, 9)),
    roles=st.sampled_from([("scheduler",), ("compute",), ()]),
    ahead=st.integers(0, 7),
    previous=st.one_of(st.just(""), hosts_of_29),
)
def test_rest_changes_which_address_is_given_and_never_whether_there_is_one(
    taken: set[str], resting: dict[str, int], roles: tuple[str, ...], ahead: int, previous: str
) -> None:
    subnet = ipaddress.IPv4Network("10.10.0.0/29")
    free = {str(host) for host in subnet.hosts()} - taken
    if not free:
        with pytest.raises(LocalFault):
            choose_ipv4(subnet, roles, taken, previous, ahead, resting)
        return
    given_ = choose_ipv4(subnet, roles, taken, previous, ahead, resting)
    assert given_ in free
    if previous in free:
        assert given_ == previous
    elif free - set(resting):
        assert given_ not in resting
        # What rests might as well be taken.
        assert given_ == choose_ipv4(subnet, roles, taken | set(resting), "", ahead)
    else:
        assert resting[given_] == sorted(resting[one] for one in free)[min(ahead, len(free) - 1)]


# --- conflicts ----------------------------------------------------------------------------------------------


def test_durable_beats_provisional_then_earlier_then_lower_id() -> None:
    provisional = claim(1, "10.10.0.1", durable=False, admitted_at=1)
    late = claim(2, "10.10.0.1", admitted_at=9)
    early_high = claim(4, "10.10.0.1", admitted_at=5)
    early_low = claim(3, "10.10.0.1", admitted_at=5)
    assert winners([provisional, late]) == {"10.10.0.1": node(2)}
    assert winners([late, early_high]) == {"10.10.0.1": node(4)}
    assert winners([early_high, early_low]) == {"10.10.0.1": node(3)}


def test_two_joins_at_one_moment_end_with_different_addresses() -> None:
    first, second = claim(1, "10.10.0.10", durable=False), claim(2, "10.10.0.10", durable=False)
    held = resolve_ipv4([first, second], SUBNET)
    assert held == {node(1): "10.10.0.10"}
    again = choose_ipv4(SUBNET, ("compute",), [str(address) for address in held.values()], second.value)
    assert again == "10.10.0.11"


def test_nobody_claims_outside_the_subnet() -> None:
    outside = [claim(1, "10.10.1.1"), claim(2, "10.10.0.0"), claim(3, "10.10.0.255"), claim(4, "8.8.8.8")]
    assert resolve_ipv4([*outside, claim(5, "x"), claim(6, "10.10.0.01")], SUBNET) == {}


claims = st.lists(
    st.builds(
        lambda number, value, durable, admitted_at: claim(
            number, value, durable=durable, admitted_at=admitted_at
        ),
        st.integers(0, 30),
        st.sampled_from(["10.10.0.1", "10.10.0.2", "10.10.0.10", "10.9.0.1", ""]),
        st.booleans(),
        st.integers(1, 4),
    ),
    unique_by=lambda one: one.node,
    max_size=12,
)


@settings(deadline=None)
@given(claims, st.data())
def test_winners_do_not_depend_on_the_order_of_hearing(heard: list[Claim], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(heard))
    held = resolve_ipv4(heard, SUBNET)
    assert resolve_ipv4(shuffled, SUBNET) == held
    assert len(set(held.values())) == len(held)
    asked = {one.value for one in heard if one.value.startswith("10.10.0.")}
    assert {str(address) for address in held.values()} == asked


names = st.lists(
    st.builds(
        lambda number, value, durable, admitted_at: claim(
            number, value, durable=durable, admitted_at=admitted_at
        ),
        st.integers(0, 30),
        st.sampled_from(["alpha", "alpha-2", "beta", "Alpha", "a" * 63, "bad\n1.2.3.4 bank", "", "-"]),
        st.booleans(),
        st.integers(1, 4),
    ),
    unique_by=lambda one: one.node,
    max_size=12,
)


@settings(deadline=None)
@given(names, st.sets(st.integers(0, 30)), st.data())
def test_names_are_unique_labels_whatever_is_claimed(
    heard: list[Claim], dead: set[int], data: st.DataObject
) -> None:
    gone = {node(number) for number in dead}
    resolved = resolve_names(heard, gone=gone)
    assert resolve_names(data.draw(st.permutations(heard)), gone=gone) == resolved
    assert set(resolved) == {one.node for one in heard}
    assert len(set(resolved.values())) == len(resolved)
    assert all(LABEL.fullmatch(name) for name in resolved.values())


def test_the_loser_of_a_name_gets_a_number() -> None:
    heard = [
        claim(3, "alpha", admitted_at=3),
        claim(1, "alpha", admitted_at=1),
        claim(2, "alpha-2", admitted_at=9),
    ]
    assert resolve_names(heard) == {node(1): "alpha", node(2): "alpha-2", node(3): "alpha-3"}


def test_a_wiped_machine_takes_its_name_over_from_its_dead_self() -> None:
    heard = [claim(1, "alpha", admitted_at=1), claim(2, "alpha", admitted_at=2, durable=False)]
    assert resolve_names(heard, gone=[node(1)]) == {node(2): "alpha", node(1): "alpha-2"}


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alpha", "a", "7", "node-1", "a" * 63])
def test_a_dns_label_is_a_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "Alpha", "a.b", "-a", "a-", "a b", "a\n", "ä", "a" * 64, "a_b"])
def test_what_is_no_dns_label_is_refused_with_a_suggestion(name: str) -> None:
    with pytest.raises(LocalFault) as refused:
        check_name(name)
    assert refused.value.hint.endswith(f"like {suggest_name(name)}")


@given(st.text())
def test_a_suggested_name_is_valid(hostname: str) -> None:
    assert check_name(suggest_name(hostname)) == suggest_name(hostname)


def test_a_suffix_fits_into_the_label() -> None:
    assert suffixed("a" * 63, 12) == "a" * 60 + "-12"
    assert suffixed("a" * 60 + "-bc", 2) == "a" * 60 + "-2"


# --- subnets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "refuse"),
    [
        (Route(prefix="10.10.0.0/24", device="eth0", on_link=True), True),
        (Route(prefix="10.0.0.0/8", device="eth0", on_link=True), True),
        (Route(prefix="10.10.0.128/25", device="eth0", on_link=False), True),
        (Route(prefix="10.10.0.0/24", device="eth0", on_link=False), True),
        (Route(prefix="10.10.0.7", device="eth0", on_link=False), True),
        (Route(prefix="10.0.0.0/8", device="eth0", on_link=False), False),
        (Route(prefix="192.168.0.0/16", device="eth0", on_link=True), None),
        (Route(prefix="0.0.0.0/0", device="eth0", on_link=True), None),
        (Route(prefix="10.10.0.0/24", device="wg0", on_link=True), None),
        (Route(prefix="fd00::/8", device="eth0", on_link=True), None),
    ],
)
def test_a_route_refuses_warns_or_does_not_matter(route: Route, refuse: bool | None) -> None:
    expected = None if refuse is None else Overlap(route=route, refuse=refuse)
    assert overlap_of(SUBNET, [route], interface="wg0") == expected


def test_a_refusal_is_found_behind_a_warning() -> None:
    broad = Route(prefix="10.0.0.0/8", device="eth0", on_link=False)
    inside = Route(prefix="10.10.0.9", device="eth0", on_link=False)
    assert overlap_of(SUBNET, [broad, inside], interface="wg0") == Overlap(route=inside, refuse=True)


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def claim(number: int, value: str, *, durable: bool = True, admitted_at: int = 1) -> Claim:
    return Claim(node=node(number), value=value, durable=durable, admitted_at=admitted_at)
