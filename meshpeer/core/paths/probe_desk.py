"""The probe desk: answers members' probes, asks for this node, and knows which answer belongs to which
question.

What is answered: questions sealed by a member that this node has, or is to have, a tunnel with; each once (a
window of stamps, as IPsec's against replays, RFC 4303, 3.4.3, and WireGuard's of initiations, whitepaper,
section 5.1); so many a second of each; never from or to an address within the mesh; and with no more bytes
than came. So whoever replays or spoofs one gains nothing. An answer counts once, within seconds, and only
from where its question went.

It knows nothing of candidates, and decides nothing about paths.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import MeshId, NodeId, WireGuardKey
from meshpeer.core.paths.probe_packets import (
    NONCE_BYTES,
    PROBE_BYTES,
    Probe,
    ProbeKind,
    probe_key,
    probe_tag,
    seal,
    split_endpoint,
    tag_of,
    unseal,
)
from meshpeer.core.paths.relay_bucket import Bucket

ANSWER_S_MAX = 4.0
"""A question that is older is lost."""
OPEN_MAX = 512
"""Questions under way; the oldest is forgotten first."""
ANSWERS_PER_S, ANSWERS_BURST = 10.0, 60.0
"""Of one asker: eight candidates that are tried at once, and a search for the path's MTU."""
ENDPOINTS_REMEMBERED = 1_024
"""Of which it is known whether they may carry a probe; the same few are named again and again."""
STAMPS_KEPT = 64
"""Questions of one asker that may overtake each other."""
ASKER_FORGOTTEN_S = 600.0
"""The window of one that is silent for so long begins anew: its clock may have been set back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendProbe:
    """Effect: sends a datagram from WireGuard's own port, never in fragments. It may get lost."""

    endpoint: str
    """In numbers."""
    data: bytes
    local: str = ""
    """This machine's address to send from; empty: the one that the route says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeHeard:
    """Event: a datagram with a probe's magic came to WireGuard's own port."""

    source: str
    local: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTooLong:
    """Event: a probe was longer than the way out of this machine is wide."""

    endpoint: str
    probe_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePortOpened:
    """Event: probes can be sent and heard from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionSeen:
    """A member's question came, and is answered."""

    peer: NodeId
    source: str
    answered: bool
    """The member's own questions to where this one went come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSeen:
    """A question of this node's came back."""

    peer: NodeId
    endpoint: str
    number: int
    probe_bytes: int
    """Of the question."""
    rtt_s: float
    seen: str
    """Where the member saw it come from."""
    answered: bool


ProbeFact = QuestionSeen | AnswerSeen


@dataclass(slots=True)
class _Asker:
    """What is remembered of whoever asks."""

    bucket: Bucket
    floor: int = 0
    stamps: set[int] = field(default_factory=set)
    heard_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Open:
    peer: NodeId
    endpoint: str
    at_s: float
    probe_bytes: int


