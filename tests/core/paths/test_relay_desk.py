"""A relay lends two ports to exactly two members, both get the same reservation, and quotas hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Send, Tick
from meshpeer.core.errors import InvariantBroken
from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.paths.relay import LEFT_S, RETIRE_S_MAX, RelayDesk, RelayLimits
from meshpeer.core.paths.relay_messages import (
    RELAY_FRAMES,
    CloseRelay,
    FreezeRelay,
    OpenRelay,
    Pair,
    RekeyRelay,
    RelayAsked,
    RelayCarried,
    RelayEffect,
    RelayEnd,
    RelayFreed,
    RelayFreezeAsked,
    RelayFrozen,
    RelayGranted,
    RelayLost,
    RelayMembersShown,
    RelayOpened,
    RelayRefusal,
    RelayRefused,
    RelayRenewed,
    RelayRequest,
    RelayRequested,
    RelayWakeAsked,
    RelayWilling,
    RelayWoken,
    WakeRelay,
)
from meshpeer.core.paths.relay_states import MOVES, RelayState, check_move
from meshpeer.core.paths.reservation import FREEZE_AHEAD_S, IDLE_S, LEASE_S, READY_LASTS_S
from meshpeer.core.wire.frames import Channel, Codec

ME = NodeId(b"m" * 32)
NODES = [NodeId(bytes([number]) * 32) for number in range(1, 7)]
A, B, C = NODES[:3]
AB: Pair = (A, B)
PORTS = (51830, 51831)
UNIX_S = 1_900_000_000.0


def key_of(node: NodeId) -> WireGuardKey:
    return WireGuardKey(node[:1] * 31 + b"k")


def at(mono_s: float) -> Instant:
    return Instant(mono_s, UNIX_S + mono_s)


def desk(**limits: object) -> RelayDesk:
    made = RelayDesk(ME, RelayLimits(**limits), Counters())  # type: ignore[arg-type]
    made.handle(RelayMembersShown(members=tuple((node, key_of(node)) for node in NODES)), at(0))
    return made


def asks(one: RelayDesk, peer: NodeId, message: RelayRequest, now_s: float = 0.0) -> list[RelayEffect]:
    effects = one.handle(RelayRequested(peer=peer, message=message), at(now_s))
    one.check()
    return effects


def refused(peer: NodeId, pair: Pair, reason: RelayRefusal) -> list[RelayEffect]:
    return [Send(peer=peer, message=RelayRefused(pair=pair, reason=reason.value))]


def granted(
    peer: NodeId, pair: Pair, port: int, *, both: bool = False, theirs: bool = False, at_s: float = 0.0
) -> Send:
    clock_ms = round(at_s * 1000)
    theirs = both or theirs
    message = RelayGranted(pair=pair, port=port, lasts_s=LEASE_S, both=both, theirs=theirs, clock_ms=clock_ms)
    return Send(peer=peer, message=message)


def freed(peer: NodeId, pair: Pair, reason: RelayEnd) -> Send:
    return Send(peer=peer, message=RelayFreed(pair=pair, reason=reason.value))


def opened(now_s: float = 0.0, **limits: object) -> RelayDesk:
    """Returns a desk at which A and B have a reservation."""
    made = desk(**limits)
    assert asks(made, A, RelayAsked(pair=AB)) == [OpenRelay(ports=PORTS, keys=(key_of(A), key_of(B)))]
    assert made.handle(RelayOpened(ports=PORTS), at(now_s)) == [
        granted(A, AB, 51830),
        granted(B, AB, 51831, theirs=True),
    ]
    return made


# --- asking -------------------------------------------------------------------------------------------------


def test_both_ends_are_told_once_the_ports_are_open_each_its_own() -> None:
    opened()


def test_the_other_end_gets_the_same_reservation_and_both_hear_that_both_asked() -> None:
    one = opened()
    said = [granted(A, AB, 51830, both=True), granted(B, AB, 51831, both=True)]
    assert asks(one, B, RelayAsked(pair=AB)) == said
    assert asks(one, A, RelayAsked(pair=AB)) == said
    assert asks(one, A, RelayRenewed(pair=AB)) == said[:1]


def test_who_asks_again_tells_the_other_end_again() -> None:
    one = opened()
    assert asks(one, A, RelayAsked(pair=AB)) == [
        granted(A, AB, 51830),
        granted(B, AB, 51831, theirs=True),
    ]


def test_an_ask_while_the_ports_are_being_opened_makes_no_second_pair() -> None:
    one = desk()
    asks(one, B, RelayAsked(pair=AB))
    assert asks(one, A, RelayAsked(pair=AB)) == []
    assert len(one.reservations) == 1


@pytest.mark.parametrize(
    ("peer", "pair", "reason"),
    [
        (C, AB, RelayRefusal.PAIR),
        (A, (A, ME), RelayRefusal.PAIR),
        (A, (A, NodeId(b"?" * 32)), RelayRefusal.MEMBER),
    ],
)
def test_only_an_end_may_ask_and_only_for_two_members(peer: NodeId, pair: Pair, reason: RelayRefusal) -> None:
    one = desk()
    assert asks(one, peer, RelayAsked(pair=pair)) == refused(peer, pair, reason)
    assert one.reservations == ()


@pytest.mark.parametrize("pair", [(B, A), (A, A), (A, NodeId(b"short")), (NodeId(b""), NodeId(b""))])
def test_what_names_no_pair_is_not_answered(pair: Pair) -> None:
    assert asks(desk(), A, RelayAsked(pair=pair)) == []


def test_a_node_that_relays_for_nobody_says_so() -> None:
    assert asks(desk(ports=()), A, RelayAsked(pair=AB)) == refused(A, AB, RelayRefusal.CLOSED)


def test_ports_that_can_not_be_opened_are_refused_and_others_come_next() -> None:
    one = desk()
    asks(one, A, RelayAsked(pair=AB))
    assert one.handle(RelayLost(ports=PORTS), at(0)) == [
        CloseRelay(ports=PORTS),
        *refused(A, AB, RelayRefusal.PORT),
        *refused(B, AB, RelayRefusal.PORT),
    ]
    assert asks(one, A, RelayAsked(pair=AB)) == [OpenRelay(ports=(51832, 51833), keys=(key_of(A), key_of(B)))]


# --- quotas -------------------------------------------------------------------------------------------------


def test_pairs_are_bounded_by_ports_and_by_number() -> None:
    for one in (desk(ports=(1, 2, 3)), desk(pairs_max=1)):
        asks(one, A, RelayAsked(pair=AB))
        assert asks(one, C, RelayAsked(pair=(A, C))) == refused(C, (A, C), RelayRefusal.FULL)
        assert asks(one, B, RelayAsked(pair=AB)) == [], "who has one keeps it"


def test_a_member_has_its_share_as_either_end() -> None:
    one = desk(pairs_per_member_max=1)
    asks(one, A, RelayAsked(pair=AB))
    assert asks(one, C, RelayAsked(pair=(B, C))) == refused(C, (B, C), RelayRefusal.SHARE)


def test_a_member_makes_so_many_reservations_a_minute() -> None:
    one = opened(new_per_member_per_minute=2)
    for _ in range(2):
        asks(one, A, RelayFreed(pair=AB))
        last = asks(one, A, RelayAsked(pair=AB))
    assert last == refused(A, AB, RelayRefusal.OFTEN)
    assert asks(one, B, RelayAsked(pair=AB)) != last, "the other end has its own allowance"
    asks(one, B, RelayFreed(pair=AB))
    assert isinstance(asks(one, A, RelayAsked(pair=AB), 31)[0], OpenRelay)


def test_refusals_grants_and_drops_are_counted() -> None:
    counters = Counters()
    one = RelayDesk(ME, RelayLimits(), counters)
    asks(one, A, RelayAsked(pair=AB))
    one.handle(RelayMembersShown(members=((A, key_of(A)), (B, key_of(B)))), at(0))
    asks(one, A, RelayAsked(pair=AB))
    one.handle(RelayOpened(ports=PORTS), at(0))
    for drops in (3, 3, 5):
        one.handle(RelayCarried(ports=PORTS, packets=0, drops=drops), at(0))
    assert counters.counted == {
        Counter.RELAYS_REFUSED: 1,
        Counter.RELAYS_GRANTED: 1,
        Counter.RELAY_DROPS: 5,
    }


# --- ends ---------------------------------------------------------------------------------------------------


def test_who_left_loses_its_reservations_at_once() -> None:
    one = opened()
    effects = one.handle(RelayMembersShown(members=((B, key_of(B)),)), at(1))
    assert effects == [CloseRelay(ports=PORTS), freed(B, AB, RelayEnd.LEFT)]
    one.check()


def test_a_reservation_is_for_exactly_two_keys() -> None:
    one = opened()
    rotated = ((A, key_of(A)), (B, WireGuardKey(b"n" * 32)))
    assert one.handle(RelayMembersShown(members=rotated), at(1)) == [
        CloseRelay(ports=PORTS),
        freed(A, AB, RelayEnd.KEY),
        freed(B, AB, RelayEnd.KEY),
    ]


def test_an_end_that_announced_its_next_key_keeps_its_reservation() -> None:
    one = opened()
    following = WireGuardKey(b"n" * 32)
    members, changed = ((A, key_of(A)), (B, key_of(B))), ((A, key_of(A)), (B, following))
    announced = RelayMembersShown(members=members, coming=((B, following),))
    assert one.handle(announced, at(1)) == [
        RekeyRelay(ports=PORTS, keys=((key_of(A),), (key_of(B), following)))
    ]
    assert one.handle(announced, at(2)) == []
    assert one.handle(RelayMembersShown(members=changed), at(3)) == [
        RekeyRelay(ports=PORTS, keys=((key_of(A),), (following,)))
    ]
    one.check()


def test_who_is_about_to_change_its_key_is_lent_ports_for_both() -> None:
    one = opened()
    following = WireGuardKey(b"n" * 32)
    members = tuple((node, key_of(node)) for node in (A, B, C))
    one.handle(RelayMembersShown(members=members, coming=((C, following),)), at(1))
    pair = (A, C)
    ports = (51832, 51833)
    assert asks(one, A, RelayAsked(pair=pair), 2) == [
        OpenRelay(ports=ports, keys=(key_of(A), key_of(C))),
        RekeyRelay(ports=ports, keys=((key_of(A),), (key_of(C), following))),
    ]


def test_an_end_gives_it_back_and_the_other_one_hears_of_it() -> None:
    one = opened()
    assert asks(one, B, RelayFreed(pair=AB)) == [CloseRelay(ports=PORTS), freed(A, AB, RelayEnd.ASKED)]
    assert asks(one, B, RelayFreed(pair=AB)) == []
    assert asks(one, A, RelayRenewed(pair=AB)) == refused(A, AB, RelayRefusal.UNKNOWN)


def test_it_lasts_as_long_as_one_end_renews_it_and_something_crosses() -> None:
    one = opened()
    for step in range(1, 6):
        now_s = step * LEASE_S * 0.9
        assert one.handle(Tick(), at(now_s)) == []
        one.handle(RelayCarried(ports=PORTS, packets=step), at(now_s))
        assert asks(one, A, RelayRenewed(pair=AB), now_s) == [granted(A, AB, 51830, at_s=now_s)]
    end_s = 5 * LEASE_S * 0.9 + LEASE_S
    deadline = one.next_deadline()
    assert deadline is not None
    assert deadline.at_s == pytest.approx(end_s)
    assert one.handle(Tick(), at(end_s)) == [
        CloseRelay(ports=PORTS),
        freed(A, AB, RelayEnd.EXPIRED),
        freed(B, AB, RelayEnd.EXPIRED),
    ]
    assert one.next_deadline() is None


def test_what_nobody_uses_is_freed_although_it_is_renewed() -> None:
    one = opened()
    one.handle(RelayCarried(ports=PORTS, packets=0), at(IDLE_S / 2))
    asks(one, A, RelayRenewed(pair=AB), IDLE_S - 1)
    assert one.handle(Tick(), at(IDLE_S - 0.1)) == []
    assert one.handle(Tick(), at(IDLE_S))[1:] == [freed(A, AB, RelayEnd.IDLE), freed(B, AB, RelayEnd.IDLE)]


def test_ports_that_are_lost_are_lost_for_both_ends() -> None:
    one = opened()
    assert one.handle(RelayLost(ports=PORTS), at(1)) == [
        CloseRelay(ports=PORTS),
        freed(A, AB, RelayEnd.LOST),
        freed(B, AB, RelayEnd.LOST),
    ]
    assert one.handle(RelayLost(ports=PORTS), at(1)) == []
    assert one.handle(RelayOpened(ports=PORTS), at(1)) == []
    assert one.handle(RelayCarried(ports=PORTS, packets=1), at(1)) == []


def test_ports_given_back_are_lent_last() -> None:
    one = opened(ports=(51830, 51831, 1, 2))
    asks(one, A, RelayFreed(pair=AB))
    assert asks(one, A, RelayAsked(pair=AB))[0] == OpenRelay(ports=(1, 2), keys=(key_of(A), key_of(B)))


# --- freezing -----------------------------------------------------------------------------------------------


def leaves(one: RelayDesk, now_s: float) -> list[RelayEffect]:
    asks(one, A, RelayFreezeAsked(pair=AB), now_s)
    return asks(one, B, RelayFreezeAsked(pair=AB), now_s)


def frozen(end: NodeId, in_s: float, at_s: float) -> Send:
    message = RelayFrozen(pair=AB, in_ms=round(in_s * 1000), clock_ms=round(at_s * 1000))
    return Send(peer=end, message=message)


def test_once_both_ends_are_ready_the_pair_freezes_and_both_hear_when() -> None:
    one = opened()
    assert asks(one, B, RelayFreezeAsked(pair=AB), 10) == []
    assert asks(one, B, RelayFreezeAsked(pair=AB), 10.5) == []
    assert asks(one, A, RelayFreezeAsked(pair=AB), 11) == [
        FreezeRelay(ports=PORTS, at_s=11 + FREEZE_AHEAD_S),
        frozen(A, FREEZE_AHEAD_S, 11 + FREEZE_AHEAD_S),
        frozen(B, FREEZE_AHEAD_S, 11 + FREEZE_AHEAD_S),
    ]
    assert [held.state for held in one.reservations] == [RelayState.FROZEN]
    # Who missed it asks again.
    assert asks(one, B, RelayFreezeAsked(pair=AB), 12) == [frozen(B, 0, 11 + FREEZE_AHEAD_S)]
    grant = RelayGranted(pair=AB, port=PORTS[1], lasts_s=LEASE_S, theirs=False, frozen=True, clock_ms=12_000)
    assert asks(one, B, RelayRenewed(pair=AB), 12) == [Send(peer=B, message=grant)]


def test_an_end_that_was_ready_a_while_ago_is_not_taken_at_its_word() -> None:
    one = opened()
    asks(one, B, RelayFreezeAsked(pair=AB), 10)
    assert asks(one, A, RelayFreezeAsked(pair=AB), 10 + READY_LASTS_S) == []


def test_either_end_wakes_a_frozen_pair_and_both_hear_of_it() -> None:
    one = opened()
    assert asks(one, A, RelayWakeAsked(pair=AB), 9) == []
    leaves(one, 10)
    woken = [Send(peer=end, message=RelayWoken(pair=AB)) for end in AB]
    assert asks(one, A, RelayWakeAsked(pair=AB), 13) == [WakeRelay(ports=PORTS), *woken]
    assert asks(one, A, RelayWakeAsked(pair=AB), 13) == []
    # What they said before is over.
    assert asks(one, A, RelayFreezeAsked(pair=AB), 13) == []


def test_a_frozen_pair_is_not_idle_from_before_its_freeze() -> None:
    one = opened()
    leaves(one, IDLE_S - 1)
    asks(one, A, RelayRenewed(pair=AB), IDLE_S - 1)
    assert one.handle(Tick(), at(IDLE_S + 1)) == []


def test_nobody_else_freezes_wakes_renews_or_frees() -> None:
    one = opened()
    for message in (
        RelayFreezeAsked(pair=AB),
        RelayWakeAsked(pair=AB),
        RelayRenewed(pair=AB),
        RelayFreed(pair=AB),
    ):
        assert asks(one, C, message) == refused(C, AB, RelayRefusal.PAIR)


# --- from one relay to another, and the end of a relay ------------------------------------------------------


def test_ends_that_mean_different_places_freeze_nothing() -> None:
    one = opened()
    assert asks(one, A, RelayFreezeAsked(pair=AB, to=C), 10) == []
    assert asks(one, B, RelayFreezeAsked(pair=AB), 10) == []
    assert asks(one, B, RelayFreezeAsked(pair=AB, to=ME), 10) == []
    effects = asks(one, B, RelayFreezeAsked(pair=AB, to=C), 10.5)
    words = [effect.message for effect in effects if isinstance(effect, Send)]
    assert [word.to for word in words if isinstance(word, RelayFrozen)] == [C, C]


def test_a_place_that_is_no_node_freezes_nothing() -> None:
    one = opened()
    for end in AB:
        assert asks(one, end, RelayFreezeAsked(pair=AB, to=b"x"), 10) == []


def test_each_end_gets_a_secret_that_the_adapter_gets_too_and_no_other_reservation_has() -> None:
    one = RelayDesk(ME, RelayLimits(), Counters(), bind_key=b"k" * 32)
    one.handle(RelayMembersShown(members=tuple((node, key_of(node)) for node in NODES)), at(0))
    seen: set[bytes] = set()
    for pair in (AB, (A, C), AB):
        (order,) = asks(one, pair[0], RelayAsked(pair=pair))
        assert isinstance(order, OpenRelay)
        grants = one.handle(RelayOpened(ports=order.ports), at(0))
        words = [effect.message for effect in grants if isinstance(effect, Send)]
        assert tuple(word.bind for word in words if isinstance(word, RelayGranted)) == order.binds
        assert not seen & set(order.binds)
        seen |= set(order.binds)
        asks(one, pair[0], RelayFreed(pair=pair))
    assert len(seen) == 6


def test_that_an_end_asked_before_its_relay_was_gone_is_told_to_the_other() -> None:
    one = desk()
    asks(one, A, RelayAsked(pair=AB, planned=True))
    grants = one.handle(RelayOpened(ports=PORTS), at(0))
    assert [effect.message.planned for effect in grants if isinstance(effect, Send)] == [True, True]  # type: ignore[attr-defined]


def retires(one: RelayDesk, now_s: float) -> list[RelayEffect]:
    effects = one.handle(RelayWilling(willing=False), at(now_s))
    one.check()
    return effects


def test_a_relay_that_retires_says_so_and_takes_nobody_new() -> None:
    one = opened()
    told = retires(one, 10)
    assert [(effect.peer, effect.message.retires) for effect in told if isinstance(effect, Send)] == [  # type: ignore[attr-defined]
        (A, True),
        (B, True),
    ]
    assert retires(one, 11) == []
    assert asks(one, C, RelayAsked(pair=(A, C)), 11) == refused(C, (A, C), RelayRefusal.RETIRING)
    (grant,) = asks(one, A, RelayRenewed(pair=AB), 11)
    assert isinstance(grant, Send)
    assert isinstance(grant.message, RelayGranted)
    assert grant.message.retires


def test_ports_that_are_being_opened_when_a_relay_retires_are_refused() -> None:
    one = desk()
    asks(one, A, RelayAsked(pair=AB))
    assert retires(one, 1) == [
        CloseRelay(ports=PORTS),
        *refused(A, AB, RelayRefusal.RETIRING),
        *refused(B, AB, RelayRefusal.RETIRING),
    ]
    assert one.handle(RelayOpened(ports=PORTS), at(2)) == []


def test_a_pair_that_left_a_relay_that_retires_ends_a_moment_later_and_all_others_in_time() -> None:
    one = opened()
    asks(one, A, RelayAsked(pair=(A, C)), 1)
    one.handle(RelayOpened(ports=(51832, 51833)), at(1))
    retires(one, 10)
    for end in AB:
        asks(one, end, RelayFreezeAsked(pair=AB, to=ME), 11)
    left_s = 11 + FREEZE_AHEAD_S + LEFT_S
    deadline = one.next_deadline()
    assert deadline is not None
    assert deadline.at_s == left_s
    assert one.handle(Tick(), at(left_s - 0.1)) == []
    over = [CloseRelay(ports=PORTS), *(freed(end, AB, RelayEnd.RETIRED) for end in AB)]
    assert one.handle(Tick(), at(left_s)) == over
    assert one.handle(Tick(), at(10 + RETIRE_S_MAX - 0.1)) == []
    assert one.handle(Tick(), at(10 + RETIRE_S_MAX))[0] == CloseRelay(ports=(51832, 51833))
    assert not one.reservations


def test_a_relay_that_lends_again_goes_on() -> None:
    one = opened()
    retires(one, 10)
    told = one.handle(RelayWilling(willing=True), at(12))
    assert [effect.message.retires for effect in told if isinstance(effect, Send)] == [False, False]  # type: ignore[attr-defined]
    assert one.handle(Tick(), at(10 + RETIRE_S_MAX)) == []
    assert len(asks(one, C, RelayAsked(pair=(A, C)), 12)) == 1


# --- laws ---------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([A, B, "opened"]), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_interleaving_of_asks_gives_one_reservation_and_two_ports(steps: list[NodeId | str]) -> None:
    one, ports = desk(), {}
    for step in [*steps, A, "opened", A, B]:
        if isinstance(step, str):
            effects = one.handle(RelayOpened(ports=PORTS), at(0))
        else:
            effects = asks(one, NodeId(step), RelayAsked(pair=AB))
        for effect in effects:
            if isinstance(effect, Send):
                assert isinstance(effect.message, RelayGranted)
                assert ports.setdefault(effect.peer, effect.message.port) == effect.message.port
    assert len(one.reservations) == 1
    assert ports == {A: 51830, B: 51831}


class Asking(RuleBasedStateMachine):
    """Members ask, give back, come and go; ports open or fail; time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = desk(ports=tuple(range(100, 108)), pairs_max=3, pairs_per_member_max=2)
        self.now_s = 0.0
        self.open: dict[tuple[int, int], tuple[WireGuardKey, WireGuardKey]] = {}
        """What an adapter has open now."""

    @rule(peer=st.sampled_from(NODES), other=st.sampled_from(NODES), kind=st.integers(0, 4))
    def says(self, peer: NodeId, other: NodeId, kind: int) -> None:
        pair = (min(peer, other), max(peer, other))
        messages = (
            RelayAsked(pair=pair),
            RelayRenewed(pair=pair),
            RelayFreed(pair=pair),
            RelayFreezeAsked(pair=pair),
            RelayWakeAsked(pair=pair),
        )
        self.perform(self.desk.handle(RelayRequested(peer=peer, message=messages[kind]), at(self.now_s)))

    @rule(here=st.sets(st.sampled_from(NODES)), rotated=st.sampled_from([None, *NODES]))
    def shows_members(self, here: set[NodeId], rotated: NodeId | None) -> None:
        members = tuple(
            (node, WireGuardKey(b"n" * 32) if node == rotated else key_of(node)) for node in sorted(here)
        )
        self.perform(self.desk.handle(RelayMembersShown(members=members), at(self.now_s)))

    @rule(willing=st.booleans())
    def retires(self, willing: bool) -> None:
        self.perform(self.desk.handle(RelayWilling(willing=willing), at(self.now_s)))

    @rule(after_s=st.floats(0, 200))
    def time_passes(self, after_s: float) -> None:
        self.now_s += after_s
        self.perform(self.desk.handle(Tick(), at(self.now_s)))

    @rule(fails=st.booleans(), which=st.integers(0, 3))
    def ports_answer(self, fails: bool, which: int) -> None:
        if which < len(self.open):
            ports = list(self.open)[which]
            event = RelayLost(ports=ports) if fails else RelayOpened(ports=ports)
            self.perform(self.desk.handle(event, at(self.now_s)))

    def perform(self, effects: list[RelayEffect]) -> None:
        for effect in effects:
            match effect:
                case OpenRelay(ports=ports, keys=keys):
                    assert not {port for held in self.open for port in held} & set(ports)
                    self.open[ports] = keys
                case CloseRelay(ports=ports):
                    del self.open[ports]
                case FreezeRelay(ports=ports) | WakeRelay(ports=ports):
                    assert ports in self.open
                case Send():
                    pass

    @invariant()
    def what_is_open_is_what_is_lent(self) -> None:
        self.desk.check()
        assert self.open == {held.ports: held.keys for held in self.desk.reservations}


TestAsking = Asking.TestCase
TestAsking.settings = settings(deadline=None)


def test_a_lifecycle_moves_by_its_table() -> None:
    for before in RelayState:
        for after in RelayState:
            if after in MOVES[before]:
                check_move(before, after, story="")
            else:
                with pytest.raises(InvariantBroken, match="ports 7"):
                    check_move(before, after, story="ports 7")


def test_every_message_survives_its_frame() -> None:
    codec = Codec(Channel.CONTROL, RELAY_FRAMES)
    for message in (
        RelayAsked(pair=AB),
        RelayRenewed(pair=AB),
        RelayFreezeAsked(pair=AB),
        RelayWakeAsked(pair=AB),
        RelayFreezeAsked(pair=AB, to=C),
        RelayFrozen(pair=AB, in_ms=200, to=C),
        RelayGranted(pair=AB, port=51830, lasts_s=LEASE_S, bind=b"s" * 32, planned=True, retires=True),
        RelayWoken(pair=AB),
        RelayGranted(pair=AB, port=51830, lasts_s=LEASE_S),
        RelayRefused(pair=AB, reason=RelayRefusal.FULL.value),
        RelayFreed(pair=AB),
    ):
        assert codec.decode(codec.encode(message)) == message
