"""Opens the WireGuard backend that this machine's settings ask for, in the name of one mesh."""

from __future__ import annotations

from collections.abc import Callable

from meshpeer.adapters.wireguard import (
    CommandWireGuard,
    DryRunWireGuard,
    Forwarding,
    NoWireGuard,
    open_wireguard,
)
from meshpeer.app.config import Settings
from meshpeer.core.ids import MeshId, key_text

FORWARDING_FILE = "forwarding.json"

Interface = CommandWireGuard | DryRunWireGuard | NoWireGuard


async def open_interface(settings: Settings, mesh: MeshId | None, show: Callable[[str], None]) -> Interface:
    """Returns the backend; raises ``EnvironmentFault`` naming what is missing and the package that brings it.

    The mesh id marks the interface: two agents of two meshes never share one. ``show`` is told what a dry run
    would do.
    """
    options = settings.file.wireguard
    if options.backend == "dry-run":
        return DryRunWireGuard(options.interface, show)
    owner = key_text(mesh)[:8] if mesh is not None else ""
    return await open_wireguard(options.backend, options.interface, program=options.program, owner=owner)


def forwarding_of(settings: Settings) -> Forwarding:
    """Returns what makes a hub of this machine, and undoes it."""
    return Forwarding(settings.file.wireguard.interface, settings.state_dir / FORWARDING_FILE)
