"""Which pairs of a node rest: those that go by a relay, want nothing else, and have for a while.

The agent looks at such a pair each second, and tells its relay that it is still wanted. For hours of virtual
time that is nearly all there is to do, and nothing comes of it. So a pair at rest is looked at now and then,
a moment after its relay answered, and its relay hears of it as often as it takes for it to count as asked
(``ASKED_LASTS_S``). Words, answers and machines are the same. Whatever stirs the node ends all rest before
anything else happens: its relays are told at once, and looks follow each second from then on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.hop import HopState
from meshpeer.core.paths.relay_messages import RelayRenewed
from meshpeer.core.paths.relayed import RelayedPath
from meshpeer.core.paths.relayed_look import Phase

AFTER_S = 30.0
"""For how long a pair has used its relay, undisturbed."""
RENEW_S = 4.0
LOOK_S = 12.0
ANSWERED_S = 1.0
"""By then a relay has answered: looks follow."""
STIRRED_S = 40.0
"""A node that was stirred is looked at closely for so long."""


class Rest:
    """Of one node."""

    def __init__(self, now: Instant) -> None:
        self._since: dict[NodeId, tuple[NodeId | None, float]] = {}
        """The relay of each pair that wants nothing, and since when."""
        self._resting: dict[NodeId, float] = {}
        """Until when pairs rest (monotonic)."""
        self._look_s = float("inf")
        self._looked_s = now.mono_s
        self._stirred_s = now.mono_s

    def is_stirred(self, now: Instant) -> bool:
        return now.mono_s < self._stirred_s + STIRRED_S

    def covers(self, relayed: Mapping[NodeId, RelayedPath]) -> bool:
        """Says whether all pairs that hold anything of a relay's rest."""
        return all(one in self._resting or not relayed[one].lent.holds_any for one in relayed)

    def resting(self, now: Instant) -> Collection[NodeId]:
        """Returns the peers whose pairs are not to be looked at now."""
        if now.mono_s >= self._look_s:
            return ()
        return {one for one, until_s in self._resting.items() if now.mono_s < until_s}

    def next_s(self, relayed: Mapping[NodeId, RelayedPath]) -> float:
        """Returns when pairs have to be looked at."""
        at_s = min(self._look_s, min(self._resting.values(), default=float("inf")))
        for node, one in relayed.items():
            if node not in self._resting:
                due = one.next_deadline()
                at_s = min(at_s, due.at_s if due else at_s)
        return at_s

    def looked(self, relayed: Mapping[NodeId, RelayedPath], now: Instant) -> None:
        """Takes what came of a look."""
        if now.mono_s >= self._look_s:
            self._look_s, self._looked_s = float("inf"), now.mono_s
        for node in [one for one in self._since if one not in relayed]:
            del self._since[node]
        self._resting = {
            one: until_s
            for one, until_s in self._resting.items()
            if one in relayed and now.mono_s < until_s and _wants_nothing(relayed[one])
        }
        for node, one in relayed.items():
            used, since_s = self._since.get(node, (None, now.mono_s))
            if not _wants_nothing(one):
                self._since.pop(node, None)
            elif node not in self._since or used != one.used:
                self._since[node] = (one.used, now.mono_s)
            elif now.mono_s >= since_s + AFTER_S and node not in self._resting:
                self._resting[node] = float("inf")

    def renewals(
        self, relayed: Mapping[NodeId, RelayedPath], now: Instant
    ) -> list[tuple[NodeId, RelayRenewed]]:
        """Returns what relays are to hear of pairs at rest."""
        if self._resting and now.mono_s >= self._looked_s + LOOK_S and self._look_s == float("inf"):
            self._look_s = now.mono_s + ANSWERED_S
        return [
            (one.used, RelayRenewed(pair=one.pair))
            for node in self._resting
            if (one := relayed.get(node)) is not None and one.used is not None
        ]

    def stir(self, now: Instant) -> None:
        """Something happens: pairs rest until their relays had time to answer, and no longer."""
        self._stirred_s = now.mono_s
        self._since.clear()
        self._look_s = float("inf")
        self._resting = dict.fromkeys(self._resting, now.mono_s + ANSWERED_S)


def _wants_nothing(one: RelayedPath) -> bool:
    settled = one.phase is Phase.RELAYED and one.asking is None
    return settled and one.hop.state is HopState.NONE and not one.upgrade.way
