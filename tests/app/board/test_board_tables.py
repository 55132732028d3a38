"""The dashboard's tables say what the documents say, and are no news where nothing is."""

from __future__ import annotations

from board_docs import job, peer, plan, status, view

from meshpeer.app.board.build import Room, map_tables
from meshpeer.app.board.rows import JobRow, MemberRow, MeshRow
from meshpeer.runtime.board import View, differences
from meshpeer.runtime.control import Agreement, Differing, PlanPeer, Unheard


def member(shown: View, name: str) -> MemberRow:
    row = shown.table("members")[f"id-{name}"]
    assert isinstance(row, MemberRow)
    return row


def test_this_node_and_all_others_are_members_in_the_order_of_the_map() -> None:
    shown = view(peer("zulu", region="eu"), peer("bravo", region="asia"), peer("gone", state="left"))
    ranks = {row.name: row.rank for row in shown.table("members").values() if isinstance(row, MemberRow)}
    assert ranks == {"alpha": 0, "zulu": 1, "bravo": 2, "gone": 3}
    assert member(shown, "alpha").me


def test_a_suspicion_is_shown_with_who_holds_it_and_why() -> None:
    shown = view(peer("bravo", state="suspect", because="no answer", observers=("charlie", "delta")))
    row = member(shown, "bravo")
    assert (row.state, row.because, row.observers) == ("suspect", "no answer", ("charlie", "delta"))


def test_who_differs_and_who_was_not_heard_is_said_of_each() -> None:
    agreement = Agreement(
        agree=2,
        total=5,
        differ=(
            Differing(name="bravo", parts=("hubs",), since="", lasts_s=40.0),
            Differing(name="charlie", parts=("members",), since="", lasts_s=1.0, travels=True),
        ),
        unknown=(Unheard(name="delta", last_heard_s=None),),
    )
    peers = [peer(name) for name in ("bravo", "charlie", "delta", "echo")]
    shown = view(*peers, of=status(agreement=agreement))
    said = {one: member(shown, one).agreement for one in ("bravo", "charlie", "delta", "echo")}
    assert said == {"bravo": "differs", "charlie": "travels", "delta": "unknown", "echo": "agrees"}
    mesh = shown.table("mesh")["mesh"]
    assert isinstance(mesh, MeshRow)
    assert (mesh.differ, mesh.unknown) == (("bravo: hubs",), ("delta",))
    assert mesh.travels == 1


def test_round_trips_and_handshakes_that_hardly_change_are_no_news() -> None:
    before = view(peer("bravo", rtt_ms=41.2, last_handshake_s=30.0))
    after = view(peer("bravo", rtt_ms=41.4, last_handshake_s=30.4))
    assert differences(before, after) == ()


def test_a_member_that_is_not_reached_has_no_round_trip() -> None:
    assert member(view(peer("bravo", path="none", rtt_ms=3.0)), "bravo").rtt_ms is None


def test_capacity_counts_what_runs_of_all_jobs_that_are_known() -> None:
    jobs = (job("one", running_on={"bravo": 2}, done_on={"bravo": 5}), job("two", running_on={"bravo": 1}))
    rooms = {"id-bravo": Room(slots=4, memory=1 << 30, resources={"gpu": 1})}
    row = member(view(peer("bravo"), jobs=jobs, rooms=rooms), "bravo")
    assert (row.slots, row.busy, row.done, row.memory, row.resources) == (4, 3, 5, 1 << 30, {"gpu": 1})


def test_a_paused_job_says_so_until_it_has_ended() -> None:
    rows = view(jobs=(job("one", paused=True), job("two", paused=True, finished_at="2026-01-31T09:00:00Z")))
    states = [row.state for row in rows.table("jobs").values() if isinstance(row, JobRow)]
    assert states == ["paused", "running"]


def test_tunnels_between_hubs_of_others_are_drawn_by_their_ids() -> None:
    hubs = [peer(name, region=name, ipv4=f"10.1.0.{at}") for at, name in enumerate(("bravo", "charlie"), 2)]
    tunnels = tuple(
        PlanPeer(name=one.name, public_key="", endpoint=None, allowed_ips=(f"{one.ipv4}/32",), keepalive_s=0)
        for one in hubs
    )
    regional = plan(mode="regional", hubs=("alpha", "bravo", "charlie"), peers=tunnels)
    assert set(view(*hubs, by=regional).table("pairs")) == {"id-bravo>id-charlie"}


def test_who_is_gone_has_no_place_on_the_map() -> None:
    shown = view(peer("bravo"), peer("gone", state="revoked"))
    rows = {key: row for key, row in shown.table("members").items() if isinstance(row, MemberRow)}
    assert set(map_tables(rows, narrow=False)["places"]) == {"id-alpha", "id-bravo"}
