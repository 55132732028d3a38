"""The control API: what the command line, the client library and the dashboard ask of a running agent.

The shapes below are the JSON documents; their keys may be relied on, and are only ever added to. Times
are RFC 3339 in UTC with microseconds; ids are text; addresses carry no prefix length.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from meshpeer.runtime.doctor import AgentFindings
    from meshpeer.runtime.job_docs import Drain, JobGraph, JobList, JobWhy


class Doc(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON document."""


class MeshInfo(Doc, frozen=True, kw_only=True):
    id: str
    name: str
    subnet: str
    topology: str
    """As the charter says."""
    topology_mode: str
    """As it is applied now."""
    hubs: tuple[str, ...] = ()
    """The active hub of each region, by name; none in a full mesh."""


class NodeInfo(Doc, frozen=True, kw_only=True):
    id: str
    name: str
    region: str
    roles: tuple[str, ...]
    ipv4: str
    ipv6: str
    public_key: str
    backend: str
    interface: str
    port: int
    mtu: int
    control_port: int
    isolation: str
    """How tasks are kept apart."""
    slots: int
    admission: str
    """``durable``, ``provisional`` or ``revoked``."""
    certificate_ends: str
    version: str
    uptime_s: float
    routes: tuple[str, ...] = ()
    """LANs behind this node that it advertises."""
    relay: bool = False
    """It lends ports to pairs that can't meet directly."""
    relays_for: int = 0
    """Pairs of others that it relays now."""
    relayed_by: dict[str, int] = {}
    """How many of its own tunnels each relay carries."""
    mtu_differs: bool = False
    """Some members' paths carry less than the interface's MTU: ``peers`` has each."""
    busy: int = 0
    """Slots that tasks have now."""
    drained: bool = False
    """It takes no work because somebody said so; what it had goes on."""


class MemberCounts(Doc, frozen=True, kw_only=True):
    total: int
    alive: int
    suspect: int
    dead: int
    left: int
    revoked: int = 0
    """Nodes whose own keys were revoked."""


class Differing(Doc, frozen=True, kw_only=True):
    """A member that derives its plan from something else than this node."""

    name: str
    parts: tuple[str, ...] = msgspec.field(name="in")
    """Of ``charter``, ``members`` (who is in), ``addresses``, ``doubts``, ``mode``, ``hubs``."""
    since: str
    """When this node noticed."""
    lasts_s: float
    """How long that is ago."""
    travels: bool = False
    """It may be no more than news on its way: the member has not said so again for long enough."""


class Unheard(Doc, frozen=True, kw_only=True):
    """A member that said nothing of late, or is dead."""

    name: str
    last_heard_s: float | None
    """How long ago it last said from what it derives its plan; None: never, as far as this node heard."""


class Agreement(Doc, frozen=True, kw_only=True):
    """Whether members derive their plans from the same facts; each is in one of the three."""

    agree: int
    """This node included."""
    total: int
    differ: tuple[Differing, ...] = ()
    unknown: tuple[Unheard, ...] = ()


class LinkOnly(Doc, frozen=True, kw_only=True):
    """Members that this node reaches by control links alone, for one reason."""

    names: tuple[str, ...]
    since: str
    """Since when no UDP of theirs answered; empty where that is not why."""
    never: bool = False
    """None ever did, as far as this agent has seen: ``since`` is when it began to look."""


class Channel(Doc, frozen=True, kw_only=True):
    """By which channel this node reaches the living members; each is in one of the four."""

    tunnel: int
    """By WireGuard, as its own tunnels tell."""
    link: tuple[LinkOnly, ...] = ()
    none: tuple[str, ...] = ()
    """Neither works."""
    unknown: tuple[str, ...] = ()
    """Nothing went through its tunnel for long, so whether it works nobody knows."""
    unknown_since: str = ""
    over: dict[str, tuple[str, ...]] = {}
    """What links go over, where they do not go straight: members that carry them, or ``ssh``; and to whom."""


