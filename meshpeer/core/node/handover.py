"""How a node becomes an issuer over the links: an admin asks for a key, the node makes one and shows its
public part, a root's key signs that elsewhere.

The private key never leaves the node that made it, and the root's key never comes near an agent. Only an
admin's word makes a node keep a key; what it costs is one key, once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from meshpeer.core.deadline import Instant
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.identity.keys import SEED_BYTES, SigningKey
from meshpeer.core.ids import NodeId
from meshpeer.core.node.issuing import Issuing
from meshpeer.core.records.issuer_request import make_request
from meshpeer.core.records.ledger import Ledger

ASKERS_MAX = 16


class IssuerAsked(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="issuer-asked"):
    """An admin wants the receiver to be an issuer."""


class IssuerShown(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="issuer-shown"):
    """The receiver's answer: its request (``records.issuer_request``)."""

    request: bytes


FRAMES = (IssuerAsked, IssuerShown)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerKeyWanted:
    """A person wants a node to be an issuer; it may be this one."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerKeyKept:
    """The key is on disk."""

    seed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerKeyLost:
    """The key could not be kept, and is nobody's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepIssuerKey:
    """Write this key to disk, for this node's user alone to read."""

    seed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerKeyShown:
    """A node has shown what a root is to sign."""

    node: NodeId
    request: bytes


Event = IssuerKeyWanted | IssuerKeyKept | IssuerKeyLost
Say = tuple[NodeId, msgspec.Struct]


class HandOver:
    """Both ends of it, on one node. Sans-IO."""

    def __init__(
        self, key: SigningKey, ledger: Ledger, issuing: Issuing, entropy: Callable[[int], bytes]
    ) -> None:
        self._key = key
        self._ledger = ledger
        self._issuing = issuing
        self._entropy = entropy
        self._wanted: set[NodeId] = set()
        self._askers: list[NodeId] = []

    def on_event(self, event: Event, now: Instant) -> list[Say | KeepIssuerKey | IssuerKeyShown]:
        match event:
            case IssuerKeyWanted(node=node) if node == self._key.public:
                return self._show(node, now)
            case IssuerKeyWanted(node=node):
                self._wanted.add(node)
                return [(node, IssuerAsked())]
            case IssuerKeyKept(seed=seed):
                self._issuing.keep(seed)
                askers, self._askers = self._askers, []
                return [one for asker in askers for one in self._show(asker, now)]
            case IssuerKeyLost():
                # Whoever asks again has another one made.
                self._askers.clear()
                return []

    def on_message(
        self, peer: NodeId, message: IssuerAsked | IssuerShown, now: Instant
    ) -> list[Say | KeepIssuerKey | IssuerKeyShown]:
        match message:
            case IssuerAsked() if self._ledger.may(peer, Capability.ADMIN):
                return self._show(peer, now)
            case IssuerShown(request=request) if peer in self._wanted:
                self._wanted.discard(peer)
                return [IssuerKeyShown(node=peer, request=request)]
        return []

    def _show(self, asker: NodeId, now: Instant) -> list[Say | KeepIssuerKey | IssuerKeyShown]:
        if not self._issuing.seed:
            first = not self._askers
            if asker not in self._askers and len(self._askers) < ASKERS_MAX:
                self._askers.append(asker)
            return [KeepIssuerKey(seed=self._entropy(SEED_BYTES))] if first else []
        request = make_request(self._key, self._issuing.seed, self._ledger.mesh, int(now.unix_s))
        if asker == self._key.public:
            return [IssuerKeyShown(node=asker, request=request)]
        return [(asker, IssuerShown(request=request))]
