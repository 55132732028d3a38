"""What a map says is what this node's own documents say, and no more."""

from __future__ import annotations

import msgspec
from fake_control_api import make_peer, make_status
from map_meshes import address, documents, mesh

from meshpeer.app.cli.map_model import map_mesh, round_trip


def test_every_member_stands_in_its_region_and_this_nodes_region_comes_first() -> None:
    found = mesh(11, 3, me=7)
    assert [region.name for region in found.regions] == ["us", "ap-southeast-2", "eu-central-1"]
    assert sorted(name for region in found.regions for name in region.members) == [
        f"node{number:03}" for number in range(11)
    ]
    assert [one.name for one in found.members if one.me] == ["node007"]
    assert sum(sum(region.states.values()) for region in found.regions) == 11
    assert sum(found.states.values()) == 11


def test_paths_are_those_of_this_node_and_say_what_peers_says() -> None:
    status, peers, plan = documents(11, 3)
    found = map_mesh(status, peers, plan)
    assert {one.source for one in found.paths} == {status.node.name}
    assert {(one.target, one.path, one.via, one.rtt_ms) for one in found.paths} == {
        (one.name, one.path, one.via, one.rtt_ms if one.path != "none" else None) for one in peers
    }


def test_whom_nobody_reaches_has_no_round_trip_whatever_it_was_once() -> None:
    _, _, plan = documents(3, 1)
    found = map_mesh(make_status(), [make_peer(path="none", rtt_ms=3.5)], plan)
    assert [one.rtt_ms for one in found.paths] == [None]


def test_planned_are_tunnels_between_others_of_hubs_and_of_members_to_their_hubs() -> None:
    found = mesh(7, 2, me=6)
    # Even numbers are in the first region: hubs 0 and 1, standing by 2 and 3; 4 and 5 are neither.
    named = {(one.source, one.target) for one in found.planned}
    assert named == {
        (f"node00{one}", f"node00{other}")
        for one, other in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3), (4, 0), (4, 2), (5, 1), (5, 3))
    }


def test_tunnels_of_this_node_are_never_planned_ones() -> None:
    for me in range(7):
        found = mesh(7, 2, me=me)
        assert all(found.node not in (one.source, one.target) for one in found.planned)


def test_a_member_that_takes_no_part_in_the_plan_has_no_planned_tunnel() -> None:
    status, peers, plan = documents(7, 2, me=6)
    (tunnels,) = plan.peers
    carried = tuple(one for one in tunnels.allowed_ips if one != f"{address(4)}/32")
    less = msgspec.structs.replace(plan, peers=(msgspec.structs.replace(tunnels, allowed_ips=carried),))
    named = {name for one in map_mesh(status, peers, less).planned for name in (one.source, one.target)}
    assert named == {f"node00{number}" for number in (0, 1, 2, 3, 5)}


def test_a_full_mesh_names_no_tunnel_between_others_but_says_that_there_are_some() -> None:
    found = mesh(11, 3, mode="full")
    assert found.planned == ()
    assert "tunnels to each other; drawn are this node's" in found.notes[0]


def test_a_node_without_an_interface_says_that_it_knows_of_no_tunnels() -> None:
    status, peers, plan = documents(5, 2, mode="full")
    bare = msgspec.structs.replace(status, node=msgspec.structs.replace(status.node, interface=""))
    found = map_mesh(bare, peers, msgspec.structs.replace(plan, peers=()))
    assert found.planned == ()
    assert found.notes == ("This node has no interface: it plans no tunnels, and knows of none.",)


def test_a_region_without_a_hub_is_said_to_be_carried_and_by_whom_is_not_guessed() -> None:
    status, peers, plan = documents(9, 3, me=6)
    bare = msgspec.structs.replace(plan, hubs=plan.hubs[:2], standbys=plan.standbys[:2])
    found = map_mesh(status, peers, bare)
    (ap,) = (region for region in found.regions if region.name == "ap-southeast-2")
    assert ap.hubs == ap.standbys == ()
    assert any(note.startswith("ap-southeast-2 has no hub") for note in found.notes)
    assert not {name for one in found.planned for name in (one.source, one.target)} & set(ap.members)


def test_who_was_revoked_is_counted_and_not_drawn() -> None:
    _, _, plan = documents(3, 1)
    found = map_mesh(make_status(), [make_peer(), make_peer(name="gone", state="revoked")], plan)
    assert [one.name for one in found.members] == ["alpha", "beta"]
    assert (found.left, found.revoked) == (0, 1)


def test_who_left_is_counted_and_not_drawn() -> None:
    _, _, plan = documents(3, 1)
    found = map_mesh(make_status(), [make_peer(), make_peer(name="gone", state="left")], plan)
    assert [one.name for one in found.members] == ["alpha", "beta"]
    assert found.left == 1


def test_a_lone_node_is_a_map_of_one() -> None:
    _, _, plan = documents(3, 1, mode="full")
    found = map_mesh(make_status(), [], plan)
    assert [one.name for one in found.members] == ["alpha"]
    assert (found.paths, found.planned) == ((), ())


def test_a_round_trip_is_short_whatever_it_is() -> None:
    assert round_trip(0.25) == "0.2 ms"
    assert round_trip(9_999.94) == "9999.9 ms"
    assert round_trip(75_000.0) == "75 s"
    assert all(len(round_trip(10.0**power)) <= 9 for power in range(-3, 30))
