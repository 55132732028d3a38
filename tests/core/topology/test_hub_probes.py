"""Hub probes: which fault a member blames on its hub, which it does not, and how long it stands by it."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_members import member, node, view_of

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import AskEcho
from meshpeer.core.ids import NodeId
from meshpeer.core.records.bounds import HUBS_FAILED_MAX
from meshpeer.core.records.kinds import HubReport
from meshpeer.core.topology.hub_aims import FAR_MAX, IPV4, NEAR_MAX, aims_of
from meshpeer.core.topology.hub_probes import ASKED_MAX, NEW_TUNNEL_S, HubProbes
from meshpeer.core.topology.hub_reports import FORWARDING, TUNNEL
from meshpeer.core.topology.plan import Routes
from meshpeer.core.topology.report_book import (
    FORWARDING_HOLD_S,
    HOME_HOLD_S,
    STRIKES_REMEMBERED,
    TUNNEL_HOLD_S,
    ReportBook,
)
from meshpeer.core.topology.shape import Shape
from meshpeer.core.topology.view import MemberView

NOTICED_WITHIN_S = 6.0
EVERYBODY = frozenset(node(number) for number in range(60))
"""Whose tunnels have shaken hands."""


# --- which fault --------------------------------------------------------------------------------------------


def test_all_well_is_one_probe_a_second_and_no_report() -> None:
    rig = Rig()
    rig.run(60)
    assert rig.kinds == {}
    assert 55 <= len(rig.sent) <= 65
    assert {rig.holder(probe.address) for probe in rig.sent} <= {one.node for one in rig.aims.far}


def test_a_hub_that_forwards_nothing_is_reported_for_that() -> None:
    rig = Rig()
    rig.run(10)
    rig.lost = rig.behind
    assert rig.run_until(lambda: rig.kinds == {rig.home: FORWARDING}, NOTICED_WITHIN_S)


def test_a_firewall_that_drops_what_is_forwarded_of_one_family_counts() -> None:
    """Docker's has been of IPv4 alone for years."""
    rig = Rig()
    rig.run(10)
    rig.lost_families = IPV4
    rig.lost = rig.behind
    assert rig.run_until(lambda: rig.kinds == {rig.home: FORWARDING}, NOTICED_WITHIN_S + 1)


def test_a_hub_whose_tunnel_carries_nothing_is_reported_for_that() -> None:
    rig = Rig()
    rig.run(10)
    rig.lost = {rig.home, *rig.behind}
    assert rig.run_until(lambda: rig.kinds == {rig.home: TUNNEL}, NOTICED_WITHIN_S)


def test_nobody_is_blamed_while_nothing_at_all_answers() -> None:
    rig = Rig()
    rig.run(10)
    rig.lost = set(rig.members)
    rig.run(60)
    assert rig.kinds == {}
    rig.lost = set()
    rig.run(60)
    assert rig.kinds == {}


def test_one_that_is_silent_behind_a_hub_which_carries_others_says_nothing_of_it() -> None:
    rig = Rig()
    rig.run(10)
    rig.lost = {rig.aims.far[0].node}
    rig.run(60)
    assert rig.kinds == {}


def test_silence_of_those_that_may_never_answer_says_nothing() -> None:
    rig = Rig(answers=0)
    rig.lost = {rig.home, *rig.behind}
    rig.run(60)
    assert rig.kinds == {}
    assert len(rig.sent) <= 13, "only now and then, to find out"


def test_a_node_that_was_not_let_run_blames_nobody_for_what_it_has_not_read() -> None:
    rig = Rig()
    rig.run(10)
    rig.run(0.5)
    rig.skip(30)
    rig.run(20)
    assert rig.kinds == {}


@pytest.mark.parametrize("loss", [0.05, 0.2])
def test_losses_on_the_way_cost_no_hub_its_place(loss: float) -> None:
    rig = Rig(loss=loss)
    rig.run(600)
    assert rig.kinds == {}


def test_a_way_that_takes_two_seconds_is_no_fault() -> None:
    rig = Rig(rtt_s=2.0)
    rig.run(120)
    assert rig.kinds == {}


def test_one_that_is_silent_behind_two_hubs_is_itself_what_is_silent() -> None:
    """Where one region with one hub is all that lies behind, its own fault looks like that of the hub."""
    rig = Rig(us=1)
    rig.run(10)
    rig.lost = rig.behind
    assert rig.run_until(lambda: rig.kinds == {rig.home: FORWARDING}, NOTICED_WITHIN_S)
    rig.turn_to(rig.standby)
    rig.run(30)
    assert rig.kinds == {}


