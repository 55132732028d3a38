"""What ends and relays say to each other, what happens at a relay, and what is to be done about it.

Every message names the pair by both node ids; which of the two speaks is known from the link. Messages go
both ways over authenticated links, and repeat themselves: nothing depends on one arriving.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from meshpeer.core.effects import Send, Tick
from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.paths.relay_binding import NO_BINDS, Binds

Pair = tuple[NodeId, NodeId]
"""Two node ids, the lower one first."""


class RelayRefusal(enum.StrEnum):
    """Why a relay lends no ports."""

    CLOSED = "this node relays for nobody"
    PAIR = "that is no pair of two other nodes, with the asker in it"
    MEMBER = "the other end is no member with a tunnel, as far as this relay knows"
    FULL = "all ports, or as many as may, are lent"
    SHARE = "one of the two has as many reservations as it may"
    RETIRING = "this node is about to relay for nobody"
    OFTEN = "the asker made too many reservations within a minute"
    PORT = "a port could not be opened; ask again"
    UNKNOWN = "there is no such reservation"


class RelayEnd(enum.StrEnum):
    """Why a reservation is over."""

    ASKED = "an end gave it back"
    WITHDRAWN = "an end asks another relay instead"
    EXPIRED = "neither end renewed it"
    IDLE = "nothing crossed for a while"
    LEFT = "an end is no member any more"
    KEY = "an end has another WireGuard key"
    LOST = "the relay could not go on"
    RETIRED = "the relay ends, or may not go on"


# --- frames: an end to a relay ------------------------------------------------------------------------------


class RelayAsked(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="relay-ask"):
    """Asks for a reservation, or for the one that the other end asked for; renews it, too."""

    pair: Pair
    planned: bool = False
    """The relay in use still works, and is about to go: the pair can go over under its session."""


class RelayRenewed(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="relay-renew"):
    """Keeps a reservation; unlike an ask, it never makes one."""

    pair: Pair


class RelayFreezeAsked(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="relay-freeze"):
    """Says that the sender is ready to leave the relay for a way that is proved. Once both ends say so, the
    relay lets nothing cross from an instant on, and tells both when that is: what is still on its way would
    make WireGuard roam back to the relay."""

    pair: Pair
    to: bytes = b""
    """The relay (its node id) at which this end is bound; empty for a way of the pair's own. Both ends have
    to mean the same."""


class RelayWakeAsked(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="relay-wake"):
    """Ends a freeze, or calls off one to come."""

    pair: Pair


# --- frames: a relay to an end ------------------------------------------------------------------------------


class RelayGranted(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="relay-granted"):
    """The receiver's port on the relay: its WireGuard's endpoint for the other end of the pair."""

    pair: Pair
    port: int
    lasts_s: int
    """From now on, unless renewed."""
    both: bool = False
    """Both ends asked for it, and said of late that they want it: each may send its first packet now."""
    theirs: bool = True
    """The other end did; a relay that does not tell says so each time."""
    frozen: bool = False
    """Nothing crosses, since both ends left for a way of their own."""
    clock_ms: int = 0
    """The relay's own clock as it says so, from whenever: only differences mean something."""
    bind: bytes = b""
    """What this end seals its bindings with (``relay_binding``); empty where the relay takes none."""
    checks: bool = False
    """The relay answers checks as well."""
    planned: bool = False
    """An end asked for it as the next one of a pair whose relay still works."""
    retires: bool = False
    """The relay is about to end this: the pair should go to another one while it still can."""


class RelayRefused(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="relay-refused"):
    pair: Pair
    reason: str
    """A ``RelayRefusal``, or what a later version calls one."""


class RelayFrozen(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="relay-frozen"):
    """Both ends are ready: nothing crosses from an instant on, at which each moves its endpoint."""

    pair: Pair
    in_ms: int
    """From when this is said on."""
    clock_ms: int = 0
    """The instant by the relay's own clock."""
    to: bytes = b""
    """Where both go: see ``RelayFreezeAsked``."""


