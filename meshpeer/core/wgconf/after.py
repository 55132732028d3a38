"""What a step does to an interface: WireGuard's and the kernel's own rules, as a pure function.

The in-memory backend and the dry run are made of it, and the proof that ``diff_device`` gets to where it
should.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Sequence
from typing import assert_never

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.wgconf.model import (
    AddAddress,
    AddRoute,
    CreateInterface,
    DeviceStep,
    ObservedDevice,
    ObservedPeer,
    RemoveAddress,
    RemovePeer,
    RemoveRoute,
    RouteMtu,
    SetFwmark,
    SetListenPort,
    SetMtu,
    SetPeer,
    SetPrivateKey,
    SetUp,
)

NO_KEY = WireGuardKey(bytes(32))
MTU_AT_CREATION = 1420


def device_after(device: ObservedDevice | None, steps: Sequence[DeviceStep]) -> ObservedDevice | None:
    """Returns the interface after the steps; raises ``EnvironmentFault`` where one would fail."""
    for step in steps:
        device = _after_one(device, step)
    return device


def _after_one(device: ObservedDevice | None, step: DeviceStep) -> ObservedDevice:
    if isinstance(step, CreateInterface):
        if device is not None:
            raise EnvironmentFault(f"interface {step.interface} exists already")
        return ObservedDevice(
            interface=step.interface,
            public_key=NO_KEY,
            listen_port=0,
            mtu=MTU_AT_CREATION,
            up=False,
            addresses=(),
            peers=(),
        )
    if device is None:
        raise EnvironmentFault(f"there is no interface for {type(step).__name__}")
    match step:
        case SetPrivateKey(private_key=key):
            public = WireGuardPrivateKey(key).public
            # WireGuard drops a peer that has the interface's own key.
            peers = tuple(peer for peer in device.peers if peer.public_key != public)
            return dataclasses.replace(device, public_key=public, peers=peers)
        case SetListenPort(port=port):
            return dataclasses.replace(device, listen_port=port)
        case SetFwmark(mark=mark):
            return dataclasses.replace(device, fwmark=mark)
        case SetMtu(mtu=mtu):
            return _with_mtu(device, mtu)
        case AddAddress(address=address):
            return _with_address(device, address)
        case RemoveAddress(address=address):
            return _without_address(device, address)
        case SetUp():
            return dataclasses.replace(device, up=True)
        case AddRoute(prefix=prefix, mtu=mtu, advmss=advmss):
            if not device.up:
                raise EnvironmentFault(f"route {prefix} needs an interface that is up")
            mtus = [one for one in device.route_mtus if one.prefix != prefix]
            mtus += [RouteMtu(prefix, mtu, advmss)] if mtu or advmss else []
            routes = tuple(sorted(_with(device.routes, prefix)))
            return dataclasses.replace(device, routes=routes, route_mtus=tuple(sorted(mtus)))
        case RemoveRoute(prefix=prefix):
            if prefix not in device.routes:
                raise EnvironmentFault(f"there is no route {prefix} to remove")
            return _with_routes(device, _without(device.routes, prefix))
        case SetPeer():
            return dataclasses.replace(device, peers=_with_peer(device, step))
        case RemovePeer(public_key=key):
            return dataclasses.replace(
                device, peers=tuple(peer for peer in device.peers if peer.public_key != key)
            )
        case _:
            assert_never(step)


def _with_peer(device: ObservedDevice, step: SetPeer) -> tuple[ObservedPeer, ...]:
    if step.public_key == device.public_key:
        return device.peers
    peers = {peer.public_key: peer for peer in device.peers}
    before = peers.get(step.public_key) or ObservedPeer(
        public_key=step.public_key,
        allowed_ips=(),
        endpoint=None,
        keepalive_s=0,
        latest_handshake_unix_s=0,
        rx_bytes=0,
        tx_bytes=0,
    )
    if step.allowed_ips is not None:
        # An allowed IP has one owner: its last writer.
        peers = {
            key: dataclasses.replace(
                peer, allowed_ips=tuple(one for one in peer.allowed_ips if one not in step.allowed_ips)
            )
            for key, peer in peers.items()
        }
    peers[step.public_key] = dataclasses.replace(
        before,
        allowed_ips=before.allowed_ips if step.allowed_ips is None else tuple(sorted(step.allowed_ips)),
        endpoint=step.endpoint or before.endpoint,
        keepalive_s=before.keepalive_s if step.keepalive_s is None else step.keepalive_s,
    )
    return tuple(peers[key] for key in sorted(peers))


def _with_address(device: ObservedDevice, address: str) -> ObservedDevice:
    """Adds an address (``ip address replace``).

    One IPv4 address can be held with several prefix lengths at once, each of which is a subnet of its own. Of
    an IPv6 address the kernel keeps the first, and reports no error.
    """
    added = ipaddress.ip_interface(address)
    if added.version == 6 and any(ipaddress.ip_interface(one).ip == added.ip for one in device.addresses):
        return device
    return dataclasses.replace(device, addresses=_with(device.addresses, address))


def _without_address(device: ObservedDevice, address: str) -> ObservedDevice:
    """Removes an address, and what goes with it; raises ``EnvironmentFault`` where it is not there.

    An IPv4 address that was added beside one of its own subnet, of the very prefix length, is that one's
    secondary, and the last IPv4 address takes the IPv4 routes along (``fib_disable_ip``). Where the setting
    ``promote_secondaries`` is on, secondaries stay; this is the harder case.
    """
    if address not in device.addresses:
        raise EnvironmentFault(f"there is no address {address} to remove")
    left = _without(device.addresses, address)
    if ipaddress.ip_interface(address).version == 6:
        return dataclasses.replace(device, addresses=left)
    position = device.addresses.index(address)
    before, behind = device.addresses[:position], device.addresses[position + 1 :]
    if not any(_same_subnet(one, address) for one in before):
        left = before + tuple(one for one in behind if not _same_subnet(one, address))
    keeps_ipv4 = any(":" not in one for one in left)
    routes = device.routes if keeps_ipv4 else tuple(one for one in device.routes if ":" in one)
    return _with_routes(dataclasses.replace(device, addresses=left), routes)


def _with_routes(device: ObservedDevice, routes: tuple[str, ...]) -> ObservedDevice:
    mtus = tuple(one for one in device.route_mtus if one.prefix in routes)
    return dataclasses.replace(device, routes=routes, route_mtus=mtus)


def _with_mtu(device: ObservedDevice, mtu: int) -> ObservedDevice:
    """Sets the interface's MTU. An IPv6 route that says as much as before, or more than there is now, follows
    (``fib6_nh_mtu_change``)."""
    mtus = tuple(
        one._replace(mtu=mtu) if ":" in one.prefix and (one.mtu >= mtu or one.mtu == device.mtu) else one
        for one in device.route_mtus
    )
    return dataclasses.replace(device, mtu=mtu, route_mtus=mtus)


def _same_subnet(one: str, other: str) -> bool:
    return ipaddress.ip_interface(one).network == ipaddress.ip_interface(other).network


def _with(held: tuple[str, ...], one: str) -> tuple[str, ...]:
    return held if one in held else (*held, one)


def _without(held: tuple[str, ...], one: str) -> tuple[str, ...]:
    return tuple(other for other in held if other != one)
