"""Links: one per pair, greeted before used, dialled for ever.

A link begins with ``Hello`` both ways. Its chain must start with the very leaf that TLS proved and is judged
by the same rules as gossiped chains; only then is any other frame read.

Two ends that dial each other at once get two links. Both prefer the one that the lower id began; where one is
clearly older, the newer: whoever dialled again has lost the old one, even if this end has not noticed. But
greetings arrive in another order at either end, so two ends that both close what they do not prefer can close
both. Only the lower id closes; the higher keeps the other link as a spare, reads what comes on it, and takes
it into use when the one in use is closed.

Dialling backs off exponentially with equal jitter (after "Exponential Backoff and Jitter", M. Brooker, 2015),
and never gives up: a peer that comes back after a week finds us. A link that ends before it lasted a while
counts as a failed dial: who is refused, or drops us at once, is not dialled in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.effects import Note
from meshpeer.core.errors import InvariantBroken, PeerFault
from meshpeer.core.ids import LinkId, MeshId, NodeId, key_text
from meshpeer.core.membership.clocks import Clocks
from meshpeer.core.membership.greetings import NoWords, Words
from meshpeer.core.membership.messages import (
    ENOUGH_LINKS,
    PROTOCOL_VERSIONS,
    CloseLink,
    Dial,
    DialFailed,
    Hello,
    LinkClosed,
    LinkOpened,
    PeerDown,
    PeerUp,
    Refusal,
    SendOnLink,
    WeWereRefused,
)

HELLO_TIMEOUT_S = 5.0
"""A link whose peer has not greeted by then is closed."""
SIMULTANEOUS_S = 2.0
"""Two links of a pair that opened within this are one collision; the lower id's one is kept."""
SPARE_MAX_S = 5.0
"""A spare that the lower id has not closed by then is closed by the higher."""
SETTLED_S = 10.0
"""A link that lasted this long is dialled anew at once when it closes."""
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
BACKOFF_ALONE_S = 8.0
"""The same where nobody answers and this node has no link at all: nobody else would find what heals."""
CHOICE_SETTLES_S = 0.5
"""Whoever has links already waits so long, and up to twice that, before it dials a member that is new to its
choice: while many join, the choice changes with each of them."""
LINKS_ENOUGH_TO_WAIT = 2
HIGHER_ID_WAITS_S = 1.0
"""Of a pair that learn of each other at once, the higher id lets the lower one dial first."""
SEED_REDIAL_S = 60.0
"""A seed that we have no link to is tried again this often while there are other links."""
SEEDS_APART_S = 0.5
"""Seeds are often addresses of one node, or of nodes that know each other: the next is dialled where the one
before has not answered by then (cf. RFC 8305, section 5). A founder whom fifty dial at once has work enough
with one handshake from each."""

BANNED_MAX = 1_024
"""Identities that are shut out at once; each one had a certificate of this mesh."""

ANOTHER_IN_USE = "another link to this peer is in use"

LinkEffect = Dial | SendOnLink | CloseLink | PeerUp | PeerDown | WeWereRefused | Note
Admit = Callable[[Sequence[bytes], Instant], NodeId]
"""Judges a chain and returns whose it is; raises ``PeerFault``."""


class Jitter(Protocol):
    def random(self) -> float: ...


@dataclass(slots=True)
class _Link:
    link: LinkId
    peer: NodeId
    leaf: bytes
    remote: str
    dialled: str
    opened_at_s: float
    carrier: NodeId | None = None
    forwarded: bool = False
    greeted: bool = False
    observed_me: str = ""
    spare_since_s: float | None = None


@dataclass(slots=True)
class _Target:
    """Somebody to have a link to: a member, or (with ``node`` None) whoever answers at a seed."""

    node: NodeId | None
    addresses: tuple[str, ...]
    next_at_s: float
    failures: int = 0
    dialling: bool = False
    since_s: float = float("-inf")
    """When it was dialled last."""
    answered_by: NodeId | None = field(default=None)