def test_those_behind_who_turn_out_to_be_gone_are_no_proof() -> None:
    rig = Rig()
    rig.run(10)
    rig.lost = rig.behind
    assert rig.run_until(lambda: rig.kinds == {rig.home: FORWARDING}, NOTICED_WITHIN_S)
    gone = {
        node: dataclasses.replace(one, doubted=node in rig.lost) for node, one in rig.aims.members.items()
    }
    rig.probes.update(dataclasses.replace(rig.aims, members=gone), rig.now)
    assert rig.kinds == {}


# --- how long -----------------------------------------------------------------------------------------------


def test_a_dead_tunnel_has_to_answer_for_a_while_before_its_hub_is_taken_again() -> None:
    rig = Rig()
    rig.fail({rig.home, *rig.behind})
    lost = rig.home
    rig.turn_to(rig.standby)
    rig.lost = {lost}
    rig.run(10 * TUNNEL_HOLD_S)
    assert rig.kinds == {lost: TUNNEL}
    rig.lost = set()
    rig.run(TUNNEL_HOLD_S - 1)
    assert rig.kinds == {lost: TUNNEL}
    assert rig.run_until(lambda: rig.kinds == {}, 6)


def test_a_tunnel_that_answers_now_and_then_does_not_flap() -> None:
    rig = Rig()
    rig.fail({rig.home, *rig.behind})
    lost = rig.home
    rig.turn_to(rig.standby)
    for _ in range(20):
        rig.lost = {lost}
        rig.run(10)
        rig.lost = set()
        rig.run(TUNNEL_HOLD_S * 0.8)
        assert rig.kinds == {lost: TUNNEL}


def test_forwarding_that_nobody_sees_any_more_is_tried_again_later_and_later() -> None:
    rig = Rig()
    lost = rig.home
    for doubled in (1, 2, 4):
        rig.fail(rig.behind)
        rig.turn_to(rig.standby)
        rig.run(FORWARDING_HOLD_S * doubled - 10)
        assert rig.kinds == {lost: FORWARDING}, doubled
        assert rig.run_until(lambda: rig.kinds == {}, 20), doubled
        rig.turn_to(lost)


def test_a_hub_that_was_kept_is_cleared_once_it_works_again() -> None:
    """Not enough say so, or there is no other: it stays the home, and can be seen to work."""
    rig = Rig()
    rig.fail(rig.behind)
    rig.run(FORWARDING_HOLD_S + 60)
    assert rig.kinds == {rig.home: FORWARDING}, "it goes on failing"
    rig.lost = set()
    rig.run(HOME_HOLD_S - 5)
    assert rig.kinds == {rig.home: FORWARDING}
    assert rig.run_until(lambda: rig.kinds == {}, 15)


def test_a_hub_that_starts_anew_or_leaves_is_reported_no_more() -> None:
    for change in ("anew", "left"):
        rig = Rig()
        rig.fail(rig.behind)
        members = dict(rig.aims.members)
        if change == "left":
            del members[rig.home]
        else:
            members[rig.home] = dataclasses.replace(members[rig.home], incarnation=1)
        rig.probes.update(dataclasses.replace(rig.aims, home=None, members=members), rig.now)
        assert rig.kinds == {}


def test_what_a_node_said_in_its_last_run_holds_on() -> None:
    rig = Rig()
    rig.probes.book.resume([HubReport(rig.standby, 0, FORWARDING)], rig.now)
    rig.run(FORWARDING_HOLD_S - 60)
    assert rig.kinds == {rig.standby: FORWARDING}
    assert rig.run_until(lambda: rig.kinds == {}, 120)


# --- bounds -------------------------------------------------------------------------------------------------


def test_a_book_holds_four_reports_and_some_memories() -> None:
    book = ReportBook()
    for number in range(3 * STRIKES_REMEMBERED):
        book.add(member(number), TUNNEL, frozenset(), Instant(float(number), 0.0))
    assert len(book.shown) == HUBS_FAILED_MAX
    assert {one.node for one in book.shown} == {member(number).node for number in range(188, 192)}
    assert len(book._strikes) == STRIKES_REMEMBERED


