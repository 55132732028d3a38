"""An underlay in memory for probes: machines, the routers before them, and how wide each way is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from meshpeer.core.paths.probe_desk import ProbeHeard, SendProbe
from meshpeer.core.paths.probe_packets import MAGIC, join_endpoint, split_endpoint
from meshpeer.runtime.ports import Sending

UDP_OVER_IPV4_BYTES, UDP_OVER_IPV6_BYTES = 28, 48


@dataclass
class MemoryUnderlay:
    """What the ports of one world share."""

    heard: dict[tuple[str, int], Callable[[ProbeHeard], None]] = field(default_factory=dict)
    """Who hears at which address and port."""
    wide: dict[str, int] = field(default_factory=dict)
    """The MTU of the device of an address; 1,500 where it is not said."""
    carried: int = 0


class MemoryTunnelPort:
    """Implements ``runtime.ports.TunnelPort`` for a machine with these addresses, the first of each family in
    use."""

    def __init__(self, underlay: MemoryUnderlay, *addresses: str) -> None:
        self._underlay = underlay
        self._addresses = addresses
        self._port: int | None = None

    async def serve(
        self,
        port: int,
        mark: int,
        heard: Callable[[ProbeHeard], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        held = {(address, port): heard for address in self._addresses}
        self._underlay.heard.update(held)
        self._port = port
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self._port = None
            for key in held:
                del self._underlay.heard[key]

    def send(self, probe: SendProbe) -> Sending:
        parts = split_endpoint(probe.endpoint)
        if self._port is None or parts is None:
            return Sending.LOST
        address, port = parts
        local = probe.local or next(
            (one for one in self._addresses if (":" in one) == (address.version == 6)), ""
        )
        if local not in self._addresses:
            return Sending.LOST
        header = UDP_OVER_IPV6_BYTES if address.version == 6 else UDP_OVER_IPV4_BYTES
        if len(probe.data) + header > self._underlay.wide.get(local, 1_500):
            return Sending.TOO_LONG
        there = self._underlay.heard.get((str(address), port))
        if there is not None and probe.data.startswith(MAGIC):
            self._underlay.carried += 1
            source = split_endpoint(f"[{local}]:{self._port}" if ":" in local else f"{local}:{self._port}")
            assert source is not None
            there(ProbeHeard(source=join_endpoint(*source), local=str(address), data=probe.data))
        return Sending.SENT
