"""The story of changes: each is told once, with its reason, and what moves all the time is not."""

from __future__ import annotations

import pytest
from board_docs import AT, job, peer, plan, status, view

from meshpeer.app.board.build import unix_s
from meshpeer.app.board.story import BECAUSE_LETTERS_MAX, NEWS_S, tell, tell_logged
from meshpeer.runtime.board import View
from meshpeer.runtime.control import Agreement, Differing, Job, MeshInfo

HOME = MeshInfo(id="m", name="home", subnet="10.1.0.0/16", topology="auto", topology_mode="regional")
DIFFER = (Differing(name="bravo", parts=("hubs",), since="", lasts_s=60.0),)
BEFORE = view(peer("bravo"), peer("charlie"), jobs=(job(),))


def told(old: View, new: View) -> list[tuple[str, str]]:
    return [(one.text, one.because) for one in tell(old, new, 1.0)]


@pytest.mark.parametrize(
    ("after", "text", "because"),
    [
        (
            view(peer("bravo", state="suspect", because="no answer"), peer("charlie"), jobs=(job(),)),
            "bravo is suspected",
            "no answer",
        ),
        (
            view(peer("bravo", path="relay", via="charlie"), peer("charlie"), jobs=(job(),)),
            "bravo is reached by the relay charlie",
            "it was directly",
        ),
        (view(peer("charlie"), jobs=(job(),)), "bravo is in no more", ""),
        (
            view(peer("bravo"), peer("charlie"), peer("delta", region="us"), jobs=(job(),)),
            "delta in us is alive",
            "",
        ),
        (
            view(peer("bravo"), peer("charlie"), by=plan(hubs=("bravo",)), jobs=(job(),)),
            "bravo is the hub of eu",
            "",
        ),
        (
            view(
                peer("bravo"),
                peer("charlie"),
                of=status(agreement=Agreement(agree=2, total=3, differ=DIFFER)),
                jobs=(job(),),
            ),
            "bravo derives the plan from other facts than this node",
            "they differ in hubs",
        ),
        (
            view(peer("bravo"), peer("charlie"), of=status(mesh=HOME), jobs=(job(),)),
            "the mesh is regional now",
            "of 2 members, by the charter's topology",
        ),
        (
            view(peer("bravo"), peer("charlie"), of=status(warnings=("the disk is full",)), jobs=(job(),)),
            "the disk is full",
            "",
        ),
        (
            view(peer("bravo", work="drained"), peer("charlie"), jobs=(job(),)),
            "bravo is drained: it takes no new work",
            "",
        ),
        (
            view(peer("bravo"), peer("charlie"), jobs=(job(state="failed"),)),
            "job flipbook (jflipboo) is failed",
            "1 of 24 tasks failed",
        ),
        (
            view(peer("bravo"), peer("charlie"), jobs=(job(owner="bravo"),)),
            "job flipbook (jflipboo) is owned by bravo now",
            "alpha was gone, and its replicas follow bravo",
        ),
    ],
)
def test_what_changed_is_told_with_its_reason(after: View, text: str, because: str) -> None:
    assert told(BEFORE, after) == [(text, because)]


def test_the_first_look_and_what_moves_all_the_time_are_no_story() -> None:
    assert tell(View(), BEFORE, 1.0) == []
    moved = view(peer("bravo", rtt_ms=90.0), peer("charlie"), jobs=(job(running_on={"bravo": 2}),))
    assert tell(BEFORE, moved, 1.0) == []


@pytest.mark.parametrize(
    ("found", "after_s", "is_told"),
    [
        (job("new", submitted_at=AT), 1.0, True),
        (job("new", submitted_at=AT), NEWS_S + 1, False),
        (job("new", submitted_at=AT), -NEWS_S - 1, False),
        (job("new", submitted_at="2026-01-01T00:00:00Z", finished_at=AT), 1.0, True),
        (job("new", submitted_at="2026-01-01T00:00:00Z", finished_at=AT), NEWS_S + 1, False),
        (job("new", submitted_at="yesterday", finished_at="today"), 1.0, False),
    ],
)
def test_a_job_that_is_first_heard_of_is_told_where_it_began_or_ended_just_now(
    found: Job, after_s: float, is_told: bool
) -> None:
    at = unix_s(AT) + after_s
    after = view(peer("bravo"), peer("charlie"), jobs=(job(), found))
    assert [one.text for one in tell(BEFORE, after, at)] == [
        "job new (jnew) of 24 tasks is running"
    ] * is_told


def test_what_the_agent_logged_is_told_with_its_fields_and_strange_letters_are_shown() -> None:
    row = tell_logged("warning", "a tunnel is silent", (("member", "bravo"), ("said", "\u202egnp")), {}, 1.0)
    assert (row.kind, row.text, row.tone) == ("log", "a tunnel is silent", "doubt")
    assert row.because == "member: bravo, said: '\\u202egnp'"
    long = tell_logged("info", "x", (("reason", "y" * 10_000),), {}, 1.0)
    assert len(long.because) == BECAUSE_LETTERS_MAX


def test_members_are_named_where_the_log_has_beginnings_of_their_ids() -> None:
    names = {"d3gd64xi4tabcdefgh": "delta"}
    fields = (("peer", "d3gd64xi4t"), ("own", "d3"), ("other", "zzzzzzzzzz"))
    row = tell_logged("info", "a tunnel answers", fields, names, 1.0)
    assert row.because == "peer: delta, own: d3, other: zzzzzzzzzz"


def test_the_way_of_somebody_who_is_dead_is_no_story_of_its_own() -> None:
    after = view(peer("bravo", state="dead", path="none"), peer("charlie"), jobs=(job(),))
    assert told(BEFORE, after) == [("bravo is taken for dead", "it answers")]


def test_facts_that_were_on_their_way_and_arrived_are_no_story() -> None:
    travelling = Differing(name="bravo", parts=("hubs",), since="", lasts_s=1.0, travels=True)
    between = view(
        peer("bravo"),
        peer("charlie"),
        of=status(agreement=Agreement(agree=2, total=3, differ=(travelling,))),
        jobs=(job(),),
    )
    assert told(BEFORE, between) == []
    assert told(between, BEFORE) == []
