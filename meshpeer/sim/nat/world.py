"""The world of a mix: minds, interfaces, routers and links on one heap of events.

A datagram (WireGuard's, a probe, what a relay passes on) meets every router on its way as it is sent, may be
lost, and arrives after a delay. Words between members take their links. An interface is looked at every few
seconds, brought in step with what its mind wants, and shown to it, as the agent does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from meshpeer.core.deadline import Instant
from meshpeer.core.effects import AskEcho, LagMeasured, Note, Send
from meshpeer.core.ids import NodeId
from meshpeer.core.node.messages import (
    ApplyDevice,
    DeviceObserved,
    EchoHeard,
    LookAtDevice,
)
from meshpeer.core.paths.path_mtus import ETHERNET, UDP_OVER_IP
from meshpeer.core.paths.probe_desk import ProbeHeard, ProbePortOpened, ProbeTooLong, SendProbe
from meshpeer.core.paths.relay_binding import is_binding
from meshpeer.core.paths.relay_bucket import Bucket
from meshpeer.core.paths.relay_crossing import Crossing, Way
from meshpeer.core.paths.relay_messages import (
    CloseRelay,
    FreezeRelay,
    MoveEndpoint,
    OpenRelay,
    RelayCarried,
    RelayOpened,
    WakeRelay,
)
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import CharterRecord
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.wgconf.diff import diff_device
from meshpeer.core.wgconf.model import RemovePeer, SetPeer, tunnel_works
from meshpeer.sim.heap import EventHeap
from meshpeer.sim.issuing import Office
from meshpeer.sim.judge import SharedJudge
from meshpeer.sim.nat.facts import DELAYS_S, Facts
from meshpeer.sim.nat.hosts import (
    EPOCH_S,
    PORT,
    Host,
    endpoints_of,
    make_host,
    own_address,
    record_of,
    remote_of,
)
from meshpeer.sim.nat.interface import Interface, Packet, Peer
from meshpeer.sim.nat.mind import FactsLearned, LinkCame, PathMind, Publish, Told
from meshpeer.sim.nat.mixes import Mix
from meshpeer.sim.nat.renewals import Renewals
from meshpeer.sim.nat.routers import Arrival, End, Machine, carry, end_of, text_of

LOSS = 0.005
"""Share of datagrams that are lost."""
BOOT_OVER_S = 2.0
APPLY_S, MOVE_LATE_S_MAX = 0.02, 0.03
LOOK_S, CALM_LOOK_S, REST_LOOK_S = 2.0, 4.0, 8.0
CALM_S = 32.0
"""An interface is calm where all its peers were heard within this."""
TROUBLED_S_MAX = 120.0
"""One that is not for longer is looked at as if it were."""
CARRIED_S = 20.0
RING = 4
"""Links to so many members to either side, in id order."""
DIAL_S = 0.3
NOTICED_S, BURIED_S, BACK_S = 4.0, 10.0, 1.0
"""From when links carry nothing until their ends know; until a member is held dead; from when it is back
until links to it are."""
FULL_UP_TO = 16
RATE = 1e9


@dataclass(frozen=True, slots=True)
class Echo:
    """A packet inside the tunnels: a question, or its answer."""

    number: int
    source: str
    target: str
    answers: bool


class MixWorld:
    """Steps the nodes of a mix."""

    def __init__(self, mix: Mix, seed: int, heard: Callable[[Host, Host, End], None]) -> None:
        """``heard``: told of each packet that got through a tunnel: who heard whom, and from where."""
        self.mix = mix
        self.heap = EventHeap()
        self.dice = random.Random(f"world {seed}")
        self._heard = heard
        self._keys = random.Random(f"keys {seed}")
        office = Office(self._keys.randbytes, founded_unix_s=int(EPOCH_S) - 3_600)
        self.mesh = office.mesh
        ledger = Ledger(office.mesh, (office.root.certificate,), SharedJudge())
        self.hosts = [
            make_host(index, seat, office, ledger, self._keys.randbytes, random.Random(self._keys.random()))
            for index, seat in enumerate(mix.seats)
        ]
        self.by_id = {one.id: one for one in self.hosts}
        self.by_key = {one.key: one for one in self.hosts}
        self._by_machine = {id(one.machine): one for one in self.hosts}
        founder = self.hosts[0]
        charter = CharterRecord(
            version=1,
            issued_at=self.unix_s(),
            author=founder.id,
            mesh_name="sim",
            subnet="10.10.0.0/24",
            topology="full" if len(self.hosts) <= FULL_UP_TO else "regional",
        )
        ledger.merge(envelope.sign(founder.config.key, self.mesh, charter), self.unix_s())
        for one in self.hosts:
            ledger.merge(envelope.sign(one.config.key, self.mesh, record_of(one)), self.unix_s())
        self.facts = Facts.of(ledger, self.heap, self.unix_s, self._tell_facts)
        self.renewals = Renewals(self)
        self._ring = sorted(self.by_id)
        for one in self.hosts:
            self.heap.after(self.dice.random() * BOOT_OVER_S, self.boot, one)

    def planned(self, host: Host) -> list[Host]:
        """Returns with whom a host is to have a tunnel, as both ends have it."""
        found: list[Host] = []
        for planned in host.mind.tunnels.plan.peers if host.mind is not None else ():
            other = self.by_id[planned.node]
            back = other.mind.tunnels.plan.peers if other.mind is not None else ()
            if any(one.node == host.id for one in back):
                found.append(other)
        return found

    # --- what befalls hosts ---------------------------------------------------------------------------------

    def boot(self, host: Host) -> None:
        """Starts a host's machine and agent, with nothing but its facts."""
        host.life += 1
        host.machine.asleep = False
        place = host.index % len(DELAYS_S)
        host.mind = PathMind(host.config, self.facts, place, random.Random(host.dice.random()), self.now)
        host.interface = self._interface(host)
        host.device, host.lent, host.dialling = None, {}, set()
        host.tick_at_s = host.look_at_s = float("inf")
        host.troubled_s, host.applied = self.heap.now_s, None
        self.post(host, endpoints_of(host))
        self.post(host, ProbePortOpened())
        self._stir()
        self._link_up(host)
        self.renewals.begin(host)
        if host.seat.lends:
            self.heap.after(CARRIED_S, self._count, host, host.life)

    def die(self, host: Host) -> None:
        """Switches a host's machine off."""
        self._stir()
        host.machine.asleep = True
        host.mind = host.interface = None
        self._lose(host)

    def sleep(self, host: Host) -> None:
        """Lets a host's machine sleep: it keeps what it knows."""
        self._stir()
        host.machine.asleep = True
        assert host.interface is not None
        host.interface.asleep = True
        host.slept_s = self.heap.now_s
        self._lose(host)

    def wake(self, host: Host) -> None:
        self._stir()
        host.machine.asleep = False
        assert host.interface is not None
        host.interface.asleep = False
        host.interface.wake()
        self._look_after(host, 0.1)
        self.post(host, LagMeasured(lag_s=self.heap.now_s - host.slept_s))
        self._drop_links(host)
        self.heap.after(BACK_S, self._link_up, host)

    def moved(self, host: Host) -> None:
        """Tells a host that its machine has other addresses."""
        self.post(host, endpoints_of(host))
        self.cut(host)

    def cut(self, host: Host) -> None:
        """Ends a host's connections without a word."""
        self._stir()
        host.cut_until_s = self.heap.now_s + NOTICED_S + BACK_S
        self.heap.after(NOTICED_S, self._drop_links, host)
        self.heap.after(NOTICED_S + BACK_S, self._link_up, host)

    def _lose(self, host: Host) -> None:
        self.heap.after(NOTICED_S, self._drop_lost, host)
        self.heap.after(BURIED_S, self._bury, host)

    def _drop_lost(self, host: Host) -> None:
        if host.machine.asleep:
            self._drop_links(host)

    def _bury(self, host: Host) -> None:
        if host.machine.asleep:
            self.facts.dead[host.id] = None
            self._tell_all()

    def _stir(self) -> None:
        """Something is about to happen: nobody rests."""
        for host in self.hosts:
            if self.renewals.stir(host):
                self._look_after(host, LOOK_S)

    # --- links ----------------------------------------------------------------------------------------------

    def _link_up(self, host: Host) -> None:
        """Links a host to its neighbours."""
        if host.machine.asleep or host.mind is None:
            return
        if host.id in self.facts.dead:
            del self.facts.dead[host.id]
            self._tell_all()
        at = self._ring.index(host.id)
        for step in (*range(-RING, 0), *range(1, RING + 1)):
            self._link(host, self.by_id[self._ring[(at + step) % len(self._ring)]])

    def _link(self, host: Host, other: Host) -> None:
        host.dialling.discard(other.id)
        away = any(one.machine.asleep or one.mind is None for one in (host, other))
        late = max(host.cut_until_s, other.cut_until_s)
        if host is other or away or late > self.heap.now_s:
            return
        for one, peer in ((host, other), (other, host)):
            assert one.mind is not None
            before = one.mind.links.up.get(peer.id)
            remote = remote_of(one.machine, peer.machine)
            one.mind.links.up[peer.id] = remote
            if before is None:
                self.post(one, LinkCame(peer.id))

    def _drop_links(self, host: Host) -> None:
        for other in self.hosts:
            if other.mind is not None and other.mind.links.up.pop(host.id, None) is not None:
                self.post(other, FactsLearned())
        if host.mind is not None:
            host.mind.links.up.clear()

    def _tell_all(self) -> None:
        for host in self.hosts:
            self.post(host, FactsLearned())

    def _tell_facts(self, place: int) -> None:
        for host in self.hosts:
            if host.mind is not None and host.mind.place == place:
                self.post(host, FactsLearned())

    def _say(self, host: Host, peer: NodeId, message: object) -> None:
        other = self.by_id[peer]
        if host.mind is not None and peer in host.mind.links.up:
            delay_s = self.delay_s(host.machine, other.machine)
            self.heap.after(delay_s, self._hear, host, other, other.life, message)

    def _hear(self, host: Host, other: Host, life: int, message: object) -> None:
        if self.is_heard(host, other, life):
            self.post(other, Told(host.id, message))  # type: ignore[arg-type]

    def is_heard(self, host: Host, other: Host, life: int) -> bool:
        """Says whether what one said gets to another."""
        cut = max(host.cut_until_s, other.cut_until_s) > self.heap.now_s
        return other.life == life and not cut and not host.machine.asleep

    # --- steps ----------------------------------------------------------------------------------------------

    @property
    def now(self) -> Instant:
        return Instant(self.heap.now_s, EPOCH_S + self.heap.now_s)

    def unix_s(self) -> int:
        return int(EPOCH_S + self.heap.now_s)

    def post(self, host: Host, event: object) -> None:
        """Hands an event to a host's mind, and performs what follows; one that sleeps does nothing."""
        if host.mind is None or host.machine.asleep:
            return
        for effect in host.mind.handle(event, self.now):
            self.perform(host, effect)
        for node in host.mind.wanted:
            if node not in host.mind.links.up and node not in host.dialling:
                host.dialling.add(node)
                self.heap.after(DIAL_S, self._link, host, self.by_id[node])
        self.arm(host)

    def arm(self, host: Host) -> None:
        assert host.mind is not None
        at_s = max(host.mind.next_s(), self.heap.now_s + 1e-4)
        if at_s < host.tick_at_s:
            host.tick_at_s = at_s
            self.heap.at(at_s, self._tick, host, host.life, at_s)

    def _tick(self, host: Host, life: int, at_s: float) -> None:
        if host.life != life or host.tick_at_s != at_s:
            return
        host.tick_at_s = float("inf")
        if host.machine.asleep or host.mind is None:
            return
        if host.mind.next_s() > self.heap.now_s:
            self.arm(host)
            return
        self.post(host, None)

    def perform(self, host: Host, effect: object) -> None:
        match effect:
            case Send(peer=peer, message=message):
                self._say(host, peer, message)
            case SendProbe():
                self._probe(host, effect)
            case AskEcho(number=number, address=address):
                source = own_address(host, address)
                if host.interface is not None and source:
                    host.interface.route(address, Echo(number, source, address, answers=False))
            case ApplyDevice(device=device):
                host.device = device
                self._look_after(host, APPLY_S)
            case LookAtDevice():
                self._look_after(host, APPLY_S)
            case Publish(record=record):
                self.facts.publish(record)
            case MoveEndpoint():
                late_s = MOVE_LATE_S_MAX * self.dice.random()
                self.heap.at(max(effect.at_s, self.heap.now_s) + late_s, self._move, host, host.life, effect)
            case OpenRelay(ports=ports, keys=keys, binds=binds):
                crossing = Crossing(keys, Bucket(RATE, RATE), Bucket(RATE, RATE), binds)
                host.lent.update((port, (ports, crossing)) for port in ports)
                self.heap.after(APPLY_S, self.post, host, RelayOpened(ports=ports))
            case CloseRelay(ports=ports):
                for port in ports:
                    host.lent.pop(port, None)
            case FreezeRelay(ports=ports, at_s=at_s):
                host.lent[ports[0]][1].freeze(at_s)
            case WakeRelay(ports=ports):
                host.lent[ports[0]][1].wake()
            case Note():
                pass
            case _:
                raise AssertionError(effect)

    # --- interfaces -----------------------------------------------------------------------------------------

    def _interface(self, host: Host) -> Interface:
        interface: Interface

        def arrived(peer: Peer, content: object) -> None:
            self._arrived(host, interface, peer, content)

        interface = Interface(
            host.key,
            self.heap,
            epoch_s=EPOCH_S,
            draw=host.dice.random,
            send=lambda end, packet: self._put(host, end, packet),
            arrived=arrived,
            heard=lambda peer, source: self._heard(host, self.by_key[peer.key], source),
            roamed=lambda: self._look_after(host, LOOK_S),
        )
        return interface

    def _look_after(self, host: Host, delay_s: float) -> None:
        at_s = self.heap.now_s + delay_s
        if at_s < host.look_at_s:
            host.look_at_s = at_s
            self.heap.at(at_s, self._look, host, host.life, at_s)

    def _look(self, host: Host, life: int, at_s: float) -> None:
        """Brings a host's interface in step, and shows it."""
        if host.life != life or host.look_at_s != at_s:
            return
        host.look_at_s = float("inf")
        interface, device = host.interface, host.device
        if interface is None or device is None or host.machine.asleep:
            return
        now, shown = self.now, interface.observe(device)
        fresh = all(tunnel_works(one, now.unix_s) for one in shown.peers)
        if not fresh or host.applied != (interface.changes, device):
            changed = False
            for step in diff_device(shown, device, now_unix_s=now.unix_s):
                if isinstance(step, SetPeer | RemovePeer):
                    interface.apply(step)
                    changed = True
            if changed:
                shown = interface.observe(device)
            host.applied = (interface.changes, device)
        self.post(host, DeviceObserved(device=shown))
        self._look_after(host, self._pause_s(host, interface))

    def _pause_s(self, host: Host, interface: Interface) -> float:
        """Returns when to look at an interface again, if nothing shows before."""
        now_s, mind = self.heap.now_s, host.mind
        calm = all(now_s < one.heard_s + CALM_S for one in interface.peers.values())
        if calm:
            host.troubled_s = now_s
        if mind is None or mind.rest.is_stirred(self.now):
            return LOOK_S
        if not calm and now_s < host.troubled_s + TROUBLED_S_MAX:
            return LOOK_S
        return REST_LOOK_S if calm and mind.is_calm(self.now) else CALM_LOOK_S

    def _move(self, host: Host, life: int, move: MoveEndpoint) -> None:
        interface = host.interface
        if host.life != life or interface is None or host.machine.asleep:
            return
        if move.public_key in interface.peers:
            interface.apply(SetPeer(public_key=move.public_key, endpoint=move.endpoint))
        self._look_after(host, APPLY_S)

    def _arrived(self, host: Host, interface: Interface, peer: Peer, content: object) -> None:
        assert isinstance(content, Echo)
        bits = 128 if ":" in content.source else 32
        if interface.routes.get(f"{content.source}/{bits}") is not peer:
            return
        if content.target != own_address(host, content.target):
            interface.route(content.target, content)
        elif content.answers:
            self.post(host, EchoHeard(number=content.number, source=content.source))
        else:
            answer = Echo(content.number, content.target, content.source, answers=True)
            interface.route(content.source, answer)

    # --- datagrams ------------------------------------------------------------------------------------------

    def delay_s(self, one: Machine, other: Machine) -> float:
        (x, y), (u, v) = one.place, other.place
        return float(0.001 + (abs(x - u) + abs(y - v)) * (0.9 + 0.2 * self.dice.random()))

    def _ship(self, machine: Machine, port: int, end: End, take: Callable[..., None], what: object) -> None:
        arrival = carry(machine, port, end, self.heap.now_s)
        if arrival is not None and self.dice.random() >= LOSS:
            self.heap.after(self.delay_s(machine, arrival.machine), take, arrival, what)

    def _put(self, host: Host, end: End, packet: Packet) -> None:
        self._ship(host.machine, PORT, end, self._take, packet)

    def _take(self, arrival: Arrival, packet: Packet) -> None:
        host = self._by_machine[id(arrival.machine)]
        if host.machine.asleep or host.interface is None:
            return
        port = arrival.target.port
        if port == PORT:
            host.interface.receive(packet, arrival.source)
        elif port in host.lent:
            ports, crossing = host.lent[port]
            side = ports.index(port)
            way = crossing.carry(side, Way(*arrival.source), packet.data, self.heap.now_s)
            if way is not None:
                self._ship(host.machine, ports[1 - side], End(way.host, way.port), self._take, packet)

    def _count(self, host: Host, life: int) -> None:
        if host.life != life or host.mind is None:
            return
        for port, (ports, crossing) in list(host.lent.items()):
            if port == ports[0]:
                packets = sum(end.packets for end in crossing.ends)
                drops = sum(crossing.drops.values())
                self.post(host, RelayCarried(ports=ports, packets=packets, drops=drops))
        self.heap.after(CARRIED_S, self._count, host, life)

    def _probe(self, host: Host, probe: SendProbe) -> None:
        end = end_of(probe.endpoint)
        if end is None:
            return
        if len(probe.data) + UDP_OVER_IP[6 if ":" in end.host else 4] > ETHERNET:
            too_long = ProbeTooLong(endpoint=probe.endpoint, probe_bytes=len(probe.data))
            self.heap.after(0.0, self.post, host, too_long)
            return
        self._ship(host.machine, PORT, end, self._hear_probe, probe.data)

    def _hear_probe(self, arrival: Arrival, data: bytes) -> None:
        host, port = self._by_machine[id(arrival.machine)], arrival.target.port
        if port == PORT:
            heard = ProbeHeard(source=text_of(arrival.source), local=arrival.target.host, data=data)
            self.post(host, heard)
        elif port in host.lent and is_binding(data) and not host.machine.asleep:
            ports, crossing = host.lent[port]
            answer = crossing.bind(ports.index(port), Way(*arrival.source), data, self.heap.now_s)
            if answer is not None:
                self._ship(host.machine, port, arrival.source, self._hear_probe, answer)
