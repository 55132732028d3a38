"""One mix for some hours: what happens in it, and what came of it."""

from __future__ import annotations

import collections
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from meshpeer.sim.nat.hosts import Host
from meshpeer.sim.nat.mixes import Kind, Mix, Seat, Way, draw_mix, plug_home
from meshpeer.sim.nat.routers import Mapping, Router
from meshpeer.sim.nat.verdict import ASK_S, ASKS, BOOT_BOUND_S, EVENT_BOUND_S, Trouble, Verdict
from meshpeer.sim.nat.world import MixWorld

HOUR_S = 3_600.0
AWAY_S_MAX = 240.0
"""For how long a relay is off, and a laptop asleep; a third of the time until the next trouble at most."""
TROUBLES = 4
LEAST_S = BOOT_BOUND_S + TROUBLES * 1.6 * EVENT_BOUND_S
"""Each gets the time that pairs may need."""


@dataclass(frozen=True, slots=True)
class MixResult:
    """What came of one mix."""

    seed: int
    nodes: int
    hours: float
    kinds: dict[str, int]
    ways: dict[tuple[Way, Way | None], int]
    """Pairs at the end, each counted at both ends: what theory allows, and what they have."""
    carried: int
    """Ordered pairs at the end without a tunnel of their own, whose packets go by hubs."""
    boot_s: tuple[float, float, float]
    events_s: tuple[float, float, float]
    """Until pairs settled after the boot, and after what happened: median, 99th percentile, longest."""
    late_changes: int
    worst: str
    """The pair that changed most when nothing excused it; empty where none did."""
    violations: tuple[str, ...]
    happened: tuple[str, ...]
    cpu_s: float


