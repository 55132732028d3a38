"""A member in good standing that runs a program of its own, to be shut out or to be ignored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from meshpeer.core.antientropy.messages import Facts
from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import Tick
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import Digest, LinkId, WireGuardKey
from meshpeer.core.membership.messages import (
    PROTOCOL_VERSIONS,
    Dial,
    DialFailed,
    Hello,
    LinkClosed,
    LinkOpened,
)
from meshpeer.core.node.codec import CODEC
from meshpeer.core.node.messages import FrameReceived, SendFrame
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import MemberRecord
from meshpeer.core.records.ledger import Ledger
from meshpeer.sim.host import Host

if TYPE_CHECKING:
    from meshpeer.sim.world import World

REDIAL_S = 1.0
VICTIMS = 8
"""Hosts that it keeps links to."""
BIG_FRAME_BYTES = 10_000_000
FAR_INCARNATION = 2**62
_BIG = b"\0" + bytes(BIG_FRAME_BYTES)


class Rogue:
    """Dials some members, greets them as one should, and says ``kind`` of rubbish so often a second."""

    def __init__(
        self,
        world: World,
        host: Host,
        known: Ledger,
        victims: Sequence[Host],
        *,
        kind: str,
        per_s: float,
        uses: int = 1,
    ) -> None:
        """``known`` is what it had learned while it was honest."""
        self.kind = kind
        self.sent = 0
        self._world = world
        self._host = host
        self._invite = world.make_invite(uses=uses)
        self._victims = {victim.address: victim for victim in victims[:VICTIMS]}
        self._pause_s = 1.0 / per_s
        self._next_s = world.now_s
        self._redial_s = dict.fromkeys(self._victims, world.now_s)
        self._dialling: set[str] = set()
        self._links: dict[LinkId, str] = {}
        self._heard: list[bytes] = [member.envelope for member in known if member.record]
        member = known.get(host.id)
        self._own = member.record if member else None

    # --- the two doors --------------------------------------------------------------------------------------

    def handle(self, event: object, now: Instant) -> list[object]:
        match event:
            case Tick():
                return [*self._dial(now.mono_s), *self._speak(now)]
            case LinkOpened(link=link, dialled=dialled):
                self._dialling.discard(dialled)
                self._links[link] = dialled
                return [SendFrame(link=link, frame=CODEC.encode(self._hello(now)))]
            case LinkClosed(link=link):
                self._again(self._links.pop(link, ""), now)
            case DialFailed(addresses=addresses):
                for address in addresses:
                    self._again(address, now)
            case FrameReceived(frame=frame) if self.kind == "replay":
                message = CODEC.decode(frame)
                if isinstance(message, Facts):
                    self._heard += message.records
        return []

    def next_deadline(self) -> Deadline | None:
        dials = [at for address, at in self._redial_s.items() if address not in self._dialling]
        return Deadline(min([self._next_s, *dials]), "lie")

    # --- links ----------------------------------------------------------------------------------------------

    def _dial(self, now_s: float) -> list[object]:
        linked = set(self._links.values())
        effects: list[object] = []
        for address, at in self._redial_s.items():
            if at <= now_s and address not in self._dialling:
                if address in linked:
                    self._redial_s[address] = now_s + REDIAL_S
                    continue
                self._dialling.add(address)
                effects.append(Dial(target=self._victims[address].id, addresses=(address,)))
        return effects

    def _again(self, address: str, now: Instant) -> None:
        self._dialling.discard(address)
        if address in self._redial_s:
            self._redial_s[address] = now.mono_s + REDIAL_S

    def _hello(self, now: Instant) -> Hello:
        return Hello(
            versions=PROTOCOL_VERSIONS,
            mesh=self._world.mesh,
            chain=self._host.chain,
            clock_ms=int(now.unix_s * 1_000),
            observed="",
            control_port=0,
        )

    # --- what it says ---------------------------------------------------------------------------------------

    def _speak(self, now: Instant) -> list[object]:
        if now.mono_s < self._next_s:
            return []
        self._next_s = now.mono_s + self._pause_s
        effects: list[object] = []
        for link in self._links:
            frame = self._frame(now)
            if frame:
                self.sent += 1
                effects.append(SendFrame(link=link, frame=frame))
        return effects

    def _frame(self, now: Instant) -> bytes:
        own, unix_s = self._own, int(now.unix_s)
        match self.kind:
            case "big-frames":
                return _BIG
            case "slow":
                return CODEC.encode(Facts(records=tuple(self._heard[:20])))
            case "replay":
                start = self.sent % max(1, len(self._heard))
                return CODEC.encode(Facts(records=tuple(self._heard[start : start + 20])))
            case "identities":
                return self._identity(unix_s)
            case "forged":
                return self._forged()
        if own is None:
            return b""
        if self.kind == "counters":
            said = msgspec.structs.replace(own, incarnation=FAR_INCARNATION + self.sent, issued_at=unix_s)
        else:
            name = f"twin-{self.sent % 7}"
            said = msgspec.structs.replace(own, sequence=own.sequence + 1, issued_at=unix_s, name=name)
        return self._facts(said)

    def _forged(self) -> bytes:
        """Says something newer in another member's name."""
        data = self._heard[self.sent % len(self._heard)] if self._heard else b""
        record = self._world.judge.open(data) if data else None
        if not isinstance(record, MemberRecord):
            return b""
        return self._facts(msgspec.structs.replace(record, incarnation=record.incarnation + 1, name="mine"))

    def _identity(self, unix_s: int) -> bytes:
        """Admits one more key of its own with an invite that it was given, and speaks for it."""
        key = SigningKey(self._world.entropy(32))
        chain = self._world.office.provisional(key, self._invite, now_unix_s=unix_s)
        if self._own is None:
            return b""
        said = msgspec.structs.replace(
            self._own,
            node=key.public,
            incarnation=unix_s,
            sequence=1,
            issued_at=unix_s,
            name=f"fresh-{self.sent}",
            ipv4="",
            wireguard_key=WireGuardKey(key.public),
            certificate=Digest(envelope.digest_of(chain[0])),
        )
        record = envelope.sign(key, self._world.mesh, said)
        return CODEC.encode(Facts(chains=(chain,), records=(record,), push=True))

    def _facts(self, body: MemberRecord) -> bytes:
        return CODEC.encode(Facts(records=(envelope.sign(self._host.key, self._world.mesh, body),)))
