"""Channels: of every tunnel of this node, whether it answers; and the probes that find out.

Only a tunnel that leads to the member's own address can be probed; of one that carries nothing yet, the
interface has to tell. A member whose agent is gone is not probed while its tunnel is silent: keepalives wake
it, and nobody waits for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import AskEcho, Note
from meshpeer.core.ids import NodeId, WireGuardKey, key_text
from meshpeer.core.paths.channel import Channel, TunnelSilent
from meshpeer.core.topology.plan import MeshPlan
from meshpeer.core.topology.view import MemberView
from meshpeer.core.wgconf.model import ObservedPeer

ASKED_MAX = 512
"""Probes on their way; the oldest are given up."""
NUMBER_BYTES, SECRET_BYTES = 8, 32
HURRIED_MAX = 16
"""Silent tunnels whose endpoints are tried at full pace."""
HURRY_S = 60.0
"""For how long all of them are, once one of them answers again: it may be this node's whole network."""


@dataclass(slots=True)
class _Watched:
    """One tunnel, and where its far end is asked."""

    channel: Channel
    key: WireGuardKey
    addresses: tuple[str, ...]
    """Overlay addresses that lead into this tunnel and to its far end; none where nothing does."""
    alive: bool = True
    """The member's agent lived at the last look."""
    seen: tuple[ObservedPeer, int] | None = None
    """As the interface showed it last, and its keepalive."""
    due: Deadline | None = None
    """When its channel has something to do; kept, since news is of one tunnel mostly."""


