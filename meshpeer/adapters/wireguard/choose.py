"""Picks the backend: kernel, else userspace, and says why; or says in two lines what this machine lacks."""

from __future__ import annotations

import os
from collections.abc import Sequence

from meshpeer.adapters.wireguard.backends import CommandWireGuard, NoWireGuard, read_link
from meshpeer.adapters.wireguard.tools import ToolFailed, net_admin, require_tool, run_tool
from meshpeer.adapters.wireguard.userspace import UNIT_VARIABLE
from meshpeer.core.errors import EnvironmentFault, LocalFault

KINDS = ("auto", "kernel", "userspace", "none")
INTERFACE_NAME_MAX = 15
"""IFNAMSIZ without its end."""
TUN_DEVICE = "/dev/net/tun"


async def open_wireguard(
    kind: str, interface: str, *, program: Sequence[str] = ("wireguard-go",), owner: str = ""
) -> CommandWireGuard | NoWireGuard:
    """Returns the backend to use: ``kernel``, ``userspace``, ``none``, or with ``auto`` the first that works.

    ``program`` speaks the UAPI and stays in the foreground: words with ``{interface}``, or those of
    wireguard-go. ``owner`` tells meshes on one machine apart. An interface that is there already, from an
    agent before, decides in ``auto``. Raises ``EnvironmentFault`` naming what is missing and the package
    that brings it, and ``LocalFault``.
    """
    if kind not in KINDS:
        raise LocalFault(f"{kind!r} is no backend", f"choose one of {', '.join(KINDS)}")
    if kind == "none":
        return NoWireGuard("asked for: no tunnels, control and jobs go over the links")
    if (
        not 1 <= len(interface) <= INTERFACE_NAME_MAX
        or not interface.replace("-", "").replace("_", "").isalnum()
    ):
        raise LocalFault(f"{interface!r} can't name an interface", "up to 15 letters and digits, like wg0")
    if not net_admin():
        raise EnvironmentFault(
            "a tunnel needs root (CAP_NET_ADMIN)",
            "run with sudo, or join with --backend none: control and jobs, no tunnels",
        )
    require_tool("ip")
    require_tool("wg")
    there = await read_link(interface)
    if kind in ("auto", "kernel"):
        if there is not None and there.kind == "wireguard":
            return CommandWireGuard("kernel", interface, reason="the interface is the kernel's", owner=owner)
        lacks = "" if there is not None else await _kernel_lacks(interface)
        if there is None and not lacks:
            return CommandWireGuard("kernel", interface, reason="the kernel has WireGuard", owner=owner)
        if kind == "kernel":
            raise EnvironmentFault(
                f"the kernel's WireGuard can't be used: {lacks or f'{interface} is of another kind'}",
                "modprobe wireguard, or use --backend userspace",
            )
        why = f"the kernel has no WireGuard ({lacks})" if lacks else "the interface is a userspace program's"
    else:
        why = "asked for"
    require_tool(program[0])
    # A unit that opens it for the agent can see it, which the agent itself then does not.
    if not os.environ.get(UNIT_VARIABLE) and not os.access(TUN_DEVICE, os.F_OK):
        raise EnvironmentFault(
            f"there is no {TUN_DEVICE}, which {program[0]} needs",
            "modprobe tun (in a container: --device /dev/net/tun), or join with --backend none",
        )
    return CommandWireGuard("userspace", interface, program, reason=why, owner=owner)


async def _kernel_lacks(interface: str) -> str:
    """Says why the kernel can't make a WireGuard interface; empty where it can."""
    probe = f"{interface[:9]}-probe"
    try:
        await run_tool("ip", "link", "add", "dev", probe, "type", "wireguard")
    except ToolFailed as error:
        return error.said.removeprefix("Error: ").rstrip(".") or error.what
    await run_tool("ip", "link", "delete", "dev", probe)
    return ""
