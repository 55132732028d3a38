"""The network between virtual machines: latency, loss as TCP shows it, partitions, NATs.

A link is a TCP connection: what is sent arrives whole and in order, or the connection ends. A lost segment
holds back all that follows it until a retransmission gets through: the first after RFC 6298's time-out
(srtt + 4 rttvar, at least 200 ms as on Linux), each further one after twice the time of the one before
(section 5.5), until TCP gives up (RFC 1122, section 4.2.3.5: not before 100 s). So a partition that heals
early breaks no connection, and a host that vanished is not told of by the network.

Left out: bandwidth, and the acknowledgements' own way back. In a one-way partition a real connection would
stop
once a window of data went unacknowledged, which the small frames of a control link do not reach in its
duration.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meshpeer.core.ids import LinkId, NodeId
from meshpeer.core.membership.carriers import Over, over_in
from meshpeer.core.membership.messages import DialFailed, LinkClosed, LinkOpened
from meshpeer.core.node.messages import FrameReceived
from meshpeer.core.wire.limits import FRAME_BYTES_MAX
from meshpeer.sim.carrying import carried_by, way_over
from meshpeer.sim.heap import EventHeap
from meshpeer.sim.host import Host
from meshpeer.sim.meter import Meter

RTO_MIN_S = 0.2
RETRANSMISSIONS_MAX = 9
"""0.2 s doubled so often is 102 s: what RFC 1122 asks for before a connection is given up."""
SYN_RTO_S = 1.0
"""RFC 6298, section 2.1: before a round trip was measured."""
SEGMENT_BYTES = 1_448
HANDSHAKE_TRIPS = 6
"""One-way trips before a link is open: TCP, TLS 1.3 and the WebSocket upgrade take a round trip each."""
QUEUE_FRAMES_MAX = 256
"""Frames that wait at a sender; what overflows is dropped, as the transport does."""
REFUSED_S = 0.002
SILENT_DIAL_S = 4.0
"""Whoever dials gives up after so long, whether nobody is there or too much was lost."""

RESET = "connection reset"
TIMED_OUT = "connection timed out"
TOO_BIG = "a frame exceeds its limit"


class Dice(Protocol):
    def random(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Terrain:
    """How far things are from each other, and what gets lost between them."""

    latency_s: tuple[tuple[float, ...], ...] = ((0.005,),)
    """One way, from region to region."""
    jitter: float = 0.2
    """A delay is the latency times 1 - jitter to 1 + jitter."""
    loss: float = 0.0
    """Share of segments that are lost."""


@dataclass(slots=True, eq=False)
class Partition:
    """Groups of hosts that can't reach each other; hosts in none of them are not touched."""

    group_of: dict[int, int]
    """By host index."""
    one_way: bool = False
    """Only what goes from an earlier group to a later one is lost."""

    def blocks(self, source: int, target: int) -> bool:
        left, right = self.group_of.get(source), self.group_of.get(target)
        if left is None or right is None or left == right:
            return False
        return left < right if self.one_way else True


@dataclass(slots=True, eq=False)
class Lane:
    """One direction of a link, and the sending end of it."""

    host: Host
    link: LinkId
    latency_s: float
    over: Host | None = None
    """The member that carries the link; None for one that goes straight."""
    back: Lane = field(init=False, repr=False)
    open: bool = True
    """Whether the sending end still has the connection."""
    clear_s: float = 0.0
    """When what was sent last arrives: nothing overtakes it."""
    waiting: collections.deque[bytes | None] | None = None
    """Frames behind a segment that is lost (None is the end of the stream)."""
    tries: int = 0
    reason: str = ""
    """What the other end is told when the stream ends."""


