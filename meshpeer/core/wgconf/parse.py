"""Reads what ``wg`` and ``ip`` print: text in, values out, ``EnvironmentFault`` for anything else.

Formats: ``wg show IF dump`` (wg(8)), ``ip -json -details address`` and ``ip -json route`` (iproute2). Text
forms are made canonical here, so that comparing observed with desired is comparing strings.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.wgconf.model import ObservedPeer, RouteMtu
from meshpeer.core.wire.unreadable import UNREADABLE

Shape = TypeVar("Shape")

KEY_BYTES = 32
PORT_MAX = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """What ``wg show IF dump`` says of an interface, the private key left out."""

    public_key: WireGuardKey
    """All zeros where no private key is set."""
    listen_port: int
    peers: tuple[ObservedPeer, ...]
    """By public key."""
    fwmark: int = 0
    """0 for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One network interface and its addresses."""

    name: str
    mtu: int
    up: bool
    alias: str
    kind: str
    """``wireguard``, ``tun``, ``bridge`` and so on; empty for hardware."""
    addresses: tuple[str, ...]
    """With their prefix length; without the link-local ones, which the kernel makes up."""


def parse_dump(text: str) -> Dump:
    """Reads ``wg show IF dump``."""
    lines = text.strip("\n").split("\n")
    try:
        _, public, port, mark = lines[0].split("\t")
        peers = [_peer(line.split("\t")) for line in lines[1:]]
        return Dump(
            public_key=_key(public),
            listen_port=_number(port, PORT_MAX),
            peers=tuple(sorted(peers, key=lambda peer: peer.public_key)),
            fwmark=_mark(mark),
        )
    except ValueError as error:
        raise EnvironmentFault(
            f"`wg show dump` printed what can't be read: {error}",
            "`wg` should be the one of the package wireguard-tools",
        ) from error


def parse_links(text: str) -> tuple[Link, ...]:
    """Reads ``ip -json -details address``."""
    links = _decode(text, list[_Link], "ip -json address")
    try:
        return tuple(
            Link(
                name=link.ifname,
                mtu=link.mtu,
                up="UP" in link.flags,
                alias=link.ifalias,
                kind=link.linkinfo.info_kind,
                addresses=tuple(
                    str(ipaddress.ip_interface(f"{one.local}/{one.prefixlen}"))
                    for one in link.addr_info
                    if one.scope != "link"
                ),
            )
            # Some versions print an empty object for every interface that was not asked for.
            for link in links
            if link.ifname
        )
    except ValueError as error:
        raise _unreadable("ip -json address", error) from error


def parse_routes(text: str) -> tuple[str, ...]:
    """Reads ``ip -json route show table all``: the sorted prefixes, of both families, that somebody added.

    The kernel's own routes (of addresses, link-local ones) and other tables than the main one are left out.
    """
    routes = _decode(text, list[_Route], "ip -json route")
    added = [one for one in routes if one.dst and not one.table and one.protocol != "kernel"]
    try:
        return tuple(sorted({str(ipaddress.ip_network(_prefix(one))) for one in added}))
    except ValueError as error:
        raise _unreadable("ip -json route", error) from error


def parse_route_mtus(text: str) -> tuple[RouteMtu, ...]:
    """Reads what ``parse_routes`` reads: the routes that have an MTU or a segment size of their own."""
    routes = _decode(text, list[_Route], "ip -json route")
    added = [one for one in routes if one.dst and not one.table and one.protocol != "kernel" and one.metrics]
    try:
        found = {
            RouteMtu(str(ipaddress.ip_network(_prefix(one))), said.mtu, said.advmss)
            for one in added
            for said in one.metrics
            if said.mtu or said.advmss
        }
    except ValueError as error:
        raise _unreadable("ip -json route", error) from error
    return tuple(sorted(found))


class _Address(msgspec.Struct, frozen=True):
    local: str
    prefixlen: int
    scope: str = ""


class _Kind(msgspec.Struct, frozen=True):
    info_kind: str = ""


class _Link(msgspec.Struct, frozen=True):
    ifname: str = ""
    mtu: int = 0
    flags: tuple[str, ...] = ()
    ifalias: str = ""
    linkinfo: _Kind = _Kind()
    addr_info: tuple[_Address, ...] = ()


class _Metrics(msgspec.Struct, frozen=True):
    mtu: int = 0
    advmss: int = 0


class _Route(msgspec.Struct, frozen=True):
    dst: str = ""
    protocol: str = ""
    table: str = ""
    pref: str | None = None
    metrics: tuple[_Metrics, ...] = ()


def _prefix(route: _Route) -> str:
    # A default route is printed alike in both families; only IPv6 ones carry a preference (RFC 4191).
    return route.dst if route.dst != "default" else "0.0.0.0/0" if route.pref is None else "::/0"


def _decode(text: str, kind: type[Shape], command: str) -> Shape:
    try:
        # Nothing to list is printed as nothing, not as an empty array.
        return msgspec.json.decode(text.strip() or "[]", type=kind)
    except UNREADABLE as error:
        raise _unreadable(command, error) from error


def _unreadable(command: str, error: Exception) -> EnvironmentFault:
    return EnvironmentFault(
        f"`{command}` printed what can't be read: {error}",
        "`ip` should be the one of iproute2 (BusyBox has another, which knows no -json)",
    )


def _peer(fields: Sequence[str]) -> ObservedPeer:
    key, _, endpoint, allowed, handshake, received, sent, keepalive = fields
    prefixes = () if allowed == "(none)" else allowed.split(",")
    return ObservedPeer(
        public_key=_key(key),
        allowed_ips=tuple(sorted(str(ipaddress.ip_network(one)) for one in prefixes)),
        endpoint=None if endpoint == "(none)" else endpoint,
        keepalive_s=0 if keepalive == "off" else _number(keepalive, PORT_MAX),
        latest_handshake_unix_s=_number(handshake),
        rx_bytes=_number(received),
        tx_bytes=_number(sent),
    )


def _number(text: str, largest: int = 2**64 - 1) -> int:
    if not (text.isascii() and text.isdigit()) or (value := int(text)) > largest:
        raise ValueError(f"{text[:40]!r} is not a number up to {largest}")
    return value


def _mark(text: str) -> int:
    """Reads a mark: ``off``, or hexadecimal digits behind ``0x``."""
    if text == "off":
        return 0
    if not re.fullmatch("0x[0-9a-f]{1,8}", text):
        raise ValueError(f"{text[:40]!r} is not a mark")
    return int(text, 16)


def _key(text: str) -> WireGuardKey:
    key = bytes(KEY_BYTES) if text == "(none)" else base64.b64decode(text, validate=True)
    if len(key) != KEY_BYTES:
        raise ValueError(f"{text[:60]!r} is not a key")
    return WireGuardKey(key)
