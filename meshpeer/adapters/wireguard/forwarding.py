"""Forwarding on a hub: from tunnel to tunnel, within the mesh's own prefixes, and nowhere else.

A hub must not become an open router. So forwarding is switched on for the mesh's interface alone where the
kernel can do that (IPv4 always; IPv6 since Linux 6.17), and a table of our own in nftables drops whatever
comes out of a tunnel for anywhere but another tunnel. On older kernels IPv6 forwarding is one switch for the
whole machine: then the table also drops what the machine did not forward before, and interfaces go on
listening to router advertisements. On a machine that routes already (for containers, say), answers to what it
sent into the mesh still pass. What is changed is written down first, and put back when the hub retires; what
was on before stays on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import trio

from meshpeer.adapters.wireguard.tools import require_tool, run_tool
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
        self._own_ipv4 = f"ipv4/conf/{interface}/forwarding"
        self._own_ipv6 = f"ipv6/conf/{interface}/force_forwarding"

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
        routed, ipv6_closed = await trio.to_thread.run_sync(self._before_us)
        rules = render_table(self._table, self._interface, prefixes, answers=routed, ipv6_closed=ipv6_closed)
        changed = await self._listed() != rules
        if changed:
            # The table first: nothing is forwarded before it is known what must not be.
            await run_tool("nft", "-f", "-", stdin=_replacing(self._table, rules).encode())
        return await trio.to_thread.run_sync(self._switch_on) or changed

    async def _off(self) -> bool:
        held = await self._listed()
        await trio.to_thread.run_sync(self._put_back)
        if not held:
            return False
        await run_tool("nft", "delete", "table", "inet", self._table)
        return True

    # --- switches of the kernel -----------------------------------------------------------------------------

    def _has(self, family: str) -> bool:
        return (self._settings / family / "conf" / self._interface).is_dir()

    def _before_us(self) -> tuple[bool, bool]:
        """Says whether the machine routed packets before meshpeer made it, and whether the one switch that
        makes it forward IPv6 had to be turned."""
        kept = self._kept()
        ipv4 = kept.get(self._own_ipv4, self._read(self._own_ipv4)) == "1"
        ipv6 = kept.get(ALL_IPV6, self._read(ALL_IPV6)) == "1"
        has_own_switch = not self._has("ipv6") or (self._settings / self._own_ipv6).exists()
        return ipv4 or ipv6, not ipv6 and not has_own_switch

    def _switch_on(self) -> bool:
        if not self._has("ipv4"):
            raise EnvironmentFault(f"there is no interface {self._interface} to forward on")
        wanted = {self._own_ipv4: "1"}
        if self._has("ipv6") and (self._settings / self._own_ipv6).exists():
            wanted[self._own_ipv6] = "1"
        elif self._has("ipv6") and self._read(ALL_IPV6) != "1":
            names = [
                f"ipv6/conf/{folder.name}/accept_ra"
                for folder in sorted((self._settings / "ipv6/conf").iterdir())
            ]
            wanted |= {name: "2" for name in names if self._read(name) == "1"}
            wanted[ALL_IPV6] = "1"
        before = {name: self._read(name) for name in wanted}
        changed = {name: value for name, value in wanted.items() if before[name] != value}
        self._keep({name: before[name] for name in changed})
        for name, value in changed.items():
            self._write(name, value)
        return bool(changed)

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
        """Writes down what settings were. The first word counts: what is found later may be our own."""
        kept = self._kept()
        if values.keys() <= kept.keys():
            return
        try:
            self._before.write_text(json.dumps(values | kept))
        except OSError as error:
            raise EnvironmentFault(f"{self._before} can't be written: {error.strerror}") from error

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
        except EnvironmentFault:
            # Nft says that there is no such table, or there is no nft, and so no table of ours.
            return ""


def render_table(
    table: str, interface: str, prefixes: Sequence[str], *, answers: bool, ipv6_closed: bool
) -> str:
    """Returns the table in the very form in which ``nft list table`` prints it.

    ``answers``: let what belongs to a connection from outside the mesh leave it; ``ipv6_closed``: nothing
    else of IPv6 was forwarded before.
    """
    lines = [
        f"table inet {table} {{",
        "\tchain forward {",
        "\t\ttype filter hook forward priority filter - 10; policy accept;",
        *(
            f'\t\tiifname "{interface}" oifname "{interface}" {ip} saddr {one} {ip} daddr {one} accept'
            for one in prefixes
            for ip in (("ip6",) if ":" in one else ("ip",))
        ),
        *([f'\t\tiifname "{interface}" ct state established,related accept'] if answers else []),
        f'\t\tiifname "{interface}" drop',
        *(["\t\tmeta nfproto ipv6 drop"] if ipv6_closed else []),
        "\t}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _replacing(table: str, rules: str) -> str:
    """Returns a script that puts the rules in the place of whatever the table holds, in one transaction."""
    return f"table inet {table} {{}}\ndelete table inet {table}\n{rules}"