class Status(Doc, frozen=True, kw_only=True):
    mesh: MeshInfo
    node: NodeInfo
    members: MemberCounts
    health: str
    """``ok``, ``degraded``, ``alone`` or ``revoked`` (this node itself)."""
    warnings: tuple[str, ...]
    jobs: dict[str, int]
    """Owned jobs by state."""
    agreement: Agreement | None = None
    """None: the agent is of a version that does not say."""
    channel: Channel | None = None
    """None: the agent is of a version that does not say."""
    revocations: tuple[RevocationInfo, ...] = ()
    """The newest that count, at most 20; `meshpeer revoke` without a name lists all."""
    files: FileUse | None = None
    """None: the agent is of a version that does not say."""


class FileUse(Doc, frozen=True, kw_only=True):
    """What files of jobs take of this node's disk, and what is on its way here."""

    bytes: int
    """As it was seen last: looks come with what is added, and every ten minutes."""
    bytes_max: int
    """What the settings allow."""
    bytes_needed: int
    """Of them what is needed, as far as that was looked at: 0 below the cap."""
    coming: int
    """Larger files that are moved here now."""
    coming_bytes: int
    here_bytes: int
    """Of these what has come."""


class Peer(Doc, frozen=True, kw_only=True):
    id: str
    name: str
    region: str
    roles: tuple[str, ...]
    ipv4: str
    ipv6: str
    state: str
    """``alive``, ``suspect``, ``dead``, ``left`` or ``revoked``."""
    since: str
    """When this node's opinion took its present value."""
    because: str
    observers: tuple[str, ...] = ()
    """Names of the members that suspect it, by their signature."""
    link: str
    """``up`` or ``down``."""
    path: str
    """``direct``, ``hub``, ``relay``, ``link`` (no tunnel, but a link) or ``none``."""
    via: str
    endpoint: str
    last_handshake_s: float | None
    rtt_ms: float | None
    rx_bytes: int
    tx_bytes: int
    routes: tuple[str, ...] = ()
    """LANs that are reached through it."""
    reported: str = ""
    """By whom, and for what, where members say that it carries nothing for them as a hub."""
    mtu: int = 0
    """Of packets to its address; 0 where there is no tunnel."""
    udp_silent_since: str = ""
    """Since when nothing answers in the tunnel that leads to it (its own, or its hub's); empty where it
    answers, or there is none."""
    link_via: str = ""
    """What its control link goes over: the name of a member that carries it, or ``ssh``; empty where it goes
    straight."""
    probed: bool = False
    """Probes through its tunnels have reached it: members notice where it falls silent as a hub."""
    work: str = ""
    """``accepts``, ``drained`` or ``none`` (its settings or its certificate say no); empty where it has not
    told this node."""


class PlanPeer(Doc, frozen=True, kw_only=True):
    name: str
    public_key: str
    endpoint: str | None
    allowed_ips: tuple[str, ...]
    keepalive_s: int


class Plan(Doc, frozen=True, kw_only=True):
    mode: str
    hub: str | None
    """Whose tunnel carries this node's traffic to whom it has none; None where all is direct."""
    hubs: tuple[str, ...]
    """The active hub of each region, by name."""
    peers: tuple[PlanPeer, ...]
    routes: tuple[str, ...]
    changes: tuple[str, ...]
    """Steps that would be applied now; empty where the interface is as it should be."""
    standbys: tuple[str, ...] = ()
    """Hubs that take over where an active one is lost."""
    coming: tuple[str, ...] = ()
    """Those of them that rank before a hub, and take over as soon as they have its tunnels."""
    forwards: bool = False
    """This node is a hub or stands by: it passes on traffic between others."""
    keeps: tuple[str, ...] = ()
    """Members with whom this node keeps its own tunnel, although hubs are to carry the pair: it is in use."""
    waits_for: tuple[str, ...] = ()
    """Members that hubs carry still, until the pair's own tunnel works."""
    reported: tuple[str, ...] = ()
    """One line for each other hub that members report."""


class TaskCounts(Doc, frozen=True, kw_only=True):
    total: int
    waiting: int
    ready: int
    running: int
    succeeded: int
    failed: int
    skipped: int
    cancelled: int


class JobMessage(Doc, frozen=True, kw_only=True):
    """What the end of a job is told to."""

    event: str
    """``on_complete`` or ``on_failure``."""
    url: str
    state: str
    """``waiting``, ``delivered`` or ``given_up``."""
    trouble: str
    """Why it is not delivered, as far as that is known."""


