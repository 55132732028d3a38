"""Renders a desired interface as files that other tools read: ``wg-quick`` (wg-quick(8)) and ``wg setconf`` (wg(8))."""

from __future__ import annotations

import base64

from meshpeer.core.ids import WireGuardKey, wireguard_key_text
from meshpeer.core.wgconf.model import DesiredDevice, DesiredPeer


def render_wg_quick(device: DesiredDevice, names: dict[WireGuardKey, str]) -> str:
    """Returns a plain wg-quick file of the interface, private key included: write it with mode 0600."""
    head = [
        "[Interface]",
        f"PrivateKey = {base64.b64encode(device.private_key).decode('ascii')}",
        f"ListenPort = {device.listen_port}",
        f"Address = {', '.join(device.addresses)}",
        f"MTU = {device.mtu}",
    ]
    return "\n".join(["\n".join(head), *(_peer(peer, names) for peer in device.peers)]) + "\n"


def render_setconf(device: DesiredDevice, names: dict[WireGuardKey, str]) -> str:
    """Returns what ``wg setconf`` would take, with the private key left out: for a dry run."""
    head = ["[Interface]", f"ListenPort = {device.listen_port}"]
    return "\n".join(["\n".join(head), *(_peer(peer, names) for peer in device.peers)]) + "\n"


def _peer(peer: DesiredPeer, names: dict[WireGuardKey, str]) -> str:
    lines = ["", "[Peer]"]
    if peer.public_key in names:
        lines.append(f"# {names[peer.public_key]}")
    lines += [f"PublicKey = {wireguard_key_text(peer.public_key)}", f"AllowedIPs = {', '.join(peer.allowed_ips)}"]
    if peer.endpoint:
        lines.append(f"Endpoint = {peer.endpoint}")
    if peer.keepalive_s:
        lines.append(f"PersistentKeepalive = {peer.keepalive_s}")
    return "\n".join(lines)
