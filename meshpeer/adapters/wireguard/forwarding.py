"""Forwarding: on a hub from tunnel to tunnel, and out of tunnels to the LANs that this node advertises.

Neither must make an open router of the machine. So forwarding is switched on for the mesh's interface alone,
and for those that lead to such a LAN, where the kernel can do that (IPv4 always; IPv6 since Linux 6.17), and
a table of our own in nftables drops whatever comes out of a tunnel for anywhere else, and whatever an
interface that forwarded nothing before would now forward besides answers. On older kernels IPv6 forwarding
is one switch for the whole machine: then the table also drops what the machine did not forward before, and
interfaces go on listening to router advertisements. On a machine that routes already (for containers, say),
answers to what it sent into the mesh still pass. What is changed is written down first, and put back when it
is needed no more; what was on before stays on.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import trio

from meshpeer.adapters.wireguard.forwarding_table import render_table
from meshpeer.adapters.wireguard.tools import require_tool, run_tool
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.wgconf.forwarding import DesiredForwarding

SETTINGS = Path("/proc/sys/net")
ALL_IPV4 = "ipv4/conf/all/forwarding"
"""Never touched: whoever sets it wants a router."""
ALL_IPV6 = "ipv6/conf/all/forwarding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What the machine did before meshpeer made it forward anything."""

    routed: bool
    """It passed on packets of its own accord."""
    ipv6_closed: bool
    """It did not forward IPv6, and the one switch for all of it has to be turned."""
    closed: tuple[tuple[str, str], ...]
    """Interfaces towards LANs that forwarded nothing of a family."""


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
        """Raises ``EnvironmentFault`` where this machine can't pass on packets."""
        require_tool("nft")
        if not (self._settings / "ipv4/conf").is_dir():
            raise EnvironmentFault("/proc/sys is not mounted", "net.ipv4.conf.*.forwarding has to be set")

    async def ensure(self, wanted: DesiredForwarding) -> bool:
        """Brings the machine in step: forward what is wanted, or nothing at all. Says whether anything had to
        be done; raises ``EnvironmentFault``."""
        return await (self._on(wanted) if wanted.anything else self._off())

    async def _on(self, wanted: DesiredForwarding) -> bool:
        self.check()
        before = await trio.to_thread.run_sync(self._before_us, wanted)
        rules = render_table(
            self._table,
            self._interface,
            wanted,
            answers=before.routed,
            ipv6_closed=before.ipv6_closed,
            closed=before.closed,
        )
        changed = await self._listed() != rules
        if changed:
            # The table first: nothing is forwarded before it is known what must not be.
            await run_tool("nft", "-f", "-", stdin=_replacing(self._table, rules).encode())
        return await trio.to_thread.run_sync(self._switch_on, wanted) or changed

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

    def _has_own_switch(self) -> bool:
        return (self._settings / self._own_ipv6).exists()

    def _before_us(self, wanted: DesiredForwarding) -> Before:
        kept = self._kept()

        def was_on(name: str) -> bool:
            return kept.get(name, self._read(name)) == "1"

        ipv4, ipv6 = was_on(self._own_ipv4), was_on(ALL_IPV6)
        turned = self._needs_ipv6(wanted) and self._has("ipv6") and not self._has_own_switch()
        routes = {"ipv4": self._read(ALL_IPV4) == "1", "ipv6": ipv6 or turned}
        closed = [
            (device, family)
            for family, device in _devices(wanted)
            if not routes[family] and not was_on(_switch_of(family, device))
        ]
        return Before(routed=ipv4 or ipv6, ipv6_closed=turned and not ipv6, closed=tuple(closed))

    def _needs_ipv6(self, wanted: DesiredForwarding) -> bool:
        return wanted.hub or any(family == "ipv6" for family, _ in _devices(wanted))

    def _switches(self, wanted: DesiredForwarding) -> dict[str, str]:
        """Returns what has to stand in which setting."""
        switches = {self._own_ipv4: "1"}
        if self._needs_ipv6(wanted) and self._has("ipv6"):
            if self._has_own_switch():
                switches[self._own_ipv6] = "1"
            else:
                switches |= self._one_switch_for_all()
        for family, device in _devices(wanted):
            name = _switch_of(family, device)
            if (self._settings / name).exists():
                switches[name] = "1"
        return switches

    def _one_switch_for_all(self) -> dict[str, str]:
        """Returns the switch of IPv6 as a whole, and what keeps a router that listens to its own router."""
        kept = self._kept()
        if self._read(ALL_IPV6) == "1" and ALL_IPV6 not in kept:
            return {}
        folders = sorted((self._settings / "ipv6/conf").iterdir())
        names = [f"ipv6/conf/{folder.name}/accept_ra" for folder in folders]
        listening = {name: "2" for name in names if name in kept or self._read(name) == "1"}
        return {**listening, ALL_IPV6: "1"}

    def _switch_on(self, wanted: DesiredForwarding) -> bool:
        if not self._has("ipv4"):
            raise EnvironmentFault(f"there is no interface {self._interface} to forward on")
        switches = self._switches(wanted)
        self._put_back(but=switches)
        before = {name: self._read(name) for name in switches}
        changed = {name: value for name, value in switches.items() if before[name] != value}
        self._keep({name: before[name] for name in changed})
        for name, value in changed.items():
            self._write(name, value)
        return bool(changed)

    def _put_back(self, but: Collection[str] = ()) -> None:
        kept = self._kept()
        gone = {name: value for name, value in kept.items() if name not in but}
        # Docker, say, made a router of the machine meanwhile, and means every interface.
        routes = self._read(ALL_IPV4) == "1"
        for name, value in gone.items():
            if (self._settings / name).exists() and not (routes and name.startswith("ipv4/")):
                self._write(name, value)
        if not but:
            self._before.unlink(missing_ok=True)
        elif gone:
            self._note({name: value for name, value in kept.items() if name in but})

    def _kept(self) -> dict[str, str]:
        try:
            kept = json.loads(self._before.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {str(name): str(value) for name, value in kept.items()} if isinstance(kept, dict) else {}

    def _keep(self, values: dict[str, str]) -> None:
        """Writes down what settings were. The first word counts: what is found later may be our own."""
        kept = self._kept()
        if not values.keys() <= kept.keys():
            self._note(values | kept)

    def _note(self, values: dict[str, str]) -> None:
        try:
            self._before.write_text(json.dumps(values))
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
                f"{setting} can't be set: {error.strerror}",
                f"forwarding needs it: sysctl -w {setting}={value}",
            ) from error

    # --- nftables -------------------------------------------------------------------------------------------

    async def _listed(self) -> str:
        try:
            return await run_tool("nft", "list", "table", "inet", self._table)
        except EnvironmentFault:
            # Nft says that there is no such table, or there is no nft, and so no table of ours.
            return ""


def _devices(wanted: DesiredForwarding) -> list[tuple[str, str]]:
    """Returns (family, interface) of everything that leads to an advertised LAN; none twice."""
    found = {
        ("ipv6" if ":" in one.prefix else "ipv4", device) for one in wanted.exits for device in one.devices
    }
    return sorted(found)


def _switch_of(family: str, device: str) -> str:
    return f"{family}/conf/{device}/{'forwarding' if family == 'ipv4' else 'force_forwarding'}"


def _replacing(table: str, rules: str) -> str:
    """Returns a script that puts the rules in the place of whatever the table holds, in one transaction."""
    return f"table inet {table} {{}}\ndelete table inet {table}\n{rules}"