def test_answers_that_were_not_asked_for_count_for_nothing() -> None:
    rig = Rig()
    rig.run(10)
    rig.lost = {rig.home, *rig.behind}
    address = rig.aims.members[rig.home].ipv6
    for number in range(1_000):
        rig.probes.on_answer(number, address, rig.now)
    rig.forge = True
    assert rig.run_until(lambda: rig.kinds == {rig.home: TUNNEL}, NOTICED_WITHIN_S)


def test_probes_on_their_way_are_bounded() -> None:
    rig = Rig()
    rig.lost = set(rig.members)
    rig.run(300)
    assert len(rig.probes._asked) <= ASKED_MAX


def test_a_node_answers_for_sure_once_a_members_probe_has_reached_it() -> None:
    rig = Rig()
    known = rig.aims.members[rig.home]
    rig.probes.on_asked("fd00::1")
    assert rig.probes.answers == 0
    rig.probes.on_asked(known.ipv6)
    assert rig.probes.answers == 2
    rig.probes.on_asked(known.ipv4)
    assert rig.probes.answers == 3


# --- aims ---------------------------------------------------------------------------------------------------


def test_nobody_is_probed_in_a_full_mesh() -> None:
    crowd = mesh(eu=3, us=3)
    view = dataclasses.replace(view_of(*crowd), topology="full")
    for one in crowd:
        routes = Routes(Shape(view), one.node)
        assert aims_of(routes, routes.plan(), EVERYBODY) == aims_of(routes, routes.plan(), EVERYBODY)
        assert not aims_of(routes, routes.plan(), EVERYBODY).addresses
        assert not aims_of(routes, routes.plan(), EVERYBODY).members


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 40), st.integers(0, 2**32))
def test_what_is_probed_behind_a_hub_is_one_hop_behind_it_and_what_is_near_is_not(
    eu: int, us: int, ap: int, seed: int
) -> None:
    dice = random.Random(seed)
    crowd = [
        dataclasses.replace(one, doubted=dice.random() < 0.1, warm=dice.random() < 0.5)
        for one in mesh(eu=eu, us=us, ap=ap)
    ]
    plans = {one.node: (routes := Routes(Shape(view_of(*crowd)), one.node), routes.plan()) for one in crowd}
    for one in crowd:
        aims = aims_of(*plans[one.node], EVERYBODY)
        assert len(aims.far) <= FAR_MAX
        assert len(aims.near) <= NEAR_MAX
        for far in aims.far:
            assert aims.home is not None
            assert carrier(plans[one.node][1], far.ipv6) == aims.home.node
            assert carrier(plans[aims.home.node][1], far.ipv6) == far.node
            assert carrier(plans[far.node][1], one.ipv6) == aims.home.node
        for near in aims.near:
            assert carrier(plans[one.node][1], near.ipv6) == near.node


def test_no_probe_goes_into_a_tunnel_that_has_not_shaken_hands() -> None:
    """It would make WireGuard wait for five seconds: measured as a gap of that length at a failover."""
    crowd = mesh(eu=5, us=3)
    for one in crowd:
        routes = Routes(Shape(view_of(*crowd)), one.node)
        aims = aims_of(routes, routes.plan(), ())
        assert (aims.near, aims.unproven, aims.home_is_up) == ((), (), False)


def test_a_new_tunnel_gets_its_time_before_silence_is_looked_into() -> None:
    rig = Rig(new=True)
    rig.run(NEW_TUNNEL_S - 0.1)
    assert rig.sent == []
    rig.lost = {rig.home, *rig.behind}
    assert rig.run_until(lambda: rig.kinds == {rig.home: TUNNEL}, NOTICED_WITHIN_S)
    rig = Rig(new=True)
    rig.probes.update(dataclasses.replace(rig.aims, home_is_up=True), rig.now)
    rig.run(1.1)
    assert len(rig.sent) == 1


def test_different_members_probe_different_ones() -> None:
    crowd = mesh(eu=40, us=5, ap=5, sa=5)
    view = view_of(*crowd)
    seen: set[NodeId] = set()
    for one in crowd[:40]:
        routes = Routes(Shape(view), one.node)
        seen |= {far.node for far in aims_of(routes, routes.plan(), EVERYBODY).far}
    assert len(seen) >= 6


# --- helpers ------------------------------------------------------------------------------------------------


