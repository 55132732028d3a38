"""Implementations of ``runtime.ports.WireGuard``: by commands (kernel or userspace), as a dry run, and none.

An interface of ours carries a mark, its alias (``ip link set alias``). One that lacks it was made by
somebody else and is never touched. Neither kind ends with the agent: the next start adopts what it finds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

import trio

from meshpeer.adapters.wireguard.calls import Call, Create, IpBatch, WgSet, plan_calls
from meshpeer.adapters.wireguard.tools import ToolFailed, run_tool
from meshpeer.adapters.wireguard.userspace import UserspaceProcess
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.wgconf.after import device_after
from meshpeer.core.wgconf.model import DeviceStep, ObservedDevice, SetPeer
from meshpeer.core.wgconf.parse import Link, parse_dump, parse_links, parse_route_mtus, parse_routes
from meshpeer.core.wgconf.render import render_setconf

MARK = "meshpeer"
RESOLVE_S_MAX = 3.0
ADDRESSES_MAX = 4
"""Of one name, that are looked at."""


class CommandWireGuard:
    """Drives one interface with ``wg`` and ``ip``."""

    def __init__(
        self, backend: str, interface: str, program: Sequence[str] = (), *, reason: str = "", owner: str = ""
    ) -> None:
        """``owner`` tells meshes apart, such as the first letters of the mesh id; ``reason``: why this
        backend."""
        self.backend = backend
        self.reason = reason
        self._interface = interface
        self._owner = owner
        self._process = UserspaceProcess(interface, program) if backend == "userspace" else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What works less well than it should, for ``status``."""
        if self._holds_ipv6():
            return ()
        return (f"IPv6 is disabled on this machine: {self._interface} carries IPv4 only",)

    async def observe(self) -> ObservedDevice | None:
        """Reads the interface; raises ``EnvironmentFault`` where it is somebody else's, or can't be read."""
        link = await read_link(self._interface)
        if link is None:
            return None
        self._check_ours(link)
        try:
            dump = parse_dump(await run_tool("wg", "show", self._interface, "dump"))
            routes = await run_tool("ip", "-json", "route", "show", "table", "all", "dev", self._interface)
        except ToolFailed:
            if self._process is not None and not self._process.answers():
                # The device is there and nobody serves it: to be made anew, which clears it away first.
                return None
            if await read_link(self._interface) is None:
                return None
            raise
        return ObservedDevice(
            interface=self._interface,
            public_key=dump.public_key,
            listen_port=dump.listen_port,
            mtu=link.mtu,
            up=link.up,
            addresses=link.addresses,
            peers=dump.peers,
            routes=parse_routes(routes),
            route_mtus=parse_route_mtus(routes),
            ipv6=self._holds_ipv6(),
            fwmark=dump.fwmark,
        )

    async def apply(self, steps: Sequence[DeviceStep]) -> None:
        """Performs the steps with the fewest calls; raises ``EnvironmentFault`` that names the command that
        failed."""
        numeric = await _with_numeric_endpoints(steps, self._interface)
        match numeric:
            case [SetPeer(public_key=key, endpoint=str(to)) as step] if step == SetPeer(
                public_key=key, endpoint=to
            ):
                # An endpoint alone moves at an instant, and starting a program takes longer than that.
                if self._process is not None and await self._process.move_endpoint(key, to):
                    return
        for call in plan_calls(self._interface, numeric):
            await self._run(call)

    async def remove(self) -> None:
        """Takes the interface down, and its process; leaves one that is not ours alone."""
        link = await read_link(self._interface)
        if link is not None and not self._is_ours(link):
            return
        if self._process is not None:
            await self._process.stop()
        if await read_link(self._interface) is not None:
            await run_tool("ip", "link", "delete", "dev", self._interface)

    async def renew_sources(self) -> None:
        """Lets WireGuard choose anew from which address it sends to each peer.

        The kernel looks whether the address is still there. ``wireguard-go`` keeps it until a handshake fails
        15 s later, and forgets it where the endpoint is set again, to what it is."""
        if self._process is None or await self.observe() is None:
            return
        dump = parse_dump(await run_tool("wg", "show", self._interface, "dump"))
        same = [
            SetPeer(public_key=one.public_key, endpoint=one.endpoint) for one in dump.peers if one.endpoint
        ]
        for call in plan_calls(self._interface, same):
            await self._run(call)

    async def _run(self, call: Call) -> None:
        match call:
            case Create():
                await self._create()
            case WgSet(words=words, stdin=stdin):
                await run_tool("wg", "set", self._interface, *words, stdin=stdin)
            case IpBatch(lines=lines):
                possible = (
                    lines if self._holds_ipv6() else tuple(line for line in lines if not _is_ipv6(line))
                )
                await _run_batch(possible)
            case _:
                assert_never(call)

    async def _create(self) -> None:
        left = await read_link(self._interface)
        if left is not None:
            self._check_ours(left)
            await self.remove()
        name = f"dev {self._interface}"
        marking = f"link set {name} alias {self._mark}"
        if self._process is not None:
            await self._process.start()
            await _run_batch((marking,))
        else:
            await _run_batch((f"link add {name} type wireguard", marking))

    @property
    def _mark(self) -> str:
        return f"{MARK}:{self._owner}" if self._owner else MARK

    def _is_ours(self, link: Link) -> bool:
        if link.alias == self._mark:
            return True
        # Its program was started and the agent ended before it could set the mark.
        return not link.alias and self._process is not None and self._process.pid() is not None

    def _check_ours(self, link: Link) -> None:
        if self._is_ours(link):
            return
        maker = "another mesh of meshpeer" if link.alias.startswith(MARK) else "something other than meshpeer"
        raise EnvironmentFault(
            f"interface {self._interface} exists and was made by {maker}",
            f"remove it (ip link delete {self._interface}), or choose another name: "
            "[wireguard] interface in meshpeer.toml",
        )

    def _holds_ipv6(self) -> bool:
        settings = Path("/proc/sys/net/ipv6/conf")
        for name in (self._interface, "default"):
            with contextlib.suppress(OSError):
                return (settings / name / "disable_ipv6").read_text().strip() == "0"
        return False


