"""``diff_device``: the smallest steps, in an order that never gives two peers one allowed IP.

WireGuard moves an allowed IP to its last writer without a word (``wg`` replaces a peer's list whole), so
what one peer loses and another gains is taken away first. An endpoint is written only where no handshake is
fresh, or the tunnel is mute: else the interface has roamed to where the peer really is. No peer is ever
removed or reset in order to change it.

What ``wg`` does comes first and in one piece, so an adapter can do it in one call, before the interface is
up and traffic could leave by a half-made one. A new private key comes first of all; what is said to each peer
right after makes WireGuard shake hands anew with all of them at once.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from meshpeer.core.ids import WireGuardKey, wireguard_key_text
from meshpeer.core.wgconf.after import device_after
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
    RouteMtu,
    SetFwmark,
    SetListenPort,
    SetMtu,
    SetPeer,
    SetPrivateKey,
    SetUp,
    handshake_is_fresh,
)
from meshpeer.core.wgconf.succession import settle_peers, wake_peers


def diff_device(
    observed: ObservedDevice | None, desired: DesiredDevice, *, now_unix_s: float
) -> tuple[DeviceStep, ...]:
    """Returns the steps from ``observed`` to ``desired``; nothing to change means no step."""
    steps: list[DeviceStep] = []
    if observed is None:
        steps.append(CreateInterface(interface=desired.interface))
    if observed is None or observed.public_key != desired.public_key:
        steps.append(SetPrivateKey(private_key=desired.private_key))
    if observed is None or observed.listen_port != desired.listen_port:
        steps.append(SetListenPort(port=desired.listen_port))
    if (observed.fwmark if observed else 0) != desired.fwmark:
        steps.append(SetFwmark(mark=desired.fwmark))
    wanted_peers = settle_peers(observed, desired)
    steps += _peer_steps(observed.peers if observed else (), wanted_peers, now_unix_s)
    if observed is not None and observed.public_key != desired.public_key:
        steps += wake_peers(observed, wanted_peers)
    changes: list[DeviceStep] = []
    if observed is None or observed.mtu != desired.mtu:
        changes.append(SetMtu(mtu=desired.mtu))
    addresses, routes = _possible(observed, desired.addresses), _possible(observed, desired.routes)
    left = observed
    if observed is not None:
        changes += [RemoveRoute(prefix=one) for one in observed.routes if one not in routes]
        resized = _resized(observed.addresses, addresses)
        # The last first: one that would go with another goes before it, and then there is one to remove.
        gone = [one for one in reversed(observed.addresses) if one not in addresses]
        # What is added beside one of its own subnet goes with it, so that one goes first.
        subnets = {ipaddress.ip_interface(one).network for one in resized}
        above = [one for one in gone if ipaddress.ip_interface(one).network in subnets]
        changes += [RemoveAddress(address=one) for one in above]
        changes += [AddAddress(address=one) for one in resized]
        changes += [RemoveAddress(address=one) for one in gone if one not in above]
        # The kernel takes more away than it was asked to: what else goes with an address is added again, and
        # so is a route whose MTU follows the interface's.
        left = device_after(observed, changes)
    steps += changes
    steps += [AddAddress(address=one) for one in addresses if left is None or one not in left.addresses]
    if left is None or not left.up:
        steps.append(SetUp())
    routed = _mtus(left.routes, left.route_mtus) if left and left.up else {}
    wanted = _mtus(routes, desired.route_mtus)
    steps += [
        AddRoute(prefix=one, mtu=wanted[one].mtu, advmss=wanted[one].advmss)
        for one in routes
        if routed.get(one) != wanted[one]
    ]
    return tuple(steps)


def describe_drift(
    observed: ObservedDevice | None, desired: DesiredDevice, names: Mapping[WireGuardKey, str]
) -> list[str]:
    """Says in words what somebody changed by hand, given that ``desired`` had been applied before.

    ``names`` are the members' by their keys. Endpoints are no drift: WireGuard itself roams. No drift, no
    words.
    """
    if observed is None:
        return [f"interface {desired.interface} was gone"]
    held = {peer.public_key: peer for peer in observed.peers}
    wanted = {peer.public_key: peer for peer in settle_peers(observed, desired)}
    words: list[str] = []
    for key, peer in wanted.items():
        name = f"peer {names.get(key) or wireguard_key_text(key)}"
        if key not in held:
            words.append(f"{name} was removed by hand")
            continue
        if set(held[key].allowed_ips) != set(peer.allowed_ips):
            words.append(f"{name} had other allowed IPs: {', '.join(held[key].allowed_ips) or 'none'}")
        if held[key].keepalive_s != peer.keepalive_s:
            words.append(f"{name} had another keepalive: {held[key].keepalive_s or 'off'}")
    strangers = [key for key in held if key not in wanted]
    words += [f"peer {wireguard_key_text(key)} was added by hand" for key in strangers]
    if observed.public_key != desired.public_key:
        words.append("the private key was another one")
    if observed.listen_port != desired.listen_port:
        words.append(f"the listen port was {observed.listen_port}")
    if observed.fwmark != desired.fwmark:
        words.append(f"the fwmark was {observed.fwmark:#x}")
    if observed.mtu != desired.mtu:
        words.append(f"the MTU was {observed.mtu}")
    words += _changed("address", observed.addresses, _possible(observed, desired.addresses))
    if not observed.up:
        words.append(f"interface {desired.interface} was down")
    else:
        words += _changed("route", observed.routes, _possible(observed, desired.routes))
        wanted_mtus = _mtus(desired.routes, desired.route_mtus)
        words += [
            f"route {one} had MTU {mtu.mtu or observed.mtu}"
            for one, mtu in _mtus(observed.routes, observed.route_mtus).items()
            if mtu != wanted_mtus.get(one, mtu)
        ]
    return words


def _peer_steps(
    observed: Iterable[ObservedPeer], wanted: tuple[DesiredPeer, ...], now_unix_s: float
) -> list[DeviceStep]:
    held = {peer.public_key: peer for peer in observed}
    keys = {peer.public_key for peer in wanted}
    owner = {one: peer.public_key for peer in wanted for one in peer.allowed_ips}
    steps: list[DeviceStep] = [RemovePeer(public_key=key) for key in sorted(held) if key not in keys]
    changes: list[DeviceStep] = []
    for peer in wanted:
        before = held.get(peer.public_key)
        has = set(before.allowed_ips) if before else None
        kept = tuple(one for one in peer.allowed_ips if has and one in has)
        if has is not None and any(owner.get(one, peer.public_key) != peer.public_key for one in has):
            steps.append(SetPeer(public_key=peer.public_key, allowed_ips=kept))
            has = set(kept)
        change = SetPeer(
            public_key=peer.public_key,
            allowed_ips=peer.allowed_ips if has != set(peer.allowed_ips) else None,
            endpoint=_endpoint(before, peer, now_unix_s),
            keepalive_s=_keepalive(before, peer),
        )
        if before is None or change != SetPeer(public_key=peer.public_key):
            changes.append(change)
    return steps + changes


def _resized(held: tuple[str, ...], wanted: tuple[str, ...]) -> list[str]:
    """Returns IPv4 addresses that are held with another prefix length: they are added before they go in the
    old form.

    The kernel holds both at once, and the routes of either lead the same way from the same source: nothing
    that is on its way is lost, and no connection hangs in the air while a mesh's subnet grows. An IPv6
    address it holds but once, and says nothing where a second prefix length is asked for.
    """
    ips = {_ip(one) for one in held}
    return [one for one in wanted if ":" not in one and one not in held and _ip(one) in ips]


def _ip(address: str) -> str:
    return address.partition("/")[0]


def _endpoint(observed: ObservedPeer | None, peer: DesiredPeer, now_unix_s: float) -> str | None:
    if observed is None or peer.endpoint is None:
        return peer.endpoint
    if observed.endpoint == peer.endpoint:
        return None
    roamed = (
        not peer.mute
        and observed.endpoint
        and handshake_is_fresh(observed.latest_handshake_unix_s, now_unix_s)
    )
    return None if roamed else peer.endpoint


def _keepalive(observed: ObservedPeer | None, peer: DesiredPeer) -> int | None:
    if observed is None:
        return peer.keepalive_s or None
    return None if observed.keepalive_s == peer.keepalive_s else peer.keepalive_s


def _possible(observed: ObservedDevice | None, prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Leaves out IPv6 where the interface can't hold it, so that it isn't asked for again at every look."""
    if observed is None or observed.ipv6:
        return prefixes
    return tuple(one for one in prefixes if ":" not in one)


def _mtus(routes: tuple[str, ...], mtus: tuple[RouteMtu, ...]) -> dict[str, RouteMtu]:
    said = {one.prefix: one for one in mtus}
    return {one: said.get(one, RouteMtu(one)) for one in routes}


def _changed(kind: str, held: tuple[str, ...], wanted: tuple[str, ...]) -> list[str]:
    removed = [f"{kind} {one} was removed by hand" for one in wanted if one not in held]
    return removed + [f"{kind} {one} was added by hand" for one in held if one not in wanted]
