"""The relay of this machine, as its settings have it."""

from __future__ import annotations

import contextlib
import os

from meshpeer.adapters.relay.fastpath import FastPath
from meshpeer.adapters.relay.process import ProcessRelay
from meshpeer.app.config import Settings
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.paths.relay import RelayLimits

BYTES_PER_MBIT = 1_000_000 / 8


def relay_limits(settings: Settings) -> RelayLimits | None:
    """Returns what this node lends; None where its settings say that it lends nothing."""
    ports = tuple(settings.relay_ports)
    return RelayLimits(ports=ports, pairs_max=settings.file.relay.pairs_max) if ports else None


def relay_of(settings: Settings) -> ProcessRelay:
    """Returns what carries packets of pairs, with nftables where this user may."""
    relay = settings.file.relay
    return ProcessRelay(
        rate=relay.pair_mbit_max * BYTES_PER_MBIT, total=relay.mbit_max * BYTES_PER_MBIT, fast=_fast(settings)
    )


async def clear_relay(settings: Settings) -> None:
    """Removes what a relay that was killed left in the kernel."""
    fast = _fast(settings)
    if fast is not None:
        with contextlib.suppress(EnvironmentFault):
            await fast.clear()


def _fast(settings: Settings) -> FastPath | None:
    relay = settings.file.relay
    if os.geteuid() != 0:
        return None
    return FastPath(relay.pair_mbit_max * BYTES_PER_MBIT, relay.mbit_max * BYTES_PER_MBIT)
