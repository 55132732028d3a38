"""Next keys of peers: which of them count, what is told of them, and how often the interface is looked at."""

from __future__ import annotations

import dataclasses
import functools

import msgspec

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId, WireGuardKey
from meshpeer.core.node.messages import Applied
from meshpeer.core.node.roster import Listed
from meshpeer.core.node.rotation import KeyTurns
from meshpeer.core.node.successors import (
    BRIDGE_S,
    LOOK_S,
    LOOKS_EVERY_S,
    LOOKS_FOR_S,
    TELL_EVERY_S,
    TURN_EVERY_S,
    TURN_LOOK_S,
    TURN_MS_MAX,
    Successors,
    next_keys,
)
from meshpeer.core.wgconf.model import ObservedDevice, ObservedPeer
from meshpeer.sim.world import World

ME = WireGuardKey(b"m" * 32)
OLD, NEW, OTHER = (WireGuardKey(letter * 32) for letter in (b"o", b"n", b"x"))


def test_a_key_that_somebody_has_is_nobodys_next() -> None:
    first, second = members()
    assert next_keys([first, announcing(second, NEW)], ()) == {second.node: NEW}
    assert next_keys([first, announcing(second, first.record.wireguard_key)], ()) == {}
    assert next_keys([first, announcing(second, ME)], (ME,)) == {}


def test_of_two_that_announce_one_key_it_is_that_of_who_was_admitted_first() -> None:
    pair = [announcing(one, NEW) for one in members()]
    first = min(pair, key=lambda one: one.rank)
    assert next_keys(pair, ()) == next_keys(pair[::-1], ()) == {first.node: NEW}


def test_a_peer_is_told_that_its_next_key_is_let_in_and_again_in_case_that_was_lost() -> None:
    run = Running()
    assert run.words(0.0) == []
    run.look(OLD, NEW)
    said = [(run.peer.node, Applied(receiver_key=NEW, sender_key=ME))]
    assert run.words(0.0) == said
    assert run.words(TELL_EVERY_S / 2) == []
    assert run.words(TELL_EVERY_S) == said
    run.successors.on_link(run.peer.node)
    assert run.words(TELL_EVERY_S) == said


def test_both_keys_are_one_tunnel_from_the_first_handshake_on() -> None:
    run = Running()
    held = run.look(OLD, NEW)
    assert held[OLD] == peer(OLD, 900)
    held = run.look(OLD, NEW, shaken=NEW)
    assert (held[OLD].public_key, held[OLD].rx_bytes) == (NEW, 1_800)
    assert run.follow(NEW, b"") == [(OLD, NEW)]
    assert run.successors.held(run.now)[NEW].rx_bytes == 1_800
    held = run.look(NEW, shaken=NEW)
    assert (held[NEW].rx_bytes, held[NEW].latest_handshake_unix_s) == (1_800, 5_000)


def test_a_tunnel_goes_by_the_next_key_from_its_first_handshake_on() -> None:
    run = Running()
    node = run.peer.node
    assert run.successors.in_use(node, OLD) == OLD
    run.look(OLD, NEW)
    assert run.successors.in_use(node, OLD) == OLD
    run.look(OLD, NEW, shaken=NEW)
    assert run.successors.in_use(node, OLD) == NEW
    run.follow(NEW, b"")
    assert run.successors.in_use(node, NEW) == NEW


def test_the_key_before_vouches_for_a_moment_where_the_record_came_first() -> None:
    run = Running()
    run.look(OLD, NEW)
    run.follow(NEW, b"")
    assert run.look(OLD, NEW)[NEW].latest_handshake_unix_s == 1_000
    run.at(BRIDGE_S)
    assert run.look(NEW)[NEW].latest_handshake_unix_s == 0


def test_a_key_that_was_not_announced_is_another_tunnel() -> None:
    run = Running()
    run.look(OLD, OTHER)
    assert run.follow(OTHER, b"") == []
    assert run.successors.followed == {}
    assert run.look(OTHER)[OTHER].rx_bytes == 900


def test_it_looks_often_for_a_while_and_more_often_when_a_peer_turns() -> None:
    run = Running()
    run.look(OLD, NEW)
    assert run.next_look_in() == LOOK_S
    run.at(1.0)
    run.successors.on_turns(run.peer.node, KeyTurns(key=NEW, in_ms=400), run.now)
    run.look(OLD, NEW)
    assert 0 < run.next_look_in() < 0.4
    run.at(1.5)
    run.look(OLD, NEW)
    assert round(run.next_look_in(), 6) == TURN_LOOK_S
    run.look(OLD, NEW, shaken=NEW)
    assert run.successors.next_deadline(run.now) is None


