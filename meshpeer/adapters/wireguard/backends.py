"""Backends: kernel WireGuard, a userspace program that speaks the UAPI, or none.

The interface is marked with an alias; one that lacks the mark was made by somebody else and is never touched. A userspace program runs
in a session of its own and outlives the agent, so traffic flows on; it is adopted at the next start, like a kernel interface.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

import trio

from meshpeer.adapters.wireguard.tools import ToolFailed, parse_addresses, parse_dump, require_tool, run_tool
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import wireguard_key_text
from meshpeer.core.wgconf.model import (
    AddAddress,
    AddRoute,
    CreateInterface,
    DeviceStep,
    ObservedDevice,
    RemoveAddress,
    RemovePeer,
    RemoveRoute,
    SetListenPort,
    SetMtu,
    SetPeer,
    SetPrivateKey,
    SetUp,
)

MARK = "meshpeer"
USERSPACE_START_S = 5.0
UAPI_FOLDER = Path("/var/run/wireguard")


async def open_wireguard(kind: str, interface: str, *, program: Sequence[str] = ("wireguard-go",)) -> CommandWireGuard | NoWireGuard:
    """Returns the backend to use: ``kernel``, ``userspace``, ``none``, or with ``auto`` the first that works.

    Raises ``EnvironmentFault`` naming what is missing and the package that brings it.
    """
    if kind == "none":
        return NoWireGuard("asked for")
    if os.geteuid() != 0:
        raise EnvironmentFault(
            "an interface needs root (CAP_NET_ADMIN)", "run with sudo, or join with --backend none: control and jobs only, no tunnels"
        )
    require_tool("ip")
    require_tool("wg")
    if kind in ("auto", "kernel"):
        reason = await _kernel_lacks(interface)
        if not reason:
            return CommandWireGuard("kernel", interface, ())
        if kind == "kernel":
            raise EnvironmentFault(f"the kernel has no WireGuard: {reason}", "modprobe wireguard, or use --backend userspace")
    require_tool(program[0])
    if not os.path.exists("/dev/net/tun"):
        raise EnvironmentFault("this machine has neither kernel WireGuard nor /dev/net/tun", "modprobe tun, or join with --backend none")
    return CommandWireGuard("userspace", interface, tuple(program))


class NoWireGuard:
    """Implements ``runtime.ports.WireGuard`` for a node without an interface: control and jobs go over the links."""

    backend = "none"

    def __init__(self, reason: str) -> None:
        self.reason = reason

    async def observe(self) -> ObservedDevice | None:
        return None

    async def apply(self, steps: Sequence[DeviceStep]) -> None:
        return None

    async def remove(self) -> None:
        return None


class CommandWireGuard:
    """Implements ``runtime.ports.WireGuard`` with ``wg`` and ``ip``."""

    def __init__(self, backend: str, interface: str, program: Sequence[str]) -> None:
        self.backend = backend
        self._interface = interface
        self._program = program

    async def observe(self) -> ObservedDevice | None:
        links = [one for one in parse_addresses(await run_tool("ip", "-json", "address")) if one.ifname == self._interface]
        if not links:
            return None
        link = links[0]
        if not await self._is_ours():
            raise EnvironmentFault(
                f"interface {self._interface} exists and was not made by meshpeer",
                f"remove it (ip link del {self._interface}), or choose another name: [wireguard] interface in meshpeer.toml",
            )
        try:
            dump = parse_dump(await run_tool("wg", "show", self._interface, "dump"))
        except ToolFailed:
            # The device is there and nobody answers for it: a userspace program that died leaves none, so it is just starting.
            return None
        addresses = tuple(f"{one.local}/{one.prefixlen}" for one in link.addr_info if one.scope != "link")
        return ObservedDevice(
            interface=self._interface,
            public_key=dump.public_key,
            listen_port=dump.listen_port,
            mtu=link.mtu,
            up="UP" in link.flags,
            addresses=addresses,
            peers=dump.peers,
            routes=(),
        )

    async def apply(self, steps: Sequence[DeviceStep]) -> None:
        peers: list[str] = []
        for step in steps:
            if not isinstance(step, SetPeer | RemovePeer) and peers:
                await run_tool("wg", "set", self._interface, *peers)
                peers = []
            match step:
                case SetPeer():
                    peers += _peer_arguments(step)
                case RemovePeer(public_key=key):
                    peers += ["peer", wireguard_key_text(key), "remove"]
                case _:
                    await self._apply_one(step)
        if peers:
            await run_tool("wg", "set", self._interface, *peers)

    async def remove(self) -> None:
        with contextlib.suppress(ToolFailed):
            if await self._is_ours():
                await run_tool("ip", "link", "delete", self._interface)
        process = self._userspace_process()
        if process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        (self._pid_file()).unlink(missing_ok=True)

    async def _apply_one(self, step: DeviceStep) -> None:
        device = self._interface
        match step:
            case CreateInterface():
                await self._create()
            case SetPrivateKey(private_key=key):
                await run_tool("wg", "set", device, "private-key", "/dev/stdin", stdin=base64.b64encode(key) + b"\n")
            case SetListenPort(port=port):
                await run_tool("wg", "set", device, "listen-port", str(port))
            case SetMtu(mtu=mtu):
                await run_tool("ip", "link", "set", device, "mtu", str(mtu))
            case AddAddress(address=address):
                await run_tool("ip", *_family(address), "address", "replace", address, "dev", device, *(["nodad"] if ":" in address else []))
            case RemoveAddress(address=address):
                with contextlib.suppress(ToolFailed):
                    await run_tool("ip", *_family(address), "address", "delete", address, "dev", device)
            case SetUp():
                await run_tool("ip", "link", "set", device, "up")
            case AddRoute(prefix=prefix):
                await run_tool("ip", *_family(prefix), "route", "replace", prefix, "dev", device)
            case RemoveRoute(prefix=prefix):
                with contextlib.suppress(ToolFailed):
                    await run_tool("ip", *_family(prefix), "route", "delete", prefix, "dev", device)
            case SetPeer() | RemovePeer():
                return
            case _:
                assert_never(step)

    async def _create(self) -> None:
        if self.backend == "kernel":
            await run_tool("ip", "link", "add", "dev", self._interface, "type", "wireguard")
        else:
            await self._start_userspace()
        await run_tool("ip", "link", "set", self._interface, "alias", MARK)

    async def _start_userspace(self) -> None:
        """Starts the program; it puts itself into the background once its interface is there."""
        UAPI_FOLDER.mkdir(parents=True, exist_ok=True)
        stale = UAPI_FOLDER / f"{self._interface}.sock"
        stale.unlink(missing_ok=True)
        environment = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error"}
        process = subprocess.Popen(
            [require_tool(self._program[0]), *self._program[1:], "--foreground", self._interface],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env=environment,
        )
        self._pid_file().write_text(f"{process.pid}\n")
        with trio.move_on_after(USERSPACE_START_S):
            while not (stale.exists() and os.path.exists(f"/sys/class/net/{self._interface}")):
                if process.poll() is not None:
                    break
                await trio.sleep(0.01)
            else:
                return
        raise EnvironmentFault(f"`{self._program[0]}` did not bring up {self._interface}", f"run it by hand to see why: {self._program[0]} -f {self._interface}")

    def _userspace_process(self) -> int | None:
        """Returns the program's process id where it is still the program."""
        with contextlib.suppress(OSError, ValueError):
            process = int(self._pid_file().read_text())
            words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            if self._interface.encode() in words:
                return process
        return None

    def _pid_file(self) -> Path:
        return UAPI_FOLDER / f"{self._interface}.{MARK}.pid"

    async def _is_ours(self) -> bool:
        try:
            return Path(f"/sys/class/net/{self._interface}/ifalias").read_text().strip() == MARK
        except OSError:
            # /sys may belong to another network namespace; the tool asks the kernel by netlink.
            return f"alias {MARK}" in await run_tool("ip", "link", "show", self._interface)


async def _kernel_lacks(interface: str) -> str:
    """Says why the kernel can't make a WireGuard interface; empty where it can, or has one of ours already."""
    probe = f"{interface[:9]}-probe"
    try:
        await run_tool("ip", "link", "add", "dev", probe, "type", "wireguard")
    except ToolFailed as error:
        return error.what
    await run_tool("ip", "link", "delete", probe)
    return ""


def _peer_arguments(step: SetPeer) -> list[str]:
    words = ["peer", wireguard_key_text(step.public_key)]
    if step.endpoint is not None:
        words += ["endpoint", step.endpoint]
    if step.keepalive_s is not None:
        words += ["persistent-keepalive", str(step.keepalive_s) if step.keepalive_s else "off"]
    if step.allowed_ips is not None:
        words += ["allowed-ips", ",".join(step.allowed_ips)]
    return words


def _family(prefix: str) -> list[str]:
    return ["-6"] if ":" in prefix else ["-4"]
