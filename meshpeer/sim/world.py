"""A virtual world: the very same ``core.node`` on an event heap, with virtual time and seeded latency.

Links, disks and clocks are simulated; decisions are not. A node is stepped through its two doors only. One
seed
replays a run: nothing here iterates over a set, and the only randomness is the world's own generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from meshpeer.core.addressing.overlap import Route
from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.effects import AskEcho, Delete, Persist, Put, Table, Tick, TicketCounter
from meshpeer.core.identity.certificates import Authority
from meshpeer.core.identity.keys import SEED_BYTES, SigningKey, WireGuardPrivateKey
from meshpeer.core.ids import Ticket, key_text
from meshpeer.core.membership.messages import CloseLink, Dial
from meshpeer.core.node.config import NodeConfig
from meshpeer.core.node.gossip import Gossip
from meshpeer.core.node.messages import (
    ApplyDevice,
    DeliverToSelf,
    DeviceObserved,
    EndpointsChanged,
    LookAtDevice,
    SeedFound,
    SelfMessage,
    SendFrame,
    ShowChain,
    Started,
)
from meshpeer.core.node.node import Node
from meshpeer.core.node.revoking import Revoking
from meshpeer.core.node.rights import Rights
from meshpeer.core.node.rotation import DropKey, KeepKey, KeyKept, RotationAsked
from meshpeer.core.node.rows import CHARTER_KEY, REVOCATION_PREFIX, SIGNER_PREFIX, unpack_revocation
from meshpeer.core.paths.relay import RelayLimits
from meshpeer.core.paths.relay_messages import OpenRelay, RelayOpened
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import CharterRecord
from meshpeer.core.records.ledger import Chain, Ledger
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.seals import KeySeals
from meshpeer.core.wgconf.model import DesiredDevice
from meshpeer.core.wire import cbor
from meshpeer.sim import warm
from meshpeer.sim.apart import Apart
from meshpeer.sim.codec import SharedCodec
from meshpeer.sim.heap import Action, EventHeap
from meshpeer.sim.host import NEVER_S, Disk, Host
from meshpeer.sim.issuing import DAYS_S, DEFAULT_USES, Office
from meshpeer.sim.judge import SharedJudge
from meshpeer.sim.meter import Meter
from meshpeer.sim.network import Network, Partition, Terrain, address_of
from meshpeer.sim.overlay import Overlay
from meshpeer.sim.rekeyed import Rekeyed
from meshpeer.sim.wireguard import device_of

EPOCH_S = 1_800_000_000.0
"""Where virtual wall clocks start."""
PERSIST_S = 0.001
APPLY_S = 0.02
LOOK_S = 60.0
"""How often an interface is looked at while nothing new is wanted."""
TICK_MIN_S = 1e-6
"""The least time between an event and the tick that it asks for."""
WIREGUARD_PORT = 51820
CONTROL_PORT = 51821

CHARTER_ROW = (Table.META, CHARTER_KEY)

Watcher = Callable[[Host, object, Sequence[object]], None]
"""Told of every step: whose, the event, and the effects."""


class World:
    """Founds a mesh of virtual hosts and steps it."""

    def __init__(
        self,
        seed: int = 0,
        *,
        latency_s: float = 0.005,
        terrain: Terrain | None = None,
        wireguard_port: int = WIREGUARD_PORT,
        keep_disks: bool = True,
    ) -> None:
        """``wireguard_port`` 0 is a mesh without interfaces. Without ``keep_disks`` nothing that a node
        writes is
        kept, but its promises are: for large worlds in which nobody restarts."""
        self._keys = random.Random(seed)
        """Dice of their own: what the network does changes nobody's keys."""
        self.random = random.Random(self._keys.random())
        self.heap = EventHeap()
        self.meter = Meter()
        terrain = terrain or Terrain(latency_s=((latency_s,),))
        self.network = Network(self.heap, terrain, self.random, self.meter, self.post)
        self.overlay = Overlay(self.heap, self.network, self.post)
        self.hosts: dict[str, Host] = {}
        self.watchers: list[Watcher] = []
        self.judge = SharedJudge()
        self.codec = SharedCodec()
        self.wireguard_port = wireguard_port
        self.apart = Apart()
        """Pairs whose tunnels lead nowhere but by a relay."""
        self.rekeyed = Rekeyed()
        self.office = Office(self.entropy, founded_unix_s=int(EPOCH_S))
        self.root, self.issuer, self.mesh = self.office.root, self.office.issuer, self.office.mesh
        self.invite = self.make_invite(uses=DEFAULT_USES)
        self._keep_disks = keep_disks
        self.spare = False
        """Nodes made from now on watch their tunnels, and reach members over others."""

    # --- making hosts ---------------------------------------------------------------------------------------

    def make_invite(
        self, *, uses: int = 1, expires_s: int = 7 * DAYS_S, routes: tuple[str, ...] = ()
    ) -> Authority:
        return self.office.invite(uses=uses, expires_s=expires_s, routes=routes, now_unix_s=self.unix_s())

    def found(self, name: str, *, subnet: str = "10.10.0.0/24", topology: str = "auto") -> Host:
        """Makes and starts the founder."""
        host = self.make_founder(name, subnet=subnet, topology=topology)
        self.start(host)
        return host

    def make_founder(self, name: str, *, subnet: str, topology: str = "auto") -> Host:
        """Makes the founder, with the charter on its disk."""
        key = SigningKey(self.entropy(32))
        chain = self.office.durable(key, founder=True, now_unix_s=self.unix_s())
        host = self.make_host(name, key, chain, roles=("compute", "scheduler"), issuer=self.issuer)
        charter = CharterRecord(
            version=1,
            issued_at=self.unix_s(),
            author=key.public,
            mesh_name="sim",
            subnet=subnet,
            topology=topology,
        )
        host.disk[CHARTER_ROW] = envelope.sign(key, self.mesh, charter)
        host.disk[Table.CERTIFICATES, key_text(key.public)] = cbor.encode([host.chain])
        return host

    def join(
        self,
        name: str,
        seed: Host,
        *,
        invite: Authority | None = None,
        place: str = "",
        lans: tuple[str, ...] = (),
    ) -> Host:
        """Makes and starts a host that knows the charter and one seed, as ``meshpeer join`` leaves it."""
        host = self.make_joiner(name, invite=invite)
        host.place, host.lans = place, lans
        self.enter(host, seed)
        return host

    def make_joiner(self, name: str, *, invite: Authority | None = None) -> Host:
        """Makes a host that has an invite, and has not started."""
        key = SigningKey(self.entropy(32))
        chain = self.office.provisional(key, invite or self.invite, now_unix_s=self.unix_s())
        return self.make_host(name, key, chain)

    def enter(self, host: Host, seed: Host) -> None:
        """Starts a host that has learned all that a seed knows, and dials it."""
        assert seed.node is not None
        if self._keep_disks:
            for (table, key), value in seed.disk.items():
                if table in (Table.CERTIFICATES, Table.RECORDS) or (table, key) == CHARTER_ROW:
                    host.disk[table, key] = value
        self.install(host, warm.copy_of(seed.node.ledger))
        self.wake(host, seeds=[seed.address])

    def grow(
        self,
        count: int,
        *,
        subnet: str = "10.0.0.0/16",
        topology: str = "auto",
        places: Sequence[str] = ("",),
    ) -> list[Host]:
        """Makes hosts that know each other already, as a mesh that was up for days, in these regions in turn;
        they wake within moments."""
        return warm.grow(self, count, subnet=subnet, topology=topology, places=places)

    def make_host(
        self,
        name: str,
        key: SigningKey,
        chain: Chain,
        *,
        roles: tuple[str, ...] = ("compute",),
        issuer: Authority | None = None,
    ) -> Host:
        """Places a host that has not started."""
        index = len(self.hosts)
        host = Host(
            index=index,
            name=name,
            address=f"{address_of(index)}:{CONTROL_PORT}",
            key=key,
            wireguard=WireGuardPrivateKey(self.entropy(32)),
            chain=chain,
            roles=roles,
            issuer=issuer,
        )
        self.hosts[name] = host
        self.network.place(host)
        return host

    def start(self, host: Host) -> None:
        """Boots a host from what its disk holds."""
        host.gone = False
        ledger = Ledger(self.mesh, (self.root.certificate,), self.judge)
        rows = sorted(host.disk.items())
        Revoking(ledger, list, Counters()).restore(
            (
                unpack_revocation(value)
                for (table, key), value in rows
                if table is Table.META and key.startswith(REVOCATION_PREFIX)
            ),
            [value for (table, key), value in rows if table is Table.META and key.startswith(SIGNER_PREFIX)],
            self.instant(host),
        )
        Gossip(ledger, linked=list, jitter=self.random, counters=Counters()).restore(
            [value for (table, _), value in rows if table is Table.CERTIFICATES],
            [value for (table, _), value in rows if table is Table.RECORDS],
            host.disk.get(CHARTER_ROW),
            self.instant(host),
        )
        self.install(host, ledger)
        self.wake(host, seeds=[address for (table, address), _ in rows if table is Table.SEEDS])

    def install(self, host: Host, ledger: Ledger) -> None:
        """Gives a host a node that holds this ledger and has heard of nothing yet."""
        self._end_life(host)
        tickets = TicketCounter()
        dice = random.Random(self.random.random())
        rights = Rights(ledger, host.id)
        scheduler = Scheduler(
            me=host.id,
            seals=KeySeals(host.key, ledger.mesh),
            may_work=rights.may_work,
            may_submit=rights.may_submit,
            is_revoked=rights.is_revoked,
            slots=2,
            accepting=True,
            boot=self.entropy(8),
            region=host.place,
            tickets=tickets,
            dice=dice,
        )
        config = NodeConfig(
            key=host.key,
            chain=host.chain,
            wireguard_key=host.wireguard,
            next_wireguard_key=host.next_wireguard,
            wireguard_port=self.wireguard_port,
            interface="wg0",
            control_port=CONTROL_PORT,
            name=host.name,
            region=host.place,
            roles=host.roles,
            hub="allow",
            configured_endpoint=False,
            issuer=host.issuer,
            advertise=host.lans,
            relay=RelayLimits() if host.lends else None,
            spare=self.spare,
        )
        host.node = Node(
            config,
            ledger,
            scheduler,
            tickets=tickets,
            jitter=dice,
            entropy=self.entropy,
            now=self.instant(host),
            codec=self.codec,
        )

    def wake(self, host: Host, *, seeds: Iterable[str] = ()) -> None:
        """Tells an installed node its own addresses, that it may speak, and where members may answer."""
        ip = host.address.rpartition(":")[0]
        lans = tuple(Route(prefix=one, device="lan0", on_link=True) for one in host.lans)
        self.post(
            host,
            EndpointsChanged(control=(host.address,), wireguard=(f"{ip}:{WIREGUARD_PORT}",), routes=lans),
        )
        self.post(host, Started())
        for address in seeds:
            self.post(host, SeedFound(address=address))

    def rouse(self, host: Host) -> None:
        """Lets a host's rogue program begin."""
        self._end_life(host)
        self._schedule_tick(host)

    # --- what befalls them ----------------------------------------------------------------------------------

    def crash(self, host: Host, *, silent: bool = False) -> None:
        """Kills the host's agent. Its links close at once, or (``silent``: the machine went) nobody is
        told."""
        host.node = host.rogue = None
        host.gone = silent
        self._end_life(host)
        self.network.drop_all(host, silent=silent)

    def wipe(self, host: Host) -> None:
        """Empties the disk of a host that is down, but for its keys and what it joined with."""
        kept = {row: value for row, value in host.disk.items() if row == CHARTER_ROW or row[0] is Table.SEEDS}
        host.disk = Disk(kept)

    def pause(self, host: Host) -> None:
        """Stops the host's agent as SIGSTOP does: what comes for it waits."""
        host.paused = True

    def resume(self, host: Host) -> None:
        """Lets a paused agent go on: its deadlines have passed, then it reads what came, in order."""
        host.paused = False
        if host.deadline_s <= self.now_s:
            self.post(host, Tick())
        inbox, host.inbox = host.inbox, []
        for action, arguments in inbox:
            action(*arguments)

    def cut(self, left: list[Host], right: list[Host]) -> Partition:
        """Drops everything between two groups, both ways, without a word to either."""
        return self.network.part([left, right])

    def heal(self) -> None:
        """Ends every partition."""
        self.network.partitions.clear()

    def rotate(self, host: Host) -> None:
        """Lets a host change its WireGuard key."""
        host.next_wireguard = WireGuardPrivateKey(self.entropy(SEED_BYTES))
        self.post(host, RotationAsked(key=host.next_wireguard))

    # --- time -----------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        return self.heap.now_s

    @now_s.setter
    def now_s(self, value: float) -> None:
        self.heap.now_s = value

    @property
    def steps(self) -> int:
        """Actions taken off the heap so far."""
        return self.heap.steps

    def instant(self, host: Host) -> Instant:
        return Instant(self.heap.now_s, EPOCH_S + self.heap.now_s + host.clock_skew_s)

    def run(self, seconds: float) -> None:
        """Runs the world for so much virtual time."""
        self.heap.run(seconds)

    def run_until(self, condition: Callable[[], bool], *, within_s: float) -> bool:
        """Runs until the condition holds; says whether it did within the bound."""
        return self.heap.run_until(condition, within_s=within_s)

    def post(self, host: Host, event: object) -> None:
        """Hands an event to a host's program now, and performs what follows."""
        if host.paused:
            host.inbox.append((self._post_in, (host, host.life, event)))
            return
        now = self.instant(host)
        if host.node is not None:
            effects: Sequence[object] = host.node.handle(event, now)  # type: ignore[arg-type]
        elif host.rogue is not None:
            effects = host.rogue.handle(event, now)
        else:
            return
        for effect in effects:
            self._perform(host, effect)
        for watcher in self.watchers:
            watcher(host, event, effects)
        self._schedule_tick(host)

    def entropy(self, count: int) -> bytes:
        return self._keys.randbytes(count)

    # --- effects --------------------------------------------------------------------------------------------

    def _perform(self, host: Host, effect: object) -> None:
        match effect:
            case SendFrame(link=link, frame=frame, after=after):
                if after is None:
                    self.network.send(host, link, frame)
                else:
                    self._when(host, after, self.network.send, (host, link, frame))
            case DeliverToSelf(message=message, after=after):
                word = SelfMessage(message=message)
                self._when(host, after, self.heap.after, (0.0, self._post_in, host, host.life, word))
            case Persist(ticket=ticket, changes=changes):
                self.heap.after(PERSIST_S, self._write, host, host.life, ticket, changes)
            case Dial(target=target, addresses=addresses):
                self.network.dial(host, target, addresses)
            case CloseLink(link=link, reason=reason):
                self.network.close(host, link, reason)
            case ShowChain(chain=chain):
                host.chain = chain
            case AskEcho():
                self.overlay.ask(host, effect)
            case ApplyDevice(device=device):
                self.rekeyed.follow(host.device, device)
                host.device = device
                self.overlay.place(host, device)
                self.heap.after(APPLY_S, self._look, host, host.life, device)
            case LookAtDevice() if host.device is not None:
                self.heap.after(APPLY_S, self._show, host, host.life, host.device)
            case KeepKey():
                self.heap.after(PERSIST_S, self._keep_key, host, host.life, effect)
            case DropKey():
                host.next_wireguard = None
            case OpenRelay(ports=ports):
                self.heap.after(APPLY_S, self._post_in, host, host.life, RelayOpened(ports=ports))
            case _:
                host.effects.append(effect)

    def _look(self, host: Host, life: int, device: DesiredDevice) -> None:
        """Shows a host its interface, now and from time to time, as long as it is the one that it wants."""
        if host.life != life or host.device is not device:
            return
        self._show(host, life, device)
        self.heap.after(self.apart.look_s(host, LOOK_S), self._look, host, life, device)

    def _show(self, host: Host, life: int, device: DesiredDevice) -> None:
        if host.device is not device:
            return
        unix_s = self.unix_s()
        handshakes = self.apart.handshakes(host, device, unix_s) | self.rekeyed.gone
        shown = device_of(device, unix_s, handshakes, self.rekeyed.taken)
        self._post_in(host, life, DeviceObserved(device=shown))

    def _write(self, host: Host, life: int, ticket: Ticket, changes: tuple[Put | Delete, ...]) -> None:
        if host.life != life:
            return
        if host.paused:
            host.inbox.append((self._write, (host, life, ticket, changes)))
            return
        if self._keep_disks:
            for change in changes:
                if isinstance(change, Put):
                    host.disk[change.table, change.key] = change.value
                else:
                    host.disk.pop((change.table, change.key), None)
        host.written.add(ticket)
        for action, arguments in host.waiting.pop(ticket, ()):
            action(*arguments)

    def _when(self, host: Host, ticket: Ticket, action: Action, arguments: tuple[object, ...]) -> None:
        if ticket in host.written:
            action(*arguments)
        else:
            host.waiting.setdefault(ticket, []).append((action, arguments))

    def _keep_key(self, host: Host, life: int, effect: KeepKey) -> None:
        if host.life == life and (kept := host.next_wireguard) is not None:
            host.wireguard, host.next_wireguard = kept, None
            self._post_in(host, life, KeyKept(public_key=effect.public_key))

    # --- plumbing -------------------------------------------------------------------------------------------

    def _schedule_tick(self, host: Host) -> None:
        program = host.node or host.rogue
        deadline = program.next_deadline() if program else None
        if deadline is None:
            host.deadline_s = NEVER_S
            return
        host.deadline_s = at = max(deadline.at_s, self.heap.now_s + TICK_MIN_S)
        if at < host.tick_at_s:
            host.tick_at_s = at
            self.heap.at(at, self._tick, host, host.life, at)

    def _tick(self, host: Host, life: int, due_s: float) -> None:
        """Ticks a host whose deadline has come. One that moved on meanwhile gets its tick later; one that
        moved
        ahead had it already."""
        if host.life != life or host.tick_at_s != due_s:
            return
        host.tick_at_s = NEVER_S
        if host.paused:
            return
        if host.deadline_s > self.heap.now_s:
            if host.deadline_s < NEVER_S:
                host.tick_at_s = host.deadline_s
                self.heap.at(host.deadline_s, self._tick, host, life, host.deadline_s)
            return
        self.post(host, Tick())

    def _post_in(self, host: Host, life: int, event: object) -> None:
        if host.life == life:
            self.post(host, event)

    def _end_life(self, host: Host) -> None:
        host.life += 1
        host.inbox, host.waiting, host.written = [], {}, set()
        host.deadline_s = host.tick_at_s = NEVER_S
        host.paused = False

    def unix_s(self) -> int:
        return int(EPOCH_S + self.heap.now_s)