def test_a_peer_can_not_keep_others_looking() -> None:
    run = Running()
    run.look(OLD, NEW)
    for number in range(200):
        run.at(number * TURN_EVERY_S / 100)
        run.successors.on_turns(run.peer.node, KeyTurns(key=NEW, in_ms=10**9), run.now)
    heir = run.successors.heirs[run.peer.node]
    assert heir.turns_at_s <= run.now.mono_s + TURN_MS_MAX / 1000
    run.successors.on_turns(run.peer.node, KeyTurns(key=OTHER, in_ms=1), run.now)
    run.at(LOOKS_FOR_S + TURN_MS_MAX)
    assert run.successors.next_deadline(run.now) is None


def test_a_peer_that_announces_one_key_after_the_other_can_not_keep_others_looking() -> None:
    run = Running()
    for number, following in enumerate([NEW, OTHER, b"", NEW, b"", OTHER, NEW, OTHER]):
        run.at(number * LOOKS_FOR_S / 2)
        run.follow(OLD, following)
        run.look(OLD)
        due = run.successors.next_deadline(run.now)
        assert due is None or run.now.mono_s < LOOKS_FOR_S
    run.at(LOOKS_EVERY_S)
    run.follow(OLD, NEW)
    run.look(OLD, NEW)
    assert run.next_look_in() == LOOK_S, "after a while it is one that changes its key again"


def test_a_peer_turns_no_more_often_by_announcing_another_key_each_time() -> None:
    run = Running()
    counted = 0
    for number in range(40):
        run.at(number * TURN_EVERY_S / 4)
        following = (NEW, OTHER, b"")[number % 3]
        run.follow(OLD, following)
        run.successors.on_turns(run.peer.node, KeyTurns(key=WireGuardKey(following), in_ms=0), run.now)
        heir = run.successors.heirs.get(run.peer.node)
        counted += heir is not None and heir.turns_at_s == run.now.mono_s
    assert 1 < counted <= 10


class Running:
    """One peer with a key and a next one."""

    def __init__(self) -> None:
        self.successors = Successors()
        self.now = Instant(0.0, 2_000.0)
        self.peer = members()[0]
        assert self.follow(OLD, NEW) == []

    def at(self, mono_s: float) -> None:
        self.now = Instant(mono_s, 2_000.0 + mono_s)

    def follow(self, key: WireGuardKey, following: bytes) -> list[tuple[WireGuardKey, WireGuardKey]]:
        shown = announcing(self.peer, following, key=key)
        return self.successors.follow((shown,), {self.peer.node: key}, {ME}, self.now)

    def look(self, *keys: WireGuardKey, shaken: WireGuardKey = OLD) -> dict[WireGuardKey, ObservedPeer]:
        peers = [peer(one, 900 if one == shaken else 0) for one in keys]
        if shaken != OLD:
            peers = [peer(one, 900, 5_000 if one == shaken else 1_000) for one in keys]
        device = ObservedDevice(
            interface="wg0", public_key=ME, listen_port=1, mtu=1420, up=True, addresses=(), peers=tuple(peers)
        )
        if OTHER in keys:
            device = dataclasses.replace(device, peers=tuple(peer(one, 900) for one in keys))
        self.successors.on_observed(device, self.now)
        return self.successors.held(self.now)

    def words(self, mono_s: float) -> list[tuple[NodeId, Applied]]:
        self.at(mono_s)
        return self.successors.words(ME, self.now)

    def next_look_in(self) -> float:
        deadline = self.successors.next_deadline(self.now)
        assert deadline is not None
        return deadline.at_s - self.now.mono_s


def peer(key: WireGuardKey, rx_bytes: int, handshake_unix_s: int | None = None) -> ObservedPeer:
    shaken = handshake_unix_s if handshake_unix_s is not None else (1_000 if rx_bytes else 0)
    return ObservedPeer(
        public_key=key,
        allowed_ips=(),
        endpoint=None,
        keepalive_s=0,
        latest_handshake_unix_s=shaken,
        rx_bytes=rx_bytes,
        tx_bytes=0,
    )


@functools.cache
def members() -> tuple[Listed, ...]:
    """Returns two members of a mesh, as a roster lists them."""
    me, *_ = World(seed=3).grow(2, topology="full")
    assert me.node is not None
    return me.node.roster.members


def announcing(one: Listed, following: bytes, *, key: WireGuardKey | None = None) -> Listed:
    """Returns a member whose record announces a next key."""
    record = msgspec.structs.replace(
        one.record, next_wireguard_key=bytes(following), wireguard_key=key or one.record.wireguard_key
    )
    return dataclasses.replace(one, record=record)
