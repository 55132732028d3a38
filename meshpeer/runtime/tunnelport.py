"""Keeps WireGuard's own port open to probes, sends core's, and hands it those that arrive.

Where the port can't be had (no right to raw sockets) that is said once, and the node goes without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import trio

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.paths.probe_desk import ProbePortOpened, ProbeTooLong, SendProbe
from meshpeer.runtime.ports import Sending, TunnelPort

RETRY_S = 5.0


class TunnelPortKeeper:
    """Owns the port for the lifetime of the agent."""

    def __init__(
        self,
        port: TunnelPort,
        post: Callable[[object], None],
        report: Callable[[str, str, tuple[tuple[str, str], ...]], None],
    ) -> None:
        self._port = port
        self._post = post
        self._report = report
        self.fault: EnvironmentFault | None = None
        """Why nothing is sent or heard; None while it is."""

    def send(self, probe: SendProbe) -> None:
        """Sends a probe; one that can't be sent is lost, as others are on their way."""
        if self._port.send(probe) is Sending.TOO_LONG:
            self._post(ProbeTooLong(endpoint=probe.endpoint, probe_bytes=len(probe.data)))

    async def run(self, number: int, mark: int) -> None:
        """Runs until cancelled, on WireGuard's port ``number``, or until the port can't be had at all."""
        opened = False
        while True:
            fault: EnvironmentFault | None = None
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._port.serve, number, mark, self._post)
                    if not opened:
                        self._post(ProbePortOpened())
                    opened, self.fault = True, None
            except* EnvironmentFault as group:
                fault = next(_faults(group))
            if fault is not None and self.fault is None:
                self._report(
                    "warning" if opened else "info",
                    "paths are not probed from WireGuard's own port",
                    (("reason", fault.what), ("hint", fault.hint)),
                )
            self.fault = fault
            if not opened:
                return
            await trio.sleep(RETRY_S)


def _faults(group: BaseExceptionGroup[EnvironmentFault]) -> Iterator[EnvironmentFault]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _faults(one)
        else:
            yield one
