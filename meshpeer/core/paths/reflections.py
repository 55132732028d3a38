"""Reflections: at which address others see this node's tunnel, so that those behind routers can be found.

Every node sees in its own interface where each peer's packets come from, and tells that peer so over its link
(``SeenAt``). So any member that is reached takes the place of a STUN server (RFC 8489). The node publishes
what it was told; for two nodes behind two routers that is where to send their first packets, both at about
the same time, so that each router takes the other's for an answer (hole punching; B. Ford, P. Srisuresh, D.
Kegel, "Peer-to-Peer Communication Across Network Address Translators", 2005).

The word of a member that lies leads to an address where nobody answers, and to nothing else: the tunnel's
keys decide who is there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import msgspec

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.ids import NodeId
from meshpeer.core.wgconf.model import ObservedPeer, tunnel_works

TELL_EVERY_S = 60.0
"""A router keeps a mapping while keepalives pass: what was told is told again, or it is forgotten."""
LASTS_S = 200.0
OBSERVERS_MAX = 64
SHOWN_MAX = 2
"""Reflected endpoints in a record: one a family, or the two that a router made."""
ENDPOINT_BYTES_MAX = 64
SHOWN_FOR_S = 10.0
"""What is shown stays for so long, as long as anybody sees any of it: one member that tells another thing
each second must not make this node publish each second."""

NONE, STEADY, CHANGING, UNKNOWN = "none", "steady", "changing", ""
"""What a router does to this node's source: there is none; one mapping for all (RFC 4787,
endpoint-independent); another for each; nobody can tell yet."""


class SeenAt(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="seen"):
    """The receiver's tunnel packets come from here."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class _Word:
    endpoint: str
    at_s: float
    moved: bool = False
    """Said before this node's mapping, or its network, was seen to be another one: it ranks behind."""


