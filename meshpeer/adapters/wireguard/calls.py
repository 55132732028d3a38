"""From steps to command lines, as a pure function: the fewest calls that keep the order.

Adjacent steps of one tool become one call: all peers in one ``wg set`` (the kernel takes its arguments in
order, so removals come before additions), all addresses and routes in one ``ip -batch``. A private key
becomes the call's stdin.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from meshpeer.core.ids import wireguard_key_text
from meshpeer.core.wgconf.model import (
    AddAddress,
    AddRoute,
    CreateInterface,
    DeviceStep,
    RemoveAddress,
    RemovePeer,
    RemoveRoute,
    SetFwmark,
    SetListenPort,
    SetMtu,
    SetPeer,
    SetPrivateKey,
    SetUp,
)

WORDS_MAX = 4_000
"""Arguments of one ``wg set``: far below the kernel's limit of 2 MiB for a command line."""
ROUTE_METRIC = 4_096
"""Behind what the kernel (0; IPv6 256 and 1024), DHCP clients and NetworkManager (100 to 1,100) give theirs.
With a metric of its own a route stands beside a machine's own of the same prefix, and never replaces it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Makes the interface; how is the backend's business."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WgSet:
    """``wg set IF WORDS...``, with the key on stdin."""

    words: tuple[str, ...]
    stdin: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IpBatch:
    """``ip -batch -`` with these lines on stdin."""

    lines: tuple[str, ...]


Call = Create | WgSet | IpBatch


def plan_calls(interface: str, steps: Sequence[DeviceStep]) -> list[Call]:
    """Returns the calls that perform the steps, in order."""
    calls: list[Call] = []
    for step in steps:
        call = _call(interface, step)
        last = calls[-1] if calls else None
        if isinstance(call, WgSet) and isinstance(last, WgSet) and len(last.words) < WORDS_MAX:
            calls[-1] = replace(last, words=last.words + call.words, stdin=last.stdin or call.stdin)
        elif isinstance(call, IpBatch) and isinstance(last, IpBatch):
            calls[-1] = IpBatch(lines=last.lines + call.lines)
        else:
            calls.append(call)
    return calls


def _call(interface: str, step: DeviceStep) -> Call:
    match step:
        case CreateInterface():
            return Create()
        case SetPrivateKey(private_key=key):
            return WgSet(words=("private-key", "/dev/stdin"), stdin=base64.b64encode(key) + b"\n")
        case SetListenPort(port=port):
            return WgSet(words=("listen-port", str(port)))
        case SetFwmark(mark=mark):
            return WgSet(words=("fwmark", f"{mark:#x}" if mark else "off"))
        case SetPeer():
            return WgSet(words=_peer_words(step))
        case RemovePeer(public_key=key):
            return WgSet(words=("peer", wireguard_key_text(key), "remove"))
        case SetMtu(mtu=mtu):
            return IpBatch(lines=(f"link set dev {interface} mtu {mtu}",))
        case AddAddress(address=address):
            # Nobody else on the tunnel can hold it: no duplicate address detection, so it is usable at once.
            flags = " nodad" if ":" in address else ""
            return IpBatch(lines=(f"address replace {address} dev {interface}{flags}",))
        case RemoveAddress(address=address):
            return IpBatch(lines=(f"address delete {address} dev {interface}",))
        case SetUp():
            return IpBatch(lines=(f"link set dev {interface} up",))
        case AddRoute(prefix=prefix, mtu=mtu, advmss=advmss):
            said = (f" mtu {mtu}" if mtu else "") + (f" advmss {advmss}" if advmss else "")
            return IpBatch(lines=(f"route replace {prefix} dev {interface} metric {ROUTE_METRIC}{said}",))
        case RemoveRoute(prefix=prefix):
            return IpBatch(lines=(f"route delete {prefix} dev {interface}",))
        case _:
            assert_never(step)


def _peer_words(step: SetPeer) -> tuple[str, ...]:
    words = ["peer", wireguard_key_text(step.public_key)]
    if step.endpoint is not None:
        words += ["endpoint", step.endpoint]
    if step.keepalive_s is not None:
        words += ["persistent-keepalive", str(step.keepalive_s)]
    if step.allowed_ips is not None:
        words += ["allowed-ips", ",".join(step.allowed_ips)]
    return tuple(words)
