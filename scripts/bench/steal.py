#!/usr/bin/env python3
"""Simulates one job on a mesh of many nodes, with the real machines of owner, worker and thief.

scripts/bench/steal.py                        100 nodes of 4 slots, 5 regions
scripts/bench/steal.py --nodes 1000 --degree 10

Time is virtual; latency is one way: up to 5 ms inside a region, 30 to 110 ms across. Disks take no time, and
nothing is lost. The owner has links to all; of the others each has links to ``--degree`` random ones
(0: to all). Printed are the makespan over the ideal (all work evenly on all slots), and the messages a task:
of stealing alone, and of everything.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import heapq
import itertools
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Send, Tick, TicketCounter
from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.model import Array, JobRecord, JobSpec, TaskSpec
from meshpeer.core.scheduler.book import NOTHING
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import (
    Attempt,
    AttemptFinished,
    AttemptRunning,
    FetchJob,
    Grant,
    JobLearned,
    JobSubmitted,
    MessageReceived,
    Offer,
    PeersChanged,
    PeerUp,
    PeerView,
    Renew,
    SchedulerEvent,
    StartAttempt,
    StealNone,
    StealRequest,
    StopAttempt,
    Taken,
)
from meshpeer.core.wire import cbor

EPOCH_S = 1_800_000_000.0
REGIONS = 5
INSIDE_MAX_S, ACROSS_MIN_S, ACROSS_MAX_S = 0.005, 0.030, 0.110
JOB = JobId("jsteal")
ROWS = (
    ("50 ms", 0.05, "even"),
    ("1 s", 1.0, "even"),
    ("0.1 s to 10 s", 1.0, "spread"),
    ("1 s, ten know the owner", 1.0, "few"),
)


class NoSeals:
    """Seals that cost nothing: signatures are not what is measured."""

    def make(self, counter: int, body: bytes) -> bytes:
        return b"seal"

    def counter_of(self, owner: NodeId, body: bytes, seal: bytes) -> int | None:
        return 1


@dataclass(slots=True)
class Node:
    name: NodeId
    region: int
    scheduler: Scheduler
    tick_at_s: float = float("inf")
    running: set[Attempt] = field(default_factory=set)


class Mesh:
    """Nodes, what lies between them, and the one heap of what happens."""

    def __init__(self, count: int, slots: int, degree: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.sent: collections.Counter[str] = collections.Counter()
        self.runs: collections.Counter[int] = collections.Counter()
        self._heap: list[tuple[float, int, Node, SchedulerEvent]] = []
        self._order = itertools.count()
        self._latency_s: dict[tuple[NodeId, NodeId], float] = {}
        self.nodes = [self._node(number, slots) for number in range(count)]
        self.by_name = {node.name: node for node in self.nodes}
        self._across = {
            pair: self.rng.uniform(ACROSS_MIN_S, ACROSS_MAX_S)
            for pair in itertools.combinations(range(REGIONS), 2)
        }
        self._link(degree)

    def run(self, record: JobRecord, durations_s: list[float]) -> float:
        """Runs the job from its submission at the first node to its end; returns the makespan."""
        self.record, self.durations_s = record, durations_s
        self.sent.clear()
        began_s, first = self.now_s, self.nodes[0]
        signed = cbor.encode(record)
        digest = Digest(hashlib.sha256(signed).digest())
        self.handle(first, JobSubmitted(record=record, signed=signed, digest=digest))
        owner = first.scheduler.owned[record.job]
        while not owner.finished:
            self.step()
        return self.now_s - began_s

    def step(self) -> None:
        at_s, _, node, event = heapq.heappop(self._heap)
        self.now_s = at_s
        if isinstance(event, Tick) and at_s != node.tick_at_s:
            return
        self.handle(node, event)

    def handle(self, node: Node, event: SchedulerEvent) -> None:
        now = Instant(mono_s=self.now_s, unix_s=EPOCH_S + self.now_s)
        if isinstance(event, AttemptFinished):
            if event.offer.attempt not in node.running:
                return
            node.running.discard(event.offer.attempt)
        for effect in node.scheduler.handle(event, now):
            match effect:
                case Send(peer=peer, message=message):
                    self._send(node, self.by_name[peer], message)
                case FetchJob():
                    fetched = JobLearned(job=self.record.job, record=self.record)
                    owner = self.by_name[self.record.submitter]
                    self._post(2 * self.latency_s(node, owner), node, fetched)
                case StartAttempt(granted=granted):
                    self._start(node, granted.attempt)
                case StopAttempt(attempt=attempt):
                    node.running.discard(attempt)
                case _:
                    pass
        deadline = node.scheduler.next_deadline()
        tick_at_s = max(self.now_s, deadline.at_s) if deadline else float("inf")
        if tick_at_s != node.tick_at_s:
            node.tick_at_s = tick_at_s
            if deadline:
                heapq.heappush(self._heap, (tick_at_s, next(self._order), node, Tick()))

    def latency_s(self, one: Node, other: Node) -> float:
        if one is other:
            return 0.0
        key = (min(one.name, other.name), max(one.name, other.name))
        if key not in self._latency_s:
            regions = sorted((one.region, other.region))
            same = one.region == other.region
            self._latency_s[key] = (
                self.rng.uniform(0.0005, INSIDE_MAX_S) if same else self._across[regions[0], regions[1]]
            )
        return self._latency_s[key]

    def _node(self, number: int, slots: int) -> Node:
        name = NodeId(hashlib.sha256(f"node {number}".encode()).digest())
        region = number % REGIONS
        scheduler = Scheduler(
            me=name,
            slots=slots,
            accepting=True,
            boot=b"1",
            region=str(region),
            tickets=TicketCounter(),
            dice=random.Random(self.rng.random()),
            seals=NoSeals(),
        )
        return Node(name, region, scheduler)

    def _link(self, degree: int) -> None:
        peers: dict[NodeId, dict[NodeId, None]] = {node.name: {} for node in self.nodes}
        for node in self.nodes:
            others = [one for one in self.nodes if one is not node]
            chosen = others if not degree or node is self.nodes[0] else self.rng.sample(others, degree // 2)
            for other in chosen:
                peers[node.name][other.name] = peers[other.name][node.name] = None
        for node in self.nodes:
            views = tuple(
                PeerView(
                    node=peer,
                    alive=True,
                    linked=True,
                    region=str(self.by_name[peer].region),
                    rtt_s=2 * self.latency_s(node, self.by_name[peer]),
                )
                for peer in peers[node.name]
            )
            self.handle(node, PeersChanged(peers=views))
            for peer in peers[node.name]:
                self.handle(node, PeerUp(peer=peer))
        for _ in range(len(self._heap)):
            if not self._heap or self._heap[0][0] > 1.0:
                break
            self.step()
        # Idle nodes have asked each other in vain for a while: the next round is far away.
        while self.now_s < 60.0:
            self.step()

    def _send(self, source: Node, target: Node, message: object) -> None:
        if source is not target:
            stolen = isinstance(message, Grant) and message.stolen_from is not None
            claims = isinstance(message, Renew) and any(held.stolen for held in message.jobs)
            steals = stolen or claims or isinstance(message, StealRequest | StealNone | Taken)
            self.sent["stealing" if steals else "other"] += 1
            if steals and source.region != target.region:
                self.sent["across"] += 1
        self._post(self.latency_s(source, target), target, MessageReceived(peer=source.name, message=message))  # type: ignore[arg-type]

    def _start(self, node: Node, attempt: Attempt) -> None:
        node.running.add(attempt)
        self.runs[attempt.task] += 1
        took_s = self.durations_s[attempt.task]
        begins_us = int((EPOCH_S + self.now_s) * 1e6)
        offer = Offer(
            job=self.record.job,
            attempt=attempt,
            succeeded=True,
            exit_code=0,
            error="",
            started_us=begins_us,
            finished_us=begins_us + int(took_s * 1e6),
            stdout=NOTHING,
            stderr=NOTHING,
            manifest=NOTHING,
            outputs=0,
        )
        self._post(0.0, node, AttemptRunning(job=self.record.job, attempt=attempt))
        self._post(took_s, node, AttemptFinished(offer=offer))

    def _post(self, wait_s: float, node: Node, event: SchedulerEvent) -> None:
        heapq.heappush(self._heap, (self.now_s + wait_s, next(self._order), node, event))


def measure(asked: argparse.Namespace, mean_s: float, shape: str) -> tuple[float, float, float, float, int]:
    """Returns makespan over ideal, messages a task of stealing, of these across regions, and of all, and how
    many attempts ran more than once."""
    mesh = Mesh(asked.nodes, asked.slots, asked.degree, asked.seed)
    rng = random.Random(asked.seed)
    slots = asked.nodes * asked.slots
    count = slots * asked.tasks
    durations_s = [10 ** rng.uniform(-1, 1) if shape == "spread" else mean_s for _ in range(count)]
    task = TaskSpec(name="t", argv=("true",), array=Array(size=count))
    submitter = mesh.nodes[0].name
    spec = JobSpec(name="steal", tasks=(task,))
    if shape == "few":
        # The others are granted nothing by the owner, and have to steal.
        for node in mesh.nodes[11:]:
            mesh.nodes[0].scheduler.seats.close(node.name)
    record = JobRecord(job=JOB, submitter=submitter, submitted_at_us=1, spec=spec)
    took_s = mesh.run(record, durations_s)
    ideal_s = sum(durations_s) / slots
    twice = sum(runs - 1 for runs in mesh.runs.values())
    stealing, everything = mesh.sent["stealing"], mesh.sent["stealing"] + mesh.sent["other"]
    return took_s / ideal_s, stealing / count, mesh.sent["across"] / count, everything / count, twice


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulates one job on many nodes.")
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=20, help="tasks per slot")
    parser.add_argument("--degree", type=int, default=0, help="links of a node; 0 for all")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    print(f"{asked.nodes} nodes of {asked.slots} slots, {asked.tasks} tasks a slot, seed {asked.seed}")
    print(
        f"{'tasks':24}{'makespan/ideal':>16}{'stealing msgs':>15}{'of these across':>17}{'all msgs':>10}"
        f"{'twice':>7}{'wall s':>8}"
    )
    for name, mean_s, shape in ROWS:
        began_s = time.monotonic()
        ratio, stealing, across, everything, twice = measure(asked, mean_s, shape)
        wall_s = time.monotonic() - began_s
        print(
            f"{name:24}{ratio:16.3f}{stealing:15.2f}{across:17.2f}{everything:10.2f}{twice:7}{wall_s:8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
