"""Warm start: hosts that know each other already, as a mesh that was up for days.

All ledgers begin as copies of one, and all disks as one: the bytes of certificates and records are there
once,
however many hosts hold them. Nobody publishes anything new as it wakes, or every host would have to hear of
every
other one at once, which is a cold boot.
"""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

from meshpeer.core.effects import Put, Table
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import Digest
from meshpeer.core.node.messages import EndpointsChanged, Started
from meshpeer.core.node.rows import CHARTER_KEY, rows_of
from meshpeer.core.records import envelope
from meshpeer.core.records.authorities import Authorities
from meshpeer.core.records.kinds import MemberRecord
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.records.places import Places
from meshpeer.core.records.revocations import Revocations
from meshpeer.sim.host import Disk, Host, Row

if TYPE_CHECKING:
    from meshpeer.sim.world import World

WAKE_OVER_S = 2.0
"""Hosts wake at random within this: their timers must not run in step."""
UP_FOR_S = 3_600
"""How old the records are."""
TTL_S = 7 * 86_400
FIRST_HOST_ADDRESS = 10


def grow(
    world: World, count: int, *, subnet: str, topology: str = "auto", places: Sequence[str] = ("",)
) -> list[Host]:
    """Makes so many hosts, the founder first, in these regions in turn, and lets them wake."""
    founder = world.make_founder("n0", subnet=subnet, topology=topology)
    hosts = [founder]
    for number in range(1, count):
        key = SigningKey(world.entropy(32))
        chain = world.office.durable(key, founder=False, now_unix_s=world.unix_s())
        hosts.append(world.make_host(f"n{number}", key, chain))
    for host in hosts:
        host.place = places[host.index % len(places)]
    network = ipaddress.IPv4Network(subnet)
    records = {host.id: _record(world, host, network) for host in hosts}
    ledger = Ledger(world.mesh, (world.root.certificate,), world.judge)
    for host in hosts:
        ledger.admit(host.chain, world.unix_s())
    for host in hosts:
        ledger.merge(envelope.sign(host.key, world.mesh, records[host.id]), world.unix_s())
    ledger.merge(founder.disk[Table.META, CHARTER_KEY], world.unix_s())
    rows: dict[Row, bytes] = {
        (row.table, row.key): row.value for row in rows_of(ledger) if isinstance(row, Put)
    }
    for host in hosts:
        host.disk = Disk(rows)
        world.install(host, copy_of(ledger))
        world.heap.after(world.random.random() * WAKE_OVER_S, _wake, world, host, host.life, records[host.id])
    return hosts


def copy_of(ledger: Ledger) -> Ledger:
    """Returns a ledger that holds the same values and goes its own way from here: what a ledger holds of a
    member is never changed, only replaced."""
    made = copy.copy(ledger)
    for name, value in vars(ledger).items():
        if isinstance(value, dict | list | set | Authorities | Places | Revocations):
            setattr(made, name, value.copy())
    # Whoever watches the one does not watch the other.
    made._watchers = []
    made.me = None
    return made


def _wake(world: World, host: Host, life: int, record: MemberRecord) -> None:
    if host.life != life or host.node is None:
        return
    world.post(host, EndpointsChanged(control=record.control_endpoints, wireguard=record.wireguard_endpoints))
    _resume_own(world, host, record)
    world.post(host, Started())


def _resume_own(world: World, host: Host, record: MemberRecord) -> None:
    """Makes a node take the record that all hold of it for what it published last in this very run."""
    assert host.node is not None
    host.node.presence.resume(record, published_at_s=world.now_s - UP_FOR_S)


def _record(world: World, host: Host, network: ipaddress.IPv4Network) -> MemberRecord:
    ip = host.address.rpartition(":")[0]
    tunnels = bool(world.wireguard_port)
    return MemberRecord(
        node=host.id,
        incarnation=world.unix_s() - UP_FOR_S,
        sequence=1,
        issued_at=world.unix_s() - UP_FOR_S,
        ttl_s=TTL_S,
        name=host.name,
        region=host.place,
        roles=host.roles,
        wireguard_key=host.wireguard.public,
        wireguard_port=world.wireguard_port,
        control_endpoints=(host.address,),
        wireguard_endpoints=(f"{ip}:{world.wireguard_port}",) if tunnels else (),
        ipv4=str(network[FIRST_HOST_ADDRESS + host.index]) if tunnels else "",
        certificate=Digest(envelope.digest_of(host.chain[0])),
    )
