"""The agent: composes adapters, runtime and core into one running node, and takes it down in order.

Order of start: lock, journal, blobs, interface, links, then the tasks; of stop: the command line's socket
first, running tasks, links, the journal
last. The interface stays: tunnels outlive the agent. One nursery owns all tasks; the first that fails for
good ends the agent with its error.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio
from trio import TaskStatus

from meshpeer.adapters.executor import TASKS_PATH, Bounds, ClosedExecutor, open_executor
from meshpeer.adapters.interpreter import TaskInterpreter
from meshpeer.adapters.prober import UdpProber
from meshpeer.adapters.secrets import FileSecrets
from meshpeer.adapters.store import FileBlobs, SqliteStore, lock_state, open_blobs, open_store
from meshpeer.adapters.systemd import Notifier
from meshpeer.adapters.transport import TlsIdentity, TlsTransport, open_transport
from meshpeer.adapters.tunnelport import RawTunnelPort
from meshpeer.adapters.webhooks import HttpCaller
from meshpeer.adapters.wireguard import NoWireGuard
from meshpeer.app.api import AgentApi
from meshpeer.app.asked import Asked, is_heavy
from meshpeer.app.chores import Chores
from meshpeer.app.clock import SystemClock
from meshpeer.app.config import ControlSettings, Settings, WireGuardSettings
from meshpeer.app.files import Files
from meshpeer.app.interface import Interface, forwarding_of, open_interface
from meshpeer.app.log import Log
from meshpeer.app.next_key import load_next_key
from meshpeer.app.options import ReadyReport
from meshpeer.app.performer import Performer
from meshpeer.app.placement import profile_of_node, python_of_node, terms_of
from meshpeer.app.quotas import check_quota, quota_of
from meshpeer.app.relay import clear_relay, relay_limits, relay_of
from meshpeer.app.restore import restore_jobs, restore_ledger
from meshpeer.app.retiring import retire_relay
from meshpeer.app.rotating import key_names, rotate_by_age
from meshpeer.app.state import State, load_state
from meshpeer.app.troubles import next_steps_of, notices_of, troubles_of
from meshpeer.app.webhooks import calls_service, webhooks_of
from meshpeer.core.counters import Counters
from meshpeer.core.effects import Table, TicketCounter
from meshpeer.core.errors import EnvironmentFault, PeerFault, StoreFailed
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.ids import NodeId, WireGuardKey, key_text
from meshpeer.core.jobs.check import require_valid
from meshpeer.core.jobs.model import JobRecord
from meshpeer.core.jobs.problems import InvalidJob
from meshpeer.core.jobs.rules import JOB_ID
from meshpeer.core.membership.opinions import State as Liveness
from meshpeer.core.node.config import NodeConfig
from meshpeer.core.node.messages import (
    SeedFound,
    Started,
)
from meshpeer.core.node.node import Node
from meshpeer.core.node.rights import Rights
from meshpeer.core.records import envelope
from meshpeer.core.records.ledger import Ledger
from meshpeer.core.scheduler.machine import Scheduler
from meshpeer.core.scheduler.messages import StartAttempt
from meshpeer.core.scheduler.seals import KeySeals
from meshpeer.runtime.asking import Asking
from meshpeer.runtime.attempts import Attempts
from meshpeer.runtime.bulk import Bulk
from meshpeer.runtime.circuits import Circuits
from meshpeer.runtime.driver import Driver
from meshpeer.runtime.endpoint_moves import EndpointMoves
from meshpeer.runtime.forwarder import Forwarder
from meshpeer.runtime.linkkeeper import LinkKeeper
from meshpeer.runtime.outbox import AT_ONCE_MAX, Deliveries
from meshpeer.runtime.ports import Executor
from meshpeer.runtime.probing import Probing
from meshpeer.runtime.python_calls import PythonCalls
from meshpeer.runtime.reconciler import Reconciler
from meshpeer.runtime.relaying import Relayer
from meshpeer.runtime.replicas import ReplicaFetcher
from meshpeer.runtime.tunnelport import TunnelPortKeeper
from meshpeer.runtime.webhooks import Webhooks

READY_WITHOUT_PEERS_S = 8.0
"""A node that reaches nobody reports ready after this long, with a warning."""
READY_WITHOUT_TUNNELS_S = 2.0
"""How long members have to confirm that they know this node's key; some live where no link reaches them."""
TUNNELS_LOOK_S = 0.01
SWITCH_INTERVAL_S = 0.0005
JOB_RECORD_BYTES_MAX = 64 * 1024 * 1024


