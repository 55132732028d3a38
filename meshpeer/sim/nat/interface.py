"""A WireGuard interface in virtual time, packet by packet: handshakes and their timers, sessions, keepalives,
roaming.

After the whitepaper (sections 5.4 and 6) and what the implementations do: an end that answers an initiation
forgets its own (so that of two that cross both answers are lost), an initiation is repeated after 5 s and up
to a third more, for 90 s; whoever got an authenticated packet sends to where it came from. Nothing is
enciphered: a packet says whom it is from, and carries the indices that a relay reads.

Left out: cookies, rekeying after many messages, more than one packet that waits for a session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.relay_packets import INITIATION_BYTES, RESPONSE_BYTES, Kind, mac1_key, mac1_of
from meshpeer.core.wgconf.model import DesiredDevice, ObservedDevice, ObservedPeer, RemovePeer, SetPeer
from meshpeer.sim.heap import EventHeap
from meshpeer.sim.nat.routers import End, end_of, text_of

REKEY_TIMEOUT_S, REKEY_JITTER_S = 5.0, 0.333
REKEY_ATTEMPT_S, REKEY_AFTER_S, REJECT_AFTER_S = 90.0, 120.0, 180.0
KEEPALIVE_TIMEOUT_S = 10.0
KEEPALIVE_BYTES = 32
ECHO_BYTES = 96
SESSIONS_MAX = 3
_PADDING = bytes(16)


@dataclass(frozen=True, slots=True, eq=False)
class Packet:
    kind: Kind
    sender: int
    receiver: int
    """Indices; 0 where the kind has none."""
    by: WireGuardKey
    to: WireGuardKey
    content: object = None
    """What goes through the tunnel; None for a keepalive."""

    @property
    def size(self) -> int:
        if self.kind is Kind.INITIATION:
            return INITIATION_BYTES
        if self.kind is Kind.RESPONSE:
            return RESPONSE_BYTES
        return KEEPALIVE_BYTES if self.content is None else ECHO_BYTES

    @property
    def data(self) -> bytes:
        """Returns what a relay reads of it, as bytes."""
        head = bytes((self.kind, 0, 0, 0))
        if self.kind is Kind.INITIATION:
            head += self.sender.to_bytes(4, "little")
        elif self.kind is Kind.RESPONSE:
            head += self.sender.to_bytes(4, "little") + self.receiver.to_bytes(4, "little")
        else:
            return (head + self.receiver.to_bytes(4, "little")).ljust(self.size, b"\0")
        head = head.ljust(self.size - 32, b"\0")
        return head + mac1_of(head, mac1_key(self.to)) + _PADDING


@dataclass(slots=True, eq=False)
class _Session:
    mine: int
    theirs: int
    born_s: float
    began: bool
    """This end sent the initiation."""


@dataclass(slots=True, eq=False)
class Peer:
    """One peer of one interface."""

    key: WireGuardKey
    allowed_ips: tuple[str, ...] = ()
    endpoint: End | None = None
    keepalive_s: int = 0
    handshake_unix_s: int = 0
    rx: int = 0
    tx: int = 0
    sessions: list[_Session] = field(default_factory=list)
    """Those that packets are taken by, the one that is used for sending first."""
    fresh: _Session | None = None
    """One that this end answered, and nothing came by yet."""
    initiated: int = 0
    """The index of this end's own initiation on its way; 0 for none."""
    initiated_s: float = float("-inf")
    repeat_s: float | None = None
    """When an initiation is repeated; None: nobody waits for an answer."""
    first_s: float = 0.0
    traversed_s: float = float("-inf")
    """When an authenticated packet last passed, either way."""
    unanswered_s: float | None = None
    """Since when something is sent and nothing came."""
    owes_s: float | None = None
    """Since when something came and nothing was sent."""
    waiting: object = None
    due_s: float = float("inf")
    heard_s: float = float("-inf")
    heard_from: End | None = None
    _shown: ObservedPeer | None = None

    def shown(self) -> ObservedPeer:
        """Returns the peer as ``wg`` shows it: the same object while it is the same."""
        shown, endpoint = self._shown, text_of(self.endpoint) if self.endpoint else None
        if (
            shown is None
            or shown.rx_bytes != self.rx
            or shown.tx_bytes != self.tx
            or shown.endpoint != endpoint
            or shown.latest_handshake_unix_s != self.handshake_unix_s
            or shown.keepalive_s != self.keepalive_s
            or shown.allowed_ips is not self.allowed_ips
        ):
            shown = self._shown = ObservedPeer(
                public_key=self.key,
                allowed_ips=self.allowed_ips,
                endpoint=endpoint,
                keepalive_s=self.keepalive_s,
                latest_handshake_unix_s=self.handshake_unix_s,
                rx_bytes=self.rx,
                tx_bytes=self.tx,
            )
        return shown


