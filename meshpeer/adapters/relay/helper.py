"""The relay's helper: a process that opens ports, and lets packets cross as core decides.

Run as ``python -m meshpeer.adapters.relay.helper SOCKET RATE TOTAL`` (bytes per second of a pair, and of
all), with a socket to the agent as that descriptor. It ends with the agent's end of the socket. Started as
root it becomes nobody, where it may, before it reads a packet. ``core.paths.relay_crossing`` decides where
each packet goes; only data packets from where an end is known to be, with the verdict for that source in
hand, take the short way.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from dataclasses import dataclass, field

from meshpeer.adapters.relay import orders
from meshpeer.adapters.relay.addresses import Family, choose_family
from meshpeer.adapters.relay.mmsg import Batch, Target, split_source
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.relay_binding import Binds, is_binding
from meshpeer.core.paths.relay_bucket import Bucket
from meshpeer.core.paths.relay_crossing import Crossing, Way
from meshpeer.core.paths.relay_packets import DATA_BYTES_MIN

NOBODY = 65_534
BURST_S, BURST_BYTES_MIN = 0.1, 16_384.0
"""How much of a second's bytes may come at once, and at the least."""
_DATA = b"\x04\0\0\0"


@dataclass(slots=True)
class _Port:
    """One end's port."""

    socket: socket.socket
    side: int
    known: bytearray = field(default_factory=bytearray)
    """The source from which data packets may take the short way; empty for none."""
    target: Target = (b"", b"")
    """Where they go."""


@dataclass(slots=True)
class _Pair:
    ports: tuple[int, int]
    crossing: Crossing
    ends: tuple[_Port, _Port]
    revision: int = 0
    told: tuple[Way, Way] | None = None


