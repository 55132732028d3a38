"""Rotation: how this node changes its own WireGuard key under tunnels that are in use.

An interface has one private key, and WireGuard answers nobody whose key it does not know; a handshake that
was lost is tried again after 5 s (REKEY_TIMEOUT; WireGuard whitepaper, section 6.1). So all peers let the
next key in first, and say so (``Applied``); then this node changes over, and its first handshake tells them
(``core.wgconf.succession``). In order:

1. The next key is on disk, and this node's record announces it.
2. Peers with a tunnel that works have let it in, or had long enough to.
3. The disk makes the next key the current one, in one step. From here on there is only forward: a node that
   starts anew here changes over at once.
4. Peers that are linked hear that it is about to happen, and look out for it.
5. The interface takes the key, and shakes hands with everybody at once.
6. The record shows the new key as the current one. Whoever has missed all of this has it from there.

So whatever happens between two steps, disk, record and peers agree on what comes next.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, field

import msgspec

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import Note, Send
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import NodeId, WireGuardKey, wireguard_key_text

SETTLE_S = 1.0
"""So long the news of the next key has to spread at least: relays have to hear of it, too."""
WAIT_S = 20.0
"""After so long this node goes on without those that have not said that they let the key in."""
DEFER_S = 60.0
"""And after so long although others are changing over, or a pair of this node's is on its way to another
path."""
CALL_AHEAD_S = 0.4
"""Between telling peers and changing over: a message has to arrive."""
KEEP_AGAIN_S = 10.0
"""After a disk that failed."""
LOOK_S = 0.5
LINKS_AT_ONCE = 16
"""So many peers are asked for a link at a time, in order to hear from them."""


class KeyTurns(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="key-turns"):
    """The sender is about to change over to its next key: the receiver should look out for it."""

    key: WireGuardKey
    in_ms: int
    """From when this was sent."""


class Stage(enum.StrEnum):
    """How far this node is."""

    STEADY = "steady"
    ANNOUNCED = "announced"
    """Peers let the next key in."""
    KEEPING = "keeping"
    """The disk makes it the current one."""
    CALLED = "called"
    """Peers were told, the instant is near."""
    TURNING = "turning"
    """The interface takes it."""


MOVES: dict[Stage, frozenset[Stage]] = {
    Stage.STEADY: frozenset({Stage.ANNOUNCED}),
    Stage.ANNOUNCED: frozenset({Stage.KEEPING, Stage.STEADY}),
    Stage.KEEPING: frozenset({Stage.CALLED, Stage.ANNOUNCED}),
    Stage.CALLED: frozenset({Stage.TURNING}),
    Stage.TURNING: frozenset({Stage.STEADY}),
}
"""The lifecycle. Back to ``STEADY`` only where another member shows the key that was announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationAsked:
    """This node is to change to a key, which is on disk as the next one."""

    key: WireGuardPrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyKept:
    """The disk has made the next key the current one, or could not."""

    public_key: WireGuardKey
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepKey:
    """Make the next key on disk the current one, then report ``KeyKept``."""

    public_key: WireGuardKey


@dataclass(frozen=True, slots=True, kw_only=True)
class DropKey:
    """Forget the next key on disk: it will not be used."""


RotationEffect = Send | KeepKey | DropKey | Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What a rotation depends on besides itself."""

    peers: Collection[NodeId]
    """Those with whom this node has a tunnel that works, in id order."""
    held_up: str = ""
    """What should be over first, in words; empty for nothing."""
    taken_by: str = ""
    """The name of another member that shows this node's next key."""
    idle: bool = False
    """There is no interface whose key could change: nobody has to be waited for."""


