"""A channel follows what was heard, asks before it judges, and never flaps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.deadline import Instant
from meshpeer.core.paths.channel import (
    DOUBT_PROVEN_S,
    DOUBT_S,
    INITIATION_BYTES,
    MOVES,
    QUIET_S,
    RENEWED_S,
    RETURN_GAP_S,
    SILENT_EVERY_HIGHER_S,
    STEADY_MAX_S,
    UNANSWERED_S,
    Channel,
    ChannelState,
)
from meshpeer.core.wgconf.model import HANDSHAKE_FRESH_S, ObservedPeer

UNIX = 1_900_000_000.0
KEEPALIVE_S = 25
LOOK_S = 2.0
ANSWERING, DOUBTED, IDLE, SILENT, RETURNING = ChannelState


def test_a_tunnel_that_was_never_heard_is_silent_since_it_is_watched() -> None:
    channel = Channel(UNIX, lower=True)
    assert (channel.works, channel.silent_since_unix_s) == (False, UNIX)


def test_the_first_handshake_makes_it_work_at_once() -> None:
    pair = Pair(up=False)
    pair.run(10)
    assert pair.channel.state is SILENT
    pair.up = True
    pair.run(SILENT_EVERY_HIGHER_S + LOOK_S)
    assert pair.channel.state is ANSWERING


def test_a_quiet_tunnel_with_a_keepalive_is_asked_before_it_is_judged() -> None:
    pair = Pair()
    pair.run(60)
    assert pair.channel.state is ANSWERING
    probes = pair.probes
    assert probes <= 1
    heard = pair.channel.heard_unix_s
    pair.up = False
    pair.run_until(SILENT, KEEPALIVE_S + QUIET_S + DOUBT_S + 3 * LOOK_S)
    assert pair.probes >= probes + 3
    assert pair.channel.silent_since_unix_s is not None
    assert heard is not None
    assert pair.channel.silent_since_unix_s <= heard + KEEPALIVE_S


def test_what_sends_and_hears_nothing_is_judged_within_seconds() -> None:
    pair = Pair(answers=True)
    pair.run(60)
    pair.channel.echoed(pair.now)
    pair.up = False
    pair.sends = 128
    pair.run_until(SILENT, UNANSWERED_S + DOUBT_PROVEN_S + 3 * LOOK_S)


def test_a_firewall_in_the_tunnel_that_drops_probes_costs_nothing() -> None:
    pair = Pair(answers=False, passive=True)
    pair.run(10)
    pair.sends, pair.keepalives = 128, False
    for _ in range(120):
        pair.run(1)
        assert pair.channel.works


@pytest.mark.parametrize(("lower", "expected"), [(True, [True, False]), (False, [False, False])])
def test_of_a_far_end_that_lives_again_the_lower_end_asks_at_once(lower: bool, expected: list[bool]) -> None:
    pair = Pair()
    pair.channel.lower = lower
    pair.run(10)
    pair.up = False
    pair.run_until(SILENT, KEEPALIVE_S + QUIET_S + DOUBT_S + 3 * LOOK_S)
    pair.channel.hasten(pair.now)
    assert [pair.channel.tick(pair.now) for _ in expected] == expected


def test_initiations_that_come_in_prove_nothing() -> None:
    pair = Pair()
    pair.run(10)
    pair.up, pair.initiations = False, True
    pair.run_until(SILENT, 90)
    pair.run(60)
    assert pair.channel.state is SILENT


def test_what_goes_one_way_does_not_end_a_silence() -> None:
    pair = Pair()
    pair.run(10)
    pair.up = False
    pair.run_until(SILENT, 90)
    pair.one_way = True
    pair.run(60)
    assert pair.channel.state is SILENT


def test_a_tunnel_whose_far_end_hears_nothing_is_silent_though_bytes_come_in() -> None:
    pair = Pair()
    pair.run(10)
    pair.up, pair.one_way = False, True
    pair.channel.told(pair.now)
    assert pair.channel.state is DOUBTED
    pair.run_until(SILENT, DOUBT_S + 2 * LOOK_S)


def test_a_word_of_the_far_end_that_is_wrong_costs_a_probe() -> None:
    pair = Pair()
    pair.run(10)
    pair.channel.told(pair.now)
    pair.run(LOOK_S)
    assert pair.channel.state is ANSWERING


def test_it_returns_within_thirty_seconds_and_says_so_after_a_while_only() -> None:
    pair = Pair()
    pair.run(200)
    pair.up = False
    pair.run_until(SILENT, 90)
    pair.run(100)
    since = pair.channel.silent_since_unix_s
    pair.up = True
    pair.run_until(RETURNING, SILENT_EVERY_HIGHER_S + LOOK_S)
    assert (pair.channel.works, pair.channel.silent_since_unix_s) == (False, since)
    pair.run_until(ANSWERING, 30 - SILENT_EVERY_HIGHER_S - LOOK_S)


def test_one_answer_is_no_return() -> None:
    pair = Pair()
    pair.run(10)
    pair.up = False
    pair.run_until(SILENT, 90)
    pair.channel.echoed(pair.now)
    assert pair.channel.state is RETURNING
    pair.run(RETURN_GAP_S + 1)
    assert pair.channel.state is SILENT


def test_who_breaks_off_early_has_to_answer_for_longer() -> None:
    pair, took = Pair(), []
    pair.run(100)
    for _ in range(4):
        pair.up = False
        pair.sends = 128
        pair.run_until(SILENT, 90)
        pair.up = True
        took.append(pair.run_until(ANSWERING, 30))
        pair.run(5)
    assert took[-1] > took[0] + STEADY_MAX_S / 2


def test_without_keepalives_an_idle_tunnel_is_not_known_and_not_disturbed() -> None:
    pair = Pair(keepalive_s=0)
    pair.run(HANDSHAKE_FRESH_S + 10)
    assert (pair.channel.state, pair.channel.works, pair.probes) == (IDLE, None, 1)
    pair.sends = 128
    pair.run(UNANSWERED_S + 3 * LOOK_S)
    assert pair.channel.state is ANSWERING


def test_a_session_that_is_not_renewed_in_time_is_asked_before_it_ends() -> None:
    """Two that were idle left their relay: the packet by which a handshake is done was lost, and only the
    other end sent any keepalives."""
    channel = Channel(UNIX, lower=True)
    asked = []
    for second in range(HANDSHAKE_FRESH_S):
        now = Instant(1_000.0 + second, UNIX + second)
        channel.observe(seen(rx=32 * (second // KEEPALIVE_S), handshake=UNIX), KEEPALIVE_S, now)
        due = channel.next_deadline()
        if due is not None and now.mono_s >= due.at_s and channel.tick(now):
            asked.append(second)
            channel.echoed(now)
    assert channel.state is ANSWERING
    assert [one for one in asked if one >= RENEWED_S] == [152, 157, 162, 167, 172, 177]
    assert len([one for one in asked if one < RENEWED_S]) == 1


def test_a_session_that_was_renewed_is_not_asked() -> None:
    pair = Pair()
    pair.run(3_600)
    assert pair.probes == 1


def test_a_tunnel_older_than_the_agent_is_asked() -> None:
    channel = Channel(UNIX, lower=True)
    channel.observe(seen(handshake=UNIX - 100), KEEPALIVE_S, Instant(0.0, UNIX))
    assert (channel.state, channel.works, channel.heard_unix_s) == (DOUBTED, True, UNIX - 100)
    assert channel.tick(Instant(0.0, UNIX))


def test_a_handshake_of_long_ago_is_none() -> None:
    channel = Channel(UNIX, lower=True)
    channel.observe(seen(handshake=UNIX - 1_000), KEEPALIVE_S, Instant(0.0, UNIX))
    assert channel.state is SILENT


def test_a_machine_that_slept_asks_before_it_judges() -> None:
    pair = Pair()
    pair.run(30)
    pair.sleep(600)
    pair.channel.tick(pair.now)
    assert pair.channel.works
    pair.run(LOOK_S + 1)
    assert pair.channel.state is ANSWERING


def test_what_is_silent_is_probed_at_a_time_of_its_own() -> None:
    lower, higher = Pair(up=False, lower=True), Pair(up=False, lower=False)
    lower.run(70)
    higher.run(70)
    assert (lower.probes, higher.probes) == (14, 10)


@pytest.mark.parametrize("state", list(ChannelState))
def test_every_state_can_be_left_and_reached(state: ChannelState) -> None:
    assert MOVES[state]
    assert any(state in after for after in MOVES.values())


phases = st.lists(
    st.tuples(st.integers(1, 90), st.booleans(), st.sampled_from([0, 128]), st.booleans()), max_size=12
)


@settings(deadline=None)
@given(phases, st.sampled_from([0, KEEPALIVE_S]), st.booleans())
def test_whatever_happens_it_is_right_in_time(
    story: list[tuple[int, bool, int, bool]], keepalive_s: int, answers: bool
) -> None:
    """What works is never called silent for longer than a return takes, and what does not, with something to
    tell by, is never called working for longer than a doubt takes. A change is at least a probe apart from
    the one before."""
    pair = Pair(keepalive_s=keepalive_s, answers=answers, passive=True)
    pair.run(20)
    for length, up, sends, told in story:
        if up != pair.up:
            pair.up, pair.changed_s = up, pair.now.mono_s
        pair.sends = sends
        if told:
            pair.channel.told(pair.now)
        pair.run(length)
        since = pair.now.mono_s - pair.changed_s
        if up and since > 30 + 2 * DOUBT_S * (not answers):
            assert not pair.channel.is_silent
        if not up and since > KEEPALIVE_S + QUIET_S + DOUBT_S + 3 * LOOK_S and keepalive_s:
            assert pair.channel.is_silent
    assert all(later - before >= 1.0 for before, later in zip(pair.turns, pair.turns[1:], strict=False))


# --- helpers ------------------------------------------------------------------------------------------------


def seen(*, rx: int = 0, tx: int = 0, handshake: float = 0) -> ObservedPeer:
    return ObservedPeer(
        public_key=b"k" * 32,  # type: ignore[arg-type]
        allowed_ips=(),
        endpoint="192.0.2.1:51820",
        keepalive_s=KEEPALIVE_S,
        latest_handshake_unix_s=int(handshake),
        rx_bytes=rx,
        tx_bytes=tx,
    )


class Pair:
    """A channel, and a tunnel that carries things or not, in steps of half a second."""

    def __init__(
        self,
        *,
        up: bool = True,
        keepalive_s: int = KEEPALIVE_S,
        answers: bool = True,
        passive: bool = False,
        lower: bool = True,
    ) -> None:
        self.now = Instant(1_000.0, UNIX)
        self.channel = Channel(UNIX, lower=lower)
        self.up, self.answers, self.passive = up, answers, passive
        self.keepalive_s, self.keepalives = keepalive_s, True
        self.sends = 0
        """Bytes that somebody sends into the tunnel each second."""
        self.initiations = self.one_way = False
        self.probes = 0
        self.changed_s = self.now.mono_s
        self.turns: list[float] = []
        self._rx = self._tx = 0
        self._handshake = 0.0
        self._shake_s = float("-inf")
        self._passive_s: float | None = None
        self._look_s = self.now.mono_s
        self.channel.observe(seen(), keepalive_s, self.now)

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self._step()

    def run_until(self, state: ChannelState, most_s: float) -> float:
        began = self.now.mono_s
        while self.channel.state is not state:
            assert self.now.mono_s < began + most_s, f"{self.channel.state} after {most_s} s"
            self._step()
        return self.now.mono_s - began

    def sleep(self, seconds: float) -> None:
        self.now = Instant(self.now.mono_s + seconds, self.now.unix_s + seconds)

    def _step(self) -> None:
        worked = self.channel.works
        self.now = Instant(self.now.mono_s + 0.5, self.now.unix_s + 0.5)
        self._carry(self.now.mono_s)
        if self.now.mono_s >= self._look_s + LOOK_S:
            self._look_s = self.now.mono_s
            shown = seen(rx=self._rx, tx=self._tx, handshake=self._handshake)
            self.channel.observe(shown, self.keepalive_s, self.now)
        due = self.channel.next_deadline()
        if due is not None and due.at_s <= self.now.mono_s and self.channel.tick(self.now):
            self.probes += 1
            self._send(96, probe=True)
        if self.channel.works != worked:
            self.turns.append(self.now.mono_s)

    def _carry(self, now_s: float) -> None:
        if self.keepalive_s and self.keepalives and now_s % self.keepalive_s == 0:
            self._tx += 32
            self._rx += 32 if self.up or self.one_way else 0
            self._shake(now_s)
        if self.sends and now_s % 1 == 0:
            self._send(self.sends, probe=False)
        if self.initiations and now_s % 5 == 0:
            self._rx += INITIATION_BYTES
        if self._passive_s is not None and now_s >= self._passive_s:
            self._rx, self._passive_s = self._rx + (32 if self.up else 0), None

    def _send(self, count: int, *, probe: bool) -> None:
        self._shake(self.now.mono_s)
        self._tx += count
        if self.up and probe and self.answers:
            self._rx += 96
            self.channel.echoed(self.now)
        elif self.up and self.passive and self._passive_s is None:
            self._passive_s = self.now.mono_s + 10

    def _shake(self, now_s: float) -> None:
        """WireGuard shakes hands with the first packet after two minutes, or after a silence."""
        if self.up and now_s >= self._shake_s + (5 if self.changed_s > self._shake_s else 120):
            self._shake_s, self._handshake = now_s, self.now.unix_s
            self._rx += 92
