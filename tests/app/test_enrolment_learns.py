"""A joiner learns all that a member holds, however large the mesh is, and knows when it has."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from meshpeer.app import enrolment
from meshpeer.app.config import Settings
from meshpeer.core.antientropy.messages import Facts
from meshpeer.core.counters import Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.identity.invites import Invite
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.messages import PROTOCOL_VERSIONS, Hello
from meshpeer.core.node.codec import CODEC
from meshpeer.core.node.gossip import Gossip
from meshpeer.core.records.ledger import Ledger
from meshpeer.sim import warm
from meshpeer.sim.host import Host
from meshpeer.sim.world import World

JOINER = NodeId(b"j" * 32)


@pytest.mark.parametrize("members", [1, 2, 14, 15, 16, 17, 18, 40, 400])
def test_joiner_learns_all_of_a_mesh_of_any_size(members: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(members)
    world.wireguard_port = 0
    founder = warm.grow(world, members, subnet="10.0.0.0/16")[0]
    link = Member(world, founder)
    monkeypatch.setattr(enrolment, "SystemClock", lambda: link)

    async def learn() -> Ledger:
        with trio.fail_after(5):
            contact = await enrolment._learn(link.invite(), link, (b"",), Settings())
        return contact.ledger

    ledger = trio.run(learn, clock=trio.testing.MockClock(autojump_threshold=0.1))
    assert len(ledger) == members
    assert ledger.fingerprint == link.ledger.fingerprint


# --- helpers ------------------------------------------------------------------------------------------------


class Member:
    """The other end of a joiner's link: a member's own gossip, without a wire."""

    def __init__(self, world: World, host: Host) -> None:
        assert host.node is not None
        self.peer = host.id
        self.dialled = self.remote = "192.0.2.1:51821"
        self.local = ""
        self.shown = b""
        self.leaf = host.chain[0]
        self.ledger = host.node.ledger
        self._world, self._host = world, host
        self._gossip = Gossip(
            self.ledger, linked=lambda: [JOINER], jitter=random.Random(1), counters=Counters()
        )
        self._inbox: list[bytes] = []

    def now(self) -> Instant:
        return self._world.instant(self._host)

    def invite(self) -> Invite:
        return Invite(
            authority=self._world.make_invite(),
            issuer=self._world.issuer.certificate,
            roots=(self._world.root.certificate,),
            seeds=(self.dialled,),
        )

    def send_soon(self, frame: bytes) -> bool:
        message, now = CODEC.decode(frame), self._world.instant(self._host)
        if isinstance(message, Hello):
            answer = Hello(
                versions=PROTOCOL_VERSIONS,
                mesh=self._world.mesh,
                chain=self._host.chain,
                clock_ms=0,
                observed="192.0.2.9:1",
                control_port=1,
            )
            self._inbox.append(CODEC.encode(answer))
            return True
        assert message is not None
        if isinstance(message, Facts):
            outcome = self._gossip.on_facts(JOINER, message, now)
        else:
            outcome = self._gossip.on_message(JOINER, message, now)
        self._inbox += [CODEC.encode(one) for _, one in outcome.sends]
        return True

    async def receive(self) -> bytes:
        if not self._inbox:
            await trio.sleep_forever()
        return self._inbox.pop(0)
