"""Documents of a mesh, to make the dashboard's tables of."""

from __future__ import annotations

import msgspec
from fake_control_api import AT as AT
from fake_control_api import make_counts, make_job, make_peer, make_status

from meshpeer.app.board.build import Room, Seen, mesh_tables
from meshpeer.runtime.board import View
from meshpeer.runtime.control import Agreement, Job, MemberCounts, Peer, Plan, Status

NOW_S = 1_800_000_000.0


def status(**changes: object) -> Status:
    made = make_status()
    node = msgspec.structs.replace(made.node, id="id-alpha", roles=("compute",), ipv4="10.1.0.1", slots=2)
    two = MemberCounts(total=2, alive=2, suspect=0, dead=0, left=0)
    agreed = Agreement(agree=2, total=2)
    return msgspec.structs.replace(made, **{"node": node, "members": two, "agreement": agreed, **changes})


def peer(name: str, **changes: object) -> Peer:
    usual = {"region": "eu", "roles": (), "ipv4": "10.1.0.2", "because": "it answers", "rtt_ms": 2.5}
    return make_peer(**{"id": f"id-{name}", "name": name, "work": "accepts", **usual, **changes})


def job(name: str = "flipbook", **changes: object) -> Job:
    counts = make_counts(total=24, ready=6, running=2, succeeded=15, failed=1)
    return make_job(**{"id": f"j{name}", "name": name, "tasks": counts, **changes})


def plan(**changes: object) -> Plan:
    return msgspec.structs.replace(
        Plan(mode="full", hub=None, hubs=(), peers=(), routes=(), changes=()), **changes
    )


def view(
    *peers: Peer,
    of: Status | None = None,
    by: Plan | None = None,
    jobs: tuple[Job, ...] = (),
    rooms: dict[str, Room] | None = None,
) -> View:
    seen = Seen(
        status=of or status(),
        peers=peers,
        plan=by or plan(),
        rooms=rooms or {},
        jobs=jobs,
        now_unix_s=NOW_S,
    )
    return View(mesh_tables(seen))