class DryRunWireGuard:
    """Shows what it would do, and believes that it was done."""

    backend = "dry-run"

    def __init__(self, interface: str, show: Callable[[str], None]) -> None:
        self._interface = interface
        self._show = show
        self._device: ObservedDevice | None = None

    async def observe(self) -> ObservedDevice | None:
        return self._device

    async def apply(self, steps: Sequence[DeviceStep]) -> None:
        """Shows ``ip`` lines, and peers in the form of ``wg setconf``; never a private key."""
        self._device = device_after(self._device, steps)
        assert self._device is not None or not steps
        for call in plan_calls(self._interface, steps):
            match call:
                case Create():
                    self._show(f"ip link add dev {self._interface} type wireguard\n")
                case WgSet() if self._device is not None:
                    self._show(f"wg setconf {self._interface}:\n{render_setconf(self._device, {})}")
                case IpBatch(lines=lines):
                    self._show("".join(f"ip {line}\n" for line in lines))
                case _:
                    pass

    async def renew_sources(self) -> None:
        return None

    async def remove(self) -> None:
        if self._device is not None:
            self._show(f"ip link delete dev {self._interface}\n")
        self._device = None


class NoWireGuard:
    """For a node without an interface: control and jobs go over the links."""

    backend = "none"

    def __init__(self, reason: str) -> None:
        self.reason = reason

    async def observe(self) -> ObservedDevice | None:
        return None

    async def apply(self, steps: Sequence[DeviceStep]) -> None:
        return None

    async def renew_sources(self) -> None:
        return None

    async def remove(self) -> None:
        return None


async def read_link(interface: str) -> Link | None:
    """Returns the interface by name, or None where there is none."""
    try:
        shown = await run_tool("ip", "-json", "-details", "address", "show", "dev", interface)
    except ToolFailed as error:
        if "does not exist" in error.said:
            return None
        raise
    return next((link for link in parse_links(shown) if link.name == interface), None)


async def _run_batch(lines: Sequence[str]) -> None:
    if not lines:
        return
    try:
        await run_tool("ip", "-batch", "-", stdin="".join(f"{line}\n" for line in lines).encode())
    except ToolFailed as error:
        failed = re.search(r"^Command failed -:(\d+)", error.said, re.MULTILINE)
        line = lines[int(failed[1]) - 1] if failed and int(failed[1]) <= len(lines) else "; ip ".join(lines)
        reason = error.what.partition(" failed: ")[2] or error.what
        raise ToolFailed(f"`ip {line}` failed: {reason}", said=error.said) from error


async def _with_numeric_endpoints(steps: Sequence[DeviceStep], interface: str) -> list[DeviceStep]:
    """Replaces names in endpoints by addresses, all at once.

    One that can't be resolved is left out: ``wg`` would refuse the whole call, and every other peer with it.
    """
    resolved = list(steps)

    async def resolve(position: int, step: SetPeer, endpoint: str) -> None:
        resolved[position] = dataclasses.replace(step, endpoint=await _resolve(endpoint, interface))

    async with trio.open_nursery() as nursery:
        for position, step in enumerate(steps):
            if isinstance(step, SetPeer) and step.endpoint is not None and not _is_numeric(step.endpoint):
                nursery.start_soon(resolve, position, step, step.endpoint)
    return resolved


async def _resolve(endpoint: str, interface: str) -> str | None:
    """Returns the first address of a name that does not lead into the interface itself."""
    host, _, port = endpoint.rpartition(":")
    try:
        with trio.fail_after(RESOLVE_S_MAX):
            found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_DGRAM)
    except (OSError, UnicodeError, trio.TooSlowError):
        return None
    for address in [str(one[4][0]) for one in found[:ADDRESSES_MAX]]:
        if not await _leads_into(interface, address):
            return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return None


async def _leads_into(interface: str, address: str) -> bool:
    """Says whether an address lies behind the tunnel: as an endpoint it would make a tunnel in a tunnel."""
    try:
        shown = await run_tool("ip", "-oneline", "route", "get", address)
    except ToolFailed:
        return False
    words = shown.split()
    return "dev" in words and words[words.index("dev") + 1] == interface


def _is_numeric(endpoint: str) -> bool:
    try:
        ipaddress.ip_address(endpoint.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True


def _is_ipv6(line: str) -> bool:
    return ":" in line and line.startswith(("address", "route"))
