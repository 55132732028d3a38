"""Brings the interface of its machine in step with a mesh, as an agent would, and says what it took.

Takes ``{"me": NAME, "members": [NAME...], "endpoints": {NAME: ENDPOINT}, "prefix": LENGTH}``; a member's
place in the list makes its keys and addresses.
"""

from __future__ import annotations

import ipaddress
import json
import sys
import time

import trio

from meshpeer.adapters.wireguard import CommandWireGuard, open_wireguard
from meshpeer.core.addressing.ula import mesh_prefix, ula_address
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import MeshId, NodeId
from meshpeer.core.topology.device import LocalInterface, device_from_plan
from meshpeer.core.topology.plan import plan_mesh
from meshpeer.core.topology.view import MemberView, MeshView
from meshpeer.core.wgconf.diff import diff_device

MESH = MeshId(bytes(16))


async def main(me: str, names: list[str], endpoints: dict[str, str], prefix: int) -> None:
    members = {name: member(number, name) for number, name in enumerate(names, 1)}
    key = private_key(names.index(me) + 1)
    view = MeshView(
        subnet=f"10.10.0.0/{prefix}",
        topology="full",
        keepalive_s=25,
        mtu=1380,
        members=tuple(members.values()),
    )
    local = LocalInterface(
        interface="wg0",
        private_key=key.secret,
        public_key=key.public,
        listen_port=51820,
        mtu=view.mtu,
        ipv4=ipaddress.IPv4Interface(f"{members[me].ipv4}/{prefix}"),
        ipv6=ipaddress.IPv6Interface(f"{members[me].ipv6}/{mesh_prefix(MESH).prefixlen}"),
    )
    known = {members[name].node: endpoint for name, endpoint in endpoints.items() if name in members}
    wanted = device_from_plan(plan_mesh(view, members[me].node), local, known)
    backend = await open_wireguard("auto", "wg0", owner="tests")
    assert isinstance(backend, CommandWireGuard)
    steps = diff_device(await backend.observe(), wanted, now_unix_s=time.time())
    await backend.apply(steps)
    print(json.dumps({"backend": backend.backend, "steps": len(steps), "ipv6": members[me].ipv6}))


def member(number: int, name: str) -> MemberView:
    node = NodeId(bytes([number]) * 32)
    return MemberView(
        node=node,
        name=name,
        region="",
        wireguard_key=private_key(number).public,
        ipv4=f"10.10.0.{number}",
        ipv6=str(ula_address(MESH, node)),
    )


def private_key(number: int) -> WireGuardPrivateKey:
    return WireGuardPrivateKey(bytes([number]) * 32)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    trio.run(main, asked["me"], asked["members"], asked["endpoints"], asked["prefix"])
