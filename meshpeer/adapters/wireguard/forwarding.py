"""Forwarding on a hub: from tunnel to tunnel, within the mesh's own prefixes, and nowhere else.

A hub must not become an open router. So forwarding is switched on for the mesh's interface alone where the
kernel can do that (IPv4 always; IPv6 since Linux 6.17), and a table of our own in nftables drops whatever
comes out of a tunnel for anywhere but another tunnel. On older kernels IPv6 forwarding is one switch for the
whole machine: then the table also drops what the machine did not forward before, and interfaces go on
listening to router advertisements. What was changed outside the interface is written down before, and put
back when the hub retires.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import trio

from meshpeer.adapters.wireguard.tools import ToolFailed, require_tool, run_tool
from meshpeer.core.errors import EnvironmentFault

SETTINGS = Path("/proc/sys/net")
ALL_IPV6 = "ipv6/conf/all/forwarding"


class Forwarding:
    """Of one interface. ``before`` is the file that keeps what the machine's settings were."""

    def __init__(self, interface: str, before: Path, *, settings: Path = SETTINGS) -> None:
        self._interface = interface
        self._table = f"meshpeer_{interface.replace('-', '_').replace('.', '_')}"
        self._before = before
        self._settings = settings

    def check(self) -> None:
        """Raises ``EnvironmentFault`` where this machine can't be a hub."""
        require_tool("nft")
        if not (self._settings / "ipv4/conf").is_dir():
            raise EnvironmentFault("/proc/sys is not mounted", "a hub has to set net.ipv4.conf.*.forwarding")

    async def ensure(self, prefixes: Sequence[str]) -> bool:
        """Brings the machine in step: forward within these prefixes, or (none) not at all. Says whether
        anything had to be done; raises ``EnvironmentFault``."""
        return await (self._on(prefixes) if prefixes else self._off())

    async def _on(self, prefixes: Sequence[str]) -> bool:
        self.check()
        closed = not self._has("ipv6") or await trio.to_thread.run_sync(self._ipv6_was_off)
        rules = render_table(self._table, self._interface, prefixes, ipv6_closed=closed)
        changed = await self._listed() != rules
        if changed:
            # The table first: nothing is forwarded before it is known what must not be.
            await run_tool("nft", "-f", "-", stdin=_replacing(self._table, rules).encode())
        return await trio.to_thread.run_sync(self._switch_on) or changed

    async def _off(self) -> bool:
        held = await self._listed()
        for name in (
            f"ipv4/conf/{self._interface}/forwarding",
            f"ipv6/conf/{self._interface}/force_forwarding",
        ):
            if self._read(name) == "1":
                self._write(name, "0")
        self._put_back()
        if not held:
            return False
        await run_tool("nft", "delete", "table", "inet", self._table)
        return True

    # --- switches of the kernel -----------------------------------------------------------------------------

    def _has(self, family: str) -> bool:
        return (self._settings / family / "conf" / self._interface).is_dir()

    def _ipv6_was_off(self) -> bool:
        """Says whether the machine did not forward IPv6 before meshpeer made it."""
        held = self._kept().get(ALL_IPV6)
        return (held if held is not None else self._read(ALL_IPV6)) == "0"

    def _switch_on(self) -> bool:
        if not self._has("ipv4"):
            raise EnvironmentFault(f"there is no interface {self._interface} to forward on")
        changed = self._set(f"ipv4/conf/{self._interface}/forwarding", "1")
        if not self._has("ipv6"):
            return changed
        own = f"ipv6/conf/{self._interface}/force_forwarding"
        if (self._settings / own).exists():
            return self._set(own, "1") or changed
        if self._read(ALL_IPV6) == "1":
            return changed
        listening = [
            f"ipv6/conf/{folder.name}/accept_ra"
            for folder in sorted((self._settings / "ipv6/conf").iterdir())
            if self._read(f"ipv6/conf/{folder.name}/accept_ra") == "1"
        ]
        self._keep({name: self._read(name) for name in (ALL_IPV6, *listening)})
        for name in listening:
            self._write(name, "2")
        self._write(ALL_IPV6, "1")
        return True

    def _put_back(self) -> None:
        for name, value in self._kept().items():
            if (self._settings / name).exists():
                self._write(name, value)
        self._before.unlink(missing_ok=True)

    def _kept(self) -> dict[str, str]:
        try:
            kept = json.loads(self._before.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {str(name): str(value) for name, value in kept.items()} if isinstance(kept, dict) else {}

    def _keep(self, values: dict[str, str]) -> None:
        if not self._before.exists():
            self._before.write_text(json.dumps(values))

    def _set(self, name: str, value: str) -> bool:
        if self._read(name) == value:
            return False
        self._write(name, value)
        return True

    def _read(self, name: str) -> str:
        try:
            return (self._settings / name).read_text().strip()
        except OSError:
            return ""

    def _write(self, name: str, value: str) -> None:
        try:
            (self._settings / name).write_text(value)
        except OSError as error:
            setting = "net." + name.replace("/", ".")
            raise EnvironmentFault(
                f"{setting} can't be set: {error.strerror}", f"a hub needs it: sysctl -w {setting}={value}"
            ) from error

    # --- nftables -------------------------------------------------------------------------------------------

    async def _listed(self) -> str:
        try:
            return await run_tool("nft", "list", "table", "inet", self._table)
        except ToolFailed:
            return ""
        except EnvironmentFault:
            # Without nft there is no table of ours.
            return ""


def render_table(table: str, interface: str, prefixes: Sequence[str], *, ipv6_closed: bool) -> str:
    """Returns the table in the very form in which ``nft list table`` prints it."""
    lines = [
        f"table inet {table} {{",
        "\tchain forward {",
        "\t\ttype filter hook forward priority filter - 10; policy accept;",
        *(
            f'\t\tiifname "{interface}" oifname "{interface}" {ip} saddr {one} {ip} daddr {one} accept'
            for one in prefixes
            for ip in (("ip6",) if ":" in one else ("ip",))
        ),
        f'\t\tiifname "{interface}" drop',
        *(["\t\tmeta nfproto ipv6 drop"] if ipv6_closed else []),
        "\t}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _replacing(table: str, rules: str) -> str:
    """Returns a script that puts the rules in the place of whatever the table holds, in one transaction."""
    return f"table inet {table} {{}}\ndelete table inet {table}\n{rules}"
