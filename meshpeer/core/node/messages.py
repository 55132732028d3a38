"""What happens to a node as a whole, and what it wants done."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from meshpeer.core.addressing.overlap import Route
from meshpeer.core.ids import LinkId, NodeId, Ticket, WireGuardKey
from meshpeer.core.membership import dialbacks
from meshpeer.core.paths.channel import TunnelSilent
from meshpeer.core.paths.reflections import SeenAt
from meshpeer.core.topology.moves import MOVE_FRAMES
from meshpeer.core.wgconf.forwarding import DesiredForwarding
from meshpeer.core.wgconf.model import DesiredDevice, ObservedDevice

# --- frames -------------------------------------------------------------------------------------------------


class Applied(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="applied"):
    """The sender's interface holds the receiver's key: an initiation will be answered.

    An initiation that comes before the other end knows the key is dropped, and the next follows 5 s later
    (REKEY_TIMEOUT,
    WireGuard whitepaper, section 6.1); so each end waits for this word before it sends the first packet.
    """

    receiver_key: WireGuardKey
    sender_key: WireGuardKey


FRAMES = (Applied, SeenAt, TunnelSilent, *dialbacks.FRAMES, *MOVE_FRAMES)

# --- events -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The node's stored facts are restored; it may speak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameReceived:
    link: LinkId
    frame: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkHeard:
    """Bulk frames come by this link, which core never sees: they prove life as any other does. Told now and
    then."""

    link: LinkId


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedFound:
    """An address where a member may answer: from the invite, the config, the store or mDNS."""

    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointsChanged:
    """This machine's own addresses, as ``host:port``, best first, and its routes."""

    control: tuple[str, ...]
    wireguard: tuple[str, ...]
    routes: tuple[Route, ...] = ()
    """Without those into the mesh's own interface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceObserved:
    """What the interface holds, after an apply or at a regular look. None: there is no interface."""

    device: ObservedDevice | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfMessage:
    """A word of this node's scheduler to itself, released by the journal."""

    message: msgspec.Struct


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveAsked:
    """A person wants this node out of the mesh for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardingFailed:
    """This machine can't pass on what is not its own: it must not be a hub, nor lead to a LAN."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CharterSigned:
    """A person changed the mesh's settings: the charter that this node signed for it, as an envelope."""

    envelope: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationSigned:
    """A person shut somebody out: the envelope that was signed for it, and its author's chain."""

    envelope: bytes
    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignersMade:
    """A person signed certificates of issuers, or of a root that follows another, with a root's key."""

    certificates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameAsked:
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoAsked:
    """A probe came out of a tunnel, and was answered."""

    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoHeard:
    """A probe of this node came back."""

    number: int
    source: str


# --- effects ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SendFrame:
    link: LinkId
    frame: bytes
    after: Ticket | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverToSelf:
    message: msgspec.Struct
    after: Ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyDevice:
    """The interface shall hold exactly this from now on."""

    device: DesiredDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Pass packets on as this says from now on, and nothing else."""

    forwarding: DesiredForwarding


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerEchoes:
    """Answer probes on these overlay addresses of this node, and send them from there; none: not at all."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAtDevice:
    """Look at the interface soon: a peer may come from elsewhere now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowChain:
    """Prove this node's identity with this chain from now on, and keep it."""

    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustRoots:
    """These are the mesh's roots from now on, the founding one first."""

    roots: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersChanged:
    """Names, addresses or opinions of members changed: refresh what is derived outside (hosts file,
    watchers)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstSyncDone:
    """A member has sent all that this node lacked."""

    peer: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class FarewellOver:
    """Every peer that this node was linked to when it left has read so, or is linked no more."""