def run_agent(settings: Settings, on_ready: Callable[[ReadyReport], None]) -> None:
    """Runs this machine's node until it is told to stop; raises ``MeshpeerError`` where it can't.

    ``on_ready`` is called once: the first membership sync is done (or nobody can be reached) and the
    interface is applied.
    """
    # The journal's thread waits for the interpreter lock: at the default of 5 ms a busy loop held commits up
    # for seconds.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    notifier = Notifier.take(os.environ)
    if notifier.watchdog_s:
        # Who is ended for having hung (SIGABRT) says where it hung.
        faulthandler.enable()
    state = load_state(settings.state_dir)
    with lock_state(settings.state_dir):
        agent = Agent(settings, state, on_ready, notifier)
        try:
            trio.run(agent.main)
        except* StoreFailed as failures:
            raise _first(failures) from None
        except* EnvironmentFault as failures:
            raise _first(failures) from None


def _first(group: BaseExceptionGroup[EnvironmentFault]) -> EnvironmentFault:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, EnvironmentFault)
    return error


class Agent:
    """One running node. Made, run once, thrown away."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        on_ready: Callable[[ReadyReport], None],
        notifier: Notifier | None = None,
    ) -> None:
        self.settings = settings
        self.notifier = notifier or Notifier()
        self.state = state
        self.clock = SystemClock()
        self.log = Log(settings.file.log.level, settings.file.log.format)
        self.started_at = time.monotonic()
        self.timings: list[tuple[str, float]] = []
        self._on_ready = on_ready
        self._marks_at = time.monotonic()
        self.stopping = trio.Event()
        self.take_down = False
        self.ready = False
        self.synced = trio.Event()
        self.members_changed = trio.Event()
        self.farewell_over = trio.Event()
        self.pages_opened = trio.Event()
        """Set, too, where there are none."""
        self.refusals: dict[NodeId, str] = {}
        self.counters = Counters()
        self.performer = Performer(self)
        self.chores = Chores(self)

    async def main(self) -> None:
        """Runs until stopped."""
        self._mark("reading keys and settings")
        async with contextlib.AsyncExitStack() as stack:
            self.store: SqliteStore = await stack.enter_async_context(
                open_store(self.settings.state_dir / "state.db")
            )
            self.blobs: FileBlobs = open_blobs(self.settings.state_dir / "blobs")
            self._mark("opening the journal")
            self.wireguard = await self._open_wireguard()
            self.forwarding = forwarding_of(self.settings)
            self._mark("finding WireGuard")
            self.transport: TlsTransport = await stack.enter_async_context(
                open_transport(self._tls(), self._control_port(), tally=self.counters)
            )
            self.caller = HttpCaller()
            stack.push_async_callback(self.caller.close)
            self.executor: Executor = await stack.enter_async_context(self._open_executor())
            self.interpreter = TaskInterpreter(self.settings.file.jobs.python, TASKS_PATH)
            python = await python_of_node(self.interpreter) if self.settings.file.jobs.accept else ""
            self._mark("opening links and slots")
            restored = self._make_node(python)
            self._mark("restoring facts")
            try:
                async with trio.open_nursery() as nursery:
                    await self._run(nursery, restored)
            finally:
                if self.take_down:
                    with trio.CancelScope(shield=True), trio.move_on_after(10):
                        await self.chores.remove_interface()

    # --- parts ----------------------------------------------------------------------------------------------

    async def _open_wireguard(self) -> Interface:
        if not self.state.node.wireguard_port:
            return NoWireGuard("this node joined without an interface")
        return await open_interface(
            self.settings, self.state.mesh, lambda text: self.log.write("info", text, ())
        )

    def _open_executor(self) -> contextlib.AbstractAsyncContextManager[Executor]:
        if not self.settings.file.jobs.accept:
            return contextlib.nullcontext(ClosedExecutor())
        root = os.geteuid() == 0
        jobs = self.settings.file.jobs
        return open_executor(
            slots=self.settings.slots,
            scratch_root=self.settings.state_dir / "scratch",
            blobs=self.blobs,
            uids=self.settings.uids if root else None,
            bounds=Bounds(memory_bytes=jobs.memory_bytes_max, output_bytes=jobs.output_bytes_max),
        )

    def _tls(self) -> TlsIdentity:
        return TlsIdentity(seed=self.state.key.seed, chain=self.state.chain, roots=self.state.node.roots)

    def _control_port(self) -> int:
        asked = self.settings.file.control.listen_port
        return asked if asked not in (0, ControlSettings().listen_port) else self.state.node.control_port

    def _wireguard_port(self) -> int:
        """The port of the interface; 0 without one. Settings of this run win over what was settled at the
        start."""
        if self.wireguard.backend == "none":
            return 0
        asked = self.settings.file.wireguard.listen_port
        return asked if asked not in (0, WireGuardSettings().listen_port) else self.state.node.wireguard_port

    def _make_node(self, python: str) -> Sequence[object]:
        now = self.clock.now()
        state = self.state
        ledger = Ledger(state.mesh, state.node.roots)
        for note in restore_ledger(ledger, self.store, now):
            self.performer.note(note)
        tickets = TicketCounter()
        rights = Rights(ledger, state.key.public)
        scheduler = Scheduler(
            me=state.key.public,
            slots=self.executor.slots,
            accepting=self.settings.file.jobs.accept,
            seals=KeySeals(state.key, state.mesh),
            store=self.store.store_id,
            may_work=rights.may_work,
            may_submit=rights.may_submit,
            is_revoked=rights.is_revoked,
            boot=os.urandom(8),
            region=state.node.region,
            profile=profile_of_node(self.settings, state.node, self.executor.slots, python),
            terms=terms_of(self.settings),
            quota_of=quota_of(self),
            tickets=tickets,
            dice=random.Random(),
        )
        restored = restore_jobs(scheduler, self.store, now)
        config = NodeConfig(
            key=state.key,
            chain=state.chain,
            wireguard_key=state.wireguard_key,
            next_wireguard_key=load_next_key(self.settings.state_dir),
            wireguard_port=self._wireguard_port(),
            interface=self.settings.file.wireguard.interface,
            fwmark=self.settings.file.wireguard.fwmark,
            pads_to_device=self.wireguard.backend == "userspace",
            control_port=self.transport.port,
            name=state.node.name,
            region=state.node.region,
            roles=state.node.roles,
            hub=self._hub(),
            configured_endpoint=bool(state.node.endpoint),
            issuer=state.issuer,
            issuer_seed=state.issuer_seed,
            advertise=self.settings.file.node.advertise,
            masquerade=self.settings.file.node.advertise_nat,
            relay=relay_limits(self.settings),
            unable_to_forward=self._unable_to_forward(),
            spare=True,
            forwarded=self.settings.file.mesh.seeds if self.settings.file.mesh.via else (),
        )
        self.node = Node(
            config,
            ledger,
            scheduler,
            tickets=tickets,
            jitter=random.Random(),
            entropy=os.urandom,
            now=now,
            counters=self.counters,
        )
        self.transport.trust(ledger.roots)
        self.driver = Driver(self.node, self.clock, self.performer.perform, tell_lag=True)
        return self.node.from_scheduler(restored, now)

    def _carries_links(self) -> bool:
        """Says whether this node passes on links of others: settings and certificate must both allow it."""
        return self.settings.file.relay.accept and self.node.ledger.may(self.node.me, Capability.RELAY)

    def _owns_a_real_interface(self) -> bool:
        return os.geteuid() == 0 and self.wireguard.backend in ("kernel", "userspace")

    def _hub(self) -> str:
        """Returns what this node says of itself as a hub: a machine that can't forward never is one."""
        return "never" if self._unable_to_forward() else self.settings.file.node.hub

    def _unable_to_forward(self) -> str:
        if not self._owns_a_real_interface():
            return "that takes root and an interface of its own"
        try:
            self.forwarding.check()
        except EnvironmentFault as fault:
            return f"{fault.what} ({fault.hint})"
        return ""

    # --- running --------------------------------------------------------------------------------------------

    async def _run(self, nursery: trio.Nursery, restored: Sequence[object]) -> None:
        post = self.driver.post
        links = self.node.links
        self.files = Files(self, nursery)
        self.exchange = self.files.exchange
        self.relayer = Relayer(relay_of(self.settings), post, self.log.write)
        self.circuits = Circuits(
            me=self.node.me,
            nursery=nursery,
            link_to=links.link_to,
            greeted=links.peer_of,
            accept=lambda stream, carrier: self.transport.accept_over(stream, carrier, self.keeper.run),
            carries=self._carries_links,
            tally=self.counters,
        )
        self.transport.connect_over = self.circuits.open
        self.asking = Asking(nursery, links.link_to, links.peer_of, Asked(self).answer, is_heavy)
        bulk = Bulk(self.files.exchange, self.files.words, self.circuits, self.asking)
        self.keeper = LinkKeeper(self.transport, bulk, post, nursery)
        self.forwarder = Forwarder(self.forwarding, post, self.log.write)
        self.probing = Probing(UdpProber(), post, self.log.write)
        self.tunnel_port = TunnelPortKeeper(RawTunnelPort(), post, self.log.write)
        self.reconciler = Reconciler(self.wireguard, self.clock, post, self.log.write, self._key_names)
        self.endpoint_moves = EndpointMoves(
            self.wireguard, self.clock, self.reconciler.look_soon, self.log.write, nursery
        )
        self.attempts = Attempts(
            me=self.node.me,
            blobs=self.blobs,
            executor=self.executor,
            fetch=self.files.transfers.fetch,
            files=self.files.keeper,
            check_job=self.check_job,
            secrets=FileSecrets(Path(self.settings.file.jobs.secrets_file)),
            python=PythonCalls(self.blobs, self.interpreter),
            names_of=self.names_of,
            post=post,
            nursery=nursery,
        )
        self.replica_fetcher = ReplicaFetcher(
            self.attempts, post, nursery, lambda record: check_quota(self, record.submitter, record.spec)
        )
        self.webhooks = webhooks_of(self, nursery)
        self.deliveries = Deliveries(self.webhooks, trio.CapacityLimiter(AT_ONCE_MAX))
        self.api = AgentApi(self)
        self.nursery = nursery
        for effect in restored:
            self.performer.perform(effect)
        nursery.start_soon(self.performer.watch_journal)
        nursery.start_soon(self.files.run)
        await nursery.start(self.chores.watch_network)
        post(Started())
        for address in self._seeds():
            post(SeedFound(address=address))
        nursery.start_soon(self.driver.run)
        nursery.start_soon(self.keeper.serve)
        if self.wireguard.backend != "none":
            nursery.start_soon(self.reconciler.run)
            nursery.start_soon(self.probing.run, self.reconciler.applied_once)
            nursery.start_soon(rotate_by_age, self)
        if self.wireguard.backend in ("kernel", "userspace"):
            fwmark = self.settings.file.wireguard.fwmark
            nursery.start_soon(self.tunnel_port.run, self._wireguard_port(), fwmark)
        if self._owns_a_real_interface():
            nursery.start_soon(self.forwarder.run, self.reconciler.applied_once)
        if self.node.config.relay is not None:
            await clear_relay(self.settings)
            nursery.start_soon(self.relayer.run)
        nursery.start_soon(self._watch_signals)
        nursery.start_soon(self.chores.keep_manager_told)
        nursery.start_soon(self.chores.keep_hosts)
        nursery.start_soon(self.chores.discover)
        await self._serve_control(nursery)
        # Services that were called before a restart call back now.
        await self.chores.open_pages()
        self.pages_opened.set()
        await self._until_ready()
        self._on_ready(self._report())
        self.ready = True
        await self.notifier.tell("READY=1", f"STATUS={self.chores.summary()}")
        await self.stopping.wait()
        await self.notifier.tell(
            "STOPPING=1", "STATUS=stopping; tunnels " + ("go down" if self.take_down else "stay up")
        )
        await retire_relay(self)
        nursery.cancel_scope.cancel()

    async def _serve_control(self, nursery: trio.Nursery) -> None:
        from meshpeer.adapters.control.server import serve_control

        control = self.settings.file.control
        await nursery.start(_serve, serve_control, self.api, self.settings.socket, control.socket_group)
        self._mark("serving the control socket")

    async def _until_ready(self) -> None:
        others = any(one.node != self.node.me for one in self.node.ledger.present(self.clock.now().unix_s))
        if others:
            with trio.move_on_after(READY_WITHOUT_PEERS_S):
                await self.synced.wait()
            self._mark("first membership sync")
        if self.wireguard.backend != "none":
            with trio.move_on_after(READY_WITHOUT_PEERS_S):
                await self.reconciler.applied_once.wait()
            self._mark("applying the interface")
            with trio.move_on_after(READY_WITHOUT_TUNNELS_S) as agreeing:
                while not self._tunnels_have_ends():  # noqa: ASYNC110 - an interface does not tell
                    await trio.sleep(TUNNELS_LOOK_S)
            in_vain = agreeing.cancelled_caught
            self._mark("waiting in vain for tunnels to lead somewhere" if in_vain else "agreeing on tunnels")
            # Whoever is told that the node is ready may use a member's name at once.
            self.chores.write_hosts()

    def _tunnels_have_ends(self) -> bool:
        """Says whether the tunnel of every member that is linked, or said to live, leads somewhere.

        A packet into one that doesn't starts a handshake that can't be sent, and WireGuard waits
        REKEY_TIMEOUT (5 s, section 6.1 of its paper) before it tries again: the first ping after ``join``
        would be lost.
        """
        planned = {peer.node for peer in self.node.tunnels.plan.peers}
        return all(
            observed is not None and observed.endpoint
            for observed in (
                self.node.tunnels.observed_peer(one.record.wireguard_key)
                for one in self.node.roster.members
                if one.node in planned and self._is_expected(one.node)
            )
        )

    def _is_expected(self, member: NodeId) -> bool:
        return member != self.node.me and self.node.detector.opinion(member).state is Liveness.ALIVE

    # --- tasks ----------------------------------------------------------------------------------------------

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                self.log.write("info", "stopping: tunnels stay up (`meshpeer down` takes them down)", ())
                self.stopping.set()
                return

    # --- what others ask ------------------------------------------------------------------------------------

    def check_job(self, signed: bytes) -> JobRecord:
        """Judges a job's record: signed by its submitter, who may submit, whose jobs this node runs, and
        a valid job, since nothing behind this looks again. Raises ``PeerFault``."""
        record = envelope.open_body(signed, JobRecord, bytes_max=JOB_RECORD_BYTES_MAX)
        if not JOB_ID.fullmatch(record.job):
            raise PeerFault("the job's id is none")
        envelope.verify(
            signed,
            record.submitter,
            self.state.mesh,
            bytes_max=JOB_RECORD_BYTES_MAX,
            context=envelope.JOB_CONTEXT,
        )
        member = self.node.ledger.get(record.submitter)
        if member is None or member.best is None:
            raise PeerFault("the job's submitter is not a member of this mesh")
        if Capability.SUBMIT not in member.best.identity.capabilities:
            raise PeerFault("the job's submitter may not submit jobs")
        allowed = self.settings.file.jobs.from_
        if "*" not in allowed and not self.names_of(record.submitter) & set(allowed):
            raise PeerFault("this node's own settings take no jobs from that submitter ([jobs] from)")
        try:
            require_valid(record.spec)
        except InvalidJob as invalid:
            raise PeerFault(f"the job is not valid: {invalid.what}", invalid.hint) from invalid
        return record

    def names_of(self, node: NodeId) -> set[str]:
        """Returns what a node goes by in settings: its id, and its name here."""
        if node == self.state.key.public:
            return {key_text(node), self.state.node.name}
        listed = self.node.roster.get(node)
        return {key_text(node), *((listed.name,) if listed else ())}

    def doer_of(self, effect: StartAttempt) -> Attempts | Webhooks:
        """Returns who does the work of an attempt."""
        return self.webhooks if calls_service(effect) else self.attempts

    def spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs a short task of an answer that outlives its request."""
        self.nursery.start_soon(work)

    def _key_names(self) -> dict[WireGuardKey, str]:
        return key_names(self.node.roster)

    def _seeds(self) -> list[str]:
        stored = [address for address, _ in self.store.load(Table.SEEDS)]
        return list(dict.fromkeys((*self.state.node.seeds, *self.settings.file.mesh.seeds, *stored)))

    def _mark(self, what: str) -> None:
        now = time.monotonic()
        self.timings.append((what, now - self._marks_at))
        self._marks_at = now

    def _report(self) -> ReadyReport:
        mine = self.node.roster.get(self.node.me)
        charter = self.node.ledger.charter
        return ReadyReport(
            mesh=charter.mesh_name if charter else "",
            name=mine.name if mine else self.state.node.name,
            ipv4=mine.ipv4 if mine else "",
            ipv6=mine.ipv6 if mine and self.wireguard.backend != "none" else "",
            interface="" if self.wireguard.backend == "none" else self.settings.file.wireguard.interface,
            backend=self.wireguard.backend,
            members=len(self.node.roster.members),
            warnings=(*troubles_of(self), *notices_of(self)),
            next_steps=next_steps_of(self),
            timings=tuple(self.timings),
        )


async def _serve(
    serve: Callable[..., object],
    api: AgentApi,
    socket: Path,
    group: str,
    *,
    task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    await serve(api, socket, group=group, task_status=task_status)  # type: ignore[misc]
