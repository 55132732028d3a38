"""What an agent makes of agreement: the document, warnings of what lasts, and figures."""

from __future__ import annotations

from meshpeer.adapters.web.snapshot import AgreementFigures
from meshpeer.app.agreement import agreement_figures, agreement_view, lasting_differences
from meshpeer.core.antientropy.digests import UNHEARD_S, WINDOW_S
from meshpeer.core.antientropy.messages import Word
from meshpeer.core.deadline import Instant
from meshpeer.core.node.agreement import LASTS_S
from meshpeer.core.node.node import Node
from meshpeer.runtime.control import Agreement, Differing, Unheard, rfc3339
from meshpeer.sim.host import Host
from meshpeer.sim.world import World


def test_a_mesh_that_agrees_has_no_warning() -> None:
    world, alpha, _ = pair()
    node, now = seen(world, alpha)
    assert agreement_view(node, now) == Agreement(agree=2, total=2)
    assert lasting_differences(node, now) == []
    assert agreement_figures(node, now) == AgreementFigures(
        members={"agree": 2, "differ": 0, "unknown": 0}, parts=figures(), longest_s=0.0
    )


def test_a_difference_is_shown_at_once_and_warned_of_when_it_lasts() -> None:
    world, alpha, beta = pair()
    node, now = seen(world, alpha)
    say_otherwise(world, alpha, beta)
    assert agreement_view(node, now) == Agreement(
        agree=1,
        total=2,
        differ=(
            Differing(name="beta", parts=("charter",), since=rfc3339(now.unix_s), lasts_s=0.0, travels=True),
        ),
    )
    assert lasting_differences(node, now) == []
    later = Instant(now.mono_s + LASTS_S, now.unix_s + LASTS_S)
    assert agreement_view(node, later).differ[0].lasts_s == LASTS_S
    assert lasting_differences(node, later) == [], "it said so only once: it may be silent since"
    later = Instant(later.mono_s + 1, later.unix_s + 1)
    node.agreement.hear(beta.id, otherwise(node, later), later)
    assert lasting_differences(node, later) == [
        "beta and this node do not agree on the charter: compare `meshpeer peers` and "
        "`meshpeer charter show` there and here"
    ]
    assert agreement_figures(node, later) == AgreementFigures(
        members={"agree": 1, "differ": 1, "unknown": 0}, parts=figures(charter=1), longest_s=LASTS_S + 1
    )


def test_a_member_that_falls_silent_is_unknown_and_no_difference() -> None:
    world, alpha, beta = pair()
    node, now = seen(world, alpha)
    say_otherwise(world, alpha, beta)
    later = Instant(now.mono_s + UNHEARD_S + 1, now.unix_s + UNHEARD_S + 1)
    found = agreement_view(node, later)
    assert (found.agree, found.differ) == (1, ())
    (one,) = found.unknown
    assert one == Unheard(name="beta", last_heard_s=one.last_heard_s)
    assert one.last_heard_s is not None
    assert UNHEARD_S <= one.last_heard_s <= UNHEARD_S + WINDOW_S


# --- helpers ------------------------------------------------------------------------------------------------


def pair() -> tuple[World, Host, Host]:
    world = World(1)
    alpha = world.found("alpha")
    world.run(0.5)
    beta = world.join("beta", alpha)
    world.run(40)
    return world, alpha, beta


def seen(world: World, host: Host) -> tuple[Node, Instant]:
    assert host.node is not None
    return host.node, world.instant(host)


def otherwise(node: Node, now: Instant) -> Word:
    """Returns a word of a node that holds another charter."""
    mine = node.agreement.say(now)
    assert mine is not None
    return Word(ids=mine.ids, stamp=int(now.unix_s), digest=b"???" + mine.digest[3:])


def say_otherwise(world: World, at: Host, of: Host) -> None:
    node, now = seen(world, at)
    node.agreement.hear(of.id, otherwise(node, now), now)


def figures(**parts: int) -> dict[str, int]:
    return {"charter": 0, "members": 0, "addresses": 0, "doubts": 0, "mode": 0, "hubs": 0, **parts}
