"""Rekeying: both sides of changed WireGuard keys in one node, wired to what depends on them.

``rotation`` changes this node's own key, ``successors`` follows those of peers. Here their words meet the
machines that have keys: the tunnels, the probes, what this node shows of itself.
"""

from __future__ import annotations

from collections.abc import Callable

from meshpeer.core.deadline import Deadline, Instant, earliest
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import NodeId
from meshpeer.core.node.derived import Derived
from meshpeer.core.node.messages import Applied, LookAtDevice
from meshpeer.core.node.presence import Presence
from meshpeer.core.node.rotation import (
    Around,
    KeyKept,
    KeyTurns,
    Rotation,
    RotationAsked,
    RotationEffect,
    Stage,
)
from meshpeer.core.node.successors import next_keys
from meshpeer.core.node.tunnels import Tunnels
from meshpeer.core.node.underlay import Underlay
from meshpeer.core.paths.relayed_look import Phase
from meshpeer.core.wgconf.model import ObservedDevice, tunnel_works

RekeyingEffect = RotationEffect | LookAtDevice


class Rekeying:
    """Of one node. Sans-IO."""

    def __init__(
        self,
        derived: Derived,
        presence: Presence,
        underlay: Underlay,
        *,
        key: WireGuardPrivateKey,
        next_key: WireGuardPrivateKey | None,
        me: NodeId,
        linked: Callable[[NodeId], bool],
        has_interface: bool,
    ) -> None:
        """``has_interface``: without one nothing changes over, and a next key rests on disk until there is
        one again."""
        self._derived = derived
        self._tunnels: Tunnels = derived.tunnels
        self._presence = presence
        self._underlay = underlay
        self._me = me
        self._linked = linked
        self._has_interface = has_interface
        self.rotation = Rotation(key, next_key if has_interface else None)
        self._show()

    def handle(self, event: RotationAsked | KeyKept, now: Instant) -> list[RekeyingEffect]:
        match event:
            case RotationAsked(key=key):
                if self._has_interface:
                    self.rotation.ask(key, now)
                    self._show()
                return []
            case KeyKept():
                linked = [one for one in self._peers(now) if self._linked(one)]
                return [*self.rotation.on_kept(event, linked, now)]

    def on_message(self, peer: NodeId, message: Applied | KeyTurns, now: Instant) -> list[RekeyingEffect]:
        match message:
            case Applied(receiver_key=key):
                if not self.rotation.on_applied(peer, key):
                    self._tunnels.on_applied(message, now)
                return []
            case KeyTurns():
                self._tunnels.successors.on_turns(peer, message, now)
                return []

    def on_observed(self, device: ObservedDevice | None, now: Instant) -> list[RekeyingEffect]:
        said = self.rotation.on_observed(device.public_key if device else None, now)
        self._show()
        return [*said]

    def follow(self, now: Instant) -> list[RekeyingEffect]:
        """Brings a rotation of this node in step with its peers; asked with every step of the node."""
        if self.rotation.stage is Stage.STEADY or self._presence.is_silent:
            return []
        before = self.rotation.key
        said = self.rotation.update(self._around(now), now)
        if self.rotation.key is not before:
            self._tunnels.rekey(self.rotation.key)
            self._underlay.rekey(self.rotation.key)
        self._show()
        return [*said]

    def tick(self, now: Instant) -> list[RekeyingEffect]:
        return [LookAtDevice()] if self._tunnels.successors.is_due(now) else []

    def links_wanted(self) -> tuple[NodeId, ...]:
        return self.rotation.links_wanted()

    def step_deadline(self) -> Deadline | None:
        """Returns when the node's next step is due on account of a rotation."""
        return self.rotation.next_deadline()

    def next_deadline(self, now: Instant) -> Deadline | None:
        return earliest(self._tunnels.successors.next_deadline(now))

    # --- rules ----------------------------------------------------------------------------------------------

    def _show(self) -> None:
        self._presence.wireguard_key = self.rotation.shown
        self._presence.next_wireguard_key = self.rotation.announced

    def _peers(self, now: Instant) -> list[NodeId]:
        """Returns the members with whom this node has a tunnel that works, in id order."""
        peers = self._tunnels.plan.peers
        works = [
            one.node
            for one in peers
            if tunnel_works(self._tunnels.observed_peer(one.public_key), now.unix_s)
            and one.node not in self._derived.detector.dead
        ]
        return sorted(works)

    def _around(self, now: Instant) -> Around:
        members, following = self._derived.roster.members, self.rotation.next
        others = [one for one in members if one.node != self._me]
        takers = [
            one.name
            for one in others
            if following is not None
            and following.public in (one.record.wireguard_key, one.record.next_wireguard_key)
        ]
        return Around(
            peers=self._peers(now),
            held_up=self._held_up(now),
            taken_by="".join(takers[:1]),
            idle=self._tunnels.observed is None and self._tunnels.looks > 0,
        )

    def _held_up(self, now: Instant) -> str:
        """Says what should be over first: of two that change over at once, whose first handshakes might
        cross, the lower id goes first."""
        if not self._tunnels.looks:
            return "its interface was not looked at yet"
        gone = self._derived.detector.dead
        changing = [one for one in next_keys(self._derived.roster.members, ()) if one not in gone]
        first = min(changing, default=self._me)
        if first < self._me:
            listed = self._derived.roster.get(first)
            return f"{listed.name if listed else 'another member'} is changing its key"
        moving = [
            node
            for node, one in sorted(self._tunnels.relayed.items())
            # A pair that has just left its relay is watched for half a minute, and works meanwhile.
            if one.phase not in (Phase.DIRECT, Phase.RELAYED, Phase.HELD) or one.hop.is_under_way(now)
        ]
        if not moving:
            return ""
        listed = self._derived.roster.get(moving[0])
        return f"the pair with {listed.name if listed else 'a member'} is on its way to another path"
