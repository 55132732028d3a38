"""Keeps the interface as core wants it: observe, diff, apply; and again every few seconds, since people
change things by hand.

What differs although nothing new is wanted is drift: it is repaired and reported. A failure is reported once,
and tried again for ever.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.node.messages import DeviceObserved
from meshpeer.core.wgconf.diff import describe_drift, diff_device
from meshpeer.core.wgconf.model import DesiredDevice, DesiredPeer
from meshpeer.core.wgconf.succession import settle_peers
from meshpeer.runtime.ports import Clock, WireGuard

LOOK_INTERVAL_S = 2.0
"""How often the interface is looked at while nothing changes: drift is repaired within 5 s."""
RETRY_S = 5.0


class Reconciler:
    """Owns the interface for the lifetime of the agent."""

    def __init__(
        self,
        wireguard: WireGuard,
        clock: Clock,
        post: Callable[[object], None],
        report: Callable[[str, str, tuple[tuple[str, str], ...]], None],
        names: Callable[[], dict[WireGuardKey, str]],
    ) -> None:
        self._wireguard = wireguard
        self._clock = clock
        self._post = post
        self._report = report
        self._names = names
        self._desired: DesiredDevice | None = None
        self._applied: tuple[DesiredDevice, tuple[DesiredPeer, ...]] | None = None
        """What was applied last, and the peers that it came to: of those that change their keys, what the
        interface shows decides."""
        self._wake = trio.Event()
        self.applied_once = trio.Event()
        self.fault: EnvironmentFault | None = None
        """Why the interface is not as it should be; None while it is."""
        self.last_drift: tuple[float, tuple[str, ...]] | None = None
        """When drift was repaired last (Unix seconds), and what it was."""

    def want(self, device: DesiredDevice) -> None:
        """Sets what the interface shall hold; applied soon."""
        self._desired = device
        self._wake.set()

    def look_soon(self) -> None:
        """Looks at the interface a moment from now, and not only at the next regular time."""
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled. The interface stays: tunnels outlive the agent."""
        while True:
            wait_s = LOOK_INTERVAL_S
            if self._desired is not None:
                try:
                    await self._step(self._desired)
                    self.fault = None
                except EnvironmentFault as fault:
                    if self.fault is None or self.fault.what != fault.what:
                        self._report(
                            "error",
                            "the interface can't be brought in step",
                            (("reason", fault.what), ("hint", fault.hint)),
                        )
                    self.fault = fault
                    wait_s = RETRY_S
            with trio.move_on_after(wait_s):
                await self._wake.wait()
            self._wake = trio.Event()

    async def _step(self, desired: DesiredDevice) -> None:
        observed = await self._wireguard.observe()
        steps = diff_device(observed, desired, now_unix_s=self._clock.now().unix_s)
        wanted = (desired, settle_peers(observed, desired))
        if steps:
            if self._applied == wanted:
                self._note_drift(describe_drift(observed, desired, self._names()))
            await self._wireguard.apply(steps)
            observed = await self._wireguard.observe()
        self._applied = wanted
        self._post(DeviceObserved(device=observed))
        self.applied_once.set()

    def _note_drift(self, words: list[str]) -> None:
        if words:
            self.last_drift = (self._clock.now().unix_s, tuple(words))
            self._report(
                "warning",
                "the interface was changed by somebody else and is repaired",
                (("changes", "; ".join(words)),),
            )