class Job(Doc, frozen=True, kw_only=True):
    id: str
    name: str
    state: str
    owner: str
    """The owner's name."""
    durability: str
    tasks: TaskCounts
    submitted_at: str
    finished_at: str | None
    running_on: dict[str, int] = {}
    """Node name -> tasks that run there now."""
    done_on: dict[str, int] = {}
    """Node name -> results committed from there."""
    webhooks: tuple[JobMessage, ...] = ()
    """Once it has ended: what it is told to."""
    paused: bool = False
    """Nothing more of it is started."""
    priority: int = 0
    as_of: str | None = None
    """Where its owner is away: when the replica that answers heard of it last."""

    @property
    def shown_state(self) -> str:
        """Its state as people see it: one that is paused says so until it has ended."""
        return "paused" if self.paused and self.finished_at is None else self.state


class TaskTry(Doc, frozen=True, kw_only=True):
    n: int
    node: str
    state: str
    exit_code: int | None
    started_at: str | None
    finished_at: str | None
    stolen_from: str | None
    error: str


class Task(Doc, frozen=True, kw_only=True):
    id: str
    name: str
    index: int | None
    state: str
    node: str | None
    attempts: tuple[TaskTry, ...]
    exit_code: int | None
    error: str
    stdout_bytes: int
    stderr_bytes: int
    outputs: tuple[str, ...]
    wanted: bool
    """Nobody needs it: its outputs are the job's results."""
    staged_bytes: int = 0
    """Of its inputs what its node has by now, while they are moved there."""
    input_bytes: int = 0
    """What they are in all; 0 where nothing is moved, or it is little."""


class OutputFile(Doc, frozen=True, kw_only=True):
    path: str
    sha256: str
    size: int
    executable: bool


class OutputState(Doc, frozen=True, kw_only=True):
    """How much of an output file is on the node that was asked."""

    size: int
    here_bytes: int
    ready: bool
    """All of it, and verified: it can be read now."""


class CallResult(Doc, frozen=True, kw_only=True):
    task: str
    index: int | None
    state: str
    """One in which a task stays: ``succeeded``, ``failed``, ``skipped`` or ``cancelled``."""
    node: str | None
    error: str
    """Why it failed, or why what it returned can't be had now."""
    path: str
    """The output file that holds what it returned, or raised; empty where there is none."""
    size: int
    data: bytes | None
    """Its content, base64 in JSON; null where that is larger than 256 KiB, or not to be had now."""


class LogPiece(Doc, frozen=True, kw_only=True):
    data: bytes
    """Base64 in JSON."""
    offset: int
    """Where the next piece begins."""
    finished: bool
    """No more will come."""
    attempt: int = 0
    """Tells apart which of the task's attempts printed it; 0 where there is none yet."""
    node: str = ""
    """Where that runs, or ran."""


class InviteRequest(Doc, frozen=True, kw_only=True):
    expires_s: int = 86_400
    uses: int = 1
    roles: tuple[str, ...] = ("compute",)
    region: str = ""
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    """LANs that who joins with it may advertise."""


class InviteMade(Doc, frozen=True, kw_only=True):
    invite: str
    id: str
    mesh: str
    fingerprint: str
    expires_at: str
    uses: int
    roles: tuple[str, ...]
    region: str
    may: str
    """What it allows, in words."""
    seeds: tuple[str, ...]
    warnings: tuple[str, ...]
    routes: tuple[str, ...] = ()


class PingAnswer(Doc, frozen=True, kw_only=True):
    node: str
    address: str
    over: str
    """``tunnel`` or ``link``."""
    rtt_ms: tuple[float | None, ...]
    """One a packet; null where no answer came."""


class WhyRule(Doc, frozen=True, kw_only=True):
    """One reason."""

    code: str
    """Which rule; for programs."""
    text: str


