"""What links say to each other, what happens to links, and what is to be done about it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from meshpeer.core.ids import LinkId, MeshId, NodeId

PROTOCOL_VERSIONS = (1,)
ENOUGH_LINKS = "this node has links enough"
"""Why a link beyond the degree is closed: nobody is to be doubted for it."""

# --- frames -------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="hello"):
    """First frame both ways. The chain's leaf must be the one that the handshake proved."""

    versions: tuple[int, ...]
    mesh: MeshId
    chain: tuple[bytes, ...]
    clock_ms: int
    """The sender's wall clock, so that a refusal for time can name both."""
    observed: str
    """The address of the receiver as the sender sees it."""
    control_port: int
    forwarded: bool = False
    """The sender dialled a port that a program such as ``ssh -L`` forwards: the address that the receiver
    sees is not the sender's."""
    revocations: bytes = b""
    """The fingerprint of the revocations that the sender holds; where the two differ, both say all of theirs
    before anything else. Empty: the sender's version knows of none."""
    roots: tuple[bytes, ...] = ()
    """The roots that followed the founding one, each signed by the one before: the chain may stand below one
    that the receiver has not heard of."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="refusal"):
    """Last frame of a link that is not wanted: why, and when by the sender's clock."""

    reason: str
    clock_ms: int


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="ping"):
    number: int


class Pong(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="pong"):
    number: int


class ProbeAsked(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="probe"):
    """Asks whether the receiver reaches a node that the sender does not (SWIM's ping-req)."""

    number: int
    subject: NodeId


class ProbeAnswered(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="probed"):
    """The answer; one that says no is Lifeguard's nack: at least the asker's own links work."""

    number: int
    subject: NodeId
    reached: bool


FRAMES = (Hello, Refusal, Ping, Pong, ProbeAsked, ProbeAnswered)

# --- events -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOpened:
    """TLS is up both ways; the peer's key is proved, its admission is not."""

    link: LinkId
    peer: NodeId
    leaf: bytes
    remote: str
    """The peer's underlay address, ``host:port``."""
    dialled: str
    """The address that we dialled; empty where the peer did."""
    shown: bytes = b""
    """This node's own leaf in that handshake; empty for the present one."""
    carrier: NodeId | None = None
    """The member that passes its bytes on; None for a link that goes straight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkClosed:
    link: LinkId
    reason: str
    fault: bool = False
    """The peer broke the protocol in what never comes to core: a frame that is none, a bulk frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialFailed:
    """None of the addresses answered as a member. ``refused``: at least one said no at once, so somebody is
    there."""

    target: NodeId | None
    addresses: tuple[str, ...]
    reason: str
    refused: bool


# --- effects ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """Tries the addresses, best first, each a moment after the one before; the first that answers wins."""

    target: NodeId | None
    """None for a seed: whoever answers."""
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOnLink:
    link: LinkId
    message: msgspec.Struct


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseLink:
    """Closes once what was queued is sent."""

    link: LinkId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerUp:
    """A greeted link to this peer is in use."""

    peer: NodeId
    link: LinkId
    remote: str
    dialled: bool
    observed_me: str
    """This node's address as the peer sees it."""
    replaces: bool = False
    """It takes the place of another link: what was said on that one, either way, may be lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDown:
    peer: NodeId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeWereRefused:
    """A peer would not have us; worth telling the operator."""

    peer: NodeId
    reason: str
