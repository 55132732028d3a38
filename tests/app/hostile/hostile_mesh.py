"""Two honest agents on loopback, for a hostile member to try itself on, and how they are after each try."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
from hostile_member import ANSWER_S, Member

from meshpeer.app.agent import Agent
from meshpeer.app.config import (
    ControlSettings,
    File,
    JobSettings,
    LogSettings,
    MeshSettings,
    NodeSettings,
    Settings,
    WireGuardSettings,
)
from meshpeer.app.founding import found, write_rows
from meshpeer.app.options import InitOptions
from meshpeer.app.state import NodeFile, State, StateWriter, load_state
from meshpeer.core.counters import Counter
from meshpeer.core.identity.constraints import INVITE_DEFAULT, Capability
from meshpeer.core.ids import JobId, NodeId
from meshpeer.core.jobs.model import Array, JobSpec, TaskSpec
from meshpeer.core.membership.opinions import State as Liveness
from meshpeer.core.node.rows import row_of_chains, row_of_charter
from meshpeer.core.wire import cbor
from meshpeer.runtime.control import Job, Submission

MEMORY_GROWS_MAX = 96 * 1024 * 1024
"""Of the process that holds both agents and the hostile member, over one try."""
SHOWN = (
    Counter.FRAMES_REFUSED,
    Counter.RECORDS_REFUSED,
    Counter.SIGNATURES_BAD,
    Counter.RECORDS_RATE_LIMITED,
    Counter.ORIGINS_RATE_LIMITED,
    Counter.INVITES_FULL,
    Counter.EQUIVOCATIONS,
    Counter.REVOCATIONS_REFUSED,
    Counter.DIAL_BACKS_REFUSED,
    Counter.HELP_REFUSED,
    Counter.IHAVES_DROPPED,
    Counter.ASKS_RATE_LIMITED,
)
"""What an operator can see of tries, as metrics."""


@dataclass(slots=True)
class Mesh:
    """A founder, one more honest member, and an issuer's key that admits whoever is wanted."""

    alpha: Agent
    beta: Agent
    state: State
    _members: int = 0
    _jobs: int = 0

    @property
    def port(self) -> int:
        return self.alpha.transport.port

    @property
    def honest(self) -> tuple[Agent, Agent]:
        return (self.alpha, self.beta)

    def member(
        self, name: str = "", without: frozenset[Capability] = frozenset(), admitted_s_ago: int = 60
    ) -> Member:
        """Returns one more member, who may do all that an invite gives but ``without``."""
        self._members += 1
        assert self.state.issuer is not None
        return Member(
            self.state.mesh,
            self.state.node.roots,
            self.state.issuer,
            name or f"liar-{self._members}",
            capabilities=INVITE_DEFAULT - without,
            admitted_s_ago=admitted_s_ago,
        )

    # --- jobs -----------------------------------------------------------------------------------------------

    async def submit(self, argv: tuple[str, ...] = ("true",), count: int = 4) -> Job:
        self._jobs += 1
        task = TaskSpec(name="t", argv=argv, array=Array(size=count))
        job = JobId("j" + f"{self._jobs:019d}".translate(str.maketrans("0189", "abcd")))
        spec = cbor.encode(JobSpec(name="honest", tasks=(task,)))
        return await self.alpha.api.submit(Submission(job=job, spec=spec))

    async def ended(self, job: str) -> Job:
        """Returns a job once it is over."""
        with trio.fail_after(3 * ANSWER_S):
            return [one async for one in self.alpha.api.watch(job)][-1]

    async def runs_a_job(self) -> None:
        ended = await self.ended((await self.submit()).id)
        assert ended.state == "succeeded", ended

    # --- after each try -------------------------------------------------------------------------------------

    async def is_well(self) -> None:
        """Raises where an honest member was harmed."""
        for agent in self.honest:
            agent.node.links.check()
            agent.node.scheduler.check()
            assert agent.node.presence.revoked is None
        await until(self._agrees)

    def _agrees(self) -> bool:
        alpha, beta = self.alpha.node, self.beta.node
        return (
            alpha.ledger.fingerprint == beta.ledger.fingerprint
            and beta.me in alpha.links.peers
            and alpha.detector.opinion(beta.me).state is Liveness.ALIVE
            and beta.detector.opinion(alpha.me).state is Liveness.ALIVE
            and {alpha.me, beta.me} <= set(alpha.ledger.ids)
        )

    def holds(self, node: NodeId) -> bool:
        return any(agent.node.ledger.is_in(node) for agent in self.honest)

    def counts(self) -> dict[str, int]:
        return {one.value: self.alpha.counters.get(one) + self.beta.counters.get(one) for one in SHOWN}


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(ANSWER_S):
        while not true():  # noqa: ASYNC110 - agents tell nobody
            await trio.sleep(0.02)


def memory_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize()


@asynccontextmanager
async def open_mesh() -> AsyncIterator[Mesh]:
    folder = Path(tempfile.mkdtemp(prefix="meshpeer-hostile-"))
    os.chmod(folder, 0o711)
    try:
        first = settings_of(folder / "alpha", "61400-61407")
        await trio.to_thread.run_sync(found, InitOptions(name="alpha"), first)
        state = load_state(first.state_dir)
        async with running(first) as alpha:
            second = settings_of(folder / "beta", "61408-61415")
            await trio.to_thread.run_sync(
                admit, second, state, alpha.node.ledger.charter_envelope, alpha.transport.port
            )
            async with running(second) as beta:
                mesh = Mesh(alpha, beta, state)
                await mesh.is_well()
                yield mesh
    finally:
        shutil.rmtree(folder)


def settings_of(folder: Path, uids: str) -> Settings:
    folder.mkdir(mode=0o711)
    return Settings(
        state_dir=folder / "state",
        run_dir=folder / "run",
        file=File(
            node=NodeSettings(),
            mesh=MeshSettings(mdns=False, hosts_file=False),
            wireguard=WireGuardSettings(backend="none"),
            control=ControlSettings(listen_port=0, web_port=0),
            jobs=JobSettings(slots=2, uids=uids),
            log=LogSettings(level="error"),
        ),
    )


def admit(settings: Settings, state: State, charter: bytes, port: int) -> None:
    """Writes the state of a member that joined and was admitted."""
    assert state.issuer is not None
    member = Member(state.mesh, state.node.roots, state.issuer, "beta", admitted_s_ago=3_600)
    node = NodeFile(
        mesh=state.mesh,
        roots=state.node.roots,
        name="beta",
        region="",
        roles=("compute",),
        endpoint="",
        seeds=(f"127.0.0.1:{port}",),
        wireguard_port=0,
        control_port=0,
    )
    writer = StateWriter(settings.state_dir)
    writer.key("node", "node", member.key.seed)
    writer.key("wireguard", "wireguard", os.urandom(32))
    writer.node(node, member.chain)
    rows = [row_of_chains(member.id, [member.chain]), row_of_charter(charter)]
    trio.run(write_rows, writer.draft, rows)
    writer.publish()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Agent]:
    ready = trio.Event()
    agent = Agent(settings, load_state(settings.state_dir), lambda _: ready.set())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.main)
        with trio.fail_after(2 * ANSWER_S):
            await ready.wait()
        yield agent
        agent.stopping.set()