class Interface:
    """One machine's interface. ``send`` puts a packet on the wire, ``arrived`` takes what a tunnel brings,
    ``heard`` is told of every authenticated packet, ``roamed`` where an endpoint changed by itself."""

    def __init__(
        self,
        key: WireGuardKey,
        heap: EventHeap,
        *,
        epoch_s: float,
        draw: Callable[[], float],
        send: Callable[[End, Packet], None],
        arrived: Callable[[Peer, object], None],
        heard: Callable[[Peer, End], None],
        roamed: Callable[[], None],
    ) -> None:
        self.key = key
        self.peers: dict[WireGuardKey, Peer] = {}
        self.routes: dict[str, Peer] = {}
        self.asleep = False
        self._heap = heap
        self._epoch_s = epoch_s
        self._draw = draw
        self._send = send
        self._arrived = arrived
        self._heard = heard
        self._roamed = roamed
        self.changes = 0
        """How often something changed that an agent could want otherwise."""
        self._indices: dict[int, Peer] = {}

    # --- what the agent does --------------------------------------------------------------------------------

    def observe(self, desired: DesiredDevice) -> ObservedDevice:
        """Returns the interface as ``wg`` shows it, with the rest as it is desired."""
        peers = tuple(one.shown() for one in self.peers.values())
        return ObservedDevice(
            interface=desired.interface,
            public_key=desired.public_key,
            listen_port=desired.listen_port,
            mtu=desired.mtu,
            up=True,
            addresses=desired.addresses,
            peers=peers,
            routes=desired.routes,
            route_mtus=desired.route_mtus,
            fwmark=desired.fwmark,
        )

    def apply(self, step: SetPeer | RemovePeer) -> None:
        self.changes += 1
        if isinstance(step, RemovePeer):
            gone = self.peers.pop(step.public_key)
            self._indices = {index: peer for index, peer in self._indices.items() if peer is not gone}
            gone.due_s = float("inf")
        else:
            peer = self.peers.get(step.public_key)
            if peer is None:
                peer = self.peers[step.public_key] = Peer(step.public_key)
            if step.endpoint is not None:
                peer.endpoint = end_of(step.endpoint)
            if step.allowed_ips is not None:
                peer.allowed_ips = step.allowed_ips
            if step.keepalive_s is not None and step.keepalive_s != peer.keepalive_s:
                begins = not peer.keepalive_s
                peer.keepalive_s = step.keepalive_s
                if begins:
                    self._emit(peer, None)
            self._arm(peer)
        self.routes = {address: peer for peer in self.peers.values() for address in peer.allowed_ips}

    def route(self, address: str, content: object) -> bool:
        """Sends something into the tunnel that leads to an address; says whether there is one."""
        peer = self.routes.get(f"{address}/{128 if ':' in address else 32}")
        if peer is None or peer.endpoint is None:
            return False
        self._emit(peer, content)
        self._arm(peer)
        return True

    def keep_alive(self, key: WireGuardKey) -> None:
        """Sends a peer an empty packet now, as each keepalive is."""
        peer = self.peers.get(key)
        if peer is not None and not self.asleep:
            self._emit(peer, None)
            self._arm(peer)

    # --- what comes from the wire ---------------------------------------------------------------------------

    def receive(self, packet: Packet, source: End) -> None:
        if packet.to != self.key or self.asleep:
            return
        match packet.kind:
            case Kind.INITIATION:
                self._on_initiation(packet, source)
            case Kind.RESPONSE:
                self._on_response(packet, source)
            case _:
                self._on_data(packet, source)

    def wake(self) -> None:
        """The machine slept: all timers run now."""
        for peer in list(self.peers.values()):
            peer.due_s = float("inf")
            self._arm(peer)

    def _on_initiation(self, packet: Packet, source: End) -> None:
        peer = self.peers.get(packet.by)
        if peer is None:
            return
        peer.initiated = 0
        if peer.fresh is not None:
            self._indices.pop(peer.fresh.mine, None)
        index = self._index(peer)
        peer.fresh = _Session(index, packet.sender, self._heap.now_s, began=False)
        self._take(peer, packet, source)
        self._put(peer, Packet(Kind.RESPONSE, index, packet.sender, self.key, peer.key))
        self._arm(peer)

    def _on_response(self, packet: Packet, source: End) -> None:
        peer = self.peers.get(packet.by)
        if peer is None or not peer.initiated or packet.receiver != peer.initiated:
            return
        self._use(peer, _Session(peer.initiated, packet.sender, self._heap.now_s, began=True))
        self._take(peer, packet, source)
        waiting, peer.waiting = peer.waiting, None
        self._emit(peer, waiting)
        self._arm(peer)

    def _on_data(self, packet: Packet, source: End) -> None:
        peer = self._indices.get(packet.receiver)
        if peer is None or peer.key != packet.by:
            return
        if peer.fresh is not None and peer.fresh.mine == packet.receiver:
            used, peer.fresh = peer.fresh, None
            self._use(peer, used)
        session = next((one for one in peer.sessions if one.mine == packet.receiver), None)
        now_s = self._heap.now_s
        if session is None or now_s >= session.born_s + REJECT_AFTER_S:
            return
        self._take(peer, packet, source)
        if packet.content is not None and peer.owes_s is None:
            peer.owes_s = now_s
        late_s = REJECT_AFTER_S - KEEPALIVE_TIMEOUT_S - REKEY_TIMEOUT_S
        if session.began and now_s >= session.born_s + late_s:
            self._initiate(peer)
        if peer.waiting is not None:
            waiting, peer.waiting = peer.waiting, None
            self._emit(peer, waiting)
        self._arm(peer)
        if packet.content is not None:
            self._arrived(peer, packet.content)

    def _take(self, peer: Peer, packet: Packet, source: End) -> None:
        peer.rx += packet.size
        if peer.endpoint != source:
            peer.endpoint = source
            self.changes += 1
            self._roamed()
        peer.traversed_s = self._heap.now_s
        peer.unanswered_s = None
        if packet.kind is not Kind.INITIATION:
            peer.heard_s = self._heap.now_s
            self._heard(peer, source)

    def _use(self, peer: Peer, session: _Session) -> None:
        peer.sessions.insert(0, session)
        for old in peer.sessions[SESSIONS_MAX:]:
            self._indices.pop(old.mine, None)
        del peer.sessions[SESSIONS_MAX:]
        self._indices[session.mine] = peer
        peer.initiated, peer.repeat_s = 0, None
        peer.handshake_unix_s = int(self._epoch_s + self._heap.now_s)

    # --- sending --------------------------------------------------------------------------------------------

    def _emit(self, peer: Peer, content: object) -> None:
        """Sends by the session that there is, or begins one."""
        if peer.endpoint is None:
            return
        now_s = self._heap.now_s
        session = peer.sessions[0] if peer.sessions else None
        if session is None or now_s >= session.born_s + REJECT_AFTER_S:
            peer.waiting = content if content is not None else peer.waiting
            self._initiate(peer)
            return
        if content is not None:
            peer.unanswered_s = now_s if peer.unanswered_s is None else peer.unanswered_s
        peer.owes_s = None
        self._put(peer, Packet(Kind.DATA, 0, session.theirs, self.key, peer.key, content))
        if session.began and now_s >= session.born_s + REKEY_AFTER_S:
            self._initiate(peer)

    def _initiate(self, peer: Peer, *, repeats: bool = False) -> None:
        now_s = self._heap.now_s
        if peer.endpoint is None or now_s < peer.initiated_s + REKEY_TIMEOUT_S:
            return
        if not repeats:
            peer.first_s = now_s
        peer.initiated_s = now_s
        if peer.initiated:
            self._indices.pop(peer.initiated, None)
        peer.initiated = self._index(peer)
        peer.repeat_s = now_s + REKEY_TIMEOUT_S + REKEY_JITTER_S * self._draw()
        self._put(peer, Packet(Kind.INITIATION, peer.initiated, 0, self.key, peer.key))

    def _put(self, peer: Peer, packet: Packet) -> None:
        assert peer.endpoint is not None
        peer.tx += packet.size
        peer.traversed_s = self._heap.now_s
        self._send(peer.endpoint, packet)

    def _index(self, peer: Peer) -> int:
        index = 1 + int(self._draw() * 0xFFFF_FFFE)
        self._indices[index] = peer
        return index

    # --- timers ---------------------------------------------------------------------------------------------

    def _arm(self, peer: Peer) -> None:
        """Makes sure that the peer is looked at when its next timer ends. One that was put off is looked at
        in vain, and then again."""
        at_s = self._next_s(peer)
        if at_s < peer.due_s:
            peer.due_s = at_s
            self._heap.at(at_s, self._due, peer, at_s)

    def _next_s(self, peer: Peer) -> float:
        at_s = float("inf")
        if peer.keepalive_s and peer.endpoint is not None:
            at_s = max(peer.traversed_s, 0.0) + peer.keepalive_s
        if peer.repeat_s is not None:
            at_s = min(at_s, peer.repeat_s)
        if peer.unanswered_s is not None:
            at_s = min(at_s, peer.unanswered_s + KEEPALIVE_TIMEOUT_S + REKEY_TIMEOUT_S)
        if peer.owes_s is not None:
            at_s = min(at_s, peer.owes_s + KEEPALIVE_TIMEOUT_S)
        return max(at_s, self._heap.now_s)

    def _due(self, peer: Peer, at_s: float) -> None:
        if self.peers.get(peer.key) is not peer or peer.due_s != at_s or self.asleep:
            return
        peer.due_s = float("inf")
        now_s = self._heap.now_s
        if peer.repeat_s is not None and now_s >= peer.repeat_s:
            peer.repeat_s = None
            if now_s < peer.first_s + REKEY_ATTEMPT_S:
                self._initiate(peer, repeats=True)
            else:
                peer.waiting = None
        if peer.unanswered_s is not None and now_s >= peer.unanswered_s + (
            KEEPALIVE_TIMEOUT_S + REKEY_TIMEOUT_S
        ):
            peer.unanswered_s = None
            self._initiate(peer)
        if peer.owes_s is not None and now_s >= peer.owes_s + KEEPALIVE_TIMEOUT_S:
            peer.owes_s = None
            self._emit(peer, None)
        if peer.keepalive_s and now_s >= peer.traversed_s + peer.keepalive_s:
            self._emit(peer, None)
            # Where there was nothing to send to, or an initiation went a moment ago.
            peer.traversed_s = max(peer.traversed_s, now_s)
        self._arm(peer)