class ProbeDesk:
    """Of one node. Sans-IO."""

    def __init__(
        self,
        *,
        mesh: MeshId,
        key: WireGuardPrivateKey,
        entropy: Callable[[int], bytes],
        counters: Counters,
    ) -> None:
        self._mesh = mesh
        self._key = key
        self._entropy = entropy
        self._counters = counters
        self._known: dict[NodeId, WireGuardKey] = {}
        self._by_tag: dict[bytes, NodeId] = {}
        self._keys: dict[WireGuardKey, bytes | None] = {}
        """Of a pair each; made when it is needed first."""
        self._askers: dict[NodeId, _Asker] = {}
        self._open: dict[int, _Open] = {}
        self._stamp = 0
        self._named: tuple[str, ...] = ()
        self._may_carry: dict[str, bool] = {}
        self._inside: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    def know(self, members: Iterable[tuple[NodeId, WireGuardKey]], inside: Iterable[str]) -> bool:
        """Sets who may ask and be asked, and the prefixes that go into the tunnels, which carry no probe;
        says whether these are other ones."""
        named = tuple(inside)
        moved = named != self._named
        if moved:
            self._named = named
            self._inside = tuple(ipaddress.ip_network(one, strict=False) for one in named)
            self._may_carry.clear()
        known = dict(members)
        if known == self._known:
            return moved
        self._known = known
        self._tag()
        keys = set(known.values())
        self._keys = {key: made for key, made in self._keys.items() if key in keys}
        self._askers = {node: asker for node, asker in self._askers.items() if node in known}
        return moved

    def rekey(self, key: WireGuardPrivateKey) -> None:
        """Sets this node's own key: whatever is sealed with the one before says nothing any more."""
        self._key = key
        self._keys.clear()
        self._tag()

    def knows(self, peer: NodeId) -> bool:
        return peer in self._known

    def may_carry(self, endpoint: str) -> bool:
        """Says whether an endpoint is an address in numbers, outside the mesh, that is some machine's own."""
        may = self._may_carry.get(endpoint)
        if may is None:
            if len(self._may_carry) >= ENDPOINTS_REMEMBERED:
                self._may_carry.clear()
            may = self._may_carry[endpoint] = self._judge(endpoint)
        return may

    def _judge(self, endpoint: str) -> bool:
        parts = split_endpoint(endpoint)
        if parts is None:
            return False
        address = parts[0]
        if address.is_unspecified or address.is_multicast or address.is_link_local:
            return False
        return not any(address.version == one.version and address in one for one in self._inside)

    # --- asking ---------------------------------------------------------------------------------------------

    def ask(
        self,
        peer: NodeId,
        endpoint: str,
        now: Instant,
        *,
        answered: bool = False,
        probe_bytes: int = PROBE_BYTES,
    ) -> tuple[int, SendProbe] | None:
        """Returns a question of ``probe_bytes`` (the UDP payload) and its number; None where the peer is not
        known, or the endpoint can't carry it."""
        key = self._pair_key(peer)
        if key is None or not self.may_carry(endpoint):
            return None
        number = int.from_bytes(self._entropy(8), "big")
        self._stamp = max(self._stamp + 1, int(now.unix_s * 1_000_000))
        question = Probe(ProbeKind.QUESTION, number, self._stamp, answered=answered)
        data = self._sealed(question, peer, key, probe_bytes)
        while len(self._open) >= OPEN_MAX:
            del self._open[next(iter(self._open))]
        self._open[number] = _Open(peer, endpoint, now.mono_s, len(data))
        self._counters.add(Counter.PATH_PROBES)
        return number, SendProbe(endpoint=endpoint, data=data)

    # --- what comes in --------------------------------------------------------------------------------------

    def on_heard(
        self, event: ProbeHeard, now: Instant, answered: Callable[[NodeId, str], bool]
    ) -> tuple[ProbeFact | None, list[SendProbe]]:
        """Takes a datagram; returns what it means, and the answer. ``answered``: whether this node's own
        questions to an endpoint of a peer come back."""
        tag = tag_of(event.data)
        peer = self._by_tag.get(tag) if tag else None
        key = self._pair_key(peer) if peer else None
        probe = unseal(event.data, key) if key else None
        if peer is None or key is None or probe is None or not self.may_carry(event.source):
            self._counters.add(Counter.PATH_PROBES_REFUSED)
            return None, []
        if probe.kind is ProbeKind.ANSWER:
            return self._on_answer(peer, probe, event.source, now), []
        if not self._may_ask(peer, probe.stamp, now):
            self._counters.add(Counter.PATH_PROBES_REFUSED)
            return None, []
        back = answered(peer, event.source)
        answer = Probe(ProbeKind.ANSWER, probe.number, probe.stamp, event.source, back)
        sent = SendProbe(
            endpoint=event.source, data=self._sealed(answer, peer, key, PROBE_BYTES), local=event.local
        )
        fact = QuestionSeen(peer=peer, source=event.source, answered=probe.answered)
        return fact, [sent]

    def _on_answer(self, peer: NodeId, probe: Probe, source: str, now: Instant) -> AnswerSeen | None:
        asked = self._open.get(probe.number)
        if asked is None or asked.peer != peer or asked.endpoint != source:
            return None
        del self._open[probe.number]
        rtt_s = now.mono_s - asked.at_s
        if rtt_s > ANSWER_S_MAX:
            return None
        return AnswerSeen(
            peer=peer,
            endpoint=asked.endpoint,
            number=probe.number,
            probe_bytes=asked.probe_bytes,
            rtt_s=rtt_s,
            seen=probe.seen,
            answered=probe.answered,
        )

    def _may_ask(self, peer: NodeId, stamp: int, now: Instant) -> bool:
        """Says whether a question is new, and within its sender's share."""
        asker = self._askers.get(peer)
        if asker is None or now.mono_s >= asker.heard_at_s + ASKER_FORGOTTEN_S:
            asker = self._askers[peer] = _Asker(Bucket(ANSWERS_PER_S, ANSWERS_BURST))
        if stamp <= asker.floor or stamp in asker.stamps:
            return False
        asker.stamps.add(stamp)
        if len(asker.stamps) > STAMPS_KEPT:
            asker.floor = min(asker.stamps)
            asker.stamps.remove(asker.floor)
        asker.heard_at_s = now.mono_s
        return asker.bucket.take(1.0, now.mono_s)

    # --- keys -----------------------------------------------------------------------------------------------

    def _tag(self) -> None:
        mine = self._key.public
        self._by_tag = {probe_tag(self._mesh, key, mine): node for node, key in self._known.items()}

    def _pair_key(self, peer: NodeId) -> bytes | None:
        theirs = self._known.get(peer)
        if theirs is None:
            return None
        if theirs not in self._keys:
            self._keys[theirs] = probe_key(self._mesh, self._key, theirs)
        return self._keys[theirs]

    def _sealed(self, probe: Probe, peer: NodeId, key: bytes, size: int) -> bytes:
        tag = probe_tag(self._mesh, self._key.public, self._known[peer])
        return seal(probe, tag, key, self._entropy(NONCE_BYTES), size)
