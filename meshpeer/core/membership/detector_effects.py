"""What the failure detector wants done."""

from __future__ import annotations

from dataclasses import dataclass

from meshpeer.core.ids import NodeId
from meshpeer.core.membership.messages import Ping, Pong, ProbeAnswered, ProbeAsked
from meshpeer.core.membership.opinions import Opinion


@dataclass(frozen=True, slots=True, kw_only=True)
class SendTo:
    peer: NodeId
    message: Ping | Pong | ProbeAsked | ProbeAnswered


@dataclass(frozen=True, slots=True, kw_only=True)
class OpinionChanged:
    peer: NodeId
    opinion: Opinion


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkIsSilent:
    """The peer of this link answers nothing: close it and dial anew."""

    peer: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """Sign that this node can't reach the subject, and spread it."""

    subject: NodeId
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Show a linked peer what is said of it."""

    subject: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Refute:
    """Publish a newer record of this node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialFor:
    """Try to open a link to a member on another's behalf."""

    subject: NodeId


DetectorEffect = SendTo | OpinionChanged | LinkIsSilent | Suspect | Tell | Refute | DialFor