class Reflections:
    """What this node saw of others, and what others saw of it. Sans-IO."""

    def __init__(self) -> None:
        self._told: dict[NodeId, _Word] = {}
        self._heard: dict[NodeId, _Word] = {}
        self._known_since_s: dict[str, float] = {}
        """Since when each endpoint is seen by somebody."""
        self._shown: tuple[tuple[str, ...], str] = ((), UNKNOWN)
        self._shown_at_s = float("-inf")
        self._news_waits = False

    # --- of others ------------------------------------------------------------------------------------------

    def words(
        self, tunnels: Iterable[tuple[NodeId, ObservedPeer]], linked: Callable[[NodeId], bool], now: Instant
    ) -> list[tuple[NodeId, SeenAt]]:
        """Returns what to tell whom, given this interface's peers: what is new, and from time to time
        again."""
        words: list[tuple[NodeId, SeenAt]] = []
        for node, peer in tunnels:
            if not peer.endpoint or not tunnel_works(peer, now.unix_s) or not linked(node):
                continue
            told = self._told.get(node)
            if told and told.endpoint == peer.endpoint and now.mono_s < told.at_s + TELL_EVERY_S:
                continue
            self._told[node] = _Word(peer.endpoint, now.mono_s)
            words.append((node, SeenAt(endpoint=peer.endpoint)))
        return words

    def on_link(self, node: NodeId) -> None:
        """A new link: who is there may have started anew."""
        self._told.pop(node, None)

    # --- of this node ---------------------------------------------------------------------------------------

    def on_seen(self, observer: NodeId, message: SeenAt, now: Instant) -> bool:
        """Takes a member's word; says whether that is news. What is no endpoint is passed over."""
        if _parts(message.endpoint) is None:
            return False
        before = self._heard.pop(observer, None)
        if before is not None and before.endpoint != message.endpoint:
            # The router that made the one made the other: it keeps one for all, or no two see the same.
            self._overtake(before.endpoint)
        if len(self._heard) >= OBSERVERS_MAX:
            del self._heard[min(self._heard, key=lambda one: (self._heard[one].at_s, one))]
        self._heard[observer] = _Word(message.endpoint, now.mono_s)
        return before is None or before.endpoint != message.endpoint

    def on_network_changed(self) -> None:
        """This machine's addresses or routes are other ones: what was seen of it may be true no more."""
        self._heard = {node: _Word(one.endpoint, one.at_s, moved=True) for node, one in self._heard.items()}

    def _overtake(self, endpoint: str) -> None:
        for node, one in self._heard.items():
            if one.endpoint == endpoint:
                self._heard[node] = _Word(endpoint, one.at_s, moved=True)

    def published(
        self, own: Collection[str], overlay: Iterable[str], now: Instant
    ) -> tuple[tuple[str, ...], str]:
        """Returns what the record is to say: endpoints, and the kind of router. It changes now and then only,
        unless nothing of it is true any more."""
        fresh = (self.shown(own, overlay, now), self.router(own, now))
        seen = {word.endpoint for word in self._heard.values() if not word.moved}
        holds = bool(set(self._shown[0]) & seen - set(own))
        if fresh != self._shown and (not holds or now.mono_s >= self._shown_at_s + SHOWN_FOR_S):
            self._shown, self._shown_at_s = fresh, now.mono_s
        self._news_waits = fresh != self._shown
        return self._shown

    @property
    def shown_now(self) -> tuple[str, ...]:
        """Returns the endpoints that the record says."""
        return self._shown[0]

    def shown(self, own: Collection[str], overlay: Iterable[str], now: Instant) -> tuple[str, ...]:
        """Returns the endpoints that others see this node at, those that most observers see first, and of
        equals those that are known longest.

        ``own`` are this machine's own endpoints, which it publishes anyway; ``overlay`` prefixes that must
        never carry a tunnel."""
        forbidden = [ipaddress.ip_network(one, strict=False) for one in overlay]
        counts: dict[str, int] = {}
        for word in self._fresh(now):
            parts = _parts(word.endpoint)
            if parts is None or word.endpoint in own or parts[0].is_loopback or parts[0].is_link_local:
                continue
            if not any(parts[0].version == one.version and parts[0] in one for one in forbidden):
                counts[word.endpoint] = counts.get(word.endpoint, 0) + (not word.moved)
        self._known_since_s = {one: self._known_since_s.get(one, now.mono_s) for one in sorted(counts)}
        since = self._known_since_s
        return tuple(sorted(counts, key=lambda one: (-counts[one], since[one], one))[:SHOWN_MAX])

    def router(self, own: Collection[str], now: Instant) -> str:
        """Returns what stands before this node, as far as observers beyond it can tell (IPv4).

        An observer that sees one of this machine's own endpoints shares a network with it: it says nothing of
        a router further out, unless that endpoint is a public one."""
        words = [one for one in self._fresh(now) if not (one.moved or one.endpoint.startswith("["))]
        seen = {word.endpoint for word in words}
        beyond = seen - set(own)
        if not beyond:
            public = any((parts := _parts(one)) is not None and parts[0].is_global for one in seen)
            return NONE if public else UNKNOWN
        if len(beyond) > 1:
            return CHANGING
        observers = sum(word.endpoint in beyond for word in words)
        return STEADY if observers > 1 else UNKNOWN

    def heard(self, now: Instant) -> list[tuple[NodeId, str]]:
        """Returns who sees this node where, as far as that holds."""
        fresh = self._fresh(now)
        return [(node, word.endpoint) for node, word in zip(sorted(self._heard), fresh, strict=True)]

    def next_deadline(self) -> Deadline | None:
        """Returns when a word is too old to be shown."""
        held = self._shown_at_s + SHOWN_FOR_S
        return earliest(
            *(
                Deadline(word.at_s + LASTS_S, "an observed endpoint gets old")
                for word in self._heard.values()
            ),
            Deadline(held, "what others see is said anew") if self._news_waits else None,
        )

    def _fresh(self, now: Instant) -> list[_Word]:
        for node in [one for one, word in self._heard.items() if now.mono_s >= word.at_s + LASTS_S]:
            del self._heard[node]
        return [self._heard[node] for node in sorted(self._heard)]


def _parts(endpoint: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int] | None:
    """Returns address and port of an endpoint in numbers; None for anything else."""
    host, _, port = endpoint.rpartition(":")
    if len(endpoint) > ENDPOINT_BYTES_MAX or not (port.isascii() and port.isdigit() and len(port) <= 5):
        return None
    try:
        address = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return None
    usable = 0 < int(port) <= 65_535 and not address.is_unspecified and not address.is_multicast
    # One form for each: what a router shows must be comparable.
    text = f"[{address}]:{int(port)}" if address.version == 6 else f"{address}:{int(port)}"
    return (address, int(port)) if usable and text == endpoint else None
