"""A node's own record: never too large for others, whatever the node has seen."""

from __future__ import annotations

import dataclasses

import pytest

from meshpeer.core.deadline import Instant
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import Digest, MeshId, NodeId, WireGuardKey
from meshpeer.core.node.own import OwnRecord, Profile
from meshpeer.core.records.bounds import DISTANCES_MAX, HUBS_FAILED_MAX, check_member
from meshpeer.core.records.kinds import HubReport, RegionDistance, Seen
from meshpeer.core.wire.limits import RECORD_BYTES_MAX

NOW = Instant(100.0, 1.8e9)
SEEN = Seen(
    hubs_failed=tuple(
        HubReport(NodeId(bytes([n]) * 32), 2**32, "forwarding") for n in range(HUBS_FAILED_MAX)
    ),
    answers=3,
    distances=tuple(RegionDistance(f"{'r' * 18}{n:02}", 7) for n in range(DISTANCES_MAX)),
)


@pytest.mark.parametrize(
    ("count", "shown"), [(1, ("hubs_failed", "distances")), (4, ("hubs_failed",)), (8, ())]
)
def test_what_a_node_is_comes_before_what_it_saw(count: int, shown: tuple[str, ...]) -> None:
    endpoints = tuple(f"{'h' * 12}{n}.example:51820" for n in range(count))
    own = OwnRecord(SigningKey(bytes(32)), MeshId(bytes(16)), stored=None, now=NOW)
    profile = dataclasses.replace(
        PROFILE, control_endpoints=endpoints, wireguard_endpoints=endpoints, seen=SEEN
    )
    signed = own.publish(profile, ttl_s=600, now=NOW)
    assert len(signed) <= RECORD_BYTES_MAX
    assert own.record is not None
    assert own.record.control_endpoints == endpoints
    assert own.record.answers == 3
    for name in ("hubs_failed", "distances"):
        assert getattr(own.record, name) == (getattr(SEEN, name) if name in shown else ())
    check_member(own.record)
    assert not own.due(profile, Instant(110.0, 1.8e9)), (
        "it is not published again and again for what it left out"
    )


PROFILE = Profile(
    name="node",
    region="eu",
    roles=("compute",),
    wireguard_key=WireGuardKey(bytes(32)),
    wireguard_port=51820,
    control_endpoints=(),
    wireguard_endpoints=(),
    ipv4="10.10.0.1",
    certificate=Digest(bytes(32)),
    hub="allow",
    configured_endpoint=False,
)
