"""Keeps forwarding as core wants it: set once it is asked for, looked at again now and then, and reported
when it can't be had."""

from __future__ import annotations

from collections.abc import Callable

import trio

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.node.messages import ForwardingFailed
from meshpeer.core.wgconf.forwarding import NOTHING, DesiredForwarding
from meshpeer.runtime.ports import Forwarding

TRIES = 3
"""After so many failures in a row this node is no hub any more, and leads to no LAN."""
RETRY_S = 1.0
LOOK_INTERVAL_S = 10.0
"""How often it is looked whether somebody flushed the rules."""


class Forwarder:
    """Owns the forwarding of one interface for the lifetime of the agent."""

    def __init__(
        self,
        forwarding: Forwarding,
        post: Callable[[object], None],
        report: Callable[[str, str, tuple[tuple[str, str], ...]], None],
    ) -> None:
        self._forwarding = forwarding
        self._post = post
        self._report = report
        self._wanted: DesiredForwarding | None = None
        self._wake = trio.Event()
        self._failures = 0
        self.fault: EnvironmentFault | None = None
        """Why this node forwards nothing although it should; None while all is well."""

    @property
    def forwards(self) -> bool:
        return self._wanted is not None and self._wanted.anything and self.fault is None

    def want(self, wanted: DesiredForwarding) -> None:
        """Sets what to forward."""
        self._wanted = wanted
        self._wake.set()

    async def run(self, interface: trio.Event) -> None:
        """Runs until cancelled, from when the interface is there. What was set stays: tunnels outlive the
        agent, and so does a hub."""
        await interface.wait()
        while True:
            if self._wanted is None:
                # Nothing is known yet: what an agent before this one left on stays on.
                await self._wake.wait()
            self._wake = trio.Event()
            wanted = self._wanted or NOTHING
            try:
                await self._forwarding.ensure(wanted)
                self.fault, self._failures = None, 0
            except EnvironmentFault as fault:
                if self.fault is None or self.fault.what != fault.what:
                    self._report(
                        "error", "this node can't forward", (("reason", fault.what), ("hint", fault.hint))
                    )
                self.fault = fault
                self._failures += 1
                if self._failures == TRIES:
                    self._post(ForwardingFailed(reason=fault.what))
            wait_s = LOOK_INTERVAL_S if wanted.anything else float("inf")
            with trio.move_on_after(RETRY_S if 0 < self._failures < TRIES else wait_s):
                await self._wake.wait()