class WhyTunnel(Doc, frozen=True, kw_only=True):
    """A tunnel of this node on the way."""

    to: str
    works: bool
    """It had a handshake within three minutes."""
    endpoint: str
    """Where the interface sends to; empty where it has none."""
    last_handshake_s: float | None
    """Seconds ago; None for never."""
    mtu: int = 0
    """Of packets to that member itself; 0: its path was not searched."""
    underlay_bytes: int | None = None
    """The largest packet that its path carries in one piece; None where probes are not answered."""


class WhyCandidate(Doc, frozen=True, kw_only=True):
    """An endpoint that this node knows for one of these tunnels."""

    tunnel: str
    """To whom."""
    endpoint: str
    source: str
    """``near``, ``link``, ``configured``, ``public``, ``reflected`` (others see it there), ``private``, or
    ``seen``: the peer came from there, or once had it."""
    state: str
    """``working``, ``trying``, ``given_up``, ``replaced`` or ``untried``."""
    since: str | None
    """Of that state; None where it was never tried."""
    handshake: str | None
    """The last one there, as far as this agent has seen."""
    known_since: str | None = None
    """Since when this agent knows the endpoint as one to try; None for one that is not."""


class Why(Doc, frozen=True, kw_only=True, rename={"source": "from", "target": "to"}):
    """Why the path between two members is what it is, as the node that is asked can tell."""

    source: str
    target: str
    verdict: str
    """``direct``, ``relay``, ``hubs``, ``planned`` (no tunnel of this node is on the way), ``link`` or
    ``none``."""
    answer: str
    """The verdict in one sentence."""
    path: tuple[str, ...]
    """Names, both ends included; it ends early where no plan leads on, and is empty where one of the two
    has no tunnels."""
    rule: tuple[WhyRule, ...]
    tunnels: tuple[WhyTunnel, ...]
    candidates: tuple[WhyCandidate, ...]
    unknown: tuple[str, ...]
    """What can't be known on this node, and where it is."""
    todo: tuple[str, ...]
    """What to do where it is not well."""


class Charter(Doc, frozen=True, kw_only=True):
    """The settings that hold for the whole mesh."""

    version: int
    changed_at: str
    changed_by: str
    """The name of the member that signed it; its id where it is in no more."""
    mesh: str
    subnet: str
    topology: str
    topology_mode: str
    """What the topology amounts to now: ``full`` or ``regional``."""
    hubs: int
    keepalive_s: int
    mtu: int
    idle_s: int
    away_max_s: int
    wireguard_port: int


class CharterChange(Doc, frozen=True, kw_only=True):
    """What shall be different; None leaves a setting as it is."""

    subnet: str | None = None
    topology: str | None = None
    hubs: int | None = None
    keepalive_s: int | None = None
    mtu: int | None = None
    idle_s: int | None = None
    away_max_s: int | None = None


class RevocationInfo(Doc, frozen=True, kw_only=True):
    """One revocation that counts."""

    what: str
    """``node``, ``invite`` or ``issuer``; ``root``: one that was retired."""
    id: str
    """Of a node its key as text; of an invite, issuer or root 16 hexadecimal digits."""
    name: str
    """What it was called; empty where nobody said."""
    by: str
    """The name of the admin that signed it, its id where it is in no more, or ``the root``."""
    at: str
    since: str | None
    """Of an invite or issuer: who was admitted before this stays; null where all go along."""
    reason: str


class RevocationRequest(Doc, frozen=True, kw_only=True):
    """What is to be shut out."""

    target: str
    """A member's name or id, an invite, or the id of an invite or issuer."""
    reason: str = ""
    members: str = ""
    """``revoke`` or ``keep`` those who are in by an invite or issuer."""
    since: float | None = None
    """Of an issuer, in Unix seconds: whom it admitted before this stays."""
    revocations: str = ""
    """``keep`` what an admin revoked itself, or let it be ``void``."""
    keep_invite: bool = False
    """Leave the invite open that a node came with."""
    root: bool = False
    """Sign with the root's key, which must be on this node."""
    root_key: bytes = b""
    """The public key of a root that signs elsewhere: nothing is done, and ``to_sign`` says what to sign."""


