"""Runs a scenario: builds its world, lets happen what it says, and judges what came of it."""

from __future__ import annotations

import contextlib
import gc
import random
import resource
import time
from collections.abc import Callable, Iterator
from typing import TextIO

import msgspec

from meshpeer.core.errors import InvariantBroken
from meshpeer.sim.happenings import Happenings
from meshpeer.sim.host import Host
from meshpeer.sim.network import Terrain
from meshpeer.sim.result import Links, Measure, Price, Result, spread_of
from meshpeer.sim.scenario import Churn, Crash, Scenario
from meshpeer.sim.trace import Trace
from meshpeer.sim.watch import Watch
from meshpeer.sim.world import WIREGUARD_PORT, World

FOUNDING_S = 0.5
"""The founder stands before others join."""
BOOT_SLACK_S = 120.0
END_SLACK_S = 60.0
"""How long connected survivors may take to agree after the last event is over."""
SUBNET = "10.0.0.0/16"
CHECK_EVERY = 1_000
COLLECTOR_THRESHOLDS = (50_000, 20, 100)


class Run:
    """One run of one scenario under one seed."""

    def __init__(
        self, scenario: Scenario, *, check_every: int = CHECK_EVERY, trace: TextIO | None = None
    ) -> None:
        self.scenario = scenario
        self.world = World(
            scenario.seed,
            terrain=_terrain(scenario),
            wireguard_port=WIREGUARD_PORT if scenario.interface else 0,
            keep_disks=_needs_disks(scenario),
        )
        self.watch = Watch(self.world, check_every=check_every)
        self.happenings = Happenings(self.world, self.watch, scenario, self._settle)
        self._dice = random.Random(f"{scenario.seed} lay of the land")
        self._booted_s = 0.0
        self._know_all: list[float] = []
        self._knew_all = False
        self._measured_from_s = 0.0
        self._measured_to_s = 0.0
        self._failures: list[str] = []
        if trace is not None:
            Trace(self.world, trace)

    def run(self) -> Result:
        """Runs it to its end; what went wrong stands in the result."""
        began = time.perf_counter()
        try:
            with _calm_collector():
                self._boot()
                gc.freeze()
                self._live()
                self._judge()
        except InvariantBroken as broken:
            self._fail(f"an invariant broke at {self.world.now_s:.3f} s: {broken}")
        except Exception as error:  # noqa: BLE001  no event may stop a node: that one did is a finding
            at = f"at {self.world.now_s:.3f} s"
            self._fail(f"a node stopped {at}: {type(error).__name__}: {error}")
        return self._result(time.perf_counter() - began)

    # --- its parts ------------------------------------------------------------------------------------------

    def _boot(self) -> None:
        scenario, world = self.scenario, self.world
        if scenario.boot == "warm":
            hosts = world.grow(scenario.size, subnet=SUBNET)
            for host in hosts:
                self._settle(host)
            self.watch.grown(hosts)
            self._booted_s = world.now_s
            self.watch.knowledge.mark(world.now_s)
            return
        founder = world.make_founder("n0", subnet=SUBNET)
        self._settle(founder)
        founder.nat = None
        self.watch.made(founder)
        self.watch.started(founder)
        world.start(founder)
        world.run(FOUNDING_S)
        moments = sorted(self._dice.random() * scenario.boot_over_s for _ in range(scenario.size - 1))
        for number, moment in enumerate(moments, 1):
            world.heap.after(moment, self._join, f"n{number}", founder)
        world.run(moments[-1])
        self._booted_s = world.now_s
        self.watch.knowledge.mark(world.now_s)

    def _join(self, name: str, founder: Host) -> None:
        host = self.world.make_joiner(name)
        self._settle(host)
        self.watch.joins(host, founder)
        self.world.enter(host, founder)

    def _live(self) -> None:
        """Runs the events; who knows everything after the boot is noted before anything else happens."""
        scenario, world, heap = self.scenario, self.world, self.world.heap
        first_s = min((event.at_s for event in scenario.events), default=scenario.duration_s)
        heap.after(first_s, self._note_boot)
        heap.after(min(scenario.settle_s, scenario.duration_s / 2), self._measure)
        self.happenings.schedule()
        world.run(scenario.duration_s)
        self._measured_to_s = world.now_s

    def _note_boot(self) -> None:
        self._know_all = self.watch.knowledge.times(self._booted_s)
        self._knew_all = len(self._know_all) == len(self.watch.running)

    def _measure(self) -> None:
        self.world.meter.clear()
        self._measured_from_s = self.world.now_s

    def _settle(self, host: Host) -> None:
        """Draws where a host stands, and how wrong its clock goes."""
        scenario, draw = self.scenario, self._dice.random()
        end = 0.0
        for number, region in enumerate(scenario.regions):
            end += region.share
            host.region = number
            if draw < end:
                break
        if self._dice.random() < scenario.nat_share:
            host.nat = host.index
        host.clock_skew_s = scenario.clock_skew_s * (2 * self._dice.random() - 1)

    # --- judging --------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        expect, watch = self.scenario.expect, self.watch
        if expect.agree_at_end and not self.world.network.partitions:
            self._await_agreement()
        within = expect.all_know_within_s
        if within is not None:
            if not self._knew_all:
                lacking = self.scenario.size - len(self._know_all)
                self._fail(f"{lacking} of {self.scenario.size} hosts did not come to know all")
            elif self._know_all and self._know_all[-1] > within:
                self._fail(f"all know all after {self._know_all[-1]:.2f} s, expected within {within:g} s")
        for what, bound in (
            ("dead", expect.dead_within_s),
            ("change", expect.change_known_within_s),
            ("heal", expect.heal_within_s),
            ("revoked", expect.revoked_within_s),
        ):
            for one in self._measures():
                if bound is not None and one.what == what:
                    self._hold(one, bound)
        deaths = watch.opinions.false_deaths
        if expect.no_false_dead and deaths:
            one_death = deaths[0]
            self._fail(
                f"{len(deaths)} times a healthy host was held dead, first {one_death.subject} by "
                f"{one_death.observer} at {one_death.at_s - self._booted_s:.2f} s"
            )
        spent = self._bytes_per_node_s()
        if expect.bytes_per_node_s_max is not None and spent > expect.bytes_per_node_s_max:
            self._fail(f"a host sends {spent:.0f} B/s, expected at most {expect.bytes_per_node_s_max:g}")
        if expect.links_max is not None and self._links().max > expect.links_max:
            self._fail(f"a host has {self._links().max} links, expected at most {expect.links_max}")

    def _await_agreement(self) -> None:
        watch, world = self.watch, self.world
        end = world.now_s + END_SLACK_S
        while world.now_s < end and not (watch.knowledge.complete and watch.agree()):
            world.run(0.5)
        if not watch.agree():
            self._fail(
                f"{END_SLACK_S:g} s after the end hosts that can reach each other hold different facts"
            )
        elif not watch.knowledge.complete:
            self._fail(
                f"{END_SLACK_S:g} s after the end {len(watch.knowledge.lacking())} hosts lack a record"
            )

    def _hold(self, one: Measure, bound: float) -> None:
        words = {
            "dead": "a crash is known to all",
            "change": "a change is known to all",
            "heal": "it is healed",
            "revoked": "a revoked host is out everywhere",
        }
        if one.took_s is None:
            self._fail(f"{words[one.what]}: not by the end (it happened at {one.at_s:.2f} s)")
        elif one.took_s > bound:
            self._fail(f"{words[one.what]} after {one.took_s:.2f} s, expected within {bound:g} s")

    def _fail(self, what: str) -> None:
        self._failures.append(what)

    # --- telling --------------------------------------------------------------------------------------------

    def _measures(self) -> tuple[Measure, ...]:
        since = self._booted_s
        watch = self.watch
        found = [
            *(
                Measure(what="dead", at_s=one.at_s - since, took_s=one.took_s)
                for one in watch.opinions.mournings
            ),
            *(
                Measure(what="change", at_s=one.at_s - since, took_s=one.took_s)
                for one in watch.knowledge.spreads
            ),
            *(
                Measure(what="heal", at_s=one.at_s - since, took_s=one.took_s)
                for one in self.happenings.healings
            ),
            *(
                Measure(what="revoked", at_s=one.at_s - since, took_s=one.took_s)
                for one in self.happenings.shuttings
            ),
        ]
        return tuple(sorted(found, key=lambda one: one.at_s))

    def _measured_s(self) -> float:
        return max(1e-9, (self._measured_to_s or self.world.now_s) - self._measured_from_s)

    def _bytes_per_node_s(self) -> float:
        return sum(self.world.meter.sizes.values()) / self._measured_s() / max(1, len(self.world.hosts))

    def _links(self) -> Links:
        counts = [len(host.node.links.peers) for host in self.watch.running if host.node] or [0]
        return Links(min=min(counts), mean=sum(counts) / len(counts), max=max(counts))

    def _result(self, wall_s: float) -> Result:
        meter, knowledge = self.world.meter, self.watch.knowledge
        per = self._measured_s() * max(1, len(self.world.hosts))
        prices = [
            Price(
                kind=kind,
                messages_per_node_s=meter.messages[kind] / per,
                bytes_per_node_s=meter.sizes[kind] / per,
            )
            for kind in meter.messages
        ]
        return Result(
            scenario=self.scenario.name,
            seed=self.scenario.seed,
            size=self.scenario.size,
            failures=tuple(self._failures),
            know_all_s=spread_of(self._know_all) if self._knew_all else None,
            know_share=knowledge.share,
            measures=self._measures(),
            false_deaths=len(self.watch.opinions.false_deaths),
            prices=tuple(sorted(prices, key=lambda one: (-one.bytes_per_node_s, one.kind))),
            bytes_per_node_s=self._bytes_per_node_s(),
            links=self._links(),
            steps=self.world.steps,
            virtual_s=self.world.now_s,
            wall_s=wall_s,
            memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024,
            curve=tuple((at - self._booted_s, share) for at, share in knowledge.curve),
        )


