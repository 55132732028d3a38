"""What befalls a mesh, as a scenario says: partitions, pauses, crashes, churn, changes, joins, leaves,
rogues.

Who is hit is drawn from dice of their own, so that two versions of the node under one seed meet the same
fate. The
founder, which is the seed of all others and their issuer, is spared but for partitions.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from meshpeer.core.node.messages import LeaveAsked, RenameAsked, RevocationSigned
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import RevocationRecord
from meshpeer.sim import network
from meshpeer.sim import scenario as kinds
from meshpeer.sim.host import Host
from meshpeer.sim.opinions import GRACE_S
from meshpeer.sim.rogue import Rogue
from meshpeer.sim.scenario import Scenario
from meshpeer.sim.watch import Watch
from meshpeer.sim.world import World

SHUT_LOOK_S = 0.02
LEAVE_TAKES_S = 1.0
"""How long a node that leaves runs on, to tell the others."""


@dataclass(slots=True, kw_only=True)
class Healing:
    """One partition's end, and when its traces were gone."""

    at_s: float
    took_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Shutting:
    """One host that was shut out, and when nothing of it was left anywhere."""

    host: Host
    at_s: float
    """When it was revoked, or the partition ended that this fell into."""
    took_s: float | None = None


@dataclass(slots=True)
class Happenings:
    """Carries out the events of a scenario on a world's heap."""

    world: World
    watch: Watch
    scenario: Scenario
    settle: Callable[[Host], None]
    """Gives a host that joins its region, clock and NAT."""
    healings: list[Healing] = field(default_factory=list)
    shuttings: list[Shutting] = field(default_factory=list)
    rogues: list[Rogue] = field(default_factory=list)
    _dice: random.Random = field(init=False)
    _made: int = 0
    _parted_until_s: float = 0.0
    """When no partition is a reason any more to hold a host dead."""

    def __post_init__(self) -> None:
        self._dice = random.Random(f"{self.scenario.seed} happenings")

    def schedule(self) -> None:
        """Puts every event on the heap, from now on."""
        for event in self.scenario.events:
            self.world.heap.after(event.at_s, self._happen, event)

    def _happen(self, event: kinds.Event) -> None:
        match event:
            case kinds.Partition():
                self._part(event)
            case kinds.Pause():
                self._pause(event)
            case kinds.Crash():
                self._crash(event)
            case kinds.Churn():
                self._churn(event, self.world.now_s + event.for_s)
            case kinds.Change():
                self._change()
            case kinds.Join():
                for _ in range(event.count):
                    self._join()
            case kinds.Leave():
                for host in self._drawn(event.count):
                    self._leave(host)
            case kinds.Revoke():
                for host in self._drawn(event.count):
                    self._revoke(host)
            case kinds.Rogue():
                self._go_rogue(event)

    # --- partitions and pauses ------------------------------------------------------------------------------

    def _part(self, event: kinds.Partition) -> None:
        hosts = list(self.world.hosts.values())
        groups: list[list[Host]] = []
        if event.regions:
            numbers = {region.name: n for n, region in enumerate(self.scenario.regions)}
            for names in event.regions:
                wanted = {numbers[name] for name in names}
                groups.append([host for host in hosts if host.region in wanted])
        else:
            self._dice.shuffle(hosts)
            start = 0.0
            for share in event.shares:
                end = start + share * len(hosts)
                groups.append(hosts[round(start) : round(end)])
                start = end
        self._parted_until_s = max(self._parted_until_s, self.world.now_s + event.for_s + GRACE_S)
        self.watch.opinions.excuse([host for group in groups for host in group], self._parted_until_s)
        made = self.world.network.part(groups, one_way=event.one_way)
        self.world.heap.after(event.for_s, self._mend, made)

    def _mend(self, partition: network.Partition) -> None:
        self.world.network.heal(partition)
        healing = Healing(at_s=self.world.now_s)
        self.healings.append(healing)
        self._look_healed(healing)

    def _look_healed(self, healing: Healing) -> None:
        watch = self.watch
        if watch.knowledge.complete and not watch.opinions.any_running_held_dead() and watch.agree():
            healing.took_s = self.world.now_s - healing.at_s
        else:
            self.world.heap.after(0.1, self._look_healed, healing)

    def _pause(self, event: kinds.Pause) -> None:
        hosts = self._drawn(event.count)
        end = self.world.now_s + event.for_s
        self.watch.opinions.excuse(hosts, end + event.on_s + GRACE_S)
        for host in hosts:
            # Not all at once: the scenario would else be one of a partition.
            self.world.heap.after(
                self._dice.random() * (event.on_s + event.off_s), self._stop, host, event, end
            )

    def _stop(self, host: Host, event: kinds.Pause, end_s: float) -> None:
        if self.world.now_s >= end_s or host.node is None or host.paused:
            return
        self.world.pause(host)
        self.world.heap.after(event.on_s, self._go_on, host, host.life, event, end_s)

    def _go_on(self, host: Host, life: int, event: kinds.Pause, end_s: float) -> None:
        if host.life == life:
            self.world.resume(host)
            self.world.heap.after(event.off_s, self._stop, host, event, end_s)

    # --- crashes --------------------------------------------------------------------------------------------

    def _crash(self, event: kinds.Crash) -> None:
        count = event.count or round((event.share or 0.0) * self.scenario.size)
        victims = self._drawn(count)
        self._fell(victims, silent=event.silent)
        self.watch.opinions.mourn(victims, self.watch.running, self.world.now_s)
        if event.restart_after_s is not None:
            for host in victims:
                self.world.heap.after(event.restart_after_s, self._restart, host, event.wipe)

    def _churn(self, event: kinds.Churn, end_s: float) -> None:
        """Fells one host and comes back for the next, at the moments of a Poisson process."""
        if self.world.now_s >= end_s:
            return
        victims = self._drawn(1)
        self._fell(victims, silent=event.silent)
        for host in victims:
            self.world.heap.after(event.down_s, self._restart, host, False)
        self.world.heap.after(self._dice.expovariate(event.per_minute / 60.0), self._churn, event, end_s)

    def _fell(self, victims: list[Host], *, silent: bool) -> None:
        for host in victims:
            self.world.crash(host, silent=silent)
            self.watch.stopped(host)

    def _restart(self, host: Host, wipe: bool) -> None:
        if wipe:
            self.world.wipe(host)
            self.watch.invariants.wiped(host)
        self.watch.opinions.excuse([host], self.world.now_s + GRACE_S)
        host.gone = False
        self.watch.started(host)
        self.world.start(host)

    # --- membership -----------------------------------------------------------------------------------------

    def _change(self) -> None:
        for host in self._drawn(1):
            self._made += 1
            self.watch.knowledge.asked(host, self.world.now_s)
            self.world.post(host, RenameAsked(name=f"renamed-{self._made}"))

    def _join(self) -> None:
        name = f"n{len(self.world.hosts)}"
        running = [one for one in self.watch.running if not one.paused and one.node is not None]
        seed = self._dice.choice(running)
        host = self.world.make_joiner(name)
        self.settle(host)
        self.world.network.follow(host, seed)
        self.watch.opinions.excuse([host], self._parted_until_s)
        self.watch.joins(host, seed)
        self.world.enter(host, seed)

    def _leave(self, host: Host) -> None:
        self.world.post(host, LeaveAsked())
        self.watch.opinions.excuse([host], float("inf"))
        self.world.heap.after(LEAVE_TAKES_S, self._left, host, host.life)

    def _left(self, host: Host, life: int) -> None:
        if host.life == life:
            self.watch.stopped(host)
            self.watch.knowledge.forgotten(host, self.world.now_s)
            self.world.crash(host)

    def _revoke(self, host: Host) -> None:
        founder = next(iter(self.world.hosts.values()))
        body = RevocationRecord(
            what="node", subject=host.id, author=founder.id, issued_at=self.world.unix_s(), name=host.name
        )
        signed = envelope.sign(founder.key, self.world.mesh, body)
        self.watch.opinions.excuse([host], float("inf"))
        self.watch.stopped(host)
        self.watch.knowledge.forgotten(host, self.world.now_s)
        host.revoked = True
        shutting = Shutting(host=host, at_s=self.world.now_s)
        self.shuttings.append(shutting)
        self.world.post(founder, RevocationSigned(envelope=signed, chain=founder.chain))
        self._look_shut(shutting)

    def _look_shut(self, shutting: Shutting) -> None:
        gone = shutting.host.id
        nodes = [one.node for one in self.watch.running if one.node is not None]
        if not any(node.ledger.get(gone) or node.links.link_to(gone) for node in nodes):
            healed = [one.at_s for one in self.healings]
            shutting.at_s = max((shutting.at_s, *healed))
            shutting.took_s = self.world.now_s - shutting.at_s
        else:
            self.world.heap.after(SHUT_LOOK_S, self._look_shut, shutting)

    def _go_rogue(self, event: kinds.Rogue) -> None:
        (host,) = self._drawn(1)
        assert host.node is not None
        known = host.node.ledger
        self.watch.opinions.excuse([host], float("inf"))
        self.watch.invariants.rogues.add(host.index)
        self.watch.stopped(host)
        self.watch.knowledge.forgotten(host, self.world.now_s)
        self.world.crash(host)
        victims = [one for one in self.watch.running if one.nat is None]
        self._dice.shuffle(victims)
        rogue = Rogue(self.world, host, known, victims, kind=event.kind, per_s=event.per_s, uses=event.uses)
        self.rogues.append(rogue)
        host.rogue = rogue
        host.reads = event.kind != "slow"
        self.world.rouse(host)
        self.world.heap.after(event.for_s, self._silence, host)

    def _silence(self, host: Host) -> None:
        self.world.crash(host)
        host.reads = True

    def _drawn(self, count: int) -> list[Host]:
        """Draws so many of the hosts that run, the founder left out."""
        hosts = [host for host in self.watch.running[:] if host.index and not host.paused]
        return self._dice.sample(hosts, min(count, len(hosts)))
