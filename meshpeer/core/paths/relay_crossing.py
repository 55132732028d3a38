"""Decides, for one pair's two ports of a relay, which packets cross, and where each end is.

A relay has no keys, so it can't tell who sent a packet. What it can tell: a handshake message was made for
the other end (its mac1), a response answers an initiation that crossed here, a packet names an index that
the other end chose in a handshake that crossed here. From these:

- An end that is nowhere yet is *taken* to be where an initiation with a right mac1 comes from. Anybody who
  knows the other end's public key can make one, so this is a guess, which the next such initiation replaces,
  and which lets nothing but handshakes cross.
- It is *proved* to be where an initiation came from once the other end, from where that is, has answered
  exactly that one: WireGuard answers neither strangers nor replays (whitepaper, 5.1). The answer proves the
  answering end, too.
- A proved end moves (roams) by a packet of type 3 or 4 whose receiver index the other end chose in an
  answered handshake: whoever began one sends data as soon as it is answered (5.4.3). Indices are 32 random
  bits. The answer alone moves nobody: an initiation that was lost is new to its receiver when a stranger
  brings it.
- It is proved to be where a binding came from that is sealed with the secret that the relay gave it
  (``relay_binding``), and newer than the last: so a relay knows both ends of a session that it never saw
  begin.
- Nothing else moves it. Whatever crosses is one packet out for one in, of the same length.

So no handshake moves an end that is somewhere already, be it replayed, or made by somebody who knows the
keys. Who reads the path, and the indices there, can divert an end's packets until its own next one.

Sans-IO: a packet and where it came from go in, where it goes comes out.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.relay_binding import (
    NO_BINDS,
    Binding,
    BindingKind,
    Binds,
    read_binding,
    write_binding,
)
from meshpeer.core.paths.relay_bucket import Bucket
from meshpeer.core.paths.relay_packets import Kind, Packet, has_mac1, mac1_key, parse_packet

INDICES_MAX = 4
"""Indices remembered of an end: WireGuard holds a previous, a current and a next session."""
END_KEYS_MAX = 2
UNANSWERED_MAX = 16
"""Initiations remembered of an end that were not answered yet."""
STRANGE_HANDSHAKES_BURST, STRANGE_HANDSHAKES_PER_S = 8, 4.0
"""Handshakes from where an end is not known to be: fewer at once than are remembered, so that strangers
don't push out the end's own. WireGuard itself sends one in 5 s."""
STRANGE_PACKETS_BURST, STRANGE_PACKETS_PER_S = 1_000, 1_000.0
"""Other packets from there that are looked at: to guess one of four indices takes days, and they live for
minutes."""


class Way(NamedTuple):
    """How an end is reached: its address, and this machine's address and device that its packets came to."""

    host: str
    port: int
    local: str = ""
    device: int = 0
    """The interface's number."""

    def is_from(self, other: Way) -> bool:
        """Says whether the other one is the same sender."""
        return self.port == other.port and self.host == other.host


class Drop(enum.StrEnum):
    """Why a packet does not cross."""

    MALFORMED = "malformed"
    """WireGuard sends nothing of this type and length."""
    MAC = "mac"
    """A handshake that was not made for the other end, or a binding of somebody else."""
    INDEX = "index"
    """It names an index that the other end did not choose here, from where the end is not known to be."""
    FLOOD = "flood"
    """Too many from where the end is not known to be."""
    NOWHERE = "nowhere"
    """The other end has not been heard of yet."""
    FROZEN = "frozen"
    REPLAY = "replay"
    """A binding that is not newer than the last."""
    RATE = "rate"
    """The pair, or all pairs, carried as many bytes as they may."""


@dataclass(slots=True)
class End:
    """What is known of one end."""

    mac_keys: tuple[bytes, ...]
    """Of handshakes that are made for this end: for the key that it has, and one that it changes to."""
    way: Way | None = None
    proved: bool = False
    indices: tuple[int, ...] = ()
    """Those that it chose in answered handshakes, newest last."""
    unanswered: dict[int, Way] = field(default_factory=dict)
    """Its initiations by index, and where each came from, newest last."""
    secret: bytes = b""
    """What its bindings are sealed with; empty where it has none."""
    stamp: int = 0
    """Of its last binding."""
    packets: int = 0
    """Those of this end that crossed."""
    bytes: int = 0
    handshakes: Bucket = field(
        default_factory=lambda: Bucket(STRANGE_HANDSHAKES_PER_S, STRANGE_HANDSHAKES_BURST)
    )
    others: Bucket = field(default_factory=lambda: Bucket(STRANGE_PACKETS_PER_S, STRANGE_PACKETS_BURST))

    def is_at(self, way: Way) -> bool:
        return self.proved and self.way is not None and self.way.is_from(way)

    def remember(self, index: int) -> None:
        self.indices = (*(one for one in self.indices if one != index), index)[-INDICES_MAX:]


