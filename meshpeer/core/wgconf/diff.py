"""``diff_device(observed, desired)``: the smallest steps, in an order that never gives two peers one allowed IP.

WireGuard moves an allowed IP to its last writer without a word, so whatever leaves a peer is taken away before it is given
to another. An endpoint is written only where no handshake is fresh: the kernel has roamed to where the peer really is. No peer is
ever reset to change another.
"""

from __future__ import annotations

from meshpeer.core.ids import WireGuardKey
from meshpeer.core.wgconf.model import (
    AddAddress,
    AddRoute,
    CreateInterface,
    DesiredDevice,
    DesiredPeer,
    DeviceStep,
    ObservedDevice,
    ObservedPeer,
    RemoveAddress,
    RemovePeer,
    RemoveRoute,
    SetListenPort,
    SetMtu,
    SetPeer,
    SetPrivateKey,
    SetUp,
)

HANDSHAKE_FRESH_S = 180


def diff_device(observed: ObservedDevice | None, desired: DesiredDevice, *, now_unix_s: float) -> tuple[DeviceStep, ...]:
    """Returns the steps from ``observed`` to ``desired``; nothing to change means no step."""
    steps: list[DeviceStep] = []
    if observed is None:
        steps.append(CreateInterface(interface=desired.interface))
    if observed is None or observed.public_key != desired.public_key:
        steps.append(SetPrivateKey(private_key=desired.private_key))
    if observed is None or observed.listen_port != desired.listen_port:
        steps.append(SetListenPort(port=desired.listen_port))
    if observed is None or observed.mtu != desired.mtu:
        steps.append(SetMtu(mtu=desired.mtu))
    held = observed.addresses if observed else ()
    steps += [RemoveAddress(address=one) for one in held if one not in desired.addresses]
    steps += [AddAddress(address=one) for one in desired.addresses if one not in held]
    steps += _peer_steps({peer.public_key: peer for peer in observed.peers} if observed else {}, desired.peers, now_unix_s)
    if observed is None or not observed.up:
        steps.append(SetUp())
    routed = observed.routes if observed and observed.up else ()
    steps += [RemoveRoute(prefix=one) for one in routed if one not in desired.routes]
    steps += [AddRoute(prefix=one) for one in desired.routes if one not in routed]
    return tuple(steps)


def describe_drift(observed: ObservedDevice | None, desired: DesiredDevice, names: dict[WireGuardKey, str]) -> list[str]:
    """Says in words what somebody changed by hand, given that ``desired`` had been applied before."""
    if observed is None:
        return [f"interface {desired.interface} was gone"]
    held = {peer.public_key: peer for peer in observed.peers}
    wanted = {peer.public_key: peer for peer in desired.peers}
    words = [f"peer {names.get(key, key.hex()[:8])} was removed" for key in wanted if key not in held]
    words += [f"a peer {key.hex()[:8]} that is not of this mesh was added" for key in held if key not in wanted]
    words += [f"allowed IPs of {names.get(key, key.hex()[:8])} were changed" for key in wanted if key in held and _ips_differ(held[key], wanted[key])]
    if observed.public_key != desired.public_key:
        words.append("the private key was changed")
    if observed.listen_port != desired.listen_port:
        words.append(f"the listen port was {observed.listen_port}")
    if observed.mtu != desired.mtu:
        words.append(f"the MTU was {observed.mtu}")
    if set(observed.addresses) != set(desired.addresses):
        words.append("addresses were changed")
    if not observed.up:
        words.append(f"interface {desired.interface} was down")
    elif set(observed.routes) != set(desired.routes):
        words.append("routes were changed")
    return words


def _peer_steps(held: dict[WireGuardKey, ObservedPeer], wanted: tuple[DesiredPeer, ...], now: float) -> list[DeviceStep]:
    keys = {peer.public_key for peer in wanted}
    removals: list[DeviceStep] = [RemovePeer(public_key=peer.public_key) for key, peer in sorted(held.items()) if key not in keys]
    shrinks: list[DeviceStep] = []
    changes: list[DeviceStep] = []
    for peer in wanted:
        observed = held.get(peer.public_key)
        kept = tuple(one for one in observed.allowed_ips if one in peer.allowed_ips) if observed else ()
        if observed and len(kept) < len(observed.allowed_ips):
            shrinks.append(SetPeer(public_key=peer.public_key, allowed_ips=tuple(sorted(kept))))
        grows = observed is None or set(kept) != set(peer.allowed_ips)
        keepalive = peer.keepalive_s if observed is None or observed.keepalive_s != peer.keepalive_s else None
        endpoint = _endpoint(observed, peer, now)
        if grows or keepalive is not None or endpoint is not None:
            changes.append(
                SetPeer(
                    public_key=peer.public_key,
                    allowed_ips=peer.allowed_ips if grows else None,
                    endpoint=endpoint,
                    keepalive_s=keepalive,
                )
            )
    return [*removals, *shrinks, *changes]


def _endpoint(observed: ObservedPeer | None, peer: DesiredPeer, now: float) -> str | None:
    if peer.endpoint is None or (observed and observed.endpoint == peer.endpoint):
        return None
    if observed and observed.endpoint and 0 < observed.latest_handshake_unix_s > now - HANDSHAKE_FRESH_S:
        return None
    return peer.endpoint


def _ips_differ(observed: ObservedPeer, wanted: DesiredPeer) -> bool:
    return set(observed.allowed_ips) != set(wanted.allowed_ips)
