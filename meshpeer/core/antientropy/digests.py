"""Digests: who derives its plan from what, as far as this node has heard.

Soft state. Every node stamps the digest of its own inputs: when it changes, and once a window, on the
window's edge by the wall clock. So nearly all share one digest and one stamp, and a word about a thousand
members is two or three rows of bits (``Word``). Words ride on the rounds of reconciliation, push and pull:
the opener says all that it holds, the other answers with what that lacked. A word reaches two hundred members
in about seven rounds; three windows without one, and a member counts as not heard from.

The highest (stamp, digest) of a member wins, so merging does not depend on order. Nothing here is signed: a
member that lies about others can make what ``status`` says wrong, for three windows, and nothing else. What a
digest is made of, this room does not know.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from meshpeer.core.antientropy.messages import Word
from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import NodeId
from meshpeer.core.wire.limits import MEMBERS_MAX

WINDOW_S = 60
"""A node stamps its digest at least this often."""
UNHEARD_S = 3 * WINDOW_S
"""Who stamped nothing for so long, as far as this node heard, counts as not heard from."""
AHEAD_MAX_S = 3 * WINDOW_S
"""A stamp that lies further ahead of this node's clock is refused."""
DIGEST_BYTES_MIN, DIGEST_BYTES_MAX = 18, 64
"""Six parts of 3 bytes, and room for what later versions add."""
DIGESTS_MAX, GROUPS_MAX = 16, 32
"""In one word; a mesh in which more are about has other troubles, and the newest stamps go first."""
WORD_BYTES_MAX = 4_096
"""What one word comes to; with the largest comparison it fits a frame."""
IDS_BYTES = 4
_HEAD_BYTES = 48
"""Of a word without digests and groups, or a little less."""
_GROUP_BYTES = 1 + 5 + 1 + 3
_BITMAP_BYTES_MAX = MEMBERS_MAX // 8

Said = tuple[int, bytes]
"""A stamp and a digest; the higher one counts."""


class Differing(NamedTuple):
    """A member that said something else than this node would."""

    node: NodeId
    digest: bytes
    since_s: float
    """When this node noticed, on its monotonic clock."""
    said_s: float
    """How long ago the member said so, by both wall clocks; 0 or above."""


class Unheard(NamedTuple):
    """A member that said nothing of late."""

    node: NodeId
    said_s: float | None
    """How long ago it said something, by both wall clocks; None: never."""


@dataclass(slots=True)
class Look:
    """Who agrees with this node, at one moment; every member is in one of the three."""

    agree: int = 0
    """This node included."""
    differ: list[Differing] = field(default_factory=list)
    unheard: list[Unheard] = field(default_factory=list)
    """Both in id order."""


