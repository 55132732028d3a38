"""Whole nodes that ask each other to be dialled: the question, the effect, the answer."""

from __future__ import annotations

from meshpeer.core.counters import Counter
from meshpeer.core.membership.dialbacks import (
    DialBack,
    DialBackHeard,
    DialBacksWanted,
    DialledBack,
    Outcome,
    Try,
)
from meshpeer.sim.host import Host
from meshpeer.sim.world import World


def test_a_linked_member_is_asked_dials_the_record_and_answers() -> None:
    world, alpha, bravo = pair()
    world.post(alpha, DialBacksWanted(helpers=(bravo.node.me,)))
    assert world.run_until(lambda: any(isinstance(one, DialBack) for one in bravo.effects), within_s=5)
    (wanted,) = (one for one in bravo.effects if isinstance(one, DialBack))
    record = alpha.node.presence.record
    assert record is not None
    assert (wanted.asker, wanted.endpoints) == (alpha.node.me, record.control_endpoints)
    tries = tuple(Try(endpoint=one, outcome=Outcome.REACHED.value) for one in wanted.endpoints)
    world.post(bravo, DialledBack(asker=wanted.asker, number=wanted.number, tries=tries))
    assert world.run_until(lambda: alpha.node.dialbacks.is_answered, within_s=5)
    assert DialBackHeard() in alpha.effects
    assert alpha.node.dialbacks.heard == {bravo.node.me: tries}
    assert bravo.node.counters.get(Counter.DIAL_BACKS) == 1


def test_clocks_of_linked_members_are_known_by_their_greetings() -> None:
    _, alpha, bravo = pair()
    ((peer, ahead_s),) = alpha.node.links.clocks.ahead_s(alpha.node.links.peers, alpha.node._now)
    assert peer == bravo.node.me
    assert abs(ahead_s) < 1


def pair() -> tuple[World, Host, Host]:
    world = World(1)
    alpha = world.found("alpha")
    world.run(0.5)
    bravo = world.join("bravo", alpha)
    assert world.run_until(lambda: bool(alpha.node.links.peers and bravo.node.links.peers), within_s=30)
    world.run(5)
    return world, alpha, bravo