class MixRun:
    """Runs one mix."""

    def __init__(self, seed: int, nodes: int, hours: float) -> None:
        self._seed, self._nodes, self._hours = seed, nodes, hours
        self._dice = random.Random(f"troubles {seed}")
        self._away_s = AWAY_S_MAX
        self.mix: Mix = draw_mix(seed, nodes)
        self.verdict = Verdict()
        self.world = MixWorld(self.mix, seed, self.verdict.heard)
        self.verdict.world = self.world

    def run(self) -> MixResult:
        began_s = time.process_time()
        length_s = self._hours * HOUR_S
        boot = Trouble("the boot", 0.0, frozenset(range(self._nodes)))
        self.verdict.happened(boot)
        self.world.heap.run(BOOT_BOUND_S)
        self._look(boot)
        steps = (self._reboot_router, self._change_address, self._lose_relay, self._sleep)
        part_s = (length_s - BOOT_BOUND_S) / TROUBLES
        self._away_s = min(AWAY_S_MAX, part_s / 3)
        for number, step in enumerate(steps):
            trouble = step()
            self.world.heap.run(BOOT_BOUND_S + (number + 1) * part_s - self.world.heap.now_s)
            if trouble is not None:
                self._look(trouble)
        return self._result(time.process_time() - began_s)

    def _look(self, after: Trouble) -> None:
        for _ in range(ASKS):
            if not self.verdict.ask():
                break
            self.world.heap.run(ASK_S)
        self.verdict.look(after)

    # --- what happens ---------------------------------------------------------------------------------------

    def _reboot_router(self) -> Trouble | None:
        """A router forgets its mappings, and its connections end."""
        router = self._draw_router()
        if router is None:
            return None
        router.flush()
        behind = self._behind(router)
        trouble = self._note(f"the router of {_names(behind)} reboots", behind)
        for host in behind:
            self.world.cut(host)
        return trouble

    def _change_address(self) -> Trouble | None:
        """A router gets another address from its provider, or a machine goes to another home."""
        movers = [one for one in self.world.hosts if one.seat.kind in (Kind.KEEPING, Kind.SYMMETRIC)]
        router = self._draw_router()
        if router is not None and router.outside is self.mix.internet and self._dice.random() < 0.5:
            behind = self._behind(router)
            trouble = self._note(f"the router of {_names(behind)} gets another address", behind)
            router.renumber(self.mix.public())
            for host in behind:
                self.world.cut(host)
            return trouble
        if not movers:
            return None
        host = self._dice.choice(movers)
        trouble = self._note(f"{host.seat.machine.name} goes to another home", [host])
        plug_home(self.mix, host.seat, self.mix.home(Mapping.ONE))
        self.world.moved(host)
        return trouble

    def _lose_relay(self) -> Trouble | None:
        """A machine that lends ports, and is no hub, goes off for a while: the busiest."""
        lenders = [one for one in self.world.hosts if one.seat.lends and not self._is_hub(one)]
        if not lenders:
            return None
        host = max(lenders, key=lambda one: (len(one.lent), -one.index))
        trouble = self._note(
            f"{host.seat.machine.name}, a relay, is off for {self._away_s:.0f} s", [host], self._away_s
        )
        self.world.die(host)
        self.world.heap.after(self._away_s, self.world.boot, host)
        return trouble

    def _sleep(self) -> Trouble | None:
        sleepers = [one for one in self.world.hosts if one.seat.router is not None and not self._is_hub(one)]
        if not sleepers:
            return None
        host = self._dice.choice(sleepers)
        trouble = self._note(
            f"{host.seat.machine.name} sleeps for {self._away_s:.0f} s", [host], self._away_s
        )
        self.world.sleep(host)
        self.world.heap.after(self._away_s, self.world.wake, host)
        return trouble

    def _note(self, name: str, hosts: Sequence[Host], for_s: float = 0.0) -> Trouble:
        now_s = self.world.heap.now_s
        trouble = Trouble(name, now_s, frozenset(one.index for one in hosts), now_s + for_s)
        self.verdict.happened(trouble)
        return trouble

    def _draw_router(self) -> Router | None:
        routers = [one.seat.router for one in self.world.hosts if one.seat.router and one.machine.udp]
        return self._dice.choice(routers) if routers else None

    def _behind(self, router: Router) -> list[Host]:
        return [one for one in self.world.hosts if router in _way_out(one.seat)]

    def _is_hub(self, host: Host) -> bool:
        plan = host.mind.tunnels.plan if host.mind is not None else None
        return plan is not None and plan.forwards

    # --- what came of it ------------------------------------------------------------------------------------

    def _result(self, cpu_s: float) -> MixResult:
        verdict = self.verdict
        boot = [one.took_s for one in verdict.settled if one.after == "the boot"]
        events = [one.took_s for one in verdict.settled if one.after != "the boot"]
        worst = max(verdict.late.items(), key=lambda one: one[1], default=None)
        names = [self.world.hosts[index].seat.machine.name for index in worst[0]] if worst else []
        return MixResult(
            seed=self._seed,
            nodes=self._nodes,
            hours=self._hours,
            kinds=dict(collections.Counter(one.kind.value for one in self.mix.seats)),
            ways=verdict.ways,
            carried=verdict.carried,
            boot_s=_spread(boot),
            events_s=_spread(events),
            late_changes=sum(verdict.late.values()),
            worst=f"{' - '.join(names)} ({worst[1]})" if worst else "",
            violations=tuple(verdict.violations),
            happened=tuple(f"{one.at_s:.0f} s: {one.name}" for one in verdict.troubles[1:]),
            cpu_s=cpu_s,
        )


def run_mix(seed: int, nodes: int, hours: float) -> MixResult:
    """Runs one mix; the same seed, nodes and hours are the same run."""
    return MixRun(seed, nodes, hours).run()


def _way_out(seat: Seat) -> list[Router]:
    found: list[Router] = []
    network = seat.machine.v4[0] if seat.machine.v4 else None
    while network is not None and network.uplink is not None:
        found.append(network.uplink)
        network = network.uplink.outside
    return found


def _names(hosts: Sequence[Host]) -> str:
    return ", ".join(one.seat.machine.name for one in hosts)


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    if not values:
        return (0.0, 0.0, 0.0)
    ordered = sorted(values)
    return (statistics.median(ordered), ordered[(len(ordered) - 1) * 99 // 100], ordered[-1])
