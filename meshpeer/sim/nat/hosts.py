"""The hosts of a mix: a node's keys and mind, its machine and interface, and what others see of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from meshpeer.core.identity.keys import SigningKey, WireGuardPrivateKey
from meshpeer.core.ids import Digest, NodeId, WireGuardKey
from meshpeer.core.node.config import NodeConfig
from meshpeer.core.node.messages import EndpointsChanged
from meshpeer.core.paths.relay import RelayLimits
from meshpeer.core.paths.relay_crossing import Crossing
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import MemberRecord
from meshpeer.core.records.ledger import Chain, Ledger
from meshpeer.core.wgconf.model import DesiredDevice
from meshpeer.sim.issuing import Office
from meshpeer.sim.nat.interface import Interface
from meshpeer.sim.nat.mind import PathMind
from meshpeer.sim.nat.mixes import Kind, Seat
from meshpeer.sim.nat.routers import End, Machine, text_of

EPOCH_S = 1_800_000_000.0
PORT, CONTROL_PORT = 51820, 51821


@dataclass(slots=True, eq=False)
class Host:
    """One node of a mix, and its machine."""

    index: int
    seat: Seat
    config: NodeConfig
    dice: random.Random
    mind: PathMind | None = None
    interface: Interface | None = None
    device: DesiredDevice | None = None
    lent: dict[int, tuple[tuple[int, int], Crossing]] = field(default_factory=dict)
    cut_until_s: float = 0.0
    """Its links carry nothing so long."""
    slept_s: float = 0.0
    tick_at_s: float = float("inf")
    look_at_s: float = float("inf")
    troubled_s: float = 0.0
    dialling: set[NodeId] = field(default_factory=set)
    life: int = 0
    applied: tuple[int, DesiredDevice] | None = None
    """Up to which change of its interface, and for which wishes, that was found to be in step."""

    @property
    def id(self) -> NodeId:
        return self.config.key.public

    @property
    def machine(self) -> Machine:
        return self.seat.machine

    @property
    def key(self) -> WireGuardKey:
        return self.config.wireguard_key.public


def make_host(
    index: int, seat: Seat, office: Office, ledger: Ledger, draw: Callable[[int], bytes], dice: random.Random
) -> Host:
    """Returns a host with its keys and the certificate that the ledger holds of it."""
    key = SigningKey(draw(32))
    chain: Chain = office.durable(key, founder=index == 0, now_unix_s=int(EPOCH_S) - 3_000 + index)
    ledger.admit(chain, int(EPOCH_S))
    config = NodeConfig(
        key=key,
        chain=chain,
        wireguard_key=WireGuardPrivateKey(draw(32)),
        wireguard_port=PORT,
        interface="wg0",
        control_port=CONTROL_PORT,
        name=seat.machine.name,
        region=seat.region,
        roles=("compute",),
        hub="allow" if seat.kind in (Kind.OPEN, Kind.OPEN_BOTH) else "never",
        configured_endpoint=False,
        issuer=None,
        relay=RelayLimits() if seat.lends else None,
        spare=True,
    )
    return Host(index, seat, config, dice)


def endpoints_of(host: Host) -> EndpointsChanged:
    """Returns what a host's machine has to say of its addresses, and tells its tunnels."""
    addresses = host.machine.addresses
    if host.mind is not None:
        host.mind.tunnels.attached(host.machine.prefixes)
    return EndpointsChanged(
        control=tuple(text_of(End(one, CONTROL_PORT)) for one in addresses),
        wireguard=tuple(text_of(End(one, PORT)) for one in addresses),
    )


def record_of(host: Host) -> MemberRecord:
    config = host.config
    addresses = host.machine.addresses
    return MemberRecord(
        node=host.id,
        incarnation=int(EPOCH_S) - 3_000,
        sequence=1,
        issued_at=int(EPOCH_S) - 3_000,
        ttl_s=7 * 86_400,
        name=config.name,
        region=config.region,
        roles=config.roles,
        wireguard_key=host.key,
        wireguard_port=PORT,
        control_endpoints=tuple(text_of(End(one, CONTROL_PORT)) for one in addresses),
        wireguard_endpoints=tuple(text_of(End(one, PORT)) for one in addresses),
        hub=config.hub,
        relay=host.seat.lends,
        ipv4=f"10.10.0.{host.index + 2}",
        certificate=Digest(envelope.digest_of(config.chain[0])),
    )


def own_address(host: Host, like: str) -> str:
    """Returns a host's own overlay address of the family of another."""
    held = host.device.addresses if host.device is not None else ()
    return next((one.partition("/")[0] for one in held if (":" in one) is (":" in like)), "")


def remote_of(machine: Machine, peer: Machine) -> str:
    """Returns the address that one end of a link sees of the other; empty where a member carries it."""
    for version in (4, 6):
        mine, theirs = machine.at(version), peer.at(version)
        if mine is None or theirs is None:
            continue
        if mine[0] is theirs[0] and not mine[0].isolates:
            return text_of(End(theirs[1], CONTROL_PORT))
        if theirs[0].uplink is None:
            return text_of(End(theirs[1], CONTROL_PORT))
        if mine[0].uplink is None:
            outermost, network = theirs[1], theirs[0]
            while network.uplink is not None:
                outermost, network = network.uplink.address or outermost, network.uplink.outside
            return text_of(End(outermost, 40_000))
    return ""
