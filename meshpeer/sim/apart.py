"""Pairs whose packets do not reach each other directly: their tunnels work where both ends use one relay."""

from __future__ import annotations

from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.wgconf.model import DesiredDevice
from meshpeer.sim.host import Host

AGENT_LOOK_S = 2.0


class Apart:
    """Which pairs those are, and when they shook hands."""

    def __init__(self) -> None:
        self._pairs: dict[frozenset[NodeId], tuple[Host, Host]] = {}
        self._relays: tuple[Host, ...] = ()
        self._shaken: dict[tuple[NodeId, WireGuardKey], int] = {}

    def part(self, one: Host, other: Host, relays: tuple[Host, ...]) -> None:
        """Keeps two hosts from each other; ``relays`` are those whose ports carry them."""
        self._pairs[frozenset({one.id, other.id})] = (one, other)
        self._relays = relays

    def look_s(self, host: Host, otherwise_s: float) -> float:
        """Returns how often a host looks at its interface: as an agent does, where that shows something."""
        return AGENT_LOOK_S if any(host in pair for pair in self._pairs.values()) else otherwise_s

    def handshakes(self, host: Host, device: DesiredDevice, unix_s: int) -> dict[WireGuardKey, int]:
        """Returns the last handshakes of a host's peers that it is kept from."""
        found: dict[WireGuardKey, int] = {}
        for pair in self._pairs.values():
            if host not in pair:
                continue
            other = pair[1] if pair[0] is host else pair[0]
            place, key = (host.id, other.wireguard.public), other.wireguard.public
            if all(one.public_key != key for one in device.peers):
                # Sessions go with the peer.
                self._shaken.pop(place, None)
                continue
            if self.meets(host, other):
                self._shaken[place] = unix_s
            found[key] = self._shaken.get(place, 0)
        return found

    def meets(self, one: Host, other: Host) -> bool:
        """Says whether what one sends arrives at the other."""
        ways = {_endpoint(one, other), _endpoint(other, one)}
        for relay in self._relays:
            if relay.gone or relay.node is None:
                continue
            pairs = [held.ports for held in relay.node.relays.desk.reservations]
            if any(ways == {_at(relay, low), _at(relay, high)} for low, high in pairs):
                return True
        return False


def _at(relay: Host, port: int) -> str:
    return f"{relay.address.rpartition(':')[0]}:{port}"


def _endpoint(of: Host, peer: Host) -> str | None:
    peers = of.device.peers if of.device is not None else ()
    return next((one.endpoint for one in peers if one.public_key == peer.wireguard.public), None)
