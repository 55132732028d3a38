"""An agent that answers the control API from memory, served on a real Unix socket in a thread of its own."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import trio

from meshpeer.adapters.control.server import serve_control
from meshpeer.core.errors import LocalFault, MeshpeerError, PeerFault, Refused
from meshpeer.core.ids import TaskIndex
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import JobSpec
from meshpeer.core.wire import cbor
from meshpeer.runtime.control import (
    CallResult,
    Charter,
    CharterChange,
    DashboardLink,
    InviteMade,
    InviteRequest,
    IssuerInfo,
    IssuerKey,
    Job,
    JobMessage,
    KeyRotation,
    LogPiece,
    MemberCounts,
    MeshInfo,
    NodeInfo,
    OutputFile,
    OutputState,
    Peer,
    PingAnswer,
    Plan,
    PlanPeer,
    Renamed,
    Retirement,
    RevocationInfo,
    RevocationMade,
    RevocationRequest,
    Roots,
    SignedAdded,
    Status,
    Submission,
    Task,
    TaskCounts,
    TaskTry,
    Why,
    WhyCandidate,
    WhyRule,
    WhyTunnel,
)
from meshpeer.runtime.doctor import AgentFindings, Finding
from meshpeer.runtime.job_docs import Drain, JobGraph, JobList, JobWhy

AT = "2026-01-31T08:15:00.000000Z"
LATER = "2026-01-31T08:16:20.500000Z"
INVITE = "meshpeer1.AAAA"


def make_status(**changes: object) -> Status:
    status = Status(
        mesh=MeshInfo(id="mmmm", name="home", subnet="10.10.0.0/24", topology="auto", topology_mode="full"),
        node=NodeInfo(
            id="nnnn",
            name="alpha",
            region="eu",
            roles=("compute", "scheduler"),
            ipv4="10.10.0.1",
            ipv6="fd00::1",
            public_key="kkkk=",
            backend="kernel",
            interface="wg0",
            port=51820,
            mtu=1420,
            control_port=51821,
            isolation="a uid per slot (61000-61003)",
            slots=4,
            admission="durable",
            certificate_ends=LATER,
            version="0.1.0",
            uptime_s=75.0,
        ),
        members=MemberCounts(total=3, alive=2, suspect=0, dead=1, left=0),
        health="ok",
        warnings=(),
        jobs={"running": 1},
    )
    return msgspec.structs.replace(status, **changes)


def make_peer(**changes: object) -> Peer:
    peer = Peer(
        id="bbbb",
        name="beta",
        region="us",
        roles=("compute",),
        ipv4="10.10.0.2",
        ipv6="fd00::2",
        state="alive",
        since=AT,
        because="",
        link="up",
        path="direct",
        via="",
        endpoint="192.0.2.2:51820",
        last_handshake_s=12.0,
        rtt_ms=1.25,
        rx_bytes=2048,
        tx_bytes=1024,
    )
    return msgspec.structs.replace(peer, **changes)


def make_charter(**changes: object) -> Charter:
    charter = Charter(
        version=1,
        changed_at=AT,
        changed_by="alpha",
        mesh="home",
        subnet="10.10.0.0/24",
        topology="auto",
        topology_mode="full",
        hubs=1,
        keepalive_s=25,
        mtu=1420,
        idle_s=180,
        away_max_s=604_800,
        wireguard_port=51820,
    )
    return msgspec.structs.replace(charter, **changes)


def make_rotation(**changes: object) -> KeyRotation:
    return msgspec.structs.replace(
        KeyRotation(
            state="steady",
            public_key="b2xkIGtleQ==",
            next_public_key="",
            previous_public_key="",
            made_at="2026-11-26T10:00:00.000000Z",
            changed_at="",
            ready=0,
            waiting_for=(),
            missed=(),
        ),
        **changes,
    )


def make_revocation(**changes: object) -> RevocationInfo:
    made = RevocationInfo(
        what="node", id="n" * 52, name="delta", by="alpha", at=AT, since=None, reason="stolen"
    )
    return msgspec.structs.replace(made, **changes)


def make_findings(*findings: Finding, **changes: object) -> AgentFindings:
    answer = AgentFindings(
        findings=findings,
        name="alpha",
        interface="wg0",
        wireguard_port=51820,
        control_port=51821,
        forwards=False,
        keeps_hosts=False,
    )
    return msgspec.structs.replace(answer, **changes)


def make_why(**changes: object) -> Why:
    why = Why(
        source="alpha",
        target="beta",
        verdict="none",
        answer="alpha does not reach beta: the tunnel of alpha and beta has never had a handshake",
        path=("alpha", "beta"),
        rule=(WhyRule(code="pair_full", text="in a full mesh every two members have a tunnel of their own"),),
        tunnels=(WhyTunnel(to="beta", works=False, endpoint="192.0.2.2:51820", last_handshake_s=None),),
        candidates=(
            WhyCandidate(
                tunnel="beta",
                endpoint="192.0.2.2:51820",
                source="near",
                state="given_up",
                since=AT,
                handshake=None,
            ),
            WhyCandidate(
                tunnel="beta",
                endpoint="[2001:db8::2]:51820",
                source="public",
                state="untried",
                since=None,
                handshake=None,
            ),
        ),
        unknown=(),
        todo=("open UDP 51820 on beta or on alpha: one of the two must let the other's packets in",),
    )
    return msgspec.structs.replace(why, **changes)


def make_attempt(**changes: object) -> TaskTry:
    attempt = TaskTry(
        n=1,
        node="beta",
        state="acked",
        exit_code=0,
        started_at=AT,
        finished_at=LATER,
        stolen_from=None,
        error="",
    )
    return msgspec.structs.replace(attempt, **changes)


def make_task(**changes: object) -> Task:
    task = Task(
        id="split",
        name="split",
        index=None,
        state="succeeded",
        node="beta",
        attempts=(make_attempt(),),
        exit_code=0,
        error="",
        stdout_bytes=0,
        stderr_bytes=0,
        outputs=(),
        wanted=True,
    )
    return msgspec.structs.replace(task, **changes)


def make_counts(**counts: int) -> TaskCounts:
    """Returns counts of tasks; those that are not named are 0."""
    return TaskCounts(**{**dict.fromkeys(TaskCounts.__struct_fields__, 0), **counts})


def make_job(**changes: object) -> Job:
    job = Job(
        id="jaaaaaaaaaaaaaaaaaaa",
        name="film",
        state="running",
        owner="alpha",
        durability="this_node",
        tasks=make_counts(total=1, running=1),
        submitted_at=AT,
        finished_at=None,
    )
    return msgspec.structs.replace(job, **changes)


class FakeApi:
    """Implements ``runtime.control.ControlApi``; a test sets what is answered, and reads what was asked."""

    def __init__(self) -> None:
        self.now = make_status()
        self.held = make_charter()
        self.shut_out: list[RevocationInfo] = []
        self.rotations: list[KeyRotation] = [make_rotation()]
        """How a change of the key stands, one after the other as it is asked."""
        self.listed_issuers: list[IssuerInfo] = []
        self.shown_key: IssuerKey | None = None
        self.line = Roots(mesh=bytes(16), roots=(), issuers=())
        self.would_be_out: tuple[str, ...] = ()
        self.explained = make_why()
        self.examined = make_findings()
        self.members: list[Peer] = [make_peer()]
        self.steps: tuple[str, ...] = ()
        self.fault: MeshpeerError | Exception | None = None
        self.asked: list[tuple[object, ...]] = []
        self.rtt_ms: tuple[float | None, ...] = (0.5, None, 1.5)
        self.stored: dict[str, bytes] = {}
        self.specs: dict[str, JobSpec] = {}
        self.submissions: list[str] = []
        self.tasks_of: dict[str, list[Task]] = {}
        self.printed: dict[tuple[str, str], bytes] = {}
        self.made: dict[str, dict[str, bytes]] = {}
        self.told: tuple[JobMessage, ...] = ()
        self.returned: tuple[CallResult, ...] = ()
        self.silent = False
        """Whether a stream of results goes on for ever after them."""
        self.made_elsewhere = False
        """Lists of outputs come only to who asks for them, as from an agent that has not fetched them yet."""
        self.awaited = 0
        """How often a file is not here yet when it is asked for."""
        self.lies: dict[str, str] = {}
        """Path -> SHA-256 announced for it, whatever it is."""
        self.job_state = "succeeded"
        self.ends = True
        """Whether a watched job ends by itself."""
        self.die_in_watch = False
        self.watching = threading.Event()
        self.silent: tuple[str, ...] = ()
        self.reasons: JobWhy | None = None
        self.drawn: JobGraph | None = None
        self.drains = [Drain(node="alpha", drained=False, running=0, waiting=0, results=0)]
        """What a node still has, one after the other as it is asked."""
        self.attempts: list[LogPiece] = []
        """Pieces of an output, one after the other as it is asked, instead of ``printed``."""

    def _answer(self, *asked: object) -> None:
        self.asked.append(asked)
        if self.fault is not None:
            raise self.fault

    async def status(self) -> Status:
        self._answer("status")
        return self.now

    async def peers(self) -> list[Peer]:
        self._answer("peers")
        return self.members

    async def plan(self) -> Plan:
        self._answer("plan")
        peer = PlanPeer(
            name="beta",
            public_key="kkkk=",
            endpoint="192.0.2.2:51820",
            allowed_ips=("10.10.0.2/32",),
            keepalive_s=25,
        )
        return Plan(
            mode="full", hub=None, hubs=(), peers=(peer,), routes=("10.10.0.0/24",), changes=self.steps
        )

    async def why(self, source: str, target: str) -> Why:
        self._answer("why", source, target)
        return self.explained

    async def doctor(self) -> AgentFindings:
        self._answer("doctor")
        return self.examined

    async def dashboard(self) -> DashboardLink:
        return DashboardLink(url="http://127.0.0.1:51822/dashboard/?token=t")

    async def export_wg_quick(self) -> str:
        self._answer("export")
        return "[Interface]\nPrivateKey = x\n"

    async def invite(self, request: InviteRequest) -> InviteMade:
        self._answer("invite", request)
        return InviteMade(
            invite=INVITE,
            id="1234",
            mesh="home",
            fingerprint="ffff",
            expires_at=LATER,
            uses=request.uses,
            roles=request.roles,
            region=request.region,
            may="run tasks",
            seeds=("192.0.2.1:51821",),
            warnings=(),
        )

    async def charter(self) -> Charter:
        self._answer("charter")
        return self.held

    async def change_charter(self, change: CharterChange) -> Charter:
        self._answer("change_charter", change)
        wanted = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not None}
        self.held = msgspec.structs.replace(self.held, version=self.held.version + 1, **wanted)
        return self.held

    async def revocations(self) -> list[RevocationInfo]:
        self._answer("revocations")
        return self.shut_out

    async def revoke(self, request: RevocationRequest) -> RevocationMade:
        self._answer("revoke", request)
        made = make_revocation(name=request.target, reason=request.reason)
        return RevocationMade(revocation=made, done_before=False, members=(request.target,), kept=0)

    async def rotation(self) -> KeyRotation:
        self._answer("rotation")
        return self.rotations.pop(0) if len(self.rotations) > 1 else self.rotations[0]

    async def rename(self, name: str) -> Renamed:
        self._answer("rename", name)
        return Renamed(name=name, before=self.now.node.name)

    async def rotate_key(self) -> KeyRotation:
        self._answer("rotate-key")
        return self.rotations[0]

    async def issuers(self) -> list[IssuerInfo]:
        self._answer("issuers")
        return self.listed_issuers

    async def issuer_key(self, name: str) -> IssuerKey:
        self._answer("issuer_key", name)
        assert self.shown_key is not None
        return self.shown_key

    async def roots(self) -> Roots:
        self._answer("roots")
        return self.line

    async def add_signed(self, certificates: tuple[bytes, ...], statements: tuple[bytes, ...]) -> SignedAdded:
        self._answer("add_signed", certificates, statements)
        return SignedAdded(certificates=len(certificates), statements=len(statements))

    async def retirement(self, root: str, key: bytes) -> Retirement:
        self._answer("retirement", root, key)
        return Retirement(root="00" * 8, to_sign=(b"body",), kept=0, members=self.would_be_out)

    async def ping(self, node: str, count: int) -> PingAnswer:
        self._answer("ping", node, count)
        return PingAnswer(node=node, address="10.10.0.2", over="tunnel", rtt_ms=self.rtt_ms)

    async def stop(self, *, take_down: bool) -> str:
        self._answer("stop", take_down)
        return "the agent stops"

    async def leave(self, *, force: bool) -> str:
        self._answer("leave", force)
        return "this node has left"

    async def has_blob(self, digest: str) -> bool:
        self._answer("has_blob", digest)
        return digest in self.stored

    async def put_blob(self, digest: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        self._answer("put_blob", digest, size)
        data = b"".join([piece async for piece in pieces])
        if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
            raise PeerFault("a file does not have the content that was announced")
        self.stored[digest] = data

    async def ready_output(self, job: str, task: str, path: str) -> OutputState:
        self._answer("ready_output", job, task, path)
        size = len(self.made[task][path])
        self.awaited -= 1
        return OutputState(size=size, here_bytes=size // 2, ready=self.awaited < 0)

    async def get_output(self, job: str, task: str, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        self._answer("get_output", job, task, path, *((offset,) if offset else ()))
        data = self.made[task][path][offset:]
        for start in range(0, len(data), 1_000):
            yield data[start : start + 1_000]

    async def submit(self, submission: Submission) -> Job:
        self._answer("submit", submission.job)
        self.submissions.append(submission.job)
        spec = cbor.decode(submission.spec, JobSpec, bytes_max=1 << 20)
        self.specs[submission.job] = spec
        graph = Graph.of(spec)
        self.tasks_of.setdefault(
            submission.job,
            [
                make_task(
                    id=graph.id_of(TaskIndex(one)),
                    name=graph.spec_of(TaskIndex(one)).name,
                    index=graph.element_of(TaskIndex(one)),
                    outputs=()
                    if self.made_elsewhere
                    else tuple(self.made.get(graph.id_of(TaskIndex(one)), {})),
                    wanted=graph.is_sink(TaskIndex(one)),
                    stdout_bytes=len(self.printed.get((graph.id_of(TaskIndex(one)), "stdout"), b"")),
                    stderr_bytes=len(self.printed.get((graph.id_of(TaskIndex(one)), "stderr"), b"")),
                )
                for one in range(len(graph))
            ],
        )
        return self._job(submission.job, "running")

    async def jobs(self) -> list[Job]:
        self._answer("jobs")
        return [self._job(one, self.job_state) for one in self.specs]

    async def job(self, job: str) -> Job:
        self._answer("job", job)
        return self._job(self._known(job), self.job_state)

    async def tasks(self, job: str) -> list[Task]:
        self._answer("tasks", job)
        return self.tasks_of[self._known(job)]

    async def outputs(self, job: str, task: str) -> list[OutputFile]:
        self._answer("outputs", job, task)
        return [
            OutputFile(
                path=path,
                sha256=self.lies.get(path, hashlib.sha256(data).hexdigest()),
                size=len(data),
                executable=path.endswith(".sh"),
            )
            for path, data in self.made.get(task, {}).items()
        ]

    async def log(
        self, job: str, task: str, stream: str, offset: int, wait: bool, attempt: int = 0
    ) -> LogPiece:
        self._answer("log", job, task, stream, offset, wait)
        if self.attempts:
            piece = self.attempts.pop(0)
            return msgspec.structs.replace(piece, offset=len(piece.data))
        data = self.printed.get((task, stream), b"")
        piece = data[offset : offset + 10]
        return LogPiece(data=piece, offset=offset + len(piece), finished=offset + len(piece) >= len(data))

    async def results(self, job: str) -> AsyncIterator[CallResult]:
        self._answer("results", job)
        for one in self.returned:
            yield one
        if self.silent:
            await trio.sleep_forever()

    async def watch(self, job: str) -> AsyncIterator[Job]:
        self._answer("watch", job)
        yield self._job(job, "running")
        self.watching.set()
        if self.die_in_watch:
            raise RuntimeError("the agent died")
        if not self.ends:
            await trio.sleep_forever()
        yield self._job(job, self.job_state)

    async def cancel(self, job: str) -> Job:
        self._answer("cancel", job)
        return self._job(self._known(job), "cancelled")

    async def all_jobs(self) -> JobList:
        self._answer("all_jobs")
        jobs = tuple(self._job(one, self.job_state) for one in self.specs)
        return JobList(jobs=jobs, silent=self.silent)

    async def pause(self, job: str, paused: bool) -> Job:
        self._answer("pause", job, paused)
        return msgspec.structs.replace(self._job(self._known(job), "running"), paused=paused)

    async def prioritise(self, job: str, priority: int) -> Job:
        self._answer("prioritise", job, priority)
        return msgspec.structs.replace(self._job(self._known(job), "running"), priority=priority)

    async def retry(self, job: str, tasks: tuple[str, ...]) -> Job:
        self._answer("retry", job, tasks)
        return self._job(self._known(job), "running")

    async def adopt(self, job: str, force: bool) -> Job:
        self._answer("adopt", job, force)
        return self._job(self._known(job), "running")

    async def why_task(self, job: str, task: str) -> JobWhy:
        self._answer("why_task", job, task)
        assert self.reasons is not None
        return self.reasons

    async def graph(self, job: str) -> JobGraph:
        self._answer("graph", job)
        assert self.drawn is not None
        return self.drawn

    async def drain_of(self, node: str) -> Drain:
        self._answer("drain_of", node)
        return self.drains.pop(0) if len(self.drains) > 1 else self.drains[0]

    async def drain(self, node: str, drained: bool) -> Drain:
        self._answer("drain", node, drained)
        return msgspec.structs.replace(self.drains[0], drained=drained)

    def _known(self, job: str) -> str:
        for one, spec in self.specs.items():
            if job in (one, spec.name):
                return one
        raise LocalFault(f"this node owns no job {job!r}", "see `meshpeer jobs list`")

    def _job(self, job: str, state: str) -> Job:
        tasks = self.tasks_of.get(job, [])
        running = state == "running"
        counts = {"succeeded": 0, "failed": 0, "skipped": 0, "cancelled": 0}
        for one in tasks:
            counts[one.state] += 1
        done = make_counts(total=len(tasks), **counts)
        begun = make_counts(total=len(tasks), running=len(tasks))
        return make_job(
            id=job,
            name=self.specs[job].name if job in self.specs else "film",
            state=state,
            tasks=begun if running else done,
            finished_at=None if running else LATER,
            running_on={"beta": len(tasks)} if running else {},
            done_on={} if running else {"beta": len(tasks)},
            webhooks=() if running else self.told,
        )


@contextlib.contextmanager
def serving(api: FakeApi, path: Path, *, group: str = "") -> Iterator[None]:
    """Serves the API on this socket while the context lasts."""
    ready = threading.Event()
    trouble: list[BaseException] = []
    handle: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            handle.append((trio.lowlevel.current_trio_token(), nursery.cancel_scope))
            await nursery.start(_serve, api, path, group)
            ready.set()

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:  # noqa: BLE001  raised again in the thread of the test
            trouble.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(20), "the server did not start"
    try:
        if trouble:
            raise trouble[0]
        yield
    finally:
        if thread.is_alive():
            token, scope = handle[0]
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(scope.cancel)
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"
    if trouble:
        raise trouble[0]


async def _serve(
    api: FakeApi, path: Path, group: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    await serve_control(api, path, group=group, task_status=task_status)


__all__ = [
    "AT",
    "INVITE",
    "LATER",
    "FakeApi",
    "Refused",
    "make_findings",
    "make_peer",
    "make_status",
    "make_task",
    "make_why",
    "serving",
]