@dataclass(slots=True)
class Rotation:
    """Of one node. Sans-IO."""

    key: WireGuardPrivateKey
    """What the interface holds, or is to hold from now on."""
    next: WireGuardPrivateKey | None = None
    """What this node changes to; of one that was announced before a restart, too."""
    stage: Stage = Stage.STEADY
    shown: WireGuardKey = field(init=False)
    """What this node's record is to show as its key."""
    before: WireGuardKey | None = None
    """The key before the last change of this run."""
    turned_unix_s: float = 0.0
    """When that was; 0 for never."""
    missed: tuple[NodeId, ...] = ()
    """Who had not said then that it lets the key in."""
    held_up: str = ""
    """What is waited for besides peers."""
    _applied: set[NodeId] = field(default_factory=set)
    _since_s: float = float("-inf")
    _again_s: float = float("-inf")
    _awaited: tuple[NodeId, ...] = ()

    def __post_init__(self) -> None:
        self.shown = self.key.public
        if self.next is not None:
            self._move(Stage.ANNOUNCED)

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def announced(self) -> bytes:
        """What this node's record is to show as its next key; empty for none."""
        if self.stage is Stage.STEADY or self.next is None:
            return b""
        return self.next.public

    @property
    def awaited(self) -> tuple[NodeId, ...]:
        """Returns the peers that have not said yet that they let the next key in."""
        return self._awaited if self.stage is Stage.ANNOUNCED else ()

    @property
    def count(self) -> int:
        """Counts the peers that let the next key in."""
        return len(self._applied)

    def links_wanted(self) -> tuple[NodeId, ...]:
        """Returns whom to be linked to, in order to hear from them."""
        return self.awaited[:LINKS_AT_ONCE]

    def next_deadline(self) -> Deadline | None:
        if self.stage is Stage.STEADY or self.stage is Stage.KEEPING:
            return None
        if self.stage is Stage.CALLED:
            return Deadline(self._again_s, "the WireGuard key changes")
        return Deadline(self._again_s, "look after a rotation of the WireGuard key")

    # --- events ---------------------------------------------------------------------------------------------

    def ask(self, key: WireGuardPrivateKey, now: Instant) -> bool:
        """Begins; says whether it did. One at a time."""
        if self.stage is not Stage.STEADY or key.public == self.key.public:
            return False
        self.next = key
        self._applied.clear()
        self._awaited, self.missed, self.held_up = (), (), ""
        self._since_s = self._again_s = now.mono_s
        self._move(Stage.ANNOUNCED)
        return True

    def on_applied(self, peer: NodeId, key: WireGuardKey) -> bool:
        """A peer's interface holds a key of this node; says whether that is the next one."""
        if self.next is None or key != self.next.public or self.stage is Stage.STEADY:
            return False
        self._applied.add(peer)
        return True

    def on_kept(self, event: KeyKept, linked: Collection[NodeId], now: Instant) -> list[RotationEffect]:
        """The disk has the key, or failed; ``linked`` are the peers that can be told, in id order."""
        if self.stage is not Stage.KEEPING or self.next is None or event.public_key != self.next.public:
            return []
        if event.fault:
            self._again_s = now.mono_s + KEEP_AGAIN_S
            self._move(Stage.ANNOUNCED)
            failed = Note(
                level="error",
                fact="the next WireGuard key can't be kept, so this node stays with the one it has",
                fields=(("reason", event.fault),),
            )
            return [failed]
        self._again_s = now.mono_s + CALL_AHEAD_S
        self._move(Stage.CALLED)
        word = KeyTurns(key=event.public_key, in_ms=round(CALL_AHEAD_S * 1000))
        return [Send(peer=one, message=word) for one in linked]

    def on_observed(self, public_key: WireGuardKey | None, now: Instant) -> list[RotationEffect]:
        """The interface was looked at; None: there is none."""
        if self.stage is not Stage.TURNING or public_key != self.key.public:
            return []
        return self._end(now)

    def update(self, around: Around, now: Instant) -> list[RotationEffect]:
        """Lets time pass; returns what to do."""
        if now.mono_s < self._again_s:
            return []
        self._again_s = now.mono_s + LOOK_S
        match self.stage:
            case Stage.STEADY | Stage.KEEPING:
                return []
            case Stage.ANNOUNCED:
                return self._consider(around, now)
            case Stage.CALLED:
                return self._turn(around, now)
            case Stage.TURNING:
                # Where the interface is gone it comes back with the new key.
                return self._end(now) if around.idle else []

    # --- rules ----------------------------------------------------------------------------------------------

    def _consider(self, around: Around, now: Instant) -> list[RotationEffect]:
        assert self.next is not None
        if self._since_s == float("-inf"):
            self._since_s = now.mono_s
        if around.taken_by:
            self.next, self.held_up = None, ""
            self._move(Stage.STEADY)
            fact = "another member shows the WireGuard key that this node was about to change to"
            return [DropKey(), Note(level="warning", fact=fact, fields=(("member", around.taken_by),))]
        for_s = now.mono_s - self._since_s
        self._awaited = tuple(one for one in around.peers if one not in self._applied)
        self.held_up = around.held_up if for_s < DEFER_S else ""
        waits = for_s < SETTLE_S or (bool(self._awaited) and for_s < WAIT_S) or bool(self.held_up)
        if waits and not around.idle:
            return []
        self.missed = self._awaited
        self._move(Stage.KEEPING)
        return [KeepKey(public_key=self.next.public)]

    def _turn(self, around: Around, now: Instant) -> list[RotationEffect]:
        assert self.next is not None
        self.before, self.key = self.key.public, self.next
        self._move(Stage.TURNING)
        return self._end(now) if around.idle else []

    def _end(self, now: Instant) -> list[RotationEffect]:
        self._move(Stage.STEADY)
        self.shown, self.next, self._awaited = self.key.public, None, ()
        self.turned_unix_s = now.unix_s
        fields = (("key", wireguard_key_text(self.key.public)), ("missed", str(len(self.missed))))
        return [Note(level="info", fact="this node changed its WireGuard key", fields=fields)]

    def _move(self, stage: Stage) -> None:
        if stage not in MOVES[self.stage]:
            raise InvariantBroken(f"rotation of the WireGuard key: {self.stage} to {stage}")
        self.stage = stage
