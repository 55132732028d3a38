"""Turns a node's state into the documents of the control API. Reads only; what is not known is said to be not
known."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import msgspec

from meshpeer.app import spare
from meshpeer.app.hub_words import lines_of, said_of
from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId, TaskIndex, key_text, wireguard_key_text
from meshpeer.core.jobs.model import task_id
from meshpeer.core.membership.opinions import Opinion, State
from meshpeer.core.node.node import Node
from meshpeer.core.node.roster import Listed
from meshpeer.core.records.kinds import LeaveRecord
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.replicas import Copy
from meshpeer.core.scheduler.rows import Try
from meshpeer.core.scheduler.views import job_state, task_counts, task_state
from meshpeer.core.topology.mtus import mtu_towards
from meshpeer.core.topology.plan import PlannedPeer
from meshpeer.core.wgconf.diff import diff_device
from meshpeer.core.wgconf.model import HANDSHAKE_FRESH_S
from meshpeer.runtime.control import (
    Job,
    JobMessage,
    MemberCounts,
    Peer,
    Plan,
    PlanPeer,
    Task,
    TaskCounts,
    TaskTry,
    rfc3339,
)

_OUTCOMES = ("succeeded", "failed")
"""Of a task that ran."""


def name_of(node: Node, who: NodeId) -> str:
    """Returns a member's name, or the start of its id where it is in no more."""
    listed = node.roster.get(who)
    return listed.name if listed else key_text(who)[:10]


def count_members(node: Node) -> MemberCounts:
    opinions = collections.Counter(
        state_of(node, one.node) for one in node.roster.members if one.node != node.me
    )
    left = sum(1 for member in node.ledger if member.leave is not None)
    mine = 1 if node.roster.get(node.me) else 0
    return MemberCounts(
        total=len(node.roster.members),
        alive=opinions["alive"] + mine,
        suspect=opinions["suspect"],
        dead=opinions["dead"],
        left=left,
        revoked=sum(1 for one in node.ledger.revocations.counting if one.record.what == "node"),
    )


def state_of(node: Node, who: NodeId) -> str:
    opinion = node.detector.opinion(who)
    return opinion.state.value


def peer_view(
    node: Node, one: Listed, now_unix_s: float, reports: dict[str, list[str]] | None = None
) -> Peer:
    """Returns how this node sees a member; ``reports`` are those of it as a hub."""
    opinion = node.detector.opinion(one.node)
    carrier = node.tunnels.plan.carrier_of(one.ipv6)
    over = carrier.public_key if carrier is not None else one.record.wireguard_key
    direct = carrier is None or carrier.node == one.node
    observed = node.tunnels.observed_peer(over)
    linked = node.links.link_to(one.node) is not None
    handshake = (
        now_unix_s - observed.latest_handshake_unix_s
        if observed and observed.latest_handshake_unix_s
        else None
    )
    rtt = node.detector.rtt_s(one.node)
    path = "link" if linked else "none"
    leg = carrier.node if carrier is not None else one.node
    silent_since = spare.silent_since(node, leg)
    mute = direct and one.node in node.tunnels.mute
    answers = silent_since is None and not mute and not node.presence.revoked
    if handshake is not None and handshake < HANDSHAKE_FRESH_S and answers:
        path = "direct" if direct else "hub"
    relay = node.relays.via(one.node) if direct else None
    if path == "direct" and node.tunnels.goes_through_relay(one.node):
        # The session may outlive the relay.
        path = "relay" if relay is not None else "link" if linked else "none"
    voucher = name_of(node, opinion.voucher) if opinion.voucher else ""
    return Peer(
        id=key_text(one.node),
        name=one.name,
        region=one.record.region,
        roles=one.record.roles,
        ipv4=one.ipv4,
        ipv6=one.ipv6,
        state=opinion.state.value,
        since=rfc3339(opinion.since_unix_s) if opinion.since_unix_s else "",
        because=_because(node, opinion, handshake if direct else None),
        observers=tuple(name_of(node, one) for one in opinion.observers),
        link="up" if linked else "down",
        path=path,
        via=_via(node, path, carrier, relay) or spare.link_via(node, one.node) * (path == "link") or voucher,
        endpoint=(observed.endpoint or "") if observed and direct else "",
        last_handshake_s=round(handshake, 1) if handshake is not None else None,
        rtt_ms=round(rtt * 1000, 2) if rtt is not None else None,
        rx_bytes=observed.rx_bytes if observed and direct else 0,
        tx_bytes=observed.tx_bytes if observed and direct else 0,
        routes=lans_of(node, one.node),
        reported=f"by {said_of(reports)}" if reports else "",
        mtu=mtu_of(node, one) if carrier is not None else 0,
        probed=bool(one.record.answers),
        work=work_of(node, one.node),
        link_via=spare.link_via(node, one.node),
        udp_silent_since=rfc3339(silent_since) if silent_since else "",
    )


