"""Which WireGuard keys interfaces of the virtual world changed to, and which nobody holds any more."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshpeer.core.ids import WireGuardKey
from meshpeer.core.wgconf.model import DesiredDevice


@dataclass(slots=True)
class Rekeyed:
    """Who has a key shakes hands at once with whoever lets it in."""

    taken: set[WireGuardKey] = field(default_factory=set)
    gone: dict[WireGuardKey, int] = field(default_factory=dict)
    """The last handshakes of those that nobody holds: none."""

    def follow(self, before: DesiredDevice | None, device: DesiredDevice) -> None:
        """An interface takes what it is to hold."""
        if before is not None and before.public_key != device.public_key:
            self.gone[before.public_key] = 0
            self.gone.pop(device.public_key, None)
            self.taken.add(device.public_key)