class Rig:
    """One edge of a region of three, its probes, and a network that loses what a test wants lost."""

    def __init__(
        self, *, answers: int = 3, us: int = 3, loss: float = 0.0, rtt_s: float = 0.02, new: bool = False
    ) -> None:
        # One hub of each other region is right behind: with one region there is one.
        crowd = mesh(eu=4, us=us, ap=us - 1, answers=answers)
        self.members = {one.node: one for one in crowd}
        view = view_of(*crowd)
        for one in crowd:
            self.routes = Routes(Shape(view), one.node)
            self.aims = aims_of(self.routes, self.routes.plan(), EVERYBODY)
            if self.aims.home is not None and one.region == "eu":
                break
        self.aims = dataclasses.replace(self.aims, home_is_up=not new)
        self.behind = {one.node for one in self.aims.far}
        self.standby = self.aims.near[0].node
        self.lost: set[NodeId] = set()
        self.lost_families = 3
        self.forge = False
        self.sent: list[AskEcho] = []
        self.probes = HubProbes(random.Random(1).randbytes)
        self._loss, self._rtt_s = loss, rtt_s
        self._dice = random.Random(7)
        self._now_s = 1_000.0
        self._order = itertools.count()
        self._coming: list[tuple[float, int, AskEcho]] = []
        self.probes.update(self.aims, self.now)

    @property
    def home(self) -> NodeId:
        assert self.aims.home is not None
        return self.aims.home.node

    @property
    def now(self) -> Instant:
        return Instant(self._now_s, 1.8e9 + self._now_s)

    @property
    def kinds(self) -> dict[NodeId, str]:
        return {one.node: one.kind for one in self.probes.book.shown}

    def holder(self, address: str) -> NodeId:
        return next(one.node for one in self.members.values() if address in (one.ipv4, one.ipv6))

    def fail(self, lost: Iterable[NodeId]) -> None:
        """Loses what is given until the home is reported."""
        self.lost = set(lost)
        assert self.run_until(lambda: self.home in self.kinds, NOTICED_WITHIN_S)

    def turn_to(self, hub: NodeId) -> None:
        """Another hub of the cell is the home from now on; all is well with it."""
        hubs = [self.aims.home, *self.aims.near]
        home = next(one for one in hubs if one is not None and one.node == hub)
        near = tuple(one for one in hubs if one is not None and one.node != hub)
        self.aims = dataclasses.replace(self.aims, home=home, near=near)
        if len(self.behind) > 1:
            self.lost = set()
        self.probes.update(self.aims, self.now)

    def run(self, seconds: float) -> None:
        self.run_until(lambda: False, seconds)

    def run_until(self, condition: Callable[[], bool], within_s: float) -> bool:
        end_s = self._now_s + within_s
        while not condition():
            deadline = self.probes.next_deadline()
            due_s = deadline.at_s if deadline else end_s
            if self._coming and self._coming[0][0] <= min(due_s, end_s):
                at_s, _, probe = heapq.heappop(self._coming)
                self._now_s = max(self._now_s, at_s)
                self.probes.on_answer(probe.number, probe.address, self.now)
            elif due_s >= end_s:
                self._now_s = end_s
                return condition()
            else:
                self._now_s = max(self._now_s, due_s)
                for probe in self.probes.tick(self.now):
                    self._carry(probe)
        return True

    def skip(self, seconds: float) -> None:
        """Lets time pass in which the node is not run; what came waits to be read."""
        self.probes.next_deadline()
        self._now_s += seconds
        for probe in self.probes.tick(self.now):
            self._carry(probe)

    def _carry(self, probe: AskEcho) -> None:
        self.sent.append(probe)
        family = 2 if ":" in probe.address else 1
        if self.forge:
            # Whoever sees a probe pass may answer, but not from where it was sent to.
            self.probes.on_answer(probe.number, "10.10.0.250", self.now)
        if self.holder(probe.address) in self.lost and self.lost_families & family:
            return
        if self._dice.random() >= self._loss:
            heapq.heappush(self._coming, (self._now_s + self._rtt_s, next(self._order), probe))


def mesh(*, answers: int = 3, **sizes: int) -> list[MemberView]:
    numbers = itertools.count()
    return [
        member(number := next(numbers), region=region, ipv4=f"10.10.1.{number + 1}", answers=answers)
        for region, size in sizes.items()
        for _ in range(size)
    ]


def carrier(plan: object, address: str) -> NodeId | None:
    peer = plan.carrier_of(address)  # type: ignore[attr-defined]
    return peer.node if peer else None