class RevocationMade(Doc, frozen=True, kw_only=True):
    revocation: RevocationInfo
    done_before: bool
    """It was revoked already: nothing was signed."""
    members: tuple[str, ...]
    """Names of those who were in and are out now."""
    kept: int
    """Revocations of an admin that were signed anew."""
    invite: str = ""
    """The id of the invite that was closed along with a node; empty for none."""
    warnings: tuple[str, ...] = ()
    to_sign: tuple[bytes, ...] = ()
    """Where a root signs elsewhere: bodies of statements, in order, for POST /v1/signed. Nothing is done."""


class IssuerInfo(Doc, frozen=True, kw_only=True):
    """One issuer that was not revoked."""

    id: str
    """16 hexadecimal digits."""
    node: str
    """The name of the member that keeps its key, its id where it is in no more; empty where nobody says."""
    me: bool
    alive: bool
    since: str
    until: str
    heard_at: str | None
    """When its node was heard of last; null where nothing is known of it any more."""
    issued: int
    """Members whose certificates it signed."""
    root: str
    """The root that signed it, 16 hexadecimal digits."""
    left: bool = False
    """Its node has left the mesh, and issues no more."""


class IssuerKey(Doc, frozen=True, kw_only=True):
    """What a root is to sign so that a member is an issuer."""

    node: str
    request: bytes
    """Signed by the member and by the key that it made for that."""
    chain: tuple[bytes, ...]
    """The member's own certificates, leaf first."""


class RootInfo(Doc, frozen=True, kw_only=True):
    """One root of the mesh."""

    id: str
    """16 hexadecimal digits."""
    number: int
    """Its place in the line, from 1 for the founding one."""
    since: str
    until: str
    retired_at: str | None
    members: int
    """Whose certificates lead to it."""
    certificate: bytes


class Roots(Doc, frozen=True, kw_only=True):
    """The roots of the mesh, and what they signed that counts."""

    mesh: bytes
    roots: tuple[RootInfo, ...]
    issuers: tuple[bytes, ...]
    """Certificates of the issuers that were not revoked."""


class Signed(Doc, frozen=True, kw_only=True):
    """What a root's key has signed: certificates of issuers and of roots that follow, and statements."""

    certificates: tuple[bytes, ...] = ()
    statements: tuple[bytes, ...] = ()


class SignedAdded(Doc, frozen=True, kw_only=True):
    certificates: int
    statements: int


class Retirement(Doc, frozen=True, kw_only=True):
    """What is to be signed to retire a root, and what that comes to."""

    root: str
    to_sign: tuple[bytes, ...]
    kept: int
    """Revocations that are signed anew, or they would count no more."""
    members: tuple[str, ...]
    """Who stands on that root alone, and would be out."""


class KeyRotation(Doc, frozen=True, kw_only=True):
    """How a change of this node's WireGuard key stands, or where it stands without one."""

    state: str
    """``steady``, or under way: ``announced``, ``keeping``, ``called``, ``turning``."""
    public_key: str
    """The one that this node's record shows."""
    next_public_key: str
    """The one that it changes to; empty for none."""
    previous_public_key: str
    """The one before the last change since the agent was started; empty for none."""
    made_at: str
    """When the present key was made."""
    changed_at: str
    """When the last change since the agent was started was over; empty for none."""
    ready: int
    """Peers that said that they let the next key in; of a change that is over, how many had."""
    waiting_for: tuple[str, ...]
    """Names of peers that have not said so yet."""
    missed: tuple[str, ...]
    """Names of peers that had not when this node changed over."""
    held_up: str = ""
    """What else is waited for, in words."""


class Renamed(Doc, frozen=True, kw_only=True):
    """What a node is called now, and was before."""

    name: str
    before: str