def work_of(node: Node, who: NodeId) -> str:
    """Says whether a member takes work, as far as it told this node; empty where it did not."""
    seat = node.scheduler.seats.get(who)
    if seat is None or not seat.linked:
        return ""
    return "drained" if seat.drained else "accepts" if seat.slots else "none"


def _via(node: Node, path: str, carrier: PlannedPeer | None, relay: NodeId | None) -> str:
    if path == "relay" and relay is not None:
        return name_of(node, relay)
    return carrier.name if path == "hub" and carrier is not None else ""


def relayed_by(node: Node) -> dict[str, int]:
    """Returns how many of this node's tunnels each relay carries, by the relay's name."""
    used = [relay for one in node.tunnels.relayed if (relay := node.relays.via(one)) is not None]
    return dict(sorted(collections.Counter(name_of(node, one) for one in used).items()))


def mtu_of(node: Node, one: Listed) -> int:
    """Returns the MTU of packets to a member; 0 without an interface."""
    return mtu_towards(node.desired, one.ipv4 or one.ipv6) if node.desired else 0


def mtu_differs(node: Node) -> bool:
    """Says whether packets to some member have another MTU than the interface."""
    device = node.desired
    others = [one for one in node.roster.members if one.node != node.me and one.record.wireguard_port]
    return device is not None and any(mtu_of(node, one) != device.mtu for one in others)


def lans_of(node: Node, who: NodeId) -> tuple[str, ...]:
    """Returns the LANs that a member leads to."""
    return tuple(lan for lan, holder in node.tunnels.lans.holders.items() if holder == who)


def left_view(leave: LeaveRecord) -> Peer:
    """A member that left for good, as long as its tombstone is held."""
    return former_peer(
        leave.node, leave.name, state="left", since_unix_s=leave.issued_at, because="it said so itself"
    )


def former_peer(who: NodeId, name: str, *, state: str, since_unix_s: int, because: str) -> Peer:
    """Who is in no more; ``name`` is what it was called, empty where nobody knows."""
    return Peer(
        id=key_text(who),
        name=name or key_text(who)[:10],
        region="",
        roles=(),
        ipv4="",
        ipv6="",
        state=state,
        since=rfc3339(since_unix_s),
        because=because,
        link="down",
        path="none",
        via="",
        endpoint="",
        last_handshake_s=None,
        rtt_ms=None,
        rx_bytes=0,
        tx_bytes=0,
    )


def plan_view(node: Node, now_unix_s: float) -> Plan:
    names = {planned.public_key: planned.name for planned in node.tunnels.plan.peers}
    desired = node.desired
    steps = diff_device(node.tunnels.observed, desired, now_unix_s=now_unix_s) if desired else ()
    held = node.tunnels.plan.held
    return Plan(
        mode=node.tunnels.plan.mode,
        hub=node.tunnels.plan.hub,
        hubs=node.tunnels.plan.hubs,
        standbys=node.tunnels.plan.standbys,
        coming=node.tunnels.plan.coming,
        forwards=node.tunnels.plan.forwards,
        keeps=_names(node, held.direct) if held else (),
        waits_for=_names(node, held.carried) if held else (),
        reported=tuple(lines_of(node)),
        peers=tuple(
            PlanPeer(
                name=names.get(peer.public_key, ""),
                public_key=wireguard_key_text(peer.public_key),
                endpoint=peer.endpoint,
                allowed_ips=peer.allowed_ips,
                keepalive_s=peer.keepalive_s,
            )
            for peer in (desired.peers if desired else ())
        ),
        routes=(*desired.addresses, *desired.routes) if desired else (),
        changes=tuple(type(step).__name__ for step in steps),
    )


def _names(node: Node, members: Iterable[NodeId]) -> tuple[str, ...]:
    return tuple(sorted(name_of(node, one) for one in members))


