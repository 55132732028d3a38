"""What relays hear of pairs at rest (``rest``), and answer, without a step of all else.

It goes by the links and through the desks as any word does, and is as late; only what is not usual is handed
to a mind as an event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshpeer.core.effects import Send
from meshpeer.core.ids import NodeId
from meshpeer.core.paths.relay_messages import RelayGranted, RelayRenewed
from meshpeer.sim.nat.hosts import Host
from meshpeer.sim.nat.mind import Told
from meshpeer.sim.nat.rest import RENEW_S

if TYPE_CHECKING:
    from meshpeer.sim.nat.world import MixWorld


class Renewals:
    """Of one world."""

    def __init__(self, world: MixWorld) -> None:
        self._world = world

    def begin(self, host: Host) -> None:
        """A host was started; its relays hear of it at times of its own."""
        self._world.heap.after(RENEW_S * self._world.dice.random(), self._renew, host, host.life)

    def stir(self, host: Host) -> bool:
        """Ends the rest of a host, and tells its relays; says whether it is awake."""
        if host.mind is None or host.machine.asleep:
            return False
        self._tell(host, host.mind.stir(self._world.now))
        self._world.arm(host)
        return True

    def _renew(self, host: Host, life: int) -> None:
        if host.life != life or host.mind is None:
            return
        if not host.machine.asleep:
            self._tell(host, host.mind.renewals(self._world.now))
            self._world.arm(host)
        self._world.heap.after(RENEW_S, self._renew, host, life)

    def _tell(self, host: Host, said: list[tuple[NodeId, RelayRenewed]]) -> None:
        for relay, message in said:
            if host.mind is not None and relay in host.mind.links.up:
                other = self._world.by_id[relay]
                delay_s = self._world.delay_s(host.machine, other.machine)
                self._world.heap.after(delay_s, self._hear_renewed, host, other, other.life, message)

    def _hear_renewed(self, host: Host, relay: Host, life: int, message: RelayRenewed) -> None:
        """A relay hears what it hears all the time: nothing follows but its answer."""
        if relay.mind is None or not self._world.is_heard(host, relay, life) or relay.machine.asleep:
            return
        for effect in relay.mind.relays.on_message(host.id, message, self._world.now):
            if isinstance(effect, Send) and effect.peer == host.id and host.id in relay.mind.links.up:
                delay_s = self._world.delay_s(relay.machine, host.machine)
                self._world.heap.after(delay_s, self._hear_granted, relay, host, host.life, effect.message)
            else:
                self._world.perform(relay, effect)

    def _hear_granted(self, relay: Host, host: Host, life: int, message: msgspec.Struct) -> None:
        if host.mind is None or not self._world.is_heard(relay, host, life) or host.machine.asleep:
            return
        if host.mind.is_told_nothing(relay.id, message) and isinstance(message, RelayGranted):
            host.mind.relays.on_message(relay.id, message, self._world.now)
        else:
            self._world.post(host, Told(relay.id, message))