class Said(Doc, frozen=True, kw_only=True):
    """What stop and leave answer: what happens now, in words."""

    said: str


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /v1/jobs, in canonical CBOR: the id is the client's, so a retried submit is not a
    second job.
    """

    job: str
    spec: bytes
    """A ``JobSpec`` in canonical CBOR."""


class DashboardLink(Doc, frozen=True, kw_only=True):
    url: str
    """With the token: whoever has it may look until the agent stops."""


class ControlApi(Protocol):
    """What an agent answers. Every method raises ``MeshpeerError`` with what and hint."""

    async def status(self) -> Status: ...

    async def peers(self) -> list[Peer]: ...

    async def plan(self) -> Plan: ...

    async def why(self, source: str, target: str) -> Why:
        """Explains the path between two members by name; an empty source is this node."""
        ...

    async def dashboard(self) -> DashboardLink: ...

    async def doctor(self) -> AgentFindings:
        """Checks what the agent can tell; asks linked members, which takes up to 7 s."""
        ...

    async def export_wg_quick(self) -> str: ...

    async def invite(self, request: InviteRequest) -> InviteMade: ...

    async def charter(self) -> Charter: ...

    async def change_charter(self, change: CharterChange) -> Charter: ...

    async def revocations(self) -> list[RevocationInfo]: ...

    async def revoke(self, request: RevocationRequest) -> RevocationMade: ...

    async def rotation(self) -> KeyRotation: ...

    async def rotate_key(self) -> KeyRotation: ...

    async def rename(self, name: str) -> Renamed: ...

    async def issuers(self) -> list[IssuerInfo]: ...

    async def issuer_key(self, name: str) -> IssuerKey:
        """Makes a member show the key of an issuer, by name; an empty one is this node."""
        ...

    async def roots(self) -> Roots: ...

    async def add_signed(
        self, certificates: tuple[bytes, ...], statements: tuple[bytes, ...]
    ) -> SignedAdded: ...

    async def retirement(self, root: str, key: bytes) -> Retirement:
        """Says what the root with this public key is to sign to retire another (empty: the one before it)."""
        ...

    async def ping(self, node: str, count: int) -> PingAnswer: ...

    async def stop(self, *, take_down: bool) -> str:
        """Stops the agent soon; with ``take_down`` the interface goes too. Returns what will happen, in
        words.
        """
        ...

    async def leave(self, *, force: bool) -> str: ...

    async def has_blob(self, digest: str) -> bool: ...

    async def put_blob(self, digest: str, size: int, pieces: AsyncIterator[bytes]) -> None: ...

    async def ready_output(self, job: str, task: str, path: str) -> OutputState:
        """Has an output file moved to this node, and says how far that is: at once where it is here, else
        after a second or two. Ask again until it is ready."""
        ...

    def get_output(self, job: str, task: str, path: str, offset: int = 0) -> AsyncIterator[bytes]: ...

    async def submit(self, submission: Submission) -> Job: ...

    async def jobs(self) -> list[Job]: ...

    async def all_jobs(self) -> JobList:
        """Returns the jobs of all members that can be asked."""
        ...

    async def job(self, job: str) -> Job: ...

    async def tasks(self, job: str) -> list[Task]: ...

    async def outputs(self, job: str, task: str) -> list[OutputFile]: ...

    async def log(
        self, job: str, task: str, stream: str, offset: int, wait: bool, attempt: int = 0
    ) -> LogPiece:
        """Reads a task's output from ``offset`` on; from the start where ``attempt``, which the last piece
        was of, is not the latest."""
        ...

    def watch(self, job: str) -> AsyncIterator[Job]:
        """Yields the job now and at every change until it has ended."""
        ...

    def results(self, job: str) -> AsyncIterator[CallResult]:
        """Yields what became of each task that is a function, as they end."""
        ...

    async def cancel(self, job: str) -> Job: ...

    async def pause(self, job: str, paused: bool) -> Job: ...

    async def prioritise(self, job: str, priority: int) -> Job: ...

    async def retry(self, job: str, tasks: tuple[str, ...]) -> Job:
        """Runs failed tasks again, all of them where none are named, and what was skipped because of them."""
        ...

    async def adopt(self, job: str, force: bool) -> Job:
        """Takes a job by force on this node, which has a replica of it, where its quorum is gone for good."""
        ...

    async def why_task(self, job: str, task: str) -> JobWhy:
        """Says why a task is where it is; without a task, of all tasks that have not succeeded."""
        ...

    async def graph(self, job: str) -> JobGraph: ...

    async def drain_of(self, node: str) -> Drain:
        """Says whether a member takes work; an empty name is this node."""
        ...

    async def drain(self, node: str, drained: bool) -> Drain: ...


def rfc3339(unix_s: float) -> str:
    """Returns a time as every document shows it."""
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
