"""Reads addresses and routes with ``ip -json`` where it is installed, else from the socket layer.

Addresses that must never be offered to a peer are left out: loopback (unless there is nothing else),
link-local, the mesh's own
interface, and bridges of container engines, whose addresses are the same on every machine.
"""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import trio

from meshpeer.core.addressing.overlap import Route

CONTAINER_PREFIXES = ("docker", "br-", "veth", "virbr", "cni", "flannel", "podman", "lxc")
ROUTES_MAX = 4_096
"""A router that holds the internet's routes has a hundred times as many; none of those is a LAN's."""
IPV6_OF_EVERY_LINK = ("fe80:", "ff00:", "multicast")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    addresses: tuple[str, ...]
    """Usable by peers, IPv4 first."""
    attached: tuple[str, ...]
    """Prefixes of networks that this machine is attached to."""
    routes: tuple[Route, ...]
    """Of both families, from the main table; at most ``ROUTES_MAX``."""


Shape = TypeVar("Shape")


class _Address(msgspec.Struct, frozen=True):
    family: str
    local: str
    prefixlen: int
    scope: str = ""
    temporary: bool = False


class _Link(msgspec.Struct, frozen=True):
    ifname: str
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
    links = await _read([ip, "-json", "address"], list[_Link])
    routes = [*await _routes(ip, 4, "0.0.0.0/0"), *await _routes(ip, 6, "::/0")]
    found: list[tuple[int, str]] = []
    attached: list[str] = []
    for link in links or []:
        if link.ifname == interface or link.ifname.startswith(CONTAINER_PREFIXES):
            continue
        for one in link.addr_info:
            if one.scope == "link" or one.temporary:
                continue
            loopback = one.scope == "host"
            if not loopback:
                attached.append(f"{one.local}/{one.prefixlen}")
            found.append(((2 if loopback else 0) + (one.family != "inet"), one.local))
    usable = [address for rank, address in sorted(found) if rank < 2] or [
        address for _, address in sorted(found)
    ]
    return Network(
        addresses=tuple(usable),
        attached=tuple(attached),
        routes=tuple(routes[:ROUTES_MAX]),
    )


async def _routes(ip: str, family: int, default: str) -> list[Route]:
    found = await _read([ip, "-json", f"-{family}", "route"], list[_Route])
    return [
        Route(prefix=default if one.dst == "default" else one.dst, device=one.dev, on_link=not one.gateway)
        for one in found or []
        if family == 4 or not one.dst.startswith(IPV6_OF_EVERY_LINK)
    ]


async def _read(command: list[str], kind: type[Shape]) -> Shape | None:
    try:
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        return msgspec.json.decode(done.stdout or b"[]", type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def _guess() -> tuple[str, ...]:
    """The address that this host would use towards the outside; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return (str(probe.getsockname()[0]),)
        except OSError:
            return ("127.0.0.1",)
