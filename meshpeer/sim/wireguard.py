"""A WireGuard interface in memory, by the same rules as the real ones (``core.wgconf.after``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.wgconf.after import device_after
from meshpeer.core.wgconf.model import DesiredDevice, DesiredPeer, DeviceStep, ObservedDevice, ObservedPeer
from meshpeer.core.wgconf.succession import settle_peers


class MemoryWireGuard:
    """Implements ``runtime.ports.WireGuard``; tests set ``device`` as a person's hand would, and ``fault``
    as the world."""

    backend = "kernel"

    def __init__(self) -> None:
        self.device: ObservedDevice | None = None
        self.applied: list[tuple[DeviceStep, ...]] = []
        """Every ``apply``, so that a test can assert that nothing to change meant no call."""
        self.fault: EnvironmentFault | None = None
        """Raised by every call while it is set."""

    async def observe(self) -> ObservedDevice | None:
        self._fail()
        return self.device

    async def apply(self, steps: Sequence[DeviceStep]) -> None:
        self._fail()
        self.applied.append(tuple(steps))
        for step in steps:
            self.device = device_after(self.device, (step,))

    async def renew_sources(self) -> None:
        self._fail()

    async def remove(self) -> None:
        self._fail()
        self.device = None

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault


def device_of(
    device: DesiredDevice,
    unix_s: int,
    handshakes: Mapping[WireGuardKey, int] | None = None,
    taken: Collection[WireGuardKey] = (),
) -> ObservedDevice:
    """Returns what an interface shows that took all of it, and whose peers all answer, but for those whose
    last handshake is given. ``taken`` are the keys that some interface changed to."""
    known = handshakes or {}
    coming = [key for one in device.peers if (key := one.successor) is not None and key in taken]
    wanted = device.peers
    if any(one.successor for one in device.peers):
        shaken = [_shown(DesiredPeer(public_key=key, allowed_ips=()), unix_s) for key in coming]
        wanted = settle_peers(_device(device, tuple(shaken)), device)
    return _device(
        device,
        tuple(
            _shown(
                one,
                unix_s
                if one.public_key in coming
                else known.get(one.public_key, unix_s if one.endpoint else 0),
            )
            for one in wanted
        ),
    )


def _shown(peer: DesiredPeer, handshake_unix_s: int) -> ObservedPeer:
    return ObservedPeer(
        public_key=peer.public_key,
        allowed_ips=peer.allowed_ips,
        endpoint=peer.endpoint,
        keepalive_s=peer.keepalive_s,
        latest_handshake_unix_s=handshake_unix_s,
        rx_bytes=0,
        tx_bytes=0,
    )


def _device(device: DesiredDevice, peers: tuple[ObservedPeer, ...]) -> ObservedDevice:
    return ObservedDevice(
        interface=device.interface,
        public_key=device.public_key,
        listen_port=device.listen_port,
        mtu=device.mtu,
        up=True,
        addresses=device.addresses,
        peers=peers,
        fwmark=device.fwmark,
    )
