"""Makes the dashboard's tables of the documents of the control API. Pure."""

from __future__ import annotations

import collections
import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from meshpeer.app.board.place import NARROW, WIDE, Places, Spot, place
from meshpeer.app.board.rows import JobRow, MemberRow, MeshRow, PairRow
from meshpeer.app.cli.map_model import HUB, MeshMap, map_mesh
from meshpeer.core.errors import PeerFault
from meshpeer.runtime.board import Table
from meshpeer.runtime.control import Job, Peer, Plan, Status

MEMBERS_MAX = 1_000
JOBS_MAX = 500
"""Rows that are shown; the commands show all."""
HANDSHAKE_STEP_S = 10
GONE = ("left", "revoked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a member has for tasks, as far as it told this node."""

    slots: int
    memory: int
    resources: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The documents of one look."""

    status: Status
    peers: Sequence[Peer]
    plan: Plan
    rooms: Mapping[str, Room]
    """By the member's id."""
    jobs: Sequence[Job]
    """Newest first."""
    now_unix_s: float
    silent: tuple[str, ...] = ()
    jobs_as_of: float = 0.0


def mesh_tables(seen: Seen) -> dict[str, Table]:
    """Returns the tables that every page has, but for the map's places."""
    drawn = map_mesh(seen.status, seen.peers, seen.plan)
    return {
        "mesh": {"mesh": _mesh(seen)},
        "members": _members(seen, drawn),
        "pairs": _pairs(drawn),
        "jobs": job_rows(seen.jobs),
    }


def map_tables(members: Mapping[str, MemberRow], *, narrow: bool) -> dict[str, Table]:
    """Returns the tables of the map for these members."""
    spots = [
        Spot(key, one.name, one.region, one.me or one.hub == HUB, one.me)
        for key, one in members.items()
        if one.state not in GONE
    ]
    placed: Places = place(spots, NARROW if narrow else WIDE)
    return {"map": {"map": placed.size}, "boxes": placed.boxes, "places": placed.members}


def job_rows(jobs: Iterable[Job]) -> dict[str, JobRow]:
    return {one.id: job_row(one) for _, one in zip(range(JOBS_MAX), jobs, strict=False)}


def job_row(one: Job, *, shown: int = 0) -> JobRow:
    counts = one.tasks
    return JobRow(
        name=one.name,
        state=one.shown_state,
        owner=one.owner,
        submitted=one.submitted_at,
        finished=one.finished_at or "",
        durability=one.durability,
        paused=one.paused,
        priority=one.priority,
        as_of=one.as_of or "",
        total=counts.total,
        waiting=counts.waiting,
        ready=counts.ready,
        running=counts.running,
        succeeded=counts.succeeded,
        failed=counts.failed,
        skipped=counts.skipped,
        cancelled=counts.cancelled,
        shown=shown,
    )


def unix_s(stamp: str | None) -> float:
    """Returns a time of a document in Unix seconds, to the millisecond; 0 for none.

    Raises ``PeerFault`` for what is no time: another node may have written the document.
    """
    try:
        return round(datetime.datetime.fromisoformat(stamp).timestamp(), 3) if stamp else 0.0
    except (ValueError, OverflowError) as fault:
        raise PeerFault("a time of this job is none", "ask whoever runs its owner") from fault


# --- the mesh -------------------------------------------------------------------------------------------


def _mesh(seen: Seen) -> MeshRow:
    status, agreement, files = seen.status, seen.status.agreement, seen.status.files
    counts, differ = status.members, agreement.differ if agreement else ()
    states = {
        "alive": counts.alive,
        "suspect": counts.suspect,
        "dead": counts.dead,
        "left": counts.left,
        "revoked": counts.revoked,
    }
    return MeshRow(
        mesh=status.mesh.name,
        node=status.node.name,
        id=status.node.id,
        health=status.health,
        mode=status.mesh.topology_mode,
        version=status.node.version,
        warnings=status.warnings,
        states={state: count for state, count in states.items() if count},
        agree=agreement.agree if agreement else 0,
        agree_total=agreement.total if agreement else 0,
        differ=tuple(f"{one.name}: {', '.join(one.parts)}" for one in differ if not one.travels),
        travels=sum(one.travels for one in differ),
        unknown=tuple(one.name for one in agreement.unknown) if agreement else (),
        silent=seen.silent,
        jobs_as_of=seen.jobs_as_of,
        files=files.bytes if files else 0,
        files_max=files.bytes_max if files else 0,
        files_coming=files.coming if files else 0,
    )


def _members(seen: Seen, drawn: MeshMap) -> dict[str, MemberRow]:
    agreement = _agreement(seen)
    busy: collections.Counter[str] = collections.Counter()
    done: collections.Counter[str] = collections.Counter()
    for job in seen.jobs:
        busy.update(job.running_on)
        done.update(job.done_on)
    ids = {one.name: one.id for one in drawn.members}
    peers = {one.id: one for one in seen.peers if one.state not in GONE}
    rows = {}
    for rank, one in enumerate(drawn.members[:MEMBERS_MAX]):
        room = seen.rooms.get(one.id)
        common = {
            "name": one.name,
            "rank": rank,
            "region": one.region,
            "hub": one.hub,
            "slots": room.slots if room else 0,
            "memory": room.memory if room else 0,
            "resources": dict(room.resources) if room else {},
            "busy": busy[one.name],
            "done": done[one.name],
        }
        rows[one.id] = (
            _me(seen.status, common)
            if one.me
            else _peer(peers[one.id], common, ids, agreement.get(one.name, ("agrees", ())), seen.now_unix_s)
        )
    gone = [one for one in seen.peers if one.state in GONE]
    for rank, peer in enumerate(gone[: MEMBERS_MAX - len(rows)], len(rows)):
        shown = {"name": peer.name, "rank": rank}
        rows[peer.id] = _peer(peer, shown, ids, ("", ()), seen.now_unix_s)
    return rows


def _pairs(drawn: MeshMap) -> dict[str, PairRow]:
    """Returns the tunnels that are planned between hubs of others."""
    hubs = {one.name: one.id for one in drawn.members if one.hub == HUB and not one.me}
    return {
        f"{hubs[one.source]}>{hubs[one.target]}": PairRow(source=hubs[one.source], target=hubs[one.target])
        for one in drawn.planned
        if one.source in hubs and one.target in hubs
    }


def _me(status: Status, common: Mapping[str, object]) -> MemberRow:
    node = status.node
    work = "drained" if node.drained else "accepts" if node.slots else "none"
    return MemberRow(
        **common,  # type: ignore[arg-type]
        me=True,
        roles=node.roles,
        ipv4=node.ipv4,
        ipv6=node.ipv6,
        routes=node.routes,
        mtu=node.mtu,
        work=work,
    )


def _peer(
    peer: Peer,
    common: Mapping[str, object],
    ids: Mapping[str, str],
    agreement: tuple[str, tuple[str, ...]],
    now_unix_s: float,
) -> MemberRow:
    return MemberRow(
        **common,  # type: ignore[arg-type]
        roles=peer.roles,
        state=peer.state,
        since=peer.since,
        because=peer.because,
        observers=peer.observers,
        agreement=agreement[0],
        differs=agreement[1],
        path=peer.path,
        via=peer.via,
        via_id=ids.get(peer.via, ""),
        rtt_ms=None if peer.path == "none" else _rounded(peer.rtt_ms),
        link=peer.link,
        link_via=peer.link_via,
        ipv4=peer.ipv4,
        ipv6=peer.ipv6,
        endpoint=peer.endpoint,
        routes=peer.routes,
        mtu=peer.mtu,
        reported=peer.reported,
        handshake_at=_stepped(now_unix_s - peer.last_handshake_s) if peer.last_handshake_s is not None else 0,
        work=peer.work,
    )


def _agreement(seen: Seen) -> dict[str, tuple[str, tuple[str, ...]]]:
    agreement = seen.status.agreement
    if agreement is None:
        return {}
    differ = {one.name: ("travels" if one.travels else "differs", one.parts) for one in agreement.differ}
    return {**{one.name: ("unknown", ()) for one in agreement.unknown}, **differ}


def _rounded(rtt_ms: float | None) -> float | None:
    """Returns a round trip to two digits: what changes less is no news to a page."""
    if not rtt_ms:
        return rtt_ms
    return round(rtt_ms, 1 - math.floor(math.log10(abs(rtt_ms))))


def _stepped(unix: float) -> int:
    return round(unix / HANDSHAKE_STEP_S) * HANDSHAKE_STEP_S