class Helper:
    """All pairs of one relay, and its socket to the agent."""

    def __init__(self, agent: socket.socket, family: Family, rate: float, total: float) -> None:
        self._agent = agent
        self._family = family
        self._rate, self._total = rate, Bucket(total, max(total * BURST_S, BURST_BYTES_MIN))
        self._pairs: dict[tuple[int, int], _Pair] = {}
        self._by_descriptor: dict[int, tuple[_Pair, int]] = {}
        self._batch = Batch()
        self._poll = select.epoll()
        self._poll.register(agent.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Serves until the agent hangs up."""
        self._say(orders.Ready())
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._agent.fileno():
                    data = self._agent.recv(orders.MESSAGE_BYTES_MAX)
                    if not data:
                        return
                    self._obey(orders.ORDERS.decode(data))
                elif descriptor in self._by_descriptor:
                    self._carry(*self._by_descriptor[descriptor])

    # --- packets --------------------------------------------------------------------------------------------

    def _carry(self, pair: _Pair, side: int) -> None:
        """Takes one batch from a port: others have their turn before the next."""
        end, out = pair.ends[side], pair.ends[1 - side].socket.fileno()
        batch, crossing = self._batch, pair.crossing
        try:
            sizes = batch.receive(end.socket.fileno())
        except OSError:
            return
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        short: list[int] = []
        for slot, size in enumerate(sizes):
            if (
                end.known
                and size >= DATA_BYTES_MIN
                and batch.source(slot) == end.known
                and batch.starts_with(slot, _DATA)
            ):
                short.append(slot)
                continue
            self._send(pair, side, out, short, sizes, now_s)
            short = []
            source = batch.source(slot)
            way = self._family.read(*split_source(source))
            if way is None:
                continue
            # One that was cut off has no length that WireGuard sends.
            packet = batch.packet(slot, max(size, 0))
            if is_binding(packet):
                answer = crossing.bind(side, way, packet, now_s)
                if answer is not None:
                    batch.write(slot, answer)
                    batch.send(end.socket.fileno(), [slot], sizes, self._family.write(way))
            elif (target := crossing.carry(side, way, packet, now_s)) is not None:
                batch.send(out, [slot], sizes, self._family.write(target))
            self._look_again(pair)
            if not end.known and crossing.proved and not crossing.freezes and crossing.ends[side].is_at(way):
                end.known, end.target = source, self._target(crossing.ends[1 - side].way)
        self._send(pair, side, out, short, sizes, now_s)

    def _send(
        self, pair: _Pair, side: int, out: int, slots: list[int], sizes: list[int], now_s: float
    ) -> None:
        if slots:
            count = pair.crossing.spend(side, [sizes[slot] for slot in slots], now_s)
            self._batch.send(out, slots[:count], sizes, pair.ends[side].target)

    def _look_again(self, pair: _Pair) -> None:
        """Forgets short ways that may not hold any more, and tells the agent."""
        if pair.revision == pair.crossing.revision:
            return
        pair.revision = pair.crossing.revision
        for end in pair.ends:
            end.known = bytearray()
        first, second = (end.way for end in pair.crossing.ends)
        settled = pair.crossing.proved and not pair.crossing.freezes
        ways = (first, second) if settled and first is not None and second is not None else None
        if ways != pair.told:
            pair.told = ways
            self._say(orders.Settled(ports=pair.ports, ways=ways))

    def _target(self, way: Way | None) -> Target:
        return self._family.write(way) if way is not None else (b"", b"")

    # --- orders ---------------------------------------------------------------------------------------------

    def _obey(self, order: orders.Order) -> None:
        error = ""
        counted: tuple[orders.Counted, ...] = ()
        match order:
            case orders.Open(ports=ports, keys=keys, binds=binds):
                error = self._open(ports, keys, binds)
            case orders.Rekey(ports=ports, keys=(first, second)) if ports in self._pairs:
                later = [WireGuardKey(one) for one in first], [WireGuardKey(one) for one in second]
                self._pairs[ports].crossing.rekey(later)
            case orders.Close(ports=ports):
                self._close(ports)
            case orders.Freeze(ports=ports, at_s=at_s) if ports in self._pairs:
                self._pairs[ports].crossing.freeze(at_s)
                self._look_again(self._pairs[ports])
            case orders.Wake(ports=ports) if ports in self._pairs:
                self._pairs[ports].crossing.wake()
                self._look_again(self._pairs[ports])
            case orders.Look():
                counted = self._counted()
            case _:
                error = "no such ports are open"
        self._say(orders.Done(number=order.number, error=error, counted=counted))

    def _open(self, ports: tuple[int, int], keys: tuple[bytes, bytes], binds: Binds) -> str:
        if ports in self._pairs or len(self._pairs) >= orders.PAIRS_MAX:
            return "they are open already" if ports in self._pairs else "too many pairs"
        with contextlib.ExitStack() as undo:
            opened: list[socket.socket] = []
            for port in ports:
                try:
                    one = undo.enter_context(self._family.open(port))
                except OSError as error:
                    return f"UDP port {port}: {error.strerror}"
                opened.append(one)
            undo.pop_all()
        rate = Bucket(self._rate, max(self._rate * BURST_S, BURST_BYTES_MIN))
        crossing = Crossing((WireGuardKey(keys[0]), WireGuardKey(keys[1])), rate, self._total, binds)
        pair = _Pair(ports, crossing, (_Port(opened[0], 0), _Port(opened[1], 1)))
        self._pairs[ports] = pair
        for side, one in enumerate(opened):
            self._by_descriptor[one.fileno()] = (pair, side)
            self._poll.register(one.fileno(), select.EPOLLIN)
        return ""

    def _close(self, ports: tuple[int, int]) -> None:
        pair = self._pairs.pop(ports, None)
        for end in pair.ends if pair else ():
            del self._by_descriptor[end.socket.fileno()]
            self._poll.unregister(end.socket.fileno())
            end.socket.close()

    def _counted(self) -> tuple[orders.Counted, ...]:
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        return tuple(_count(pair, now_s) for pair in self._pairs.values())

    def _say(self, word: orders.Word) -> None:
        # An agent that is gone hangs up: the next read says so.
        with contextlib.suppress(BrokenPipeError):
            self._agent.send(orders.ENCODER.encode(word))


def _count(pair: _Pair, now_s: float) -> orders.Counted:
    first, second = pair.crossing.ends
    return orders.Counted(
        ports=pair.ports,
        packets=(first.packets, second.packets),
        bytes=(first.bytes, second.bytes),
        drops={reason.value: count for reason, count in pair.crossing.drops.items()},
        ways=(first.way, second.way),
        frozen=pair.crossing.is_frozen(now_s),
    )


def main() -> None:
    descriptor, rate, total = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    agent = socket.socket(fileno=descriptor)
    agent.setblocking(True)
    if os.geteuid() == 0:
        # A sandbox that takes root the right to become somebody else has taken it more than that.
        with contextlib.suppress(PermissionError):
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
    os.chdir("/")
    Helper(agent, choose_family(), rate, total).run()


if __name__ == "__main__":
    main()
