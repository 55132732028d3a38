"""The rule of ``Releases``: nothing overtakes the disk, and what the disk refused never happens."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import Ticket
from meshpeer.runtime.releases import GAP_TICKETS_MAX, Releases, Verdict

PERFORM, HELD, DROPPED = Verdict.PERFORM, Verdict.HELD, Verdict.DROPPED

# A step is what happens, and what has to come of it.
Step = tuple[str, object, object]
TABLE: dict[str, list[Step]] = {
    "nothing to wait for": [
        ("hold", (None, "a"), PERFORM),
    ],
    "held until its ticket is on disk": [
        ("hold", (1, "a"), HELD),
        ("committed", [1], ("a",)),
        ("waiting", None, 0),
    ],
    "on disk already": [
        ("committed", [1], ()),
        ("hold", (1, "a"), PERFORM),
    ],
    "another ticket releases nothing": [
        ("hold", (2, "a"), HELD),
        ("committed", [1], ()),
        ("waiting", None, 1),
        ("committed", [2], ("a",)),
    ],
    "a later ticket says nothing about an earlier one": [
        ("committed", [2], ()),
        ("hold", (1, "a"), HELD),
        ("hold", (2, "b"), PERFORM),
        ("committed", [1], ("a",)),
    ],
    "a batch releases in the order of holding": [
        ("hold", (3, "a"), HELD),
        ("hold", (1, "b"), HELD),
        ("hold", (3, "c"), HELD),
        ("hold", (2, "d"), HELD),
        ("committed", [1, 2, 3], ("a", "b", "c", "d")),
    ],
    "released once": [
        ("hold", (1, "a"), HELD),
        ("committed", [1], ("a",)),
        ("committed", [1], ()),
    ],
    "a failure drops exactly what waited for it": [
        ("hold", (1, "a"), HELD),
        ("hold", (2, "b"), HELD),
        ("hold", (1, "c"), HELD),
        ("failed", [1], ("a", "c")),
        ("waiting", None, 1),
        ("failed", [2], ("b",)),
    ],
    "after a failure nothing new is promised": [
        ("committed", [1], ()),
        ("failed", [2], ()),
        ("hold", (2, "a"), DROPPED),
        ("hold", (3, "b"), DROPPED),
        ("hold", (1, "c"), PERFORM),
        ("hold", (None, "d"), PERFORM),
        ("waiting", None, 0),
    ],
}


@pytest.mark.parametrize("steps", TABLE.values(), ids=TABLE.keys())
def test_each_step_has_its_outcome(steps: list[Step]) -> None:
    releases = Releases[str]()
    for verb, argument, expected in steps:
        assert _do(releases, verb, argument) == expected, (verb, argument)
        releases.check()


def test_a_ticket_that_was_taken_and_never_written_is_found_at_last() -> None:
    releases = Releases[str]()
    releases.committed([Ticket(number) for number in range(2, GAP_TICKETS_MAX + 2)])
    with pytest.raises(InvariantBroken, match="ticket 1 was taken and never written"):
        releases.committed([Ticket(GAP_TICKETS_MAX + 2)])


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(1, 40)))
def test_memory_of_the_past_is_bounded_whatever_the_order(order: list[int]) -> None:
    releases = Releases[int]()
    for number in order:
        releases.committed([Ticket(number)])
    assert all(releases.hold(Ticket(number), number) is PERFORM for number in order)
    assert releases.hold(Ticket(40), 40) is HELD
    assert not releases._above


class ReleasesAgainstALedger(RuleBasedStateMachine):
    """Nothing is performed before its ticket is on disk, twice, or after it failed; nothing is forgotten."""

    @initialize()
    def begin(self) -> None:
        self.releases = Releases[tuple[int, int]]()
        self.on_disk: set[int] = set()
        self.next_ticket = 1
        self.serial = 0
        self.given: set[tuple[int, int]] = set()
        self.ended: list[tuple[int, int]] = []
        self.broken = False

    @rule(ahead=st.integers(-5, 3))
    def hold(self, ahead: int) -> None:
        ticket = max(1, self.next_ticket + ahead)
        self.serial += 1
        what = (ticket, self.serial)
        verdict = self.releases.hold(Ticket(ticket), what)
        if ticket in self.on_disk:
            assert verdict is PERFORM
        elif self.broken:
            assert verdict is DROPPED
        else:
            assert verdict is HELD
            self.given.add(what)

    @rule(count=st.integers(1, 4))
    def commit(self, count: int) -> None:
        if self.broken:
            return
        batch = range(self.next_ticket, self.next_ticket + count)
        self.next_ticket += count
        self.on_disk |= set(batch)
        self._end(self.releases.committed([Ticket(number) for number in batch]), batch)

    @rule(count=st.integers(1, 4))
    def fail(self, count: int) -> None:
        batch = range(self.next_ticket, self.next_ticket + count)
        self.next_ticket += count
        self.broken = True
        self._end(self.releases.failed([Ticket(number) for number in batch]), batch)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        if hasattr(self, "releases"):
            self.releases.check()
            assert len(self.releases) == len(self.given) - len(self.ended)

    def _end(self, out: tuple[tuple[int, int], ...], batch: Iterable[int]) -> None:
        expected = sorted(
            (one for one in self.given - set(self.ended) if one[0] in batch), key=lambda one: one[1]
        )
        assert list(out) == expected
        self.ended += out


TestReleasesAgainstALedger = ReleasesAgainstALedger.TestCase
TestReleasesAgainstALedger.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def _do(releases: Releases[str], verb: str, argument: object) -> object:
    match verb, argument:
        case "hold", (None, str(what)):
            return releases.hold(None, what)
        case "hold", (int(number), str(what)):
            return releases.hold(Ticket(number), what)
        case "committed", [*numbers]:
            return releases.committed([Ticket(int(str(number))) for number in numbers])
        case "failed", [*numbers]:
            return releases.failed([Ticket(int(str(number))) for number in numbers])
        case _:
            return len(releases)