class Links:
    """Decides which links exist. Sans-IO: events in, effects out."""

    def __init__(
        self,
        *,
        me: NodeId,
        mesh: MeshId,
        chain: Sequence[bytes],
        control_port: int,
        admit: Admit,
        jitter: Jitter,
        reached: Callable[[NodeId], bool] = lambda node: False,
        over: Callable[[NodeId], tuple[str, ...]] = lambda node: (),
        forwarded: Collection[str] = (),
        words: Words | None = None,
    ) -> None:
        self._words = words or NoWords()
        self._me = me
        self._mesh = mesh
        self._chain = self._shown_before = tuple(chain)
        self._control_port = control_port
        self._admit = admit
        self._jitter = jitter
        self._reached = reached
        """Says whether the mesh reaches a node that this one has no link to: its seed address need not be
        dialled."""
        self._over = over
        """Names carriers for a member whose own addresses do not answer (``carriers.address_over``)."""
        self._forwarded = frozenset(forwarded)
        """Addresses that lead elsewhere than they say."""
        self.clocks = Clocks()
        self._links: dict[LinkId, _Link] = {}
        self._by_peer: dict[NodeId, LinkId] = {}
        self._targets: dict[NodeId, _Target] = {}
        self._seeds: dict[str, _Target] = {}
        self._banned: dict[NodeId, float] = {}
        self._due: Deadline | None = None
        self._due_known = False
        """Whether ``_due`` holds: frames of greeted links, the bulk of all events, change no deadline."""

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def peers(self) -> list[NodeId]:
        """Peers with a link in use, in id order."""
        return sorted(self._by_peer)

    def link_to(self, peer: NodeId) -> LinkId | None:
        return self._by_peer.get(peer)

    def peer_of(self, link: LinkId) -> NodeId | None:
        """Returns the peer of a greeted link, in use or spare; None for any other."""
        state = self._links.get(link)
        return state.peer if state and state.greeted else None

    def remote_of(self, peer: NodeId) -> str:
        """Returns where a peer's link comes from or goes to; empty where that is not the peer's address."""
        state = self._in_use(peer)
        return state.remote if state and not state.forwarded else ""

    def carrier_of(self, peer: NodeId) -> NodeId | None:
        """Returns the member that carries the link to a peer; None where it goes straight, or there is
        none."""
        state = self._in_use(peer)
        return state.carrier if state else None

    def is_forwarded(self, peer: NodeId) -> bool:
        """Says whether the link to a peer goes through a port that a program of a user's forwards."""
        state = self._in_use(peer)
        return state is not None and state.forwarded

    def _in_use(self, peer: NodeId) -> _Link | None:
        link = self._by_peer.get(peer)
        return self._links[link] if link is not None else None

    def check(self) -> None:
        """Raises ``InvariantBroken`` where two tables disagree."""
        for peer, link in self._by_peer.items():
            if self._links[link].peer != peer or not self._links[link].greeted:
                raise InvariantBroken(f"link {link} is in use for the wrong peer")
        for state in self._links.values():
            in_use = self._by_peer.get(state.peer) == state.link
            if state.greeted and in_use is not (state.spare_since_s is None):
                raise InvariantBroken(f"link {state.link} is neither in use nor spare")

    # --- what to be linked to -------------------------------------------------------------------------------

    def show_chain(self, chain: Sequence[bytes]) -> None:
        """Greets with this chain from now on; links whose handshake showed the one before, with that."""
        self._shown_before = self._chain
        self._chain = tuple(chain)

    def want(self, targets: dict[NodeId, tuple[str, ...]], now: Instant) -> None:
        """Sets the members to keep links to, with their addresses, best first."""
        self._due_known = False
        for node in [node for node in self._targets if node not in targets]:
            del self._targets[node]
        for node, addresses in targets.items():
            known = self._targets.get(node)
            if known is None:
                wait = 0.0 if self._me < node else HIGHER_ID_WAITS_S
                if len(self._by_peer) >= LINKS_ENOUGH_TO_WAIT:
                    wait += CHOICE_SETTLES_S * (1.0 + self._jitter.random())
                first_s = max(now.mono_s + wait, self._banned.get(node, 0.0))
                self._targets[node] = _Target(node, addresses, first_s)
            elif known.addresses != addresses:
                known.addresses = addresses
                if not known.dialling:
                    known.failures = 0
                    soon_s = max(now.mono_s + BACKOFF_FIRST_S, self._banned.get(node, 0.0))
                    known.next_at_s = min(known.next_at_s, soon_s)

    def seed(self, address: str, now: Instant) -> None:
        """Adds an address where some member may answer."""
        self._due_known = False
        self._seeds.setdefault(address, _Target(None, (address,), now.mono_s))

    def tick(self, now: Instant) -> list[LinkEffect]:
        effects: list[LinkEffect] = []
        for state in list(self._links.values()):
            if not state.greeted and now.mono_s >= state.opened_at_s + HELLO_TIMEOUT_S:
                effects += self._drop(state, "the peer did not greet", now)
            elif state.spare_since_s is not None and now.mono_s >= state.spare_since_s + SPARE_MAX_S:
                effects += self._drop(state, ANOTHER_IN_USE, now)
        for target in (*self._targets.values(), *self._seeds.values()):
            at_s = self._dials_at(target)
            if at_s is not None and at_s <= now.mono_s:
                target.dialling, target.since_s = True, now.mono_s
                self._due_known = False
                effects.append(Dial(target=target.node, addresses=self._dialled(target)))
        return effects

    def next_deadline(self) -> Deadline | None:
        if not self._due_known:
            self._due, self._due_known = self._work_out_deadline(), True
        return self._due

    def _work_out_deadline(self) -> Deadline | None:
        hellos = [link.opened_at_s + HELLO_TIMEOUT_S for link in self._links.values() if not link.greeted]
        spares = [
            link.spare_since_s + SPARE_MAX_S
            for link in self._links.values()
            if link.spare_since_s is not None
        ]
        dials = [
            at_s
            for target in (*self._targets.values(), *self._seeds.values())
            if (at_s := self._dials_at(target)) is not None
        ]
        return earliest(
            *(Deadline(at, "dial") for at in dials),
            *(Deadline(at, "a greeting is due") for at in hellos),
            *(Deadline(at, "close a spare link") for at in spares),
        )

    # --- what happens to links ------------------------------------------------------------------------------

    def on_opened(self, event: LinkOpened, now: Instant) -> list[LinkEffect]:
        self._due_known = False
        state = _Link(event.link, event.peer, event.leaf, event.remote, event.dialled, now.mono_s)
        state.carrier, state.forwarded = event.carrier, event.dialled in self._forwarded
        self._links[event.link] = state
        for target in self._targets_of(event):
            target.dialling = target.dialling and not event.dialled
            target.answered_by = event.peer
            target.next_at_s = now.mono_s + (SEED_REDIAL_S if target.node is None else HELLO_TIMEOUT_S)
        if event.peer == self._me:
            return self._drop(state, "the address is this node's own", now)
        hello = Hello(
            versions=PROTOCOL_VERSIONS,
            mesh=self._mesh,
            chain=self._shown_before if event.shown == self._shown_before[0] else self._chain,
            clock_ms=int(now.unix_s * 1000),
            observed=event.remote,
            control_port=self._control_port,
            forwarded=state.forwarded,
            revocations=self._words.say(event.link),
            roots=self._words.roots,
        )
        return [SendOnLink(link=event.link, message=hello)]

    def on_dial_failed(self, event: DialFailed, now: Instant) -> list[LinkEffect]:
        self._due_known = False
        targets = (
            [self._targets.get(event.target)]
            if event.target is not None
            else [self._seeds.get(one) for one in event.addresses]
        )
        for target in targets:
            if target is not None:
                target.dialling = False
                self._back_off(target, now, BACKOFF_MAX_S if self._by_peer else BACKOFF_ALONE_S)
        return []

    def on_closed(self, event: LinkClosed, now: Instant) -> list[LinkEffect]:
        self._due_known = False
        state = self._links.pop(event.link, None)
        if state is None:
            return []
        self._words.over(event.link)
        return self._after_end(state, event.reason, now)

    def on_message(
        self, link: LinkId, message: msgspec.Struct, now: Instant
    ) -> tuple[NodeId | None, list[LinkEffect]]:
        """Takes greetings itself; returns the peer where the message is for others to read."""
        state = self._links.get(link)
        if state is None:
            return None, []
        match message:
            case Hello():
                return None, self._on_hello(state, message, now)
            case Refusal(reason=reason):
                refused = WeWereRefused(peer=state.peer, reason=reason)
                return None, [refused, *self._drop(state, f"refused: {reason}", now, settled=False)]
        return state.peer if state.greeted else None, []

    def close(self, peer: NodeId, reason: str, now: Instant) -> list[LinkEffect]:
        """Closes the link in use to a peer, where there is one."""
        link = self._by_peer.get(peer)
        return self._drop(self._links[link], reason, now) if link is not None else []

    def ban(self, peer: NodeId, for_s: float, reason: str, now: Instant) -> list[LinkEffect]:
        """Closes a peer's links, and neither dials nor admits it for a while.

        The identity is shut out, not the address: others live behind the same NAT.
        """
        self._due_known = False
        self._banned = {one: until for one, until in self._banned.items() if until > now.mono_s}
        if len(self._banned) < BANNED_MAX:
            self._banned[peer] = now.mono_s + for_s
        effects = self.shut(peer, reason, now)
        target = self._targets.get(peer)
        if target is not None:
            target.next_at_s = max(target.next_at_s, self._banned.get(peer, 0.0))
        return effects

    def shut(self, peer: NodeId, reason: str, now: Instant) -> list[LinkEffect]:
        """Closes every link of a peer, spare ones and those that did not greet yet among them, and says
        why."""
        effects: list[LinkEffect] = []
        spares_first = sorted(
            (one for one in self._links.values() if one.peer == peer),
            key=lambda one: (self._by_peer.get(peer) == one.link, one.link),
        )
        for state in spares_first:
            effects += self._refuse(state, reason, now)
        return effects

    def banned(self, now: Instant) -> list[NodeId]:
        """Returns who is shut out now, in id order."""
        return sorted(one for one, until in self._banned.items() if until > now.mono_s)

    def on_fault(self, link: LinkId, reason: str, now: Instant) -> list[LinkEffect]:
        """Closes the link of a peer that broke the protocol, and tells it why."""
        state = self._links.get(link)
        return self._refuse(state, reason, now) if state else []

    # --- rules ----------------------------------------------------------------------------------------------

    def _on_hello(self, state: _Link, hello: Hello, now: Instant) -> list[LinkEffect]:
        self._due_known = False
        if state.greeted:
            return self._refuse(state, "a second greeting on one link", now)
        if not set(hello.versions) & set(PROTOCOL_VERSIONS):
            return self._refuse(
                state,
                f"this node speaks protocol {PROTOCOL_VERSIONS[-1]}, you speak {list(hello.versions)}",
                now,
            )
        if hello.mesh != self._mesh:
            return self._refuse(state, "this node belongs to another mesh", now)
        if not hello.chain or hello.chain[0] != state.leaf:
            return self._refuse(state, "the greeting's certificate is not the handshake's", now)
        if self._banned.get(state.peer, 0.0) > now.mono_s:
            return self._refuse(
                state, "this node has shut you out for a while: you passed on what is forged", now
            )
        try:
            self._words.hear_roots(hello.roots, now)
            node = self._admit(hello.chain, now)
        except PeerFault as fault:
            shown = [SendOnLink(link=state.link, message=one) for one in self._words.proof(fault)]
            return [*shown, *self._refuse(state, fault.what, now)]
        if node != state.peer:
            return self._refuse(state, "the greeting's certificate is another node's", now)
        state.greeted, state.observed_me = True, hello.observed
        state.forwarded = state.forwarded or hello.forwarded
        self._words.hear(state.link, hello.revocations)
        self.clocks.greeted(state.peer, hello.clock_ms, now)
        if not self._by_peer:
            for seed in self._seeds.values():
                if seed.answered_by is None and not seed.dialling:
                    seed.next_at_s = max(seed.next_at_s, now.mono_s + SEED_REDIAL_S)
        rival = self._by_peer.get(state.peer)
        return self._use(state) if rival is None else self._settle(state, self._links[rival], now)

    def _use(self, state: _Link, *, replaces: bool = False) -> list[LinkEffect]:
        self._by_peer[state.peer] = state.link
        state.spare_since_s = None
        return [
            PeerUp(
                peer=state.peer,
                link=state.link,
                remote=state.remote,
                dialled=bool(state.dialled),
                observed_me=state.observed_me,
                replaces=replaces,
            )
        ]

    def _settle(self, newer: _Link, rival: _Link, now: Instant) -> list[LinkEffect]:
        """Chooses between two greeted links of one peer."""
        apart = abs(newer.opened_at_s - rival.opened_at_s)
        closes = self._me < newer.peer or apart > 2 * SIMULTANEOUS_S
        if not self._beats(newer, rival):
            newer.spare_since_s = now.mono_s
            return self._drop(newer, ANOTHER_IN_USE, now) if closes else []
        effects = self._use(newer, replaces=True)
        rival.spare_since_s = now.mono_s
        return [*self._drop(rival, "a newer link replaces this one", now), *effects] if closes else effects

    def _beats(self, newer: _Link, older: _Link) -> bool:
        if (newer.carrier is None) != (older.carrier is None):
            return newer.carrier is None
        apart_s = newer.opened_at_s - older.opened_at_s
        if abs(apart_s) > SIMULTANEOUS_S or bool(newer.dialled) == bool(older.dialled):
            return apart_s >= 0
        return bool(newer.dialled) == (self._me < newer.peer)

    def _refuse(self, state: _Link, reason: str, now: Instant) -> list[LinkEffect]:
        refusal = Refusal(reason=reason, clock_ms=int(now.unix_s * 1000))
        fact = Note(
            level="warning",
            fact="link refused",
            fields=(("peer", key_text(state.peer)), ("from", state.remote), ("reason", reason)),
        )
        dropped = self._drop(state, reason, now, settled=False)
        return [fact, SendOnLink(link=state.link, message=refusal), *dropped]

    def _drop(self, state: _Link, reason: str, now: Instant, *, settled: bool = True) -> list[LinkEffect]:
        self._due_known = False
        self._links.pop(state.link, None)
        self._words.over(state.link)
        return [
            CloseLink(link=state.link, reason=reason),
            *self._after_end(state, reason, now, settled=settled),
        ]

    def _after_end(
        self, state: _Link, reason: str, now: Instant, *, settled: bool = True
    ) -> list[LinkEffect]:
        """Takes a spare into use, or says that the peer is down and when it is dialled again."""
        in_use = self._by_peer.get(state.peer) == state.link
        if in_use:
            del self._by_peer[state.peer]
            spares = [one for one in self._links.values() if one.greeted and one.peer == state.peer]
            if spares:
                return self._use(max(spares, key=lambda one: (one.opened_at_s, one.link)), replaces=True)
        if state.peer not in self._by_peer:
            lasted = state.greeted and now.mono_s >= state.opened_at_s + SETTLED_S
            settled = settled and lasted and reason != ENOUGH_LINKS
            seeds = [one for one in self._seeds.values() if one.answered_by == state.peer]
            target = self._targets.get(state.peer)
            for one in [*([target] if target else []), *seeds]:
                if not one.dialling:
                    self._redial(one, settled, now, carried=state.carrier is not None)
        return [PeerDown(peer=state.peer, reason=reason)] if in_use else []

    def _redial(self, target: _Target, settled: bool, now: Instant, *, carried: bool = False) -> None:
        if settled:
            # Where its own addresses did not answer, the next dial asks carriers at once.
            target.failures = int(carried)
            target.next_at_s = now.mono_s + (BACKOFF_FIRST_S if target.node is None else 0.0)
        else:
            self._back_off(target, now)

    def _targets_of(self, event: LinkOpened) -> list[_Target]:
        found = [self._targets.get(event.peer), self._seeds.get(event.dialled)]
        return [target for target in found if target is not None]

    def _satisfied(self, target: _Target) -> bool:
        who = target.node or target.answered_by
        if who is None:
            return False
        straight = who in self._by_peer and (target.node is None or self.carrier_of(who) is None)
        return who == self._me or straight or (target.node is None and self._reached(who))

    def _dialled(self, target: _Target) -> tuple[str, ...]:
        """Returns the addresses to dial: carriers only where the member's own did not answer before, and
        nobody carries a link to it yet."""
        node = target.node
        if node is None or not target.failures or node in self._by_peer:
            return target.addresses
        return (*target.addresses, *self._over(node))

    def _dials_at(self, target: _Target) -> float | None:
        """Returns when to dial somebody; None where there is no need, or something under way comes first."""
        if target.dialling or not target.addresses or self._satisfied(target):
            return None
        if target.node is not None:
            seeds = [one.addresses[0] for one in self._seeds.values() if one.dialling]
            return None if any(one in target.addresses for one in seeds) else target.next_at_s
        address = target.addresses[0]
        if any(one.dialling and address in one.addresses for one in self._targets.values()):
            return None
        if any(one.dialled and not one.greeted for one in self._links.values()):
            return None
        last_s = max((one.since_s for one in self._seeds.values() if one.dialling), default=float("-inf"))
        return max(target.next_at_s, last_s + SEEDS_APART_S)

    def _back_off(self, target: _Target, now: Instant, most_s: float = BACKOFF_MAX_S) -> None:
        ceiling = min(most_s, BACKOFF_FIRST_S * 2.0**target.failures)
        target.failures = min(target.failures + 1, 16)
        target.next_at_s = now.mono_s + ceiling * (0.5 + 0.5 * self._jitter.random())