class Network:
    """Carries frames, opens links and ends them. ``post`` hands an event to a host."""

    def __init__(
        self,
        heap: EventHeap,
        terrain: Terrain,
        dice: Dice,
        meter: Meter,
        post: Callable[[Host, object], None],
    ) -> None:
        self.terrain = terrain
        self.meter = meter
        self.partitions: list[Partition] = []
        self._heap = heap
        self._dice = dice
        self._post = post
        self._numbers = itertools.count(1)
        self._hosts: dict[str, Host] = {}

    # --- the map --------------------------------------------------------------------------------------------

    def place(self, host: Host) -> None:
        """Gives a host its address."""
        self._hosts[host.address] = host

    def part(self, groups: Sequence[Iterable[Host]], *, one_way: bool = False) -> Partition:
        """Drops everything between the groups from now on, without a word to anybody."""
        made = Partition({host.index: n for n, group in enumerate(groups) for host in group}, one_way)
        self.partitions.append(made)
        return made

    def follow(self, host: Host, other: Host) -> None:
        """Puts a host that is new on the side of another, wherever the network is parted."""
        for one in self.partitions:
            if other.index in one.group_of:
                one.group_of[host.index] = one.group_of[other.index]

    def heal(self, partition: Partition) -> None:
        self.partitions.remove(partition)

    def passes(self, source: Host, target: Host) -> bool:
        """Says whether a packet can get from one host to another."""
        if target.gone or source.gone:
            return False
        return not any(one.blocks(source.index, target.index) for one in self.partitions)

    # --- links ----------------------------------------------------------------------------------------------

    def dial(self, host: Host, target: NodeId | None, addresses: tuple[str, ...]) -> None:
        """Opens a link to the first address that answers, or tells the host that none did."""
        refused = silent = False
        for address in addresses:
            over = over_in(address)
            way = way_over(host, over) if over is not None else None
            if over is not None and way is not None:
                self._heap.after(
                    HANDSHAKE_TRIPS * self._delay(self._latency_over(host, *way)),
                    self._connect_over,
                    host,
                    host.life,
                    over,
                    address,
                    addresses,
                )
                return
            other = self._hosts.get(address)
            if other is None:
                # An address inside the tunnels: it answers as its host does on the others in the list.
                continue
            if not self._answers(host, other):
                silent = True
            elif other.runs:
                latency_s = self._latency(host, other)
                delay_s = sum(self._delay(latency_s) for _ in range(HANDSHAKE_TRIPS)) + self._dial_losses()
                if delay_s > SILENT_DIAL_S:
                    silent = True
                    continue
                self._heap.after(
                    delay_s, self._connect, host, host.life, other, other.life, target, address, addresses
                )
                return
            else:
                refused = True
        wait_s = SILENT_DIAL_S if silent or not refused else REFUSED_S
        self._fail(host, wait_s, target, addresses, refused=refused)

    def send(self, host: Host, link: LinkId, frame: bytes) -> None:
        """Sends a frame; one on a link that is closed is lost."""
        lane = host.lanes.get(link)
        if lane is not None:
            if host.rogue is None:
                self.meter.sent(host.index, frame)
            self._send(lane, frame)

    def close(self, host: Host, link: LinkId, reason: str) -> None:
        """Ends a link once what was sent on it has arrived."""
        lane = host.lanes.pop(link, None)
        if lane is not None:
            lane.open = False
            lane.reason = reason
            self._send(lane, None)
            self._end_carried(lane)

    def drop_all(self, host: Host, *, silent: bool) -> None:
        """Ends all links of a host whose program ended; ``silent``: the machine is off, nothing says so."""
        for link in list(host.lanes):
            if silent:
                host.lanes.pop(link).open = False
            else:
                self.close(host, link, RESET)

    # --- a lane ---------------------------------------------------------------------------------------------

    def _send(self, lane: Lane, frame: bytes | None) -> None:
        if lane.waiting is not None:
            if len(lane.waiting) < QUEUE_FRAMES_MAX or frame is None:
                lane.waiting.append(frame)
            else:
                self.meter.overflows += 1
        elif not lane.back.host.reads:
            lane.waiting = collections.deque([frame])
        elif self._arrives(lane, frame):
            self._carry(lane, frame)
        else:
            lane.waiting, lane.tries = collections.deque([frame]), 1
            self._heap.after(self._rto(lane), self._retransmit, lane)

    def _carry(self, lane: Lane, frame: bytes | None) -> None:
        at = self._heap.now_s + self._delay(lane.latency_s)
        lane.clear_s = at = max(at, lane.clear_s)
        self._heap.at(at, self._deliver, lane, frame)

    def _retransmit(self, lane: Lane) -> None:
        waiting = lane.waiting
        if waiting is None:
            return
        if self._arrives(lane, waiting[0]):
            lane.waiting = None
            self._carry(lane, waiting.popleft())
            for frame in waiting:
                self._send(lane, frame)
        elif lane.tries < RETRANSMISSIONS_MAX:
            self._heap.after(self._rto(lane) * 2**lane.tries, self._retransmit, lane)
            lane.tries += 1
        else:
            lane.waiting = None
            self._lose(lane, TIMED_OUT)

    def _deliver(self, lane: Lane, frame: bytes | None) -> None:
        back = lane.back
        if not back.open:
            # There is no such connection there (any more): it says so, if it can.
            if lane.open and self.passes(back.host, lane.host):
                self._heap.after(self._delay(lane.latency_s), self._lose, lane, RESET)
            return
        if frame is None:
            self._lose(back, lane.reason)
        elif len(frame) > FRAME_BYTES_MAX:
            self.close(back.host, back.link, TOO_BIG)
            self._post(back.host, LinkClosed(link=back.link, reason=TOO_BIG))
        else:
            self._post(back.host, FrameReceived(link=back.link, frame=frame))

    def _lose(self, lane: Lane, reason: str) -> None:
        """Tells the host of this end that its link is over."""
        if lane.open:
            lane.open = False
            lane.host.lanes.pop(lane.link, None)
            self._post(lane.host, LinkClosed(link=lane.link, reason=reason))
            self._end_carried(lane)

    def _end_carried(self, lane: Lane) -> None:
        for one in carried_by(lane):
            self._lose(one, "the link to the carrier ended")

    def _arrives(self, lane: Lane, frame: bytes | None) -> bool:
        if lane.over is not None:
            legs = ((lane.host, lane.over), (lane.over, lane.back.host))
            if not all(self.passes(*leg) for leg in legs):
                return False
        elif (self.partitions or lane.back.host.gone) and not self.passes(lane.host, lane.back.host):
            return False
        loss = self.terrain.loss
        if not loss:
            return True
        segments = 1 if frame is None else 1 + len(frame) // SEGMENT_BYTES
        return self._dice.random() < float((1.0 - loss) ** segments)

    def _rto(self, lane: Lane) -> float:
        return max(RTO_MIN_S, 2 * lane.latency_s * (1 + 4 * self.terrain.jitter))

    # --- opening --------------------------------------------------------------------------------------------

    def _answers(self, host: Host, other: Host) -> bool:
        """Says whether the kernel of a host can be reached by one that dials it, and its program runs on."""
        if other.nat is not None and other.nat != host.nat:
            return False
        return self.passes(host, other) and self.passes(other, host) and not other.paused

    def _connect(
        self,
        host: Host,
        life: int,
        other: Host,
        other_life: int,
        target: NodeId | None,
        address: str,
        addresses: tuple[str, ...],
    ) -> None:
        if host.life != life:
            return
        if not self._answers(host, other):
            self._fail(host, SILENT_DIAL_S, target, addresses, refused=False)
            return
        if other.life != other_life or not other.runs:
            self._fail(host, REFUSED_S, target, addresses, refused=True)
            return
        mine, theirs = self._join(host, other, self._latency(host, other), None)
        seen = f"{host.address.rpartition(':')[0] if host.nat is None else nat_address(host.nat)}:40000"
        self._post(
            other, LinkOpened(link=theirs.link, peer=host.id, leaf=host.chain[0], remote=seen, dialled="")
        )
        self._post(
            host,
            LinkOpened(link=mine.link, peer=other.id, leaf=other.chain[0], remote=address, dialled=address),
        )

    def _connect_over(
        self, host: Host, life: int, over: Over, address: str, addresses: tuple[str, ...]
    ) -> None:
        way = way_over(host, over)
        if host.life != life or way is None:
            self._fail(host, REFUSED_S, over.target, addresses, refused=False)
            return
        carrier, other = way
        mine, theirs = self._join(host, other, self._latency_over(host, carrier, other), carrier)
        for end, dialled in ((theirs, ""), (mine, address)):
            opened = LinkOpened(
                link=end.link,
                peer=end.back.host.id,
                leaf=end.back.host.chain[0],
                remote="",
                dialled=dialled,
                carrier=carrier.id,
            )
            self._post(end.host, opened)

    def _join(self, host: Host, other: Host, latency_s: float, over: Host | None) -> tuple[Lane, Lane]:
        mine = Lane(host, LinkId(next(self._numbers)), latency_s, over)
        theirs = Lane(other, LinkId(next(self._numbers)), latency_s, over)
        mine.back, theirs.back = theirs, mine
        host.lanes[mine.link], other.lanes[theirs.link] = mine, theirs
        return mine, theirs

    def _latency_over(self, host: Host, carrier: Host, other: Host) -> float:
        return self._latency(host, carrier) + self._latency(carrier, other)

    def _fail(
        self, host: Host, wait_s: float, target: NodeId | None, addresses: tuple[str, ...], *, refused: bool
    ) -> None:
        reason = "refused" if refused else "no answer"
        failed = DialFailed(target=target, addresses=addresses, reason=reason, refused=refused)
        self._heap.after(wait_s, self._tell, host, host.life, failed)

    def _tell(self, host: Host, life: int, event: object) -> None:
        if host.life == life:
            self._post(host, event)

    def _latency(self, host: Host, other: Host) -> float:
        return self.terrain.latency_s[host.region][other.region]

    def _delay(self, latency_s: float) -> float:
        jitter = self.terrain.jitter
        return latency_s * (1 - jitter + 2 * jitter * self._dice.random())

    def _dial_losses(self) -> float:
        """Returns what lost segments add to a handshake: a SYN waits longer than the rest."""
        loss, extra_s = self.terrain.loss, 0.0
        if loss:
            for trip in range(HANDSHAKE_TRIPS):
                wait_s = SYN_RTO_S if trip == 0 else RTO_MIN_S
                while self._dice.random() < loss:
                    extra_s += wait_s
                    wait_s *= 2
        return extra_s


def nat_address(number: int) -> str:
    """Returns the public address of a NAT (RFC 2544's block for tests of networks)."""
    return f"198.18.{number // 250}.{number % 250 + 1}"


def address_of(index: int) -> str:
    """Returns the underlay address of a host: those for documentation first (RFC 5737), then any others."""
    number = index + 1
    if number < 255:
        return f"192.0.2.{number}"
    return f"198.{51 + number // 62_500}.{number // 250 % 250}.{number % 250}"
