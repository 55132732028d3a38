"""What an agent keeps an eye on beside the mesh itself: this machine's network, its hosts file, the local
network's announcements."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import trio
from trio import TaskStatus

from meshpeer.adapters.discovery import open_discovery
from meshpeer.adapters.hosts import HostsFile, render_block
from meshpeer.adapters.network import NetworkChanges, observe_network
from meshpeer.adapters.web.access import Access
from meshpeer.app.figures import figures_of
from meshpeer.app.relay import clear_relay
from meshpeer.app.views import count_members
from meshpeer.app.webhooks import callback_hosts
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import key_text
from meshpeer.core.node.messages import EndpointsChanged, SeedFound
from meshpeer.core.wgconf.forwarding import NOTHING
from meshpeer.runtime.ports import Discovery

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

HOSTS_PAUSE_S = 0.2
"""Changes that come together are written together."""
BEAT_S = 15.0
"""How often a service manager hears how the node is, where it does not ask for more."""


class Chores:
    """Tasks of one agent; each runs until cancelled."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._endpoints = EndpointsChanged(control=(), wireguard=())
        self._endpoints_changed = trio.Event()
        self.access = Access(os.urandom, time.monotonic)
        self.pages_port = 0
        """Where this machine's pages are, once they are; 0 where there are none."""
        self.pages_fault: EnvironmentFault | None = None
        """Why there are no pages although a port for them is set."""

    async def watch_network(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Has started once it has looked; the kernel's news is on from before that."""
        changes = NetworkChanges()
        try:
            await self.look_at_network()
            task_status.started()
            while True:
                await changes.wait()
                await self.look_at_network()
        finally:
            changes.close()

    async def look_at_network(self) -> None:
        network = await observe_network(self._agent.settings.file.wireguard.interface)
        interface = self._agent.settings.file.wireguard.interface
        routed = tuple(
            one.prefix for one in network.routes if one.device == interface and not one.prefix.endswith("/0")
        )
        self._agent.node.tunnels.attached(network.attached, routed)
        hosts = [f"[{one}]" if ":" in one else one for one in network.addresses]
        control = [f"{host}:{self._agent.transport.port}" for host in hosts]
        wireguard = [f"{host}:{self._agent.node.config.wireguard_port}" for host in hosts]
        endpoint = self._agent.state.node.endpoint
        if endpoint:
            control.insert(0, f"{endpoint.rpartition(':')[0]}:{self._agent.transport.port}")
            wireguard.insert(0, endpoint)
        changed = EndpointsChanged(
            control=tuple(control[:8]),
            wireguard=tuple(wireguard[:8]),
            routes=tuple(one for one in network.routes if one.device != interface),
        )
        if network.held is not None:
            self._agent.keeper.keep_from(network.held)
        if changed != self._endpoints:
            self._endpoints = changed
            self._endpoints_changed.set()
            with contextlib.suppress(EnvironmentFault):
                # What is wrong with the interface the reconciler finds, too, and tells.
                await self._agent.wireguard.renew_sources()
            self._agent.driver.post(changed)

    async def keep_hosts(self) -> None:
        """Writes names of members whenever they change."""
        while True:
            changed = self._agent.members_changed = trio.Event()
            if not self.write_hosts():
                return
            await changed.wait()
            await trio.sleep(HOSTS_PAUSE_S)

    @property
    def keeps_hosts(self) -> bool:
        """Says whether this agent writes names into the hosts file."""
        agent = self._agent
        asked = agent.settings.file.mesh.hosts_file and agent.wireguard.backend != "none"
        return os.geteuid() == 0 and asked

    def write_hosts(self) -> bool:
        """Brings the hosts file in step with the members known now; says whether it is kept at all."""
        agent = self._agent
        if not self.keeps_hosts:
            return False
        charter = agent.node.ledger.charter
        if charter is not None:
            members = [(one.name, (one.ipv4, one.ipv6)) for one in agent.node.roster.members]
            try:
                HostsFile().write(render_block(charter.mesh_name, members))
            except EnvironmentFault as fault:
                agent.log.write("warning", fault.what, (("hint", fault.hint),))
                return False
        return True

    async def keep_manager_told(self) -> None:
        """Shows the service manager, where one listens, that this loop turns and how the node is.

        Twice within the time after which it takes the agent for hung and starts it anew.
        """
        notifier = self._agent.notifier
        while notifier.listens:
            await notifier.tell("WATCHDOG=1", f"STATUS={self.summary()}")
            await trio.sleep(min(BEAT_S, notifier.watchdog_s / 2 or BEAT_S))

    def summary(self) -> str:
        """Returns how the node is, in one line."""
        node = self._agent.node
        if not self._agent.ready:
            return "waiting for the first membership sync and the interface"
        mine, charter, counts = node.roster.get(node.me), node.ledger.charter, count_members(node)
        name, mesh = mine.name if mine else "", charter.mesh_name if charter else ""
        return (
            f"{name} in {mesh}: {counts.alive} of {counts.total} members alive, {len(node.links.peers)} links"
        )

    async def discover(self) -> None:
        """Announces this node and listens to others; anew whenever this machine's network is another one."""
        while True:
            changed = self._endpoints_changed = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._discover_here)
                await changed.wait()
                nursery.cancel_scope.cancel()

    async def _discover_here(self) -> None:
        discovery = open_discovery(mdns=self._agent.settings.file.mesh.mdns)
        fingerprint = key_text(self._agent.state.mesh)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce, discovery, fingerprint)
            async for found in discovery.browse():
                if found.mesh_hint == fingerprint and found.node_hint != key_text(self._agent.node.me):
                    for address in found.addresses:
                        self._agent.driver.post(SeedFound(address=address))

    async def _announce(self, discovery: Discovery, fingerprint: str) -> None:
        hosts = [one.rpartition(":")[0].strip("[]") for one in self._endpoints.control]
        literal = [one for one in hosts if ":" in one or one.replace(".", "").isdigit()]
        await discovery.announce(
            mesh_hint=fingerprint,
            node_hint=key_text(self._agent.node.me),
            port=self._agent.transport.port,
            addresses=literal,
        )

    async def open_pages(self) -> None:
        """Starts to serve ``/metrics``, call-backs and the dashboard where a port is set for it. An agent
        whose port another holds goes on without: several agents may share a machine.
        """
        port = self._agent.settings.file.control.web_port
        if not port:
            return
        from meshpeer.adapters.web.dashboard import Dashboard
        from meshpeer.adapters.web.server import Site, serve_pages
        from meshpeer.app.board.board import Board

        board = Board(self._agent)
        site = Site(
            look=lambda: figures_of(self._agent),
            receive=self._agent.webhooks.receive,
            dashboard=Dashboard(access=self.access, board=board),
            callback_hosts=callback_hosts(self._agent.settings.file.webhooks),
        )
        try:
            self.pages_port = await self._agent.nursery.start(serve_pages, site, port)
        except EnvironmentFault as fault:
            self.pages_fault = fault
            self._agent.log.write("warning", fault.what, (("hint", fault.hint),))
        else:
            self._agent.nursery.start_soon(board.keep_story)

    async def remove_interface(self) -> None:
        with contextlib.suppress(EnvironmentFault):
            await self._agent.forwarding.ensure(NOTHING)
        await clear_relay(self._agent.settings)
        await self._agent.wireguard.remove()
        if os.geteuid() == 0 and self._agent.settings.file.mesh.hosts_file:
            with contextlib.suppress(EnvironmentFault):
                HostsFile().write("")
