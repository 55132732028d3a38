"""What this machine passes on: between tunnels as a hub, and out of them to LANs that it advertises."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LanExit:
    """One LAN behind this machine."""

    prefix: str
    devices: tuple[str, ...]
    """Interfaces that lead there; sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredForwarding:
    """All that is forwarded; what is not named here is dropped."""

    mesh: tuple[str, ...] = ()
    """The mesh's own prefixes: the only sources from which anything is passed on."""
    hub: bool = False
    """From tunnel to tunnel, too: within the mesh's prefixes, and between them and ``lans``."""
    lans: tuple[str, ...] = ()
    """LANs behind other members, of a hub."""
    exits: tuple[LanExit, ...] = ()
    """LANs behind this machine: into them what comes from the mesh, back what answers it."""
    masquerade: bool = True
    """Hosts on those LANs see this machine's address, and so need no route back."""

    @property
    def anything(self) -> bool:
        return self.hub or bool(self.exits)


NOTHING = DesiredForwarding()
