"""A virtual world: the very same ``core.node`` on an event heap, with virtual time and seeded latency.

Links, disks and clocks are simulated; decisions are not. One seed replays a run: nothing here iterates over a
set, and the only
randomness is the world's own generator.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Delete, Persist, Persisted, Put, Table, Tick, TicketCounter
from meshpeer.core.identity.certificates import (
    SERIAL_BYTES,
    Authority,
    make_durable_leaf,
    make_invite,
    make_issuer,
    make_provisional_leaf,
    make_root,
    mesh_id_of,
    public_key_of,
)
from meshpeer.core.identity.constraints import ALL, INVITE_DEFAULT
from meshpeer.core.identity.keys import SigningKey, WireGuardPrivateKey
from meshpeer.core.ids import LinkId, NodeId, Ticket, key_text
from meshpeer.core.membership.messages import CloseLink, Dial, DialFailed, LinkClosed, LinkOpened
from meshpeer.core.node.config import NodeConfig
from meshpeer.core.node.gossip import CHARTER_KEY, Gossip
from meshpeer.core.node.messages import (
    ApplyDevice,
    DeliverToSelf,
    DeviceObserved,
    EndpointsChanged,
    FrameReceived,
    SeedFound,
    SelfMessage,
    SendFrame,
    ShowChain,
    Started,
)
from meshpeer.core.node.node import Node
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import CharterRecord
from meshpeer.core.records.ledger import Chain, Ledger
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.wgconf.model import ObservedDevice, ObservedPeer
from meshpeer.core.wire import cbor
from meshpeer.sim.host import Host, Wire

EPOCH_S = 1_800_000_000.0
"""Where virtual wall clocks start."""
PERSIST_S = 0.001
REFUSED_S = 0.002
SILENT_DIAL_S = 4.0


class World:
    """Founds a mesh of virtual hosts and steps it."""

    def __init__(self, seed: int = 0, *, latency_s: float = 0.005) -> None:
        self.random = random.Random(seed)
        self.latency_s = latency_s
        self.now_s = 0.0
        self.steps = 0
        """Actions taken off the heap so far."""
        self.hosts: dict[str, Host] = {}
        self.cuts: set[tuple[str, str]] = set()
        """Directed pairs of host names between which nothing gets through."""
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._links = itertools.count(1)
        self._wires: dict[LinkId, Wire] = {}
        self._ticks: dict[str, float] = {}
        unix = int(EPOCH_S)
        self.root = make_root(self._bytes(32), now_unix_s=unix, serial=self._bytes(SERIAL_BYTES))
        self.issuer = make_issuer(
            self.root, self._bytes(32), now_unix_s=unix, serial=self._bytes(SERIAL_BYTES)
        )
        self.mesh = mesh_id_of(public_key_of(self.root.certificate))
        self.invite = self.make_invite(uses=1_000)

    # --- making hosts ---------------------------------------------------------------------------------------

    def make_invite(self, *, uses: int = 1, expires_s: int = 7 * 86_400) -> Authority:
        return make_invite(
            self.issuer,
            self._bytes(32),
            capabilities=INVITE_DEFAULT,
            roles=("compute",),
            region="",
            uses=uses,
            expires_s=expires_s,
            now_unix_s=int(EPOCH_S + self.now_s),
            serial=self._bytes(SERIAL_BYTES),
        )

    def found(self, name: str, *, subnet: str = "10.10.0.0/24") -> Host:
        """Makes and starts the founder."""
        key = SigningKey(self._bytes(32))
        unix = int(EPOCH_S + self.now_s)
        leaf = make_durable_leaf(
            self.issuer,
            key.public,
            capabilities=ALL,
            admitted_at=unix,
            now_unix_s=unix,
            serial=self._bytes(SERIAL_BYTES),
        )
        host = self._host(name, key, (leaf, self.issuer.certificate), ("compute", "scheduler"), self.issuer)
        charter = CharterRecord(version=1, issued_at=unix, author=key.public, mesh_name="sim", subnet=subnet)
        host.disk[Table.META, CHARTER_KEY] = envelope.sign(key, self.mesh, charter)
        host.disk[Table.CERTIFICATES, key_text(key.public)] = cbor.encode([host.chain])
        self.start(host)
        return host

    def join(self, name: str, seed: Host, *, invite: Authority | None = None) -> Host:
        """Makes and starts a host that knows the charter and one seed, as ``meshpeer join`` leaves it."""
        key = SigningKey(self._bytes(32))
        above = invite or self.invite
        leaf = make_provisional_leaf(
            above, key.public, now_unix_s=int(EPOCH_S + self.now_s), serial=self._bytes(SERIAL_BYTES)
        )
        host = self._host(name, key, (leaf, above.certificate, self.issuer.certificate), ("compute",), None)
        assert seed.node is not None
        for row, value in seed.disk.items():
            if row[0] in (Table.CERTIFICATES, Table.RECORDS) or row == (Table.META, CHARTER_KEY):
                host.disk[row] = value
        self.start(host)
        self.post(host, SeedFound(address=seed.address))
        return host

    def start(self, host: Host) -> None:
        """Boots a host from what its disk holds."""
        host.life += 1
        now = self.instant(host)
        ledger = Ledger(self.mesh, (self.root.certificate,))
        tickets = TicketCounter()
        dice = random.Random(self.random.random())
        scheduler = Scheduler(
            me=host.id, slots=2, accepting=True, boot=self._bytes(8), region="", tickets=tickets, dice=dice
        )
        rows = sorted(host.disk.items())
        Gossip(ledger, linked=list, jitter=dice).restore(
            [value for (table, _), value in rows if table is Table.CERTIFICATES],
            [value for (table, _), value in rows if table is Table.RECORDS],
            host.disk.get((Table.META, CHARTER_KEY)),
            now,
        )
        config = NodeConfig(
            key=host.key,
            chain=host.chain,
            wireguard_key=host.wireguard,
            wireguard_port=51820,
            interface="wg0",
            control_port=51821,
            name=host.name,
            region="",
            roles=host.roles,
            hub="allow",
            configured_endpoint=False,
            issuer=host.issuer,
        )
        host.written, host.waiting = set(), []
        host.node = Node(
            config, ledger, scheduler, tickets=tickets, jitter=dice, entropy=self._bytes, now=now
        )
        endpoint = host.address.rpartition(":")[0]
        self.post(host, EndpointsChanged(control=(host.address,), wireguard=(f"{endpoint}:51820",)))
        self.post(host, Started())
        for (table, address), _ in rows:
            if table is Table.SEEDS:
                self.post(host, SeedFound(address=address))

    def crash(self, host: Host, *, silent: bool = False) -> None:
        """Kills the host's agent. Its links close at once, or (``silent``) nobody is told."""
        host.node = None
        host.life += 1
        for link, wire in list(self._wires.items()):
            if any(end[0] is host for end in wire.ends):
                other, number, life = wire.other(host)
                del self._wires[link]
                if wire.open and not silent:
                    self._later(
                        self._delay(), other, life, LinkClosed(link=number, reason="connection reset")
                    )
                wire.open = False

    def cut(self, left: list[Host], right: list[Host]) -> None:
        """Drops everything between two groups, both ways, without a word to either."""
        for one in left:
            for other in right:
                self.cuts |= {(one.name, other.name), (other.name, one.name)}

    def heal(self) -> None:
        self.cuts.clear()

    # --- time -----------------------------------------------------------------------------------------------

    def instant(self, host: Host) -> Instant:
        return Instant(self.now_s, EPOCH_S + self.now_s + host.clock_skew_s)

    def run(self, seconds: float) -> None:
        """Runs the world for so much virtual time."""
        self.run_until(lambda: False, within_s=seconds)

    def run_until(self, condition: Callable[[], bool], *, within_s: float) -> bool:
        """Runs until the condition holds; says whether it did within the bound."""
        end = self.now_s + within_s
        while not condition():
            if not self._heap or self._heap[0][0] > end:
                self.now_s = end
                return condition()
            at, _, action = heapq.heappop(self._heap)
            self.now_s = max(self.now_s, at)
            self.steps += 1
            action()
        return True

    def post(self, host: Host, event: object) -> None:
        """Hands an event to a host's node now, and performs what follows."""
        node = host.node
        if node is None or host.paused:
            return
        for effect in node.handle(event, self.instant(host)):  # type: ignore[arg-type]
            self._perform(host, effect)
        self._schedule_tick(host)

    # --- effects --------------------------------------------------------------------------------------------

    def _perform(self, host: Host, effect: object) -> None:
        match effect:
            case SendFrame(link=link, frame=frame, after=after):
                self._when(host, after, lambda: self._transmit(host, link, frame))
            case DeliverToSelf(message=message, after=after):
                self._when(
                    host, after, lambda: self._later(0.0, host, host.life, SelfMessage(message=message))
                )
            case Persist(ticket=ticket, changes=changes):
                self._at(PERSIST_S, lambda: self._write(host, host.life, ticket, changes))
            case Dial(target=target, addresses=addresses):
                self._dial(host, target, addresses)
            case CloseLink(link=link, reason=reason):
                wire = self._wires.pop(link, None)
                if wire is not None:
                    other, number, life = wire.other(host)
                    self._wires.pop(number, None)
                    self._later(self._delay(), other, life, LinkClosed(link=number, reason=reason))
            case ShowChain(chain=chain):
                host.chain = chain
            case ApplyDevice(device=device):
                peers = tuple(
                    ObservedPeer(
                        public_key=one.public_key,
                        allowed_ips=one.allowed_ips,
                        endpoint=one.endpoint,
                        keepalive_s=one.keepalive_s,
                        latest_handshake_unix_s=int(EPOCH_S + self.now_s) if one.endpoint else 0,
                        rx_bytes=0,
                        tx_bytes=0,
                    )
                    for one in device.peers
                )
                observed = ObservedDevice(
                    interface=device.interface,
                    public_key=device.public_key,
                    listen_port=device.listen_port,
                    mtu=device.mtu,
                    up=True,
                    addresses=device.addresses,
                    peers=peers,
                )
                self._later(0.02, host, host.life, DeviceObserved(device=observed))
            case _:
                host.effects.append(effect)

    def _dial(self, host: Host, target: NodeId | None, addresses: tuple[str, ...]) -> None:
        for address in addresses:
            other = next((one for one in self.hosts.values() if one.address == address), None)
            if other is None or (host.name, other.name) in self.cuts or (other.name, host.name) in self.cuts:
                continue
            if other.node is None:
                self._later(
                    REFUSED_S,
                    host,
                    host.life,
                    DialFailed(target=target, addresses=addresses, reason="refused", refused=True),
                )
                return
            delay = self._delay() * 3
            self._at(delay, lambda other=other, address=address: self._connect(host, other, address))  # type: ignore[misc]
            return
        self._later(
            SILENT_DIAL_S,
            host,
            host.life,
            DialFailed(target=target, addresses=addresses, reason="no answer", refused=False),
        )

    def _connect(self, host: Host, other: Host, address: str) -> None:
        if host.node is None or other.node is None:
            return
        mine, theirs = LinkId(next(self._links)), LinkId(next(self._links))
        wire = Wire(((host, mine, host.life), (other, theirs, other.life)))
        self._wires[mine] = self._wires[theirs] = wire
        self.post(
            other,
            LinkOpened(
                link=theirs,
                peer=host.id,
                leaf=host.chain[0],
                remote=f"{host.address.rpartition(':')[0]}:40000",
                dialled="",
            ),
        )
        self.post(
            host, LinkOpened(link=mine, peer=other.id, leaf=other.chain[0], remote=address, dialled=address)
        )

    def _transmit(self, host: Host, link: LinkId, frame: bytes) -> None:
        wire = self._wires.get(link)
        if wire is None or not wire.open:
            return
        other, number, life = wire.other(host)
        if (host.name, other.name) not in self.cuts:
            self._later(self._delay(), other, life, FrameReceived(link=number, frame=frame))

    def _write(self, host: Host, life: int, ticket: Ticket, changes: tuple[Put | Delete, ...]) -> None:
        if host.life != life:
            return
        for change in changes:
            if isinstance(change, Put):
                host.disk[change.table, change.key] = change.value
            else:
                host.disk.pop((change.table, change.key), None)
        host.written.add(ticket)
        ready = [action for waited, action in host.waiting if waited == ticket]
        host.waiting = [entry for entry in host.waiting if entry[0] != ticket]
        for action in ready:
            action()
        self.post(host, Persisted(ticket=ticket))

    def _when(self, host: Host, ticket: Ticket | None, action: Callable[[], None]) -> None:
        if ticket is None or ticket in host.written:
            action()
        else:
            host.waiting.append((ticket, action))

    # --- plumbing -------------------------------------------------------------------------------------------

    def _schedule_tick(self, host: Host) -> None:
        deadline = host.node.next_deadline() if host.node else None
        if deadline is None:
            return
        at = max(deadline.at_s, self.now_s + 1e-6)
        if self._ticks.get(host.name, float("inf")) <= at and self._ticks[host.name] > self.now_s:
            return
        self._ticks[host.name] = at
        life = host.life

        def tick() -> None:
            self._ticks.pop(host.name, None)
            if host.life == life:
                self.post(host, Tick())

        self._at(at - self.now_s, tick)

    def _later(self, delay_s: float, host: Host, life: int, event: object) -> None:
        def deliver() -> None:
            if host.life == life:
                self.post(host, event)

        self._at(delay_s, deliver)

    def _at(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._order), action))

    def _delay(self) -> float:
        return self.latency_s * (0.8 + 0.4 * self.random.random())

    def _host(
        self, name: str, key: SigningKey, chain: Chain, roles: tuple[str, ...], issuer: Authority | None
    ) -> Host:
        number = len(self.hosts) + 1
        address = (
            f"192.0.2.{number}:51821" if number < 255 else f"198.51.{number // 250}.{number % 250}:51821"
        )
        host = Host(
            name=name,
            address=address,
            key=key,
            wireguard=WireGuardPrivateKey(self._bytes(32)),
            chain=chain,
            roles=roles,
            issuer=issuer,
        )
        self.hosts[name] = host
        return host

    def _bytes(self, count: int) -> bytes:
        return self.random.randbytes(count)