@dataclass(slots=True)
class Channels:
    """Of one node. Sans-IO."""

    me: NodeId
    alive: Callable[[NodeId], bool]
    """Says whether a member's agent lives."""
    entropy: Callable[[int], bytes]
    _watched: dict[NodeId, _Watched] = field(default_factory=dict)
    _has_endpoint: set[NodeId] = field(default_factory=set)
    _keepalive_s: int = 0
    _asked: dict[int, NodeId] = field(default_factory=dict)
    _words: list[tuple[NodeId, TunnelSilent]] = field(default_factory=list)
    _notes: list[Note] = field(default_factory=list)
    _secret: bytes = field(default=b"", repr=False)
    _count: int = 0
    _returned_s: float = float("-inf")
    _news: bool = False
    _due: Deadline | None = None

    # --- reading --------------------------------------------------------------------------------------------

    def of(self, node: NodeId) -> Channel | None:
        """Returns what is known of the tunnel to a member; None where this node has none."""
        watched = self._watched.get(node)
        return watched.channel if watched else None

    def is_silent(self, node: NodeId) -> bool:
        channel = self.of(node)
        return channel is not None and channel.is_silent

    def hurried(self, now: Instant) -> frozenset[NodeId]:
        """Returns the members whose endpoints are to be tried at full pace: they live, and their tunnels are
        silent."""
        silent = [one for one in sorted(self._watched) if self.is_silent(one) and self.alive(one)]
        return frozenset(silent if now.mono_s < self._returned_s + HURRY_S else silent[:HURRIED_MAX])

    @property
    def has_news(self) -> bool:
        """Says whether some tunnel began or ceased to work since ``follow``."""
        return self._news

    def next_deadline(self) -> Deadline | None:
        return self._due

    # --- events ---------------------------------------------------------------------------------------------

    def follow(
        self,
        plan: MeshPlan,
        members: Mapping[NodeId, MemberView],
        now: Instant,
        followed: Mapping[WireGuardKey, WireGuardKey] = MappingProxyType({}),
    ) -> None:
        """Takes the plan as it is now; ``followed`` has the keys before those of peers that changed over."""
        self._news = False
        before, self._watched = self._watched, {}
        for peer in plan.peers:
            member, held = members.get(peer.node), before.get(peer.node)
            if member is None:
                continue
            own = [one for one in (member.ipv6, member.ipv4) if one]
            reached = [one for one in own if f"{one}/{128 if ':' in one else 32}" in peer.allowed_ips]
            if held is not None and held.key == followed.get(peer.public_key):
                held.key = peer.public_key
            if held is None or held.key != peer.public_key:
                held = _Watched(Channel(now.unix_s, lower=self.me < peer.node), peer.public_key, ())
                # The first initiation is up to who sets the endpoint: two that cross lose both answers.
                held.channel.tick(now, askable=False)
            alive = self.alive(peer.node)
            if alive and not held.alive:
                held.channel.hasten(now)
            held.addresses, held.alive = tuple(reached), alive
            self._watched[peer.node] = held
        self._settle(self._watched.values())

    def observe(self, held: Mapping[WireGuardKey, ObservedPeer], keepalive_s: int, now: Instant) -> None:
        """Takes what the interface shows."""
        self._has_endpoint.clear()
        changed: list[_Watched] = []
        for node, watched in self._watched.items():
            seen = held.get(watched.key)
            if seen is None:
                continue
            if seen.endpoint:
                self._has_endpoint.add(node)
            if watched.seen == (seen, keepalive_s):
                # Nothing came, and nothing went.
                continue
            watched.seen = (seen, keepalive_s)
            changed.append(watched)
            worked = watched.channel.works
            watched.channel.observe(seen, keepalive_s, now)
            self._note_change(node, watched.channel, worked, now)
        self._settle(changed)

    def on_echo(self, number: int, source: str, now: Instant) -> None:
        """A probe came back: from where it was sent to, or it is none."""
        watched = self._watched.get(self._asked.get(number, self.me))
        if watched is None or source not in watched.addresses:
            return
        node = self._asked.pop(number)
        worked = watched.channel.works
        watched.channel.echoed(now)
        self._note_change(node, watched.channel, worked, now)
        self._settle((watched,))

    def on_word(self, peer: NodeId, now: Instant) -> None:
        """A member says that it hears nothing from this node through their tunnel."""
        watched = self._watched.get(peer)
        if watched is not None:
            watched.channel.told(now)
            self._settle((watched,))

    def tick(self, now: Instant) -> list[AskEcho | Note]:
        """Returns the probes that are due, and what is worth a line in the log."""
        probes: list[AskEcho | Note] = []
        if self._due is not None and now.mono_s >= self._due.at_s:
            asked: list[_Watched] = []
            for node, watched in self._watched.items():
                if watched.due is None or now.mono_s < watched.due.at_s:
                    continue
                asked.append(watched)
                worked = watched.channel.works
                askable = self._can_ask(node, watched)
                probe = watched.channel.tick(now, askable=askable)
                self._note_change(node, watched.channel, worked, now)
                if probe and askable:
                    probes.append(self._ask(node, watched))
            self._settle(asked)
        notes, self._notes = self._notes, []
        return [*probes, *notes]

    def words(self) -> list[tuple[NodeId, TunnelSilent]]:
        """Returns what to tell members over their links; each is told once of a silence."""
        words, self._words = self._words, []
        return words

    # --- rules ----------------------------------------------------------------------------------------------

    def _settle(self, changed: Iterable[_Watched]) -> None:
        for watched in changed:
            watched.due = watched.channel.next_deadline()
        self._due = earliest(*[watched.due for watched in self._watched.values()])

    def _can_ask(self, node: NodeId, watched: _Watched) -> bool:
        """Says whether a probe may go: a packet into a tunnel without an endpoint would make it wait for
        REKEY_TIMEOUT (5 s, section 6.1 of WireGuard's paper) once it has one."""
        wanted = not watched.channel.is_silent or self.alive(node)
        return bool(watched.addresses) and node in self._has_endpoint and wanted

    def _ask(self, node: NodeId, watched: _Watched) -> AskEcho:
        while len(self._asked) >= ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        self._secret = self._secret or self.entropy(SECRET_BYTES)
        self._count += 1
        keyed = hashlib.blake2b(self._count.to_bytes(8), key=self._secret, digest_size=NUMBER_BYTES)
        number = int.from_bytes(keyed.digest())
        self._asked[number] = node
        # Either family may be missing on the machine, or dropped by its firewall.
        return AskEcho(number=number, address=watched.addresses[self._count % len(watched.addresses)])

    def _note_change(self, node: NodeId, channel: Channel, worked: bool | None, now: Instant) -> None:
        if channel.works == worked:
            return
        self._news = True
        fields = (("peer", key_text(node)[:10]),)
        if channel.is_silent:
            self._words.append((node, TunnelSilent()))
            self._notes.append(Note(level="warning", fact="a tunnel does not answer any more", fields=fields))
        elif worked is False:
            self._returned_s = now.mono_s
            self._notes.append(Note(level="info", fact="a tunnel answers", fields=fields))