class RelayWoken(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="relay-woken"):
    """One of the ends wants the relay back: both move their endpoint there now."""

    pair: Pair


# --- frames: both ways --------------------------------------------------------------------------------------


class RelayFreed(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="relay-freed"):
    """An end gives the reservation back; or the relay tells that it is over."""

    pair: Pair
    reason: str = RelayEnd.ASKED.value
    """A ``RelayEnd``, or what a later version calls one."""


RelayMessage = (
    RelayAsked
    | RelayRenewed
    | RelayFreezeAsked
    | RelayWakeAsked
    | RelayGranted
    | RelayRefused
    | RelayFrozen
    | RelayWoken
    | RelayFreed
)
RELAY_FRAMES = (
    RelayAsked,
    RelayRenewed,
    RelayFreezeAsked,
    RelayWakeAsked,
    RelayGranted,
    RelayRefused,
    RelayFrozen,
    RelayWoken,
    RelayFreed,
)
RelayAnswer = RelayGranted | RelayRefused | RelayFrozen | RelayWoken | RelayFreed
"""What an end listens to."""
RelayRequest = RelayAsked | RelayRenewed | RelayFreezeAsked | RelayWakeAsked | RelayFreed
"""What a relay listens to."""

# --- events -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayRequested:
    """A member said something over its authenticated link."""

    peer: NodeId
    message: RelayRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayMembersShown:
    """The members that are in now and have a tunnel, with their keys as their records say."""

    members: tuple[tuple[NodeId, WireGuardKey], ...]
    coming: tuple[tuple[NodeId, WireGuardKey], ...] = ()
    """The next keys of those that change theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOpened:
    """Both ports of a reservation are open, and let cross what may."""

    ports: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLost:
    """Ports could not be opened, or are closed although nobody asked for that."""

    ports: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayAble:
    """Whether this machine can relay: ``fault`` says why not, and is empty where it can."""

    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayCarried:
    """How many packets of a reservation have crossed by now, in all, and how many have not."""

    ports: tuple[int, int]
    packets: int
    drops: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayWilling:
    """Whether this node lends ports. Where it does no more, it goes on for those that have some, for as long
    as it takes them to go to another relay, and no longer than ``RETIRE_S_MAX``."""

    willing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayStops:
    """This node is about to stop, or to leave the mesh."""


RelayEvent = RelayRequested | RelayMembersShown | RelayWilling | RelayOpened | RelayLost | RelayCarried | Tick
RelayNews = RelayAble | RelayOpened | RelayLost | RelayCarried | RelayStops
"""What the machine that lends the ports reports."""

# --- effects ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRelay:
    """Opens two ports for a pair; then reports ``RelayOpened`` or ``RelayLost``."""

    ports: tuple[int, int]
    """Of the end with the lower id, and of the other. They name the reservation."""
    keys: tuple[WireGuardKey, WireGuardKey]
    binds: Binds = NO_BINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class RekeyRelay:
    """Lets handshakes cross that are made for any of these keys, and for no others."""

    ports: tuple[int, int]
    keys: tuple[tuple[WireGuardKey, ...], tuple[WireGuardKey, ...]]
    """Of each end, the one that it has and the one that it changes to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseRelay:
    ports: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeRelay:
    ports: tuple[int, int]
    at_s: float
    """CLOCK_BOOTTIME seconds; may be past."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeRelay:
    ports: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveEndpoint:
    """Changes the endpoint of a peer of this node's interface at an instant, under a session that goes on;
    nothing else about it. Then the interface is looked at."""

    public_key: WireGuardKey
    endpoint: str
    at_s: float
    """CLOCK_BOOTTIME seconds; may be past."""


RelayEffect = Send | OpenRelay | RekeyRelay | CloseRelay | FreezeRelay | WakeRelay | MoveEndpoint
