"""Opinions: what one node thinks of each member, since when, why, and who says so.

Opinions are kept where they are unusual. Of anybody else the answer is: nobody reports it gone. What can't be
known is said to be unknown: before the first sync, and while this node has no link at all.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, field

from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId


class State(enum.StrEnum):
    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What this node thinks of a member, since when, why, and who says so."""

    state: State
    since_unix_s: float
    because: str
    voucher: NodeId | None = None
    """The helper that reached it."""
    observers: tuple[NodeId, ...] = ()
    """Who suspects it, in id order."""


@dataclass(slots=True)
class Opinions:
    """Holds the unusual ones, and what is thought of everybody else."""

    counters: Counters
    _held: dict[NodeId, Opinion] = field(default_factory=dict)
    """Of suspects, dead ones, and those that only a helper reaches."""
    _unusual: dict[NodeId, None] = field(default_factory=dict)
    _synced_unix_s: float | None = None
    _alone_since: Instant | None = None

    @property
    def unusual(self) -> Collection[NodeId]:
        """Members that are suspect or dead."""
        return self._unusual.keys()

    @property
    def dead(self) -> list[NodeId]:
        return sorted(one for one in self._unusual if self._held[one].state is State.DEAD)

    def __contains__(self, node: NodeId) -> bool:
        """Says whether anything but the usual is thought of a member."""
        return node in self._held

    def of(self, node: NodeId, linked_since_unix_s: float | None) -> Opinion:
        """Returns what is thought of a member, given since when it is linked (None: it is not)."""
        held = self._held.get(node)
        if held is not None:
            return held
        if linked_since_unix_s is not None:
            return Opinion(state=State.ALIVE, since_unix_s=linked_since_unix_s, because="linked")
        if self._synced_unix_s is None:
            return Opinion(
                state=State.SUSPECT, since_unix_s=0.0, because="not heard of since this agent started"
            )
        if self._alone_since is not None:
            return Opinion(
                state=State.SUSPECT,
                since_unix_s=self._alone_since.unix_s,
                because="this node has no link to anybody",
            )
        return Opinion(
            state=State.ALIVE, since_unix_s=self._synced_unix_s, because="no member reports it gone"
        )

    def is_alive(self, node: NodeId) -> bool:
        """Says whether nothing speaks against a member; who is merely unknown counts as alive."""
        held = self._held.get(node)
        return held is None or held.state is State.ALIVE

    # --- steps ----------------------------------------------------------------------------------------------

    def synced(self, now: Instant) -> None:
        """A member has told all it knows: from now on, no news is good news."""
        self._synced_unix_s = now.unix_s

    def alone(self, since: Instant | None) -> None:
        """This node has had no link since then; None: it has one."""
        self._alone_since = since

    def hold(self, node: NodeId, before: Opinion, opinion: Opinion) -> bool:
        """Holds an opinion in place of what was thought before; says whether that is a change."""
        if opinion == self._held.get(node):
            return False
        if before.state is not opinion.state and opinion.state is not State.ALIVE:
            dead = opinion.state is State.DEAD
            self.counters.add(Counter.OPINIONS_DEAD if dead else Counter.OPINIONS_SUSPECT)
        self._held[node] = opinion
        if opinion.state is State.ALIVE:
            self._unusual.pop(node, None)
        else:
            self._unusual[node] = None
        return True

    def drop(self, node: NodeId) -> bool:
        """Thinks the usual of a member again; says whether that is a change."""
        if node in self._unusual:
            del self._unusual[node]
            self.counters.add(Counter.OPINIONS_REVIVED)
        return self._held.pop(node, None) is not None