class Digests:
    """Keeps the latest digest of every member. Sans-IO; ``ids`` are all members, this node included, in
    order."""

    def __init__(self, me: NodeId, counters: Counters) -> None:
        self._me = me
        self._counters = counters
        self._own: Said | None = None
        self._held: dict[NodeId, Said] = {}
        """Of others, at most one entry for each member."""
        self._since: dict[NodeId, float] = {}
        """Since when members differ from this node."""
        self._ids: tuple[NodeId, ...] = ()
        self._print = b""

    # --- words ----------------------------------------------------------------------------------------------

    def say(self, digest: bytes, ids: tuple[NodeId, ...], now: Instant) -> Word:
        """Returns all that this node holds; ``digest`` is what its own inputs come to now."""
        own = self._refresh(digest, ids, now)
        return self._word(own, {node: said for node, said in self._held.items() if _is_fresh(said, now)})

    def hear(
        self, peer: NodeId, word: Word, digest: bytes, ids: tuple[NodeId, ...], now: Instant
    ) -> Word | None:
        """Merges what a peer says; returns what that lacked, None where it lacked nothing. Raises
        ``PeerFault`` for bad form, before anything is merged."""
        _check(word)
        own = self._refresh(digest, ids, now)
        said: dict[NodeId, Said] = {}
        if word.ids == self._print:
            told = (word.digest, *word.digests)
            for stamp, which, bits in word.groups:
                said.update((node, (stamp, told[which])) for node in _members(ids, bits))
        said[peer] = (word.stamp, word.digest)
        for node, one in said.items():
            if node == self._me:
                own = self._overtake(own, one, now)
            else:
                self._take(node, one, now)
        if word.ids != self._print:
            return self._word(own, {})
        lacked = {
            node: one
            for node, one in self._held.items()
            if node != peer and _is_fresh(one, now) and one > said.get(node, (0, b""))
        }
        return self._word(own, lacked) if lacked or said.get(self._me) != own else None

    # --- reading --------------------------------------------------------------------------------------------

    def look(self, digest: bytes, ids: tuple[NodeId, ...], gone: Collection[NodeId], now: Instant) -> Look:
        """Returns who agrees. ``gone`` are those whom this node believes dead: whatever they said last, they
        say nothing now."""
        self._refresh(digest, ids, now)
        look = Look()
        for node in ids:
            said = self._held.get(node)
            if node == self._me:
                look.agree += 1
            elif said is None:
                look.unheard.append(Unheard(node, None))
            elif node in gone or not _is_fresh(said, now):
                look.unheard.append(Unheard(node, _age_s(said, now)))
            elif agree(said[1], digest):
                look.agree += 1
            else:
                look.differ.append(Differing(node, said[1], self._since[node], _age_s(said, now)))
        return look

    # --- rules ----------------------------------------------------------------------------------------------

    def _refresh(self, digest: bytes, ids: tuple[NodeId, ...], now: Instant) -> Said:
        """Brings in step who is a member and what this node says itself; returns that."""
        if ids is not self._ids and ids != self._ids:
            self._print = hashlib.sha256(b"".join(ids)).digest()[:IDS_BYTES]
            members = frozenset(ids)
            for node in [node for node in self._held if node not in members]:
                del self._held[node]
                self._since.pop(node, None)
        self._ids = ids
        before, second = self._own, int(now.unix_s)
        if before is None or before[1] != digest:
            self._own = (max(second, before[0] + 1 if before else 0), digest)
            for node, said in self._held.items():
                self._compare(node, said[1], digest, now)
        else:
            self._own = (max(second - second % WINDOW_S, before[0]), digest)
        return self._own

    def _take(self, node: NodeId, said: Said, now: Instant) -> None:
        if said[0] > now.unix_s + AHEAD_MAX_S:
            self._counters.add(Counter.DIGESTS_FUTURE)
            return
        held = self._held.get(node)
        if not _is_fresh(said, now) or (held is not None and said <= held) or not self._is_member(node):
            return
        if held is not None and not _is_fresh(held, now):
            self._since.pop(node, None)
        self._held[node] = said
        assert self._own is not None
        self._compare(node, said[1], self._own[1], now)

    def _compare(self, node: NodeId, theirs: bytes, mine: bytes, now: Instant) -> None:
        if agree(theirs, mine):
            self._since.pop(node, None)
        else:
            self._since.setdefault(node, now.mono_s)

    def _overtake(self, own: Said, heard: Said, now: Instant) -> Said:
        """Stamps anew what this node says where a higher stamp of it is about: its clock was set back, or
        somebody lies."""
        if own < heard and heard[0] + 1 <= now.unix_s + AHEAD_MAX_S:
            own = self._own = (heard[0] + 1, own[1])
        return own

    def _is_member(self, node: NodeId) -> bool:
        at = bisect.bisect_left(self._ids, node)
        return at < len(self._ids) and self._ids[at] == node

    def _word(self, own: Said, others: dict[NodeId, Said]) -> Word:
        """Packs what is said into groups, the newest stamps first, as far as they fit."""
        masks: dict[Said, int] = {}
        if others:
            for at, node in enumerate(self._ids):
                if node in others:
                    masks[others[node]] = masks.get(others[node], 0) | 1 << at
        room = WORD_BYTES_MAX - _HEAD_BYTES - len(own[1])
        which = {own[1]: 0}
        groups: list[tuple[int, int, bytes]] = []
        for said in sorted(masks, reverse=True):
            stamp, digest = said
            bits = masks[said].to_bytes((masks[said].bit_length() + 7) // 8, "little")
            fresh = digest not in which
            room -= _GROUP_BYTES + len(bits) + (2 + len(digest) if fresh else 0)
            if room < 0 or len(groups) >= GROUPS_MAX or (fresh and len(which) > DIGESTS_MAX):
                break
            groups.append((stamp, which.setdefault(digest, len(which)), bits))
        return Word(
            ids=self._print, stamp=own[0], digest=own[1], digests=tuple(which)[1:], groups=tuple(groups)
        )

    def check(self) -> None:
        """Holds the invariants: bounded by the members, and a difference is noticed where there is one."""
        assert self._own is not None or not self._held
        assert all(self._is_member(node) and node != self._me for node in self._held)
        mine = self._own[1] if self._own else b""
        assert self._since.keys() <= self._held.keys()
        assert all((node in self._since) is not agree(said[1], mine) for node, said in self._held.items())


def agree(left: bytes, right: bytes) -> bool:
    """Says whether two digests are equal in all that both have: a later version may add at the end."""
    common = min(len(left), len(right))
    return left[:common] == right[:common]


def _is_fresh(said: Said, now: Instant) -> bool:
    return said[0] > now.unix_s - UNHEARD_S


def _age_s(said: Said, now: Instant) -> float:
    return max(0.0, now.unix_s - said[0])


def _members(ids: Sequence[NodeId], bits: bytes) -> Iterator[NodeId]:
    """Yields whose bits are set; raises ``PeerFault`` where one stands for nobody."""
    mask = int.from_bytes(bits, "little")
    if mask.bit_length() > len(ids):
        raise PeerFault("a word about more members than there are")
    return itertools.compress(ids, map(int, reversed(f"{mask:b}")))


def _check(word: Word) -> None:
    """Checks the form of a whole word; raises ``PeerFault``."""
    told = (word.digest, *word.digests)
    if len(word.ids) != IDS_BYTES or len(word.digests) > DIGESTS_MAX or len(word.groups) > GROUPS_MAX:
        raise PeerFault("a word of too many digests or groups")
    if not all(DIGEST_BYTES_MIN <= len(one) <= DIGEST_BYTES_MAX for one in told):
        raise PeerFault("a digest of another length")
    for stamp, which, bits in word.groups:
        if stamp < 0 or not 0 <= which < len(told) or not 0 < len(bits) <= _BITMAP_BYTES_MAX or not bits[-1]:
            raise PeerFault("a group without a form")
    if word.stamp < 0:
        raise PeerFault("a stamp before all time")
