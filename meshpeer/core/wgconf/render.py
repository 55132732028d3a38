"""Renders an interface as text for other tools: ``wg-quick`` (wg-quick(8)) and ``wg setconf`` (wg(8))."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from meshpeer.core.ids import WireGuardKey, wireguard_key_text
from meshpeer.core.wgconf.model import (
    DesiredDevice,
    DesiredPeer,
    ObservedDevice,
    ObservedPeer,
    handshake_is_fresh,
)

IPV6_MTU_MIN = 1_280
"""An interface with less has no IPv6 (RFC 8200, section 5)."""


def render_wg_quick(
    device: DesiredDevice,
    names: Mapping[WireGuardKey, str],
    *,
    observed: ObservedDevice | None = None,
    now_unix_s: float = 0.0,
) -> str:
    """Returns a plain wg-quick file of the interface, private key included: write it with mode 0600.

    It is for life without the agent, so where a tunnel works (``observed``, with a fresh handshake) its
    endpoint is the one that works, not the one that was planned. wg-quick knows one MTU: the least that any
    route has.
    """
    working = {
        peer.public_key: peer.endpoint
        for peer in (observed.peers if observed else ())
        if handshake_is_fresh(peer.latest_handshake_unix_s, now_unix_s)
    }
    head = [
        "[Interface]",
        f"PrivateKey = {base64.b64encode(device.private_key).decode('ascii')}",
        f"ListenPort = {device.listen_port}",
        f"Address = {', '.join(device.addresses)}",
        f"MTU = {max(IPV6_MTU_MIN, min([device.mtu, *(one.mtu for one in device.route_mtus)]))}",
        *([f"FwMark = {device.fwmark:#x}"] if device.fwmark else []),
    ]
    peers = [_peer(peer, names, working.get(peer.public_key) or peer.endpoint) for peer in device.peers]
    return "\n\n".join(["\n".join(head), *peers]) + "\n"


def render_setconf(device: DesiredDevice | ObservedDevice, names: Mapping[WireGuardKey, str]) -> str:
    """Returns what ``wg setconf`` would take, with the private key left out: for people to read."""
    head = ["[Interface]", f"ListenPort = {device.listen_port}"]
    head += [f"FwMark = {device.fwmark:#x}"] if device.fwmark else []
    peers = [_peer(peer, names, peer.endpoint) for peer in device.peers]
    return "\n\n".join(["\n".join(head), *peers]) + "\n"


def _peer(peer: DesiredPeer | ObservedPeer, names: Mapping[WireGuardKey, str], endpoint: str | None) -> str:
    lines = ["[Peer]"]
    if peer.public_key in names:
        lines.append(f"# {names[peer.public_key]}")
    lines += [
        f"PublicKey = {wireguard_key_text(peer.public_key)}",
        f"AllowedIPs = {', '.join(peer.allowed_ips)}",
    ]
    if endpoint:
        lines.append(f"Endpoint = {endpoint}")
    if peer.keepalive_s:
        lines.append(f"PersistentKeepalive = {peer.keepalive_s}")
    return "\n".join(lines)