def sweep(scenario: Scenario, run: Callable[[Scenario], Result]) -> Iterator[tuple[float, Result]]:
    """Runs a scenario once for every value of its ``[sweep]``."""
    if scenario.sweep is None:
        return
    for value in scenario.sweep.values:
        yield value, run(_with(scenario, scenario.sweep.over, value))


def _with(scenario: Scenario, over: str, value: float) -> Scenario:
    if over == "size":
        return msgspec.structs.replace(scenario, size=int(value))
    if over == "loss":
        return msgspec.structs.replace(scenario, loss=value)
    others = tuple(event for event in scenario.events if not isinstance(event, Churn))
    churn = (Churn(at_s=0.0, per_minute=value, for_s=scenario.duration_s),) if value else ()
    return msgspec.structs.replace(scenario, events=(*churn, *others))


def _terrain(scenario: Scenario) -> Terrain:
    rows = tuple(tuple(ms / 1_000 for ms in region.latency_ms) for region in scenario.regions)
    return Terrain(
        latency_s=rows or ((scenario.latency_ms / 1_000,),), jitter=scenario.jitter, loss=scenario.loss
    )


def _needs_disks(scenario: Scenario) -> bool:
    """Says whether anybody ever reads a journal again: only who restarts does."""
    return any(
        isinstance(event, Churn) or (isinstance(event, Crash) and event.restart_after_s is not None)
        for event in scenario.events
    )


@contextlib.contextmanager
def _calm_collector() -> Iterator[None]:
    """Lets Python look for cycles seldom: a large world is millions of objects that all stay."""
    before = gc.get_threshold()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
