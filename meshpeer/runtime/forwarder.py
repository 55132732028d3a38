"""Keeps forwarding as core wants it: set once it is asked for, looked at again now and then, and reported
when it can't be had."""

from __future__ import annotations

from collections.abc import Callable

import trio

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.node.messages import ForwardingFailed
from meshpeer.runtime.ports import Forwarding

TRIES = 3
"""After so many failures in a row this node is no hub any more."""
RETRY_S = 1.0
LOOK_INTERVAL_S = 10.0
"""How often a hub looks whether somebody flushed its rules."""


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
        self._prefixes: tuple[str, ...] | None = None
        self._wake = trio.Event()
        self._failures = 0
        self.fault: EnvironmentFault | None = None
        """Why this node forwards nothing although it should; None while all is well."""

    @property
    def forwards(self) -> bool:
        return bool(self._prefixes) and self.fault is None

    def want(self, prefixes: tuple[str, ...]) -> None:
        """Sets what to forward; nothing where there are no prefixes."""
        self._prefixes = prefixes
        self._wake.set()

    async def run(self, interface: trio.Event) -> None:
        """Runs until cancelled, from when the interface is there. What was set stays: tunnels outlive the
        agent, and so does a hub."""
        await interface.wait()
        while True:
            if self._prefixes is None:
                # Nothing is known yet: what an agent before this one left on stays on.
                await self._wake.wait()
            self._wake = trio.Event()
            try:
                await self._forwarding.ensure(self._prefixes or ())
                self.fault, self._failures = None, 0
            except EnvironmentFault as fault:
                if self.fault is None or self.fault.what != fault.what:
                    self._report(
                        "error", "this node can't be a hub", (("reason", fault.what), ("hint", fault.hint))
                    )
                self.fault = fault
                self._failures += 1
                if self._failures == TRIES:
                    self._post(ForwardingFailed())
            wait_s = LOOK_INTERVAL_S if self._prefixes else float("inf")
            with trio.move_on_after(RETRY_S if 0 < self._failures < TRIES else wait_s):
                await self._wake.wait()