class Crossing:
    """The two ends of one pair, 0 and 1. ``rate``: of this pair; ``total``: of all pairs of the relay;
    ``binds``: the secrets of the ends."""

    def __init__(
        self,
        keys: tuple[WireGuardKey, WireGuardKey],
        rate: Bucket,
        total: Bucket,
        binds: Binds = NO_BINDS,
    ) -> None:
        self.ends = (End((mac1_key(keys[0]),), secret=binds[0]), End((mac1_key(keys[1]),), secret=binds[1]))
        self.drops: dict[Drop, int] = {}
        self.revision = 0
        """Raised when the way to an end changes, and with a freeze."""
        self._rate, self._total = rate, total
        self._frozen_at_s: float | None = None

    def rekey(self, keys: tuple[Sequence[WireGuardKey], Sequence[WireGuardKey]]) -> None:
        """Sets the keys that handshakes may be made for, of each end. Where the ends are does not change."""
        for end, own in zip(self.ends, keys, strict=True):
            end.mac_keys = tuple(map(mac1_key, own[:END_KEYS_MAX]))

    @property
    def proved(self) -> bool:
        """Whether both ends are where they are known to be."""
        return self.ends[0].proved and self.ends[1].proved

    def freeze(self, at_s: float) -> None:
        """Lets nothing cross from an instant on (CLOCK_BOOTTIME seconds)."""
        self._frozen_at_s = at_s
        self.revision += 1

    def wake(self) -> None:
        self._frozen_at_s = None
        self.revision += 1

    def is_frozen(self, now_s: float) -> bool:
        return self._frozen_at_s is not None and now_s >= self._frozen_at_s

    @property
    def freezes(self) -> bool:
        """Whether it is frozen, or will be."""
        return self._frozen_at_s is not None

    def carry(self, side: int, way: Way, data: bytes, now_s: float) -> Way | None:
        """Returns where a packet goes that came to the port of end ``side``; None where it goes nowhere."""
        packet = parse_packet(data)
        target: Way | Drop = Drop.MALFORMED
        if packet is not None:
            frozen = self.is_frozen(now_s)
            target = Drop.FROZEN if frozen else self._target(side, way, packet, data, now_s)
        if isinstance(target, Drop):
            self._drop(target)
            return None
        return target if self.spend(side, (len(data),), now_s) else None

    def bind(self, side: int, way: Way, data: bytes, now_s: float) -> bytes | None:
        """Takes what came to the port of end ``side`` and is a binding (``is_binding``); returns the answer,
        to where it came from, or None for what proves nothing. A check is answered, and moves nobody."""
        end = self.ends[side]
        if self.is_frozen(now_s):
            self._drop(Drop.FROZEN)
            return None
        if not end.is_at(way) and not end.others.take(1.0, now_s):
            self._drop(Drop.FLOOD)
            return None
        binding = read_binding(data, end.secret)
        if binding is None or binding.kind is BindingKind.ANSWER:
            self._drop(Drop.MAC)
            return None
        if binding.stamp <= end.stamp:
            self._drop(Drop.REPLAY)
            return None
        end.stamp = binding.stamp
        if binding.kind is BindingKind.QUESTION:
            self._settle(end, way, proved=True)
        return write_binding(Binding(BindingKind.ANSWER, binding.stamp), end.secret)

    def spend(self, side: int, sizes: Sequence[int], now_s: float) -> int:
        """Counts packets of an end; returns how many of them, from the first on, the quotas let cross."""
        count, size = len(sizes), sum(sizes)
        while not self._rate.holds(size, now_s) or not self._total.holds(size, now_s):
            count -= 1
            size -= sizes[count]
        self._rate.take(size, now_s)
        self._total.take(size, now_s)
        if count < len(sizes):
            self._drop(Drop.RATE, len(sizes) - count)
        self.ends[side].packets += count
        self.ends[side].bytes += size
        return count

    def _target(self, side: int, way: Way, packet: Packet, data: bytes, now_s: float) -> Way | Drop:
        end, other = self.ends[side], self.ends[1 - side]
        known = end.is_at(way)
        if not known:
            handshake = packet.kind in (Kind.INITIATION, Kind.RESPONSE)
            if not (end.handshakes if handshake else end.others).take(1.0, now_s):
                return Drop.FLOOD
        match packet.kind:
            case Kind.INITIATION:
                if not any(has_mac1(data, key) for key in other.mac_keys):
                    return Drop.MAC
                # Each has an index of its own: who brings one again does not get its answer.
                end.unanswered.setdefault(packet.sender, way)
                if len(end.unanswered) > UNANSWERED_MAX:
                    del end.unanswered[next(iter(end.unanswered))]
                if known or not end.proved:
                    self._settle(end, way, proved=known)
                return other.way or Drop.NOWHERE
            case Kind.RESPONSE:
                if not any(has_mac1(data, key) for key in other.mac_keys):
                    return Drop.MAC
                # It was sent to where this end is, and is answered from there.
                if packet.receiver not in other.unanswered or end.way is None or not end.way.is_from(way):
                    return Drop.INDEX
                asked = other.unanswered.pop(packet.receiver)
                if not other.proved:
                    self._settle(other, asked, proved=True)
                self._settle(end, way, proved=True)
                other.remember(packet.receiver)
                end.remember(packet.sender)
                return asked
            case Kind.COOKIE if known and packet.receiver in other.unanswered:
                return other.unanswered[packet.receiver]
            case Kind.COOKIE | Kind.DATA:
                if not known and packet.receiver not in other.indices:
                    return Drop.INDEX
                self._settle(end, way, proved=True)
                return other.way or Drop.NOWHERE

    def _settle(self, end: End, way: Way, *, proved: bool) -> None:
        if end.way != way or end.proved != proved:
            end.way, end.proved = way, proved
            self.revision += 1

    def _drop(self, reason: Drop, packets: int = 1) -> None:
        self.drops[reason] = self.drops.get(reason, 0) + packets
