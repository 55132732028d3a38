"""A tunnel that may be cut is asked; one that answered before and answers nothing now is mute, until anything
comes from it."""

from __future__ import annotations

import dataclasses
import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import AskEcho
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.tunnel_checks import (
    AROUND,
    ASKED_MAX,
    BUSY_BYTES,
    CHECKS_MAX,
    LEARN_S,
    VERDICT_MIN_S,
    VERDICT_S,
    TunnelChecks,
    TunnelSeen,
)

UNIX = 1_900_000_000
LOOK_S = 2.0


def test_a_new_tunnel_is_asked_whether_it_answers_and_no_more_once_it_does() -> None:
    bench = Bench(1)
    bench.run(0.1)
    assert [one.address for one in bench.asked] == [address(1), "10.10.0.1"]
    bench.run(LEARN_S[-1] + 10)
    assert len(bench.asked) == 2


def test_a_new_tunnel_that_answers_nothing_is_asked_a_few_times_and_never_mute() -> None:
    bench = Bench(1)
    bench.deaf = {node(1)}
    bench.run(300)
    assert len(bench.asked) == 2 * len(LEARN_S)
    bench.checks.suspect(node(1), bench.now)
    bench.run(10)
    assert bench.checks.mute == ()


def test_a_tunnel_without_a_handshake_is_asked_nothing() -> None:
    bench = Bench(1)
    bench.change(1, fresh=False, handshake_unix_s=0)
    bench.run(100)
    assert bench.asked == []


def test_a_check_that_is_answered_ends_with_its_first_echo() -> None:
    bench = Bench(1)
    bench.run(1)
    bench.checks.suspect(node(1), bench.now)
    bench.asked.clear()
    bench.run(10)
    assert len(bench.asked) == 2
    assert bench.checks.mute == ()


def test_one_that_answered_before_and_answers_nothing_is_mute_until_it_answers() -> None:
    bench = Bench(1)
    bench.run(1)
    bench.deaf = {node(1)}
    bench.checks.suspect(node(1), bench.now)
    bench.run(VERDICT_MIN_S - 0.1)
    assert bench.checks.mute == ()
    bench.run(0.2)
    assert bench.checks.mute == (node(1),)
    bench.deaf = set()
    bench.run(1.1)
    assert bench.checks.mute == ()


def test_a_path_that_takes_long_is_given_longer() -> None:
    bench = Bench(1)
    bench.slow_s = 0.25
    bench.run(1)
    bench.deaf = {node(1)}
    bench.checks.suspect(node(1), bench.now)
    bench.run(VERDICT_S - 0.1)
    assert bench.checks.mute == ()
    bench.run(0.2)
    assert bench.checks.mute == (node(1),)


def test_bytes_from_a_mute_tunnel_clear_it_and_its_silence_says_nothing_any_more() -> None:
    bench = mute_bench()
    bench.run(2 * LOOK_S)
    bench.change(1, rx_bytes=32)
    bench.run(LOOK_S)
    assert bench.checks.mute == ()
    bench.checks.suspect(node(1), bench.now)
    bench.run(10)
    assert bench.checks.mute == ()
    bench.deaf = set()
    bench.checks.suspect(node(1), bench.now)
    bench.run(1)
    bench.deaf = {node(1)}
    bench.checks.suspect(node(1), bench.now)
    bench.run(5)
    assert bench.checks.mute == (node(1),), "it answered again"


def test_bytes_that_came_before_the_check_do_not_clear_it() -> None:
    bench = Bench(1)
    bench.run(1)
    bench.deaf = {node(1)}
    bench.checks.suspect(node(1), bench.now)
    bench.change(1, rx_bytes=5_000)
    bench.look()
    bench.run(VERDICT_S + LOOK_S)
    assert bench.checks.mute == (node(1),)


def test_a_handshake_clears_a_mute_tunnel() -> None:
    bench = mute_bench()
    bench.change(1, handshake_unix_s=UNIX + 100)
    bench.run(LOOK_S)
    assert bench.checks.mute == ()


