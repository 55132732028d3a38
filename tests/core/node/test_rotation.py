"""A rotation goes through its stages in one order, and any crash between two of them leads to its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Send
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import NodeId
from meshpeer.core.node.rotation import (
    CALL_AHEAD_S,
    DEFER_S,
    LOOK_S,
    MOVES,
    SETTLE_S,
    WAIT_S,
    Around,
    DropKey,
    KeepKey,
    KeyKept,
    KeyTurns,
    Rotation,
    RotationEffect,
    Stage,
)

OLD, NEW, THIRD = (WireGuardPrivateKey(bytes([number]) * 32) for number in (1, 2, 3))
START = Instant(100.0, 1_900_000_000.0)
PEERS = tuple(NodeId(bytes([number]) * 32) for number in (10, 11, 12))


def test_it_changes_over_once_all_peers_let_the_key_in() -> None:
    run = Running()
    run.ask()
    assert run.rotation.announced == NEW.public
    assert run.step(SETTLE_S + LOOK_S) == []
    assert run.rotation.awaited == PEERS
    for peer in PEERS:
        assert run.rotation.on_applied(peer, NEW.public)
    assert run.step(LOOK_S) == [KeepKey(public_key=NEW.public)]
    said = KeyTurns(key=NEW.public, in_ms=round(CALL_AHEAD_S * 1000))
    assert run.kept() == [Send(peer=peer, message=said) for peer in PEERS]
    assert run.rotation.key is OLD
    assert run.step(CALL_AHEAD_S) == []
    assert (run.rotation.key, run.rotation.shown) == (NEW, OLD.public)
    run.look()
    assert (run.rotation.stage, run.rotation.shown, run.rotation.announced) == (
        Stage.STEADY,
        NEW.public,
        b"",
    )
    assert run.rotation.missed == ()


def test_peers_have_a_moment_to_hear_of_it_whoever_is_there() -> None:
    run = Running(peers=())
    run.ask()
    assert run.step(SETTLE_S / 2) == []
    assert run.step(SETTLE_S) == [KeepKey(public_key=NEW.public)]


def test_who_does_not_say_so_is_waited_for_until_it_is_long() -> None:
    run = Running()
    run.ask()
    assert run.step(WAIT_S - 1) == []
    assert run.step(1.5) == [KeepKey(public_key=NEW.public)]
    assert run.rotation.missed == PEERS


def test_what_holds_it_up_does_so_for_a_bounded_time() -> None:
    run = Running(peers=(), held_up="bravo is changing its key")
    run.ask()
    assert run.step(WAIT_S + 5) == []
    assert run.rotation.held_up == "bravo is changing its key"
    assert run.step(DEFER_S) == [KeepKey(public_key=NEW.public)]


def test_a_disk_that_fails_leaves_the_key_as_it_is_and_is_tried_again() -> None:
    run = Running(peers=())
    run.ask()
    run.step(SETTLE_S)
    (said,) = run.rotation.on_kept(KeyKept(public_key=NEW.public, fault="no space"), (), run.now)
    assert "stays with the one it has" in str(said)
    assert (run.rotation.stage, run.rotation.key) == (Stage.ANNOUNCED, OLD)
    assert run.step(20) == [KeepKey(public_key=NEW.public)]


def test_a_key_that_another_member_shows_is_dropped() -> None:
    run = Running(taken_by="mallory")
    assert run.ask()[0] == DropKey()
    assert (run.rotation.stage, run.rotation.announced) == (Stage.STEADY, b"")


def test_a_second_wish_begins_nothing_while_one_is_under_way() -> None:
    run = Running()
    run.ask()
    assert not run.rotation.ask(THIRD, run.now)
    assert run.rotation.announced == NEW.public


def test_words_about_another_key_are_none_about_the_next_one() -> None:
    run = Running()
    assert not run.rotation.on_applied(PEERS[0], NEW.public)
    run.ask()
    assert not run.rotation.on_applied(PEERS[0], OLD.public)
    assert run.rotation.count == 0


def test_the_table_leads_from_every_stage_to_steady() -> None:
    reached = {Stage.STEADY}
    for _ in Stage:
        reached |= {stage for stage, others in MOVES.items() if others & reached}
    assert reached == set(Stage)


STEPS = st.lists(
    st.sampled_from(
        ["wait", "wait long", "apply", "kept", "failed", "look", "crash", "reboot", "ask", "held", "free"]
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_happens_disk_record_and_interface_agree_on_what_comes_next(steps: list[str]) -> None:
    run = Running()
    run.ask()
    for step in steps:
        run.happen(step)
        run.check()
    run.around = Around(peers=PEERS)
    for _ in range(100):
        for step in ("apply", "wait", "kept", "look"):
            run.happen(step)
            run.check()
    assert run.rotation.stage is Stage.STEADY
    assert run.interface == run.disk[0] == run.rotation.key
    assert run.rotation.shown == run.interface.public


@dataclass
class Running:
    """A rotation with a disk, an interface, and peers."""

    peers: tuple[NodeId, ...] = PEERS
    held_up: str = ""
    taken_by: str = ""
    rotation: Rotation = field(default_factory=lambda: Rotation(OLD))
    disk: tuple[WireGuardPrivateKey, WireGuardPrivateKey | None] = (OLD, None)
    interface: WireGuardPrivateKey = OLD
    now: Instant = START
    asked_to_keep: bool = False

    def __post_init__(self) -> None:
        self.around = Around(peers=self.peers, held_up=self.held_up, taken_by=self.taken_by)

    def ask(self) -> list[RotationEffect]:
        self.disk = (OLD, NEW)
        assert self.rotation.ask(NEW, self.now)
        return self.rotation.update(self.around, self.now)

    def step(self, for_s: float) -> list[RotationEffect]:
        self.now = Instant(self.now.mono_s + for_s, self.now.unix_s + for_s)
        effects = self.rotation.update(self.around, self.now)
        self.asked_to_keep |= any(isinstance(one, KeepKey) for one in effects)
        return effects

    def kept(self) -> list[RotationEffect]:
        """The disk does what it was asked to, and only that."""
        if not self.asked_to_keep:
            return []
        self.asked_to_keep = False
        held, coming = self.disk
        self.disk = (coming or held, None)
        return self.rotation.on_kept(KeyKept(public_key=self.disk[0].public), self.around.peers, self.now)

    def look(self) -> None:
        """The interface takes what it is to hold, and is looked at."""
        self.interface = self.rotation.key
        self.rotation.on_observed(self.interface.public, self.now)

    def happen(self, step: str) -> None:
        match step:
            case "wait":
                self.step(LOOK_S)
            case "wait long":
                self.step(30.0)
            case "apply":
                for peer in PEERS:
                    self.rotation.on_applied(peer, NEW.public)
            case "kept":
                self.kept()
            case "failed" if self.asked_to_keep:
                self.asked_to_keep = False
                self.rotation.on_kept(KeyKept(public_key=NEW.public, fault="no space"), (), self.now)
            case "look":
                self.look()
            case "crash" | "reboot":
                self.asked_to_keep = False
                self.rotation = Rotation(*self.disk)
                if step == "reboot":
                    self.interface = self.rotation.key
            case "ask":
                self.rotation.ask(self.disk[0], self.now)
            case "held" | "free":
                self.around = Around(peers=PEERS, held_up="others" if step == "held" else "")

    def check(self) -> None:
        rotation, (current, coming) = self.rotation, self.disk
        # What the interface is to hold is on disk, as the key that counts or as the next.
        assert rotation.key in (current, OLD)
        # The record never shows a key that the disk could lose, nor one that is not announced or in use.
        assert rotation.shown in (OLD.public, current.public)
        assert rotation.announced in (b"", NEW.public)
        assert not (rotation.announced and coming is None and current is not NEW)
        # The interface changes only after the disk has.
        assert self.interface is OLD or current is NEW
