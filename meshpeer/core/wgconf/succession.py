"""Succession: how a peer's tunnel goes over from its key to its next one, as rules on one interface.

WireGuard knows a peer by its key, and an allowed IP has one owner. So the next key is a peer of its own that
owns nothing and has no endpoint: it can't begin a handshake, and answers one. Only who holds the next private
key can shake hands with it, so its first handshake says that the other end has changed over, and that packets
from there come under it now. That is the moment at which the allowed IPs move: no clock, and no message, says
it better.

Until then the old session goes on both ways. What the other end sent under it before, and this end still
sends, it takes: a changed private key ends what a session sends, not what it receives
(``wg_noise_expire_current_peer_keypairs`` of Linux, ``ExpireCurrentKeypairs`` of wireguard-go).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from meshpeer.core.ids import WireGuardKey
from meshpeer.core.wgconf.model import DesiredDevice, DesiredPeer, ObservedDevice, ObservedPeer, SetPeer


def settle_peers(observed: ObservedDevice | None, desired: DesiredDevice) -> tuple[DesiredPeer, ...]:
    """Returns the peers that an interface shall hold now, successors among them, by key: which of two keys
    owns the allowed IPs follows from what the interface shows."""
    if all(peer.successor is None for peer in desired.peers):
        return desired.peers
    held = {peer.public_key: peer for peer in observed.peers} if observed else {}
    # A key that the interface has as a peer's own is nobody's next.
    named = {desired.public_key, *(peer.public_key for peer in desired.peers)}
    settled: list[DesiredPeer] = []
    for peer in desired.peers:
        alone = dataclasses.replace(peer, successor=None)
        key = peer.successor
        if key is None or key in named:
            settled.append(alone)
            continue
        named.add(key)
        if has_taken_over(held.get(key)):
            # What leads to the old key is left to end by itself; nothing is sent there any more.
            settled.append(
                dataclasses.replace(alone, allowed_ips=(), endpoint=None, keepalive_s=0, mute=False)
            )
            endpoint = peer.endpoint if peer.mute else None
            settled.append(dataclasses.replace(alone, public_key=key, endpoint=endpoint))
        else:
            settled += [alone, DesiredPeer(public_key=key, allowed_ips=())]
    return tuple(sorted(settled, key=lambda peer: peer.public_key))


def has_taken_over(successor: ObservedPeer | None) -> bool:
    """Says whether the other end uses its next key: it shook hands with it."""
    return successor is not None and successor.latest_handshake_unix_s > 0


def joined_peer(old: ObservedPeer, new: ObservedPeer) -> ObservedPeer:
    """Returns one peer of two keys, as if it had had the new one all along: its last handshake, and all that
    it ever carried."""
    return dataclasses.replace(
        new,
        allowed_ips=new.allowed_ips or old.allowed_ips,
        endpoint=new.endpoint or old.endpoint,
        keepalive_s=new.keepalive_s or old.keepalive_s,
        latest_handshake_unix_s=max(old.latest_handshake_unix_s, new.latest_handshake_unix_s),
        rx_bytes=old.rx_bytes + new.rx_bytes,
        tx_bytes=old.tx_bytes + new.tx_bytes,
    )


def wake_peers(observed: ObservedDevice, wanted: Iterable[DesiredPeer]) -> list[SetPeer]:
    """Returns what makes an interface whose private key was changed just now shake hands with everybody at
    once, whether anything is to be sent or not.

    A keepalive that is switched on is sent at once (wg(8); ``set_peer`` of Linux), and what is sent without a
    session begins with a handshake. A peer without an endpoint can't be sent anything."""
    ends: dict[WireGuardKey, str | None] = {peer.public_key: peer.endpoint for peer in observed.peers}
    steps: list[SetPeer] = []
    for peer in wanted:
        if ends.get(peer.public_key):
            off, on = SetPeer(public_key=peer.public_key, keepalive_s=0), max(1, peer.keepalive_s)
            steps += [off, SetPeer(public_key=peer.public_key, keepalive_s=on)]
            steps += [] if peer.keepalive_s else [off]
    return steps
