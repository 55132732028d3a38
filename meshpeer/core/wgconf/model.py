"""A WireGuard interface as values: desired, observed, and the steps between.

Addresses and allowed IPs are text in canonical form with a prefix length (``10.10.0.1/24``,
``fd00::1/128``); endpoints are ``host:port`` with IPv6 in brackets, as ``wg`` prints them. A private key
shows in no repr, and is never read back: whether an interface holds it is told by its public key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from meshpeer.core.ids import WireGuardKey

HANDSHAKE_FRESH_S = 180
"""A tunnel whose last handshake is younger works: WireGuard's REJECT_AFTER_TIME (whitepaper, section 6.1)."""


class RouteMtu(NamedTuple):
    """A route whose MTU may differ from the interface's."""

    prefix: str
    mtu: int = 0
    """0: as the interface."""
    advmss: int = 0
    """The largest TCP segment that is asked for of the other end; 0: what follows from the MTU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredPeer:
    public_key: WireGuardKey
    allowed_ips: tuple[str, ...]
    """Sorted; disjoint between peers."""
    endpoint: str | None = None
    """None installs the peer to be answered only: nothing is sent until it speaks, or an endpoint comes."""
    keepalive_s: int = 0
    """0 for off."""
    mute: bool = False
    """The tunnel answers nothing: its endpoint is written under a fresh handshake, too."""
    successor: WireGuardKey | None = None
    """The key that the peer changes to: a peer of its own that is only answered, until it has shaken hands
    (``succession``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredDevice:
    interface: str
    private_key: bytes = field(repr=False)
    public_key: WireGuardKey
    listen_port: int
    mtu: int
    addresses: tuple[str, ...]
    """This node's own, with the prefix of the mesh, so that the kernel routes the mesh here."""
    peers: tuple[DesiredPeer, ...]
    """Sorted by public key."""
    routes: tuple[str, ...] = ()
    """Prefixes to route into the interface beyond those that the addresses imply; sorted."""
    route_mtus: tuple[RouteMtu, ...] = ()
    """Those of the routes that have an MTU of their own; sorted."""
    fwmark: int = 0
    """What WireGuard's own packets carry, so that rules can tell them from those that go into a tunnel; 0 for
    none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPeer:
    public_key: WireGuardKey
    allowed_ips: tuple[str, ...]
    endpoint: str | None
    keepalive_s: int
    latest_handshake_unix_s: int
    """0 for never."""
    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedDevice:
    interface: str
    public_key: WireGuardKey
    """Of the private key that it holds; all zeros where it holds none. The private key itself is not read."""
    listen_port: int
    mtu: int
    up: bool
    addresses: tuple[str, ...]
    peers: tuple[ObservedPeer, ...]
    routes: tuple[str, ...] = ()
    """Those that somebody added; the prefixes of the addresses are left out. None while the interface is
    down."""
    route_mtus: tuple[RouteMtu, ...] = ()
    """Those of the routes that have an MTU of their own."""
    ipv6: bool = True
    """The kernel lets this interface hold IPv6 addresses; else they are left out, and the mesh runs on
    IPv4."""
    fwmark: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateInterface:
    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPrivateKey:
    private_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetListenPort:
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFwmark:
    mark: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMtu:
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddAddress:
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAddress:
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp:
    """Brings the interface up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPeer:
    """Adds a peer or changes the named fields; None leaves a field alone."""

    public_key: WireGuardKey
    allowed_ips: tuple[str, ...] | None = None
    endpoint: str | None = None
    keepalive_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePeer:
    public_key: WireGuardKey


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRoute:
    """Routes a prefix into the interface, behind whatever route of that prefix the machine has; or changes
    its MTU."""

    prefix: str
    mtu: int = 0
    """0: the interface's."""
    advmss: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveRoute:
    prefix: str


DeviceStep = (
    CreateInterface
    | SetPrivateKey
    | SetListenPort
    | SetFwmark
    | SetMtu
    | AddAddress
    | RemoveAddress
    | SetUp
    | SetPeer
    | RemovePeer
    | AddRoute
    | RemoveRoute
)
"""The closed union of steps, in an order that never gives two peers one allowed IP."""


def handshake_is_fresh(latest_handshake_unix_s: float, now_unix_s: float) -> bool:
    """Says whether the tunnel works now; 0 is no handshake.

    One from further ahead than the same span is not believed: the clock was set back, and would vouch for
    hours.
    """
    return latest_handshake_unix_s > 0 and abs(now_unix_s - latest_handshake_unix_s) < HANDSHAKE_FRESH_S


def tunnel_works(tunnel: ObservedPeer | None, now_unix_s: float) -> bool:
    """Says whether an interface holds a peer, and its tunnel works now."""
    return tunnel is not None and handshake_is_fresh(tunnel.latest_handshake_unix_s, now_unix_s)
