"""Reads addresses and routes with ``ip -json`` where it is installed, else from the socket layer. Which of
them peers may be told is for ``core.addressing.own_addresses``.
"""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import trio

from meshpeer.core.addressing.overlap import Route
from meshpeer.core.addressing.own_addresses import AddressSeen, LinkSeen, own_addresses
from meshpeer.core.wire.unreadable import UNREADABLE

ROUTES_MAX = 4_096
"""A router that holds the internet's routes has a hundred times as many; none of those is a LAN's."""
IPV6_OF_EVERY_LINK = ("fe80:", "ff00:", "multicast")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    addresses: tuple[str, ...]
    """Usable by peers, IPv4 first."""
    attached: tuple[str, ...]
    """Prefixes of networks that this machine is attached to, with its own addresses there."""
    routes: tuple[Route, ...]
    """Of both families, from the main table; at most ``ROUTES_MAX``."""
    held: tuple[str, ...] | None = None
    """All addresses that this machine has; None where that is not known."""


Shape = TypeVar("Shape")


class _Address(msgspec.Struct, frozen=True):
    family: str
    local: str
    prefixlen: int
    scope: str = ""
    temporary: bool = False
    tentative: bool = False
    deprecated: bool = False
    dadfailed: bool = False


class _LinkInfo(msgspec.Struct, frozen=True):
    info_kind: str = ""


class _Link(msgspec.Struct, frozen=True):
    ifname: str
    flags: tuple[str, ...] = ()
    master: str = ""
    linkinfo: _LinkInfo = _LinkInfo()
    addr_info: tuple[_Address, ...] = ()


class _Route(msgspec.Struct, frozen=True):
    dst: str
    dev: str = ""
    gateway: str = ""


async def observe_network(interface: str) -> Network:
    """Reads the network as it is now; ``interface`` is the mesh's own, which is left out. Never raises: what
    can't be read is empty."""
    ip = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if ip is None:
        return Network(addresses=_guess(), attached=(), routes=())
    links = parse_links(await _output([ip, "-json", "-details", "address"]))
    routes = [*await _routes(ip, 4, "0.0.0.0/0"), *await _routes(ip, 6, "::/0")]
    own = own_addresses(links, interface=interface)
    return Network(
        addresses=own.usable,
        attached=own.attached,
        routes=tuple(routes[:ROUTES_MAX]),
        held=own.held if links else None,
    )


def parse_links(document: bytes) -> tuple[LinkSeen, ...]:
    """Reads what ``ip -json -details address`` prints; nothing from what is something else."""
    return tuple(
        LinkSeen(
            name=link.ifname,
            kind=link.linkinfo.info_kind,
            carries="UP" in link.flags and "NO-CARRIER" not in link.flags,
            master=link.master,
            addresses=tuple(
                AddressSeen(
                    address=one.local,
                    prefix_length=one.prefixlen,
                    scope=one.scope,
                    passing=one.temporary or one.tentative or one.deprecated or one.dadfailed,
                )
                for one in link.addr_info
            ),
        )
        for link in _decoded(document, list[_Link]) or ()
    )


async def _routes(ip: str, family: int, default: str) -> list[Route]:
    found = _decoded(await _output([ip, "-json", f"-{family}", "route"]), list[_Route])
    return [
        Route(prefix=default if one.dst == "default" else one.dst, device=one.dev, on_link=not one.gateway)
        for one in found or []
        if family == 4 or not one.dst.startswith(IPV6_OF_EVERY_LINK)
    ]


async def _output(command: list[str]) -> bytes:
    try:
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    except OSError:
        return b"[]"
    return done.stdout or b"[]"


def _decoded(document: bytes, kind: type[Shape]) -> Shape | None:
    try:
        return msgspec.json.decode(document, type=kind)
    except UNREADABLE:
        return None


def _guess() -> tuple[str, ...]:
    """The address that this host would use towards the outside; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return (str(probe.getsockname()[0]),)
        except OSError:
            return ("127.0.0.1",)