def test_a_tunnel_whose_handshake_is_stale_is_not_mute_but_asked_once() -> None:
    bench = mute_bench()
    bench.change(1, fresh=False)
    bench.run(LOOK_S)
    assert bench.checks.mute == ()
    bench.asked.clear()
    bench.checks.suspect_all(bench.now)
    bench.run(10)
    assert bench.asked, "the packet makes WireGuard shake hands"
    assert bench.checks.mute == ()


def test_a_busy_tunnel_that_brings_nothing_more_is_checked_with_a_few_others() -> None:
    bench = Bench(6)
    bench.run(20)
    bench.asked.clear()
    for looks in range(1, 4):
        bench.change(1, rx_bytes=looks * 10 * BUSY_BYTES)
        bench.run(LOOK_S)
    assert bench.asked == []
    bench.run(LOOK_S)
    assert len({one.address for one in bench.asked if ":" in one.address}) == 1 + AROUND


def test_keepalives_make_no_tunnel_busy() -> None:
    bench = Bench(1)
    bench.run(20)
    bench.asked.clear()
    for looks in range(10):
        bench.change(1, rx_bytes=32 * (looks // 3))
        bench.run(LOOK_S)
    assert bench.asked == []


def test_where_one_is_mute_others_are_asked_since_the_silence_may_be_this_machines_own() -> None:
    bench = Bench(4)
    bench.run(20)
    bench.deaf = {node(number) for number in range(1, 5)}
    bench.checks.suspect(node(1), bench.now)
    bench.run(60)
    assert len(bench.checks.mute) == 4


def test_a_change_of_the_network_asks_all_but_so_many_at_once() -> None:
    bench = Bench(3 * CHECKS_MAX)
    bench.run(100)
    bench.asked.clear()
    bench.checks.suspect_all(bench.now)
    bench.step(0.01)
    assert len({one.address for one in bench.asked if ":" in one.address}) == CHECKS_MAX
    bench.run(1)
    assert len({one.address for one in bench.asked if ":" in one.address}) == 3 * CHECKS_MAX


def test_who_is_mute_takes_nobodys_turn() -> None:
    bench = Bench(2 * CHECKS_MAX)
    bench.run(100)
    bench.deaf = {node(number) for number in range(1, CHECKS_MAX + 1)}
    bench.checks.suspect_all(bench.now)
    bench.run(VERDICT_S + 1)
    assert len(bench.checks.mute) == CHECKS_MAX
    bench.deaf = {node(number) for number in range(1, 2 * CHECKS_MAX + 1)}
    bench.checks.suspect_all(bench.now)
    bench.run(VERDICT_S + 1)
    assert len(bench.checks.mute) == 2 * CHECKS_MAX


def test_who_ran_late_judges_nobody_by_answers_that_it_has_not_read() -> None:
    bench = Bench(1)
    bench.run(1)
    bench.deaf = {node(1)}
    bench.checks.suspect(node(1), bench.now)
    bench.run(VERDICT_MIN_S - 0.1)
    bench.checks.on_lag(bench.now)
    bench.run(VERDICT_MIN_S - 0.1)
    assert bench.checks.mute == ()
    bench.run(0.3)
    assert bench.checks.mute == (node(1),)


def test_an_answer_counts_once_and_only_from_whom_it_was_asked_of() -> None:
    bench = Bench(2)
    bench.deaf = {node(1), node(2)}
    bench.run(0.1)
    echo = bench.asked[0]
    assert not bench.checks.on_answer(echo.number, address(2), bench.now)
    assert not bench.checks.on_answer(echo.number + 100, address(1), bench.now)
    assert bench.checks.on_answer(echo.number, address(1), bench.now)
    assert not bench.checks.on_answer(echo.number, address(1), bench.now)


def test_a_peer_that_is_gone_is_forgotten() -> None:
    bench = mute_bench()
    del bench.tunnels[node(1)]
    bench.look()
    assert bench.checks.mute == ()
    assert bench.checks.next_deadline() is None


class CheckingTunnels(RuleBasedStateMachine):
    """Any sequence of silences, bytes, suspicions and looks."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(3)

    @rule(number=st.integers(1, 3), fresh=st.booleans())
    def handshakes_changed(self, number: int, fresh: bool) -> None:
        self.bench.change(number, fresh=fresh)

    @rule(number=st.integers(1, 3), more=st.sampled_from([0, 32, 10_000]))
    def bytes_came(self, number: int, more: int) -> None:
        before = self.bench.tunnels[node(number)].rx_bytes
        self.bench.change(number, rx_bytes=before + more)

    @rule(deaf=st.sets(st.integers(1, 3)))
    def silence_changed(self, deaf: set[int]) -> None:
        self.bench.deaf = {node(one) for one in deaf}

    @rule(number=st.integers(0, 3))
    def suspected(self, number: int) -> None:
        if number:
            self.bench.checks.suspect(node(number), self.bench.now)
        else:
            self.bench.checks.suspect_all(self.bench.now)

    @rule(span_s=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
    def time_passed(self, span_s: float) -> None:
        self.bench.run(span_s)

    @invariant()
    def nobody_who_answers_stays_mute(self) -> None:
        before = set(self.bench.checks.mute)
        assert len(self.bench.checks._asked) <= ASKED_MAX
        if before and not self.bench.deaf:
            self.bench.run(1.2)
            assert not before & set(self.bench.checks.mute)


TestCheckingTunnels = CheckingTunnels.TestCase
TestCheckingTunnels.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


# --- helpers ------------------------------------------------------------------------------------------------


class Bench:
    """Tunnels to so many peers, an interface that is looked at every other second, and time."""

    def __init__(self, peers: int) -> None:
        numbers = itertools.count(1)
        self.checks = TunnelChecks(lambda size: next(numbers).to_bytes(size))
        self.tunnels = {
            node(number): TunnelSeen(
                addresses=(address(number), f"10.10.0.{number}"),
                fresh=True,
                handshake_unix_s=UNIX,
                rx_bytes=0,
                endpoint="203.0.113.9:51820",
            )
            for number in range(1, peers + 1)
        }
        self.deaf: set[NodeId] = set()
        self.asked: list[AskEcho] = []
        self.slow_s = 0.0
        """The round trip."""
        self._way: list[tuple[float, AskEcho]] = []
        self.now = Instant(1_000.0, float(UNIX))
        self.looks = 0
        self._look_s = self.now.mono_s

    def change(self, number: int, **fields: object) -> None:
        """Changes a tunnel; shown by the next look."""
        held = self.tunnels[node(number)]
        self.tunnels[node(number)] = dataclasses.replace(held, **fields)  # type: ignore[arg-type]

    def look(self) -> None:
        self.looks += 1
        self.checks.update(self.tunnels, self.looks, self.now)

    def run(self, span_s: float) -> None:
        end_s = self.now.mono_s + span_s
        while self.now.mono_s < end_s:
            self.step(min(0.05, end_s - self.now.mono_s))

    def step(self, span_s: float) -> None:
        self.now = Instant(self.now.mono_s + span_s, self.now.unix_s + span_s)
        if self.now.mono_s >= self._look_s:
            self._look_s += LOOK_S
            self.look()
        self._answer()
        due = self.checks.next_deadline()
        if due is None or due.at_s > self.now.mono_s:
            return
        echoes = self.checks.tick(self.now)
        self.asked += echoes
        after = self.checks.next_deadline()
        assert after is None or after.at_s > self.now.mono_s or self.checks.mute, "time stands still"
        self._way += [(self.now.mono_s + self.slow_s, echo) for echo in echoes]
        self._answer()

    def _answer(self) -> None:
        back = [echo for at_s, echo in self._way if at_s <= self.now.mono_s]
        self._way = [one for one in self._way if one[0] > self.now.mono_s]
        for echo in back:
            if self.of(echo.address) not in self.deaf:
                self.checks.on_answer(echo.number, echo.address, self.now)

    def of(self, text: str) -> NodeId:
        return next(one for one, seen in self.tunnels.items() if text in seen.addresses)


def mute_bench() -> Bench:
    """Returns a bench whose one tunnel is mute."""
    bench = Bench(1)
    bench.run(1)
    bench.deaf = {node(1)}
    bench.checks.suspect(node(1), bench.now)
    bench.run(VERDICT_S + 0.2)
    assert bench.checks.mute == (node(1),)
    return bench


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32))


def address(number: int) -> str:
    return f"fd12::{number:x}"
