"""Answers the control API for one running agent. Reads the node's state, posts events, waits for the journal where it promises."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import trio

from meshpeer import __version__
from meshpeer.app import views
from meshpeer.core.errors import EnvironmentFault, LocalFault, MeshpeerError, Refused, StoreFailed
from meshpeer.core.identity.certificates import SERIAL_BYTES, make_invite
from meshpeer.core.identity.constraints import INVITE_DEFAULT, Capability, describe
from meshpeer.core.identity.invites import Invite, encode_invite
from meshpeer.core.ids import Digest, JobId, TaskIndex, Ticket, key_text, wireguard_key_text
from meshpeer.core.jobs.model import FileRef, JobRecord, JobSpec
from meshpeer.core.node.messages import LeaveAsked
from meshpeer.core.records import envelope
from meshpeer.core.scheduler.messages import CancelAsked, JobSubmitted
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.wgconf.render import render_wg_quick
from meshpeer.core.wire import cbor
from meshpeer.runtime.control import (
    InviteMade,
    InviteRequest,
    Job,
    LogPiece,
    MeshInfo,
    NodeInfo,
    OutputFile,
    Peer,
    PingAnswer,
    Plan,
    Status,
    Submission,
    Task,
    rfc3339,
)
from meshpeer.runtime.ports import BlobRef

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent

LOG_PIECE_BYTES = 256 * 1024
LOG_WAIT_S = 20.0
MANIFEST_BYTES_MAX = 32 * 1024 * 1024
SPEC_BYTES_MAX = 64 * 1024 * 1024
JOB_ID = re.compile(r"j[a-z2-7]{19}")
DRIFT_SHOWN_S = 600.0


class AgentApi:
    """Implements ``runtime.control.ControlApi``."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._watchers: dict[str, trio.Event] = {}
        self._failure: StoreFailed | None = None

    # --- called by the agent -------------------------------------------------------------------------------------

    def on_job_changed(self, job: JobId) -> None:
        """Wakes whoever watches the job."""
        event = self._watchers.pop(job, None)
        if event is not None:
            event.set()

    def fail(self, error: StoreFailed) -> None:
        """Nothing can be written any more: whoever waits is told why."""
        self._failure = error
        for event in self._watchers.values():
            event.set()
        self._watchers.clear()

    # --- the mesh ------------------------------------------------------------------------------------------------

    async def status(self) -> Status:
        agent, node = self._agent, self._agent.node
        mine, charter, member = node.roster.get(node.me), node.ledger.charter, node.ledger.get(node.me)
        best = member.best if member else None
        counts = views.count_members(node)
        troubles = self.troubles()
        states: dict[str, int] = {}
        for owner in node.scheduler.owned.values():
            states[views.job_state(owner)] = states.get(views.job_state(owner), 0) + 1
        return Status(
            mesh=MeshInfo(
                id=key_text(node.ledger.mesh),
                name=charter.mesh_name if charter else "",
                subnet=charter.subnet if charter else "",
                topology=charter.topology if charter else "",
                topology_mode=node.tunnels.plan.mode,
            ),
            node=NodeInfo(
                id=key_text(node.me),
                name=mine.name if mine else agent.state.node.name,
                region=agent.state.node.region,
                roles=agent.state.node.roles,
                ipv4=mine.ipv4 if mine else "",
                ipv6=mine.ipv6 if mine and agent.wireguard.backend != "none" else "",
                public_key=wireguard_key_text(agent.state.wireguard_key.public),
                backend=agent.wireguard.backend,
                interface=""
                if agent.wireguard.backend == "none"
                else agent.settings.file.wireguard.interface,
                port=node.config.wireguard_port,
                mtu=charter.mtu if charter else 0,
                control_port=agent.transport.port,
                isolation=agent.executor.isolation,
                slots=agent.executor.slots,
                admission="durable" if best and best.identity.durable else "provisional",
                certificate_ends=rfc3339(best.identity.not_after) if best else "",
                version=__version__,
                uptime_s=round(time.monotonic() - agent.started_at, 1),
            ),
            members=counts,
            health="alone" if counts.total > 1 and not node.links.peers else "degraded" if troubles else "ok",
            warnings=(*troubles, *self.notices()),
            jobs=states,
        )

    async def peers(self) -> list[Peer]:
        node, now = self._agent.node, self._agent.clock.now().unix_s
        listed = [views.peer_view(node, one, now) for one in node.roster.members if one.node != node.me]
        left = [
            views.left_view(one.leave) for one in node.ledger if one.leave is not None and one.node != node.me
        ]
        return sorted(listed, key=lambda one: one.name) + left

    async def plan(self) -> Plan:
        return views.plan_view(self._agent.node, self._agent.clock.now().unix_s)

    async def export_wg_quick(self) -> str:
        desired = self._agent.node.desired
        if desired is None:
            raise LocalFault("this node has no interface (backend none)", "there is nothing to export")
        node = self._agent.node
        names = {one.record.wireguard_key: one.name for one in node.roster.members}
        return render_wg_quick(
            desired, names, observed=node.tunnels.observed, now_unix_s=self._agent.clock.now().unix_s
        )

    async def invite(self, request: InviteRequest) -> InviteMade:
        agent = self._agent
        issuer = agent.state.issuer
        if issuer is None:
            raise Refused(
                "this node can't make invites: it is no issuer",
                "make it on the founder, or on another issuer of the mesh",
            )
        if not 60 <= request.expires_s <= 90 * 86_400 or not 1 <= request.uses <= 1_000:
            raise LocalFault(
                "an invite holds for 1 minute to 90 days and 1 to 1000 uses",
                "choose --expires and --uses within that",
            )
        capabilities = (INVITE_DEFAULT | _capabilities(request.allow)) - _capabilities(request.deny)
        seeds, warnings = self._seeds_for_invite()
        now = int(agent.clock.now().unix_s)
        authority = make_invite(
            issuer,
            os.urandom(32),
            capabilities=capabilities,
            roles=request.roles,
            region=request.region,
            uses=request.uses,
            expires_s=request.expires_s,
            now_unix_s=now,
            serial=os.urandom(SERIAL_BYTES),
        )
        charter = agent.node.ledger.charter
        invite = Invite(
            authority=authority,
            issuer=issuer.certificate,
            roots=agent.state.node.roots,
            seeds=seeds,
            mesh_name=charter.mesh_name if charter else "",
        )
        return InviteMade(
            invite=encode_invite(invite),
            id=invite.id.hex(),
            mesh=charter.mesh_name if charter else "",
            fingerprint=invite.fingerprint,
            expires_at=rfc3339(now + request.expires_s),
            uses=request.uses,
            roles=request.roles,
            region=request.region,
            may=describe(capabilities),
            seeds=seeds,
            warnings=warnings,
        )

    async def ping(self, node: str, count: int) -> PingAnswer:
        mind = self._agent.node
        listed = mind.roster.named(node)
        if listed is None:
            known = ", ".join(one.name for one in mind.roster.members)
            raise LocalFault(f"there is no member {node!r}", f"members are: {known}")
        count = min(max(count, 1), 100)
        address = listed.ipv4 or listed.ipv6
        if (
            self._agent.wireguard.backend == "none"
            or not listed.record.wireguard_port
            or listed.node == mind.me
        ):
            rtt = mind.liveness.rtt_s(listed.node)
            return PingAnswer(
                node=listed.name,
                address=mind.links.remote_of(listed.node),
                over="link",
                rtt_ms=(rtt * 1000 if rtt else None,),
            )
        try:
            done = await trio.run_process(
                ["ping", "-n", "-c", str(count), "-i", "0.2", "-W", "1", address],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise EnvironmentFault(
                "`ping` is not installed",
                "apt install iputils-ping (Debian, Ubuntu) or dnf install iputils (Fedora)",
            ) from error
        times = {
            int(one[0]): float(one[1])
            for one in re.findall(rb"icmp_seq=(\d+).*time=([\d.]+) ms", done.stdout)
        }
        return PingAnswer(
            node=listed.name,
            address=address,
            over="tunnel",
            rtt_ms=tuple(times.get(number) for number in range(1, count + 1)),
        )

    async def stop(self, *, take_down: bool) -> str:
        self._agent.take_down = take_down
        self._stop_soon()
        return "the agent stops and the interface goes" if take_down else "the agent stops; tunnels stay up"

    async def leave(self, *, force: bool) -> str:
        agent = self._agent
        others = [one for one in agent.node.roster.members if one.node != agent.node.me]
        issuers = [one for one in others if Capability.ISSUER in one.identity.capabilities]
        if agent.state.issuer is not None and others and not issuers and not force:
            raise Refused(
                "this node is the mesh's last issuer: without it nobody can be admitted or renewed",
                "leave all the same with --force; members stay connected until their certificates end",
            )
        agent.driver.step_now(LeaveAsked())
        agent.take_down = True
        (agent.settings.state_dir / "node.json").rename(
            agent.settings.state_dir / f"left-{int(time.time())}.json"
        )
        self._stop_soon()
        return (
            "this node has left the mesh; its keys are kept in the state folder, and are of no use any more"
        )

    def warnings(self) -> list[str]:
        """Returns what an operator should know, worst first."""
        return [*self.troubles(), *self.notices()]

    def troubles(self) -> list[str]:
        """Returns what keeps this node from doing its work."""
        agent, node = self._agent, self._agent.node
        warnings: list[str] = []
        fault = agent.reconciler.fault
        if fault is not None:
            warnings.append(f"the interface is not as it should be: {fault.what} ({fault.hint})")
        member = node.ledger.get(node.me)
        best = member.best if member else None
        if best is not None and not best.identity.durable:
            minutes = int((best.identity.not_after - agent.clock.now().unix_s) / 60)
            warnings.append(
                f"this node is provisional: no issuer has admitted it yet, and its invite ends in {minutes} min"
            )
        if len(node.roster.members) > 1 and not node.links.peers:
            warnings.append("no member can be reached: see `meshpeer peers`, and the network of this machine")
        for refusal in agent.refusals.values():
            warnings.append(f"a member refuses this node: {refusal}")
        return warnings

    def notices(self) -> list[str]:
        """Returns what works, and is worth knowing all the same."""
        agent, node = self._agent, self._agent.node
        warnings: list[str] = []
        warnings += [note for note in getattr(agent.wireguard, "notes", ())]
        for one in node.roster.members:
            if one.quarantined:
                warnings.append(
                    f"{one.name} contradicts itself: is a copy of its state folder in use somewhere?"
                )
            if one.name != one.record.name:
                warnings.append(f"{one.name} asked for the name {one.record.name}, which another member has")
        for who, spent in node.spent_invites.items():
            warnings.append(
                f"{views.name_of(node, who)} used invite {spent.invite.hex()} beyond its {spent.uses} use(s): it stays provisional"
            )
        drift = agent.reconciler.last_drift
        if drift is not None and agent.clock.now().unix_s - drift[0] < DRIFT_SHOWN_S:
            warnings.append(f"repaired at {rfc3339(drift[0])[11:19]} UTC: {'; '.join(drift[1])}")
        if (
            agent.state.issuer is not None
            and len(node.roster.members) > 2
            and not any(
                Capability.ISSUER in one.identity.capabilities
                for one in node.roster.members
                if one.node != node.me
            )
        ):
            warnings.append(
                "this node is the only issuer: if it is lost, nobody can join any more (keep a backup of its keys folder)"
            )
        return warnings

    def next_steps(self) -> tuple[str, ...]:
        """Returns what a person would type next."""
        if self._agent.state.issuer is not None and len(self._agent.node.roster.members) == 1:
            return (
                "meshpeer invite      make an invite, then type on the other machine: meshpeer join INVITE",
                "meshpeer status",
            )
        return (
            "meshpeer peers       who is in, and how they are reached",
            "meshpeer jobs submit FILE    run a job on all of them",
        )

    # --- files ---------------------------------------------------------------------------------------------------

    async def has_blob(self, digest: str) -> bool:
        return self._agent.blobs.path(_digest(digest)) is not None

    async def put_blob(self, digest: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        async with self._agent.blobs.receive(BlobRef(digest=_digest(digest), size=size)) as writer:
            async for piece in pieces:
                if piece:
                    await writer.write(piece)
            await writer.finish()

    async def get_output(self, job: str, task: str, path: str) -> AsyncIterator[bytes]:
        owner, index = self._task(job, task)
        for file in await self._manifest(owner, index):
            if file.path == path:
                await self._have(BlobRef(digest=file.digest, size=file.size), owner, index)
                offset = 0
                while offset < file.size:
                    data = await self._agent.blobs.read(file.digest, offset, LOG_PIECE_BYTES)
                    offset += len(data)
                    yield data
                return
        raise LocalFault(f"{task} has no output {path!r}", f"see `meshpeer jobs tasks {job}`")

    # --- jobs ----------------------------------------------------------------------------------------------------

    async def submit(self, submission: Submission) -> Job:
        agent, node = self._agent, self._agent.node
        if not JOB_ID.fullmatch(submission.job):
            raise LocalFault(
                f"{submission.job!r} is not a job id", "a job id is j and 19 letters or digits 2 to 7"
            )
        job = JobId(submission.job)
        owner = node.scheduler.owned.get(job)
        if owner is None:
            self._check_may_submit()
            spec = cbor.decode(submission.spec, JobSpec, bytes_max=SPEC_BYTES_MAX)
            missing = [file.path for file in spec.files if agent.blobs.path(file.digest) is None]
            if missing:
                raise LocalFault(
                    f"the job's file {missing[0]} was not uploaded",
                    "submit again with `meshpeer jobs submit`",
                )
            record = JobRecord(
                job=job,
                submitter=node.me,
                submitted_at_us=int(agent.clock.now().unix_s * 1e6),
                spec=spec,
                replicas=(node.me,),
            )
            signed = envelope.sign(agent.state.key, agent.state.mesh, record, context=envelope.JOB_CONTEXT)
            stored = await agent.blobs.add_bytes(signed)
            agent.driver.step_now(JobSubmitted(record=record, signed=signed, digest=Digest(stored.digest)))
            owner = node.scheduler.owned[job]
        await self._on_disk(owner.accept_ticket)
        return views.job_view(node, owner)

    async def jobs(self) -> list[Job]:
        owners = self._agent.node.scheduler.owned.values()
        return [
            views.job_view(self._agent.node, one)
            for one in sorted(owners, key=lambda one: -one.record.submitted_at_us)
        ]

    async def job(self, job: str) -> Job:
        return views.job_view(self._agent.node, self._owner(job))

    async def tasks(self, job: str) -> list[Task]:
        owner = self._owner(job)
        tasks: list[Task] = []
        for number in range(len(owner.graph)):
            index = TaskIndex(number)
            row = owner.results.get(index)
            outputs: tuple[str, ...] = ()
            if row is not None and row.outputs and self._agent.blobs.path(row.manifest.digest) is not None:
                outputs = tuple(file.path for file in await self._manifest(owner, index))
            tasks.append(views.task_view(self._agent.node, owner, index, outputs))
        return tasks

    async def outputs(self, job: str, task: str) -> list[OutputFile]:
        owner, index = self._task(job, task)
        files = await self._manifest(owner, index)
        return [
            OutputFile(path=one.path, sha256=one.digest.hex(), size=one.size, executable=one.executable)
            for one in files
        ]

    async def log(self, job: str, task: str, stream: str, offset: int, wait: bool) -> LogPiece:
        if stream not in ("stdout", "stderr"):
            raise LocalFault(f"{stream!r} is not a stream", "streams are stdout and stderr")
        owner, index = self._task(job, task)
        deadline = trio.current_time() + (LOG_WAIT_S if wait else 0.0)
        while True:
            row = owner.results.get(index)
            if row is not None:
                blob = row.stdout if stream == "stdout" else row.stderr
                if not blob.size:
                    return LogPiece(data=b"", offset=offset, finished=True)
                await self._have(BlobRef(digest=blob.digest, size=blob.size), owner, index)
                data = await self._agent.blobs.read(blob.digest, offset, LOG_PIECE_BYTES)
                return LogPiece(
                    data=data, offset=offset + len(data), finished=offset + len(data) >= blob.size
                )
            lease = owner.leases.get(index)
            if lease is not None and lease.node == self._agent.node.me:
                live = self._agent.executor.log(
                    self._agent.attempts.key_of(owner.job, lease.attempt), stream, offset, LOG_PIECE_BYTES
                )
                if live:
                    return LogPiece(data=live, offset=offset + len(live), finished=False)
            if owner.finished or trio.current_time() >= deadline:
                return LogPiece(data=b"", offset=offset, finished=owner.finished)
            await trio.sleep(0.1)

    async def watch(self, job: str) -> AsyncIterator[Job]:
        owner = self._owner(job)
        last: Job | None = None
        while True:
            event = self._watchers.setdefault(owner.job, trio.Event())
            present = views.job_view(self._agent.node, owner)
            if present != last:
                yield present
                last = present
            if owner.finished:
                return
            await event.wait()
            if self._failure is not None:
                raise self._failure
            await trio.sleep(0.05)

    async def cancel(self, job: str) -> Job:
        owner = self._owner(job)
        self._agent.driver.step_now(CancelAsked(job=owner.job))
        await self._on_disk(owner.last_ticket)
        return views.job_view(self._agent.node, owner)

    # --- helpers -------------------------------------------------------------------------------------------------

    def _check_may_submit(self) -> None:
        member = self._agent.node.ledger.get(self._agent.node.me)
        if (
            member is None
            or member.best is None
            or Capability.SUBMIT not in member.best.identity.capabilities
        ):
            raise Refused(
                "this node may not submit jobs",
                "its invite was made with --deny submit; submit at another node",
            )

    async def _on_disk(self, ticket: Ticket | None) -> None:
        """Returns once the ticket is on disk; raises ``StoreFailed`` where it can't be."""
        done = trio.Event()
        self._agent.releases.when(ticket, done.set, done.set)
        await done.wait()
        if self._failure is not None:
            raise self._failure

    def _owner(self, job: str) -> JobOwner:
        owned = self._agent.node.scheduler.owned
        owner = owned.get(JobId(job))
        if owner is not None:
            return owner
        matches = [one for one in owned.values() if one.job.startswith(job) or one.record.spec.name == job]
        if len(matches) == 1 or (matches and all(one.record.spec.name == job for one in matches)):
            return max(matches, key=lambda one: one.record.submitted_at_us)
        if matches:
            raise LocalFault(
                f"{job!r} fits {len(matches)} jobs", "give more of the id: see `meshpeer jobs list`"
            )
        raise LocalFault(
            f"this node owns no job {job!r}",
            "see `meshpeer jobs list`; a job is asked for at the node that it was submitted at",
        )

    def _task(self, job: str, task: str) -> tuple[JobOwner, TaskIndex]:
        owner = self._owner(job)
        if not task and len(owner.graph) == 1:
            return owner, TaskIndex(0)
        return owner, owner.graph.find(task)

    async def _manifest(self, owner: JobOwner, index: TaskIndex) -> tuple[FileRef, ...]:
        row = owner.results.get(index)
        if row is None or not row.outputs:
            return ()
        await self._have(BlobRef(digest=row.manifest.digest, size=row.manifest.size), owner, index)
        data = await self._agent.blobs.read(row.manifest.digest, 0, row.manifest.size)
        return cbor.decode(data, tuple[FileRef, ...], bytes_max=MANIFEST_BYTES_MAX)

    async def _have(self, ref: BlobRef, owner: JobOwner, index: TaskIndex) -> None:
        if self._agent.blobs.path(ref.digest) is not None:
            return
        holder = owner.results[index].node
        try:
            await self._agent.exchange.fetch(ref, holder)
        except MeshpeerError as error:
            name = views.name_of(self._agent.node, holder)
            raise EnvironmentFault(
                f"{name}, which holds this file, can't give it: {error.what}",
                f"is {name} up? see `meshpeer peers`",
            ) from error

    def _seeds_for_invite(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns addresses for an invite, best first, and what a person should know about them."""
        record = self._agent.node.own.record
        seeds = record.control_endpoints[:3] if record else ()
        if self._agent.state.node.endpoint:
            return seeds, ()
        private = all(
            re.match(r"(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|100\.|127\.|\[f[cde])", one)
            for one in seeds
        )
        note = (
            "the seeds are addresses of a local network: a joiner elsewhere can't reach them. Found or run this node with --endpoint HOST, "
            f"and open TCP {self._agent.transport.port} and UDP {self._agent.node.config.wireguard_port} to it"
        )
        return seeds, (note,) if private else ()

    def _stop_soon(self) -> None:
        async def stop() -> None:
            await trio.sleep(0.3)
            self._agent.stopping.set()

        self._agent.spawn(stop)


def _capabilities(names: tuple[str, ...]) -> frozenset[Capability]:
    try:
        return frozenset(Capability(name) for name in names)
    except ValueError as error:
        raise LocalFault(f"{error.args[0]}", f"capabilities are: {', '.join(Capability)}") from error


def _digest(text: str) -> Digest:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise LocalFault(f"{text!r} is not a SHA-256", "give 64 hexadecimal digits")
    return Digest(raw)
