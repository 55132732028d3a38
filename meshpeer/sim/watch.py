"""Watches every step of a run: what each host learns, whom it holds dead, and whether the invariants hold."""

from __future__ import annotations

from collections.abc import Sequence

from meshpeer.core.effects import Persist, Put, Table
from meshpeer.core.ids import key_text
from meshpeer.core.node.messages import MembersChanged
from meshpeer.sim.host import Host
from meshpeer.sim.invariants import Invariants
from meshpeer.sim.knowledge import Knowledge
from meshpeer.sim.opinions import SAMPLE_S, Opinions
from meshpeer.sim.world import World


class Watch:
    """Attached to a world before its first step."""

    def __init__(self, world: World, *, check_every: int) -> None:
        """``check_every``: the dear invariants are looked at once in so many steps."""
        self.world = world
        self.knowledge = Knowledge()
        self.opinions = Opinions({})
        self.invariants = Invariants(world.judge)
        self._check_every = check_every
        self._until_check = check_every
        self._turn = 0
        self._by_key: dict[str, Host] = {}
        self._changed: dict[int, Host] = {}
        world.watchers.append(self._step)
        world.heap.after(SAMPLE_S, self._sample)

    @property
    def running(self) -> list[Host]:
        """Hosts that run a node and belong to the mesh, in the order of making."""
        return [host for host in self.world.hosts.values() if host.node is not None and not host.revoked]

    def agree(self) -> bool:
        """Says whether all running nodes hold the same facts."""
        return len({host.node.ledger.fingerprint for host in self.running if host.node}) <= 1

    # --- what a scenario tells ------------------------------------------------------------------------------

    def made(self, host: Host) -> None:
        self._by_key[key_text(host.id)] = host
        self.opinions.hosts[host.id] = host

    def started(self, host: Host) -> None:
        """A host is about to start from its disk."""
        rows = [value for (table, _), value in host.disk.items() if table is Table.RECORDS]
        self.knowledge.started(host, rows, self.world.now_s)

    def joins(self, host: Host, seed: Host) -> None:
        """A host is about to enter, with all that a seed knows."""
        self.made(host)
        assert seed.node is not None
        self.knowledge.started(host, [member.envelope for member in seed.node.ledger], self.world.now_s)

    def grown(self, hosts: list[Host]) -> None:
        """Hosts of a warm start."""
        records: dict[int, bytes] = {}
        for host in hosts:
            self.made(host)
            assert host.node is not None
            member = host.node.ledger.get(host.id)
            assert member is not None
            records[host.index] = member.envelope
            self.invariants.published(host, member.envelope)
        self.knowledge.started_whole(hosts, records, self.world.now_s)

    def stopped(self, host: Host) -> None:
        self.knowledge.stopped(host, self.world.now_s)
        self.opinions.stopped(host, self.world.now_s)

    # --- every step -----------------------------------------------------------------------------------------

    def _step(self, host: Host, event: object, effects: Sequence[object]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                for change in effect.changes:
                    if isinstance(change, Put) and change.table is Table.RECORDS:
                        self._wrote(host, change)
            elif isinstance(effect, MembersChanged):
                self._changed[host.index] = host
        self._until_check -= 1
        if self._until_check <= 0:
            self._until_check = self._check_every
            self._check_one()

    def _wrote(self, host: Host, row: Put) -> None:
        subject = self._by_key.get(row.key)
        if subject is None:
            return
        if subject is host:
            self.invariants.published(host, row.value)
            self.knowledge.published(host, row.value, self.world.now_s)
        else:
            self.invariants.accepted(host, subject, row.value, self.world.instant(host).unix_s)
            self.knowledge.learned(host, subject, row.value, self.world.now_s)

    def _check_one(self) -> None:
        """Looks at one host, the next one each time."""
        hosts = self.running
        if hosts:
            self._turn = (self._turn + 1) % len(hosts)
            self.invariants.check_links(hosts[self._turn], len(hosts), self.world.instant(hosts[self._turn]))
            self.invariants.check_ledger(hosts[self._turn], self.opinions.hosts)

    def _sample(self) -> None:
        changed, self._changed = self._changed, {}
        for host in changed.values():
            self.opinions.look(host, self.world.now_s)
        self.world.heap.after(SAMPLE_S, self._sample)