def job_view(node: Node, owner: JobOwner, now: Instant) -> Job:
    """Returns a job as its owner has it, or as a replica here has it while another node owns it."""
    running_on = collections.Counter(
        name_of(node, lease.node) for lease in owner.leases.values() if lease.running
    )
    counts = task_counts(owner)
    unchosen = node.scheduler.replicas.unchosen(owner.job)
    for task in unchosen:
        if (state := task_state(owner, task)) in _OUTCOMES:
            counts[state] -= 1
            counts["running"] += 1
    over = owner.finished and not unchosen
    return Job(
        id=owner.job,
        name=owner.record.spec.name,
        state="running" if owner.finished and not over else job_state(owner),
        owner=name_of(node, owner.epoch.node),
        durability=node.scheduler.replicas.durability(owner.job, now),
        tasks=TaskCounts(**counts),
        submitted_at=rfc3339(owner.record.submitted_at_us / 1e6),
        finished_at=rfc3339(owner.finished_at_us / 1e6) if owner.finished_at_us and over else None,
        running_on=dict(sorted(running_on.items())),
        done_on={name_of(node, who): count for who, count in sorted(owner.done_on.items())},
        paused=owner.paused,
        priority=owner.priority,
        webhooks=tuple(
            JobMessage(event=one.event, url=one.url, state=one.state, trouble=one.trouble)
            for one in node.scheduler.outbox.of(owner.job)
        ),
        as_of=_as_of(node, owner, now),
    )


def _as_of(node: Node, owner: JobOwner, now: Instant) -> str | None:
    """Returns when this replica heard of a job last that it does not own; None for the whole truth."""
    copy = node.scheduler.replicas.copies.get(owner.job)
    if copy is None or copy.ended or owner.job in node.scheduler.owned:
        return None
    return heard_at(copy, now)


def heard_at(copy: Copy, now: Instant) -> str:
    """Returns when this replica heard of its job's owner last."""
    return rfc3339(now.unix_s - max(0.0, now.mono_s - copy.heard_at_s))


def task_view(node: Node, owner: JobOwner, task: TaskIndex, outputs: tuple[str, ...] = ()) -> Task:
    spec, element = owner.graph.spec_of(task), owner.graph.element_of(task)
    row = owner.results.get(task)
    lease = owner.leases.get(task)
    return Task(
        id=task_id(spec.name, element),
        name=spec.name,
        index=element,
        state=task_state(owner, task),
        node=name_of(node, row.node) if row else name_of(node, lease.node) if lease else None,
        attempts=tuple(_try_view(node, one) for one in owner.tries_of(task)),
        exit_code=row.exit_code if row else None,
        error=row.error if row else "",
        stdout_bytes=row.stdout.size if row else 0,
        stderr_bytes=row.stderr.size if row else 0,
        outputs=outputs,
        wanted=owner.graph.is_sink(task),
    )


def until_chosen(task: Task) -> Task:
    """Returns a task as it is for others while no quorum is known to have how it ended: another owner may
    have it end otherwise."""
    if task.state not in _OUTCOMES or not task.attempts:
        return task
    last = msgspec.structs.replace(
        task.attempts[-1], state="running", exit_code=None, finished_at=None, error=""
    )
    attempts = (*task.attempts[:-1], last)
    return msgspec.structs.replace(
        task, state="running", exit_code=None, error="", outputs=(), attempts=attempts
    )


def _try_view(node: Node, one: Try) -> TaskTry:
    return TaskTry(
        n=one.number,
        node=name_of(node, one.node),
        state=one.state,
        exit_code=one.exit_code,
        started_at=rfc3339(one.started_us / 1e6) if one.started_us else None,
        finished_at=rfc3339(one.finished_us / 1e6) if one.finished_us else None,
        stolen_from=name_of(node, one.stolen_from) if one.stolen_from else None,
        error=one.error,
    )


def _because(node: Node, opinion: Opinion, handshake_s: float | None) -> str:
    if opinion.state is State.ALIVE and opinion.voucher:
        return f"{name_of(node, opinion.voucher)} has a link to it"
    if opinion.state is not State.ALIVE and handshake_s is not None and handshake_s < HANDSHAKE_FRESH_S:
        return f"agent down, tunnel up ({_said(node, opinion)})"
    return _said(node, opinion)


def _said(node: Node, opinion: Opinion) -> str:
    """Returns why, and who else says so: an opinion names its observers."""
    others = [name_of(node, one) for one in opinion.observers if one != node.me]
    return f"{opinion.because}; suspected by {', '.join(others)}" if others else opinion.because
