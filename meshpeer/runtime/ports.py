"""The ports: what runtime asks of the world, as Protocols.

Every port has one contract suite in ``tests/adapters``, run against the real adapter and against the
in-memory one.
Adapters translate foreign exceptions once, into ``EnvironmentFault`` (or ``PeerFault``), with ``from``.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import trio

from meshpeer.core.counters import Counter
from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Change, Table
from meshpeer.core.errors import EnvironmentFault, StoreFailed
from meshpeer.core.ids import Digest, JobId, NodeId, Ticket, WireGuardKey
from meshpeer.core.jobs.cache import JobFiles, Use
from meshpeer.core.jobs.model import FileRef
from meshpeer.core.node.messages import EchoAsked, EchoHeard
from meshpeer.core.paths.probe_desk import ProbeHeard, SendProbe
from meshpeer.core.paths.relay_binding import NO_BINDS, Binds
from meshpeer.core.paths.relay_crossing import Way
from meshpeer.core.wgconf.forwarding import DesiredForwarding
from meshpeer.core.wgconf.model import DeviceStep, ObservedDevice


class Clock(Protocol):
    def now(self) -> Instant: ...


# --- store --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """These tickets are on disk, in the order in which they were given."""

    tickets: tuple[Ticket, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFailed:
    """None of these tickets is on disk; the store refuses further writes until it is opened anew."""

    tickets: tuple[Ticket, ...]
    error: StoreFailed


class Store(Protocol):
    """A durable map of tables, one writer, group commit. Writes never block the event loop."""

    @property
    def store_id(self) -> bytes:
        """16 random bytes made with the database: a wiped or restored store is a new one."""
        ...

    def load(self, table: Table, prefix: str = "") -> Sequence[tuple[str, bytes]]:
        """Returns the committed rows whose key starts with ``prefix``, in key order. For start-up: it
        blocks."""
        ...

    def commit_soon(self, ticket: Ticket, changes: Sequence[Change]) -> None:
        """Queues one transaction and returns at once; the outcome comes through ``outcomes``."""
        ...

    @property
    def outcomes(self) -> trio.MemoryReceiveChannel[Committed | CommitFailed]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRef:
    digest: Digest
    size: int


class BlobWriter(Protocol):
    """Receives a blob of announced digest and size from elsewhere, piece by piece."""

    @property
    def received(self) -> int:
        """Bytes held so far."""
        ...

    async def write(self, data: bytes) -> None:
        """Appends; raises ``PeerFault`` past the announced size and ``StoreFailed`` where the disk fails."""
        ...

    async def finish(self) -> BlobRef:
        """Verifies, syncs and publishes atomically; raises ``PeerFault`` where size or digest differ."""
        ...


class Blobs(Protocol):
    """Content-addressed files, complete or absent, in a folder of their own."""

    def path(self, digest: Digest) -> Path | None:
        """Returns the file of a complete blob, or None."""
        ...

    async def add_bytes(self, data: bytes) -> BlobRef: ...

    async def add_file(self, source: Path) -> BlobRef:
        """Copies (or reflinks) a file in; raises ``EnvironmentFault`` where it can't be read or stored."""
        ...

    async def read(self, digest: Digest, offset: int, length: int) -> bytes:
        """Returns up to ``length`` bytes; raises ``LocalFault`` where the blob is absent."""
        ...

    def receive(
        self, ref: BlobRef, *, resume: bool = False
    ) -> contextlib.AbstractAsyncContextManager[BlobWriter]:
        """Opens a writer; leaving the context without ``finish`` drops what came.

        With ``resume`` it is kept, unless it was wrong, and the next such writer begins where it ends
        (``received``). Raises ``StoreFailed`` where there is no room.
        """
        ...

    def used(self, digest: Digest) -> None:
        """Notes that a blob is of use now: what was used long ago goes first."""
        ...


class JobLists(Protocol):
    """What stands on this node for which job, by name alone: kept on disk, and no promise."""

    async def add(
        self, job: JobId, owner: NodeId, files: Sequence[tuple[Digest, Use]], keep_s: int = 0
    ) -> None:
        """Adds files of a job, and how long it wants its results to stay after its end, where it says so;
        raises ``StoreFailed``."""
        ...

    async def note_over(self, job: JobId, over_s: int) -> None:
        """Notes when a job ended, in Unix seconds."""
        ...

    async def forget(self, job: JobId) -> None: ...

    async def read(self) -> list[JobFiles]:
        """Returns all lists, in the order of the jobs' ids."""
        ...


# --- WireGuard ----------------------------------------------------------------------------------------------


class Forwarding(Protocol):
    """What this machine passes on between the tunnels of one interface, and out of them."""

    async def ensure(self, wanted: DesiredForwarding) -> bool:
        """Forwards what is wanted and nothing else; says whether anything had to be done, raises
        ``EnvironmentFault``."""
        ...


class Prober(Protocol):
    """Asks members for an echo through the tunnels, and answers those who ask."""

    async def serve(self, address: str, heard: Callable[[EchoAsked | EchoHeard], None]) -> None:
        """Answers on one overlay address of this machine until cancelled; says what is asked, and what comes
        back. Raises ``EnvironmentFault`` where the address can't be had."""
        ...

    def ask(self, address: str, number: int) -> bool:
        """Sends one probe from this machine's address of the same family; False where that is not possible:
        it is lost, as others are on their way. Never blocks."""
        ...


class Sending(enum.Enum):
    """What became of a datagram that was to be sent."""

    SENT = "sent"
    TOO_LONG = "too long"
    """The way out of this machine is narrower."""
    LOST = "lost"
    """There is no way out, or it is shut."""


class TunnelPort(Protocol):
    """Sends datagrams from WireGuard's own UDP port, and hears those that are not WireGuard's."""

    async def serve(
        self,
        port: int,
        mark: int,
        heard: Callable[[ProbeHeard], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Hears, and lets send, until cancelled; raises ``EnvironmentFault`` where that is not allowed.

        ``port`` belongs to whoever has bound it, and stays so. ``mark``: of what is sent; 0 for none."""
        ...

    def send(self, probe: SendProbe) -> Sending:
        """Sends one datagram, never in fragments. Never blocks."""
        ...


class WireGuard(Protocol):
    """One interface of this machine; never touches one that meshpeer did not make."""

    @property
    def backend(self) -> str:
        """``kernel``, ``userspace``, ``none`` or ``dry-run``."""
        ...

    async def observe(self) -> ObservedDevice | None:
        """Reads the interface, or None where it is absent; raises ``EnvironmentFault``."""
        ...

    async def apply(self, steps: Sequence[DeviceStep]) -> None:
        """Performs the steps in order with the fewest calls; raises ``EnvironmentFault`` naming the step."""
        ...

    async def renew_sources(self) -> None:
        """Lets it choose anew from which address it sends to each peer: this machine has others now. Raises
        ``EnvironmentFault``."""
        ...

    async def remove(self) -> None:
        """Takes the interface (and a userspace process of ours) down; absent is no error."""
        ...


# --- relay --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayedPair:
    """What crossed between the two ports of a pair; of each end, what it sent."""

    ports: tuple[int, int]
    packets: tuple[int, int]
    bytes: tuple[int, int]
    drops: Mapping[str, int]
    """Packets that did not cross, by reason (``core.paths.relay_crossing.Drop``)."""
    ways: tuple[Way | None, Way | None]
    """Where the ends are, as far as known."""
    frozen: bool
    fast: bool
    """The kernel carries what needs no decision."""


class Relaying(Protocol):
    """Lends UDP ports, and lets ciphertext cross between the two of a pair."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Relays until cancelled; raises ``EnvironmentFault`` where that ends, and all pairs with it.

        It has started when orders are taken. What it leaves behind when it ends is nothing.
        """
        ...

    async def open(
        self, ports: tuple[int, int], keys: tuple[WireGuardKey, WireGuardKey], binds: Binds = NO_BINDS
    ) -> None:
        """Lends two ports to the holders of these keys, who show where they are with these secrets; raises
        ``EnvironmentFault`` where one is taken, and then neither is open."""
        ...

    async def rekey(
        self, ports: tuple[int, int], keys: tuple[Sequence[WireGuardKey], Sequence[WireGuardKey]]
    ) -> None:
        """Sets the keys, two at most, that handshakes for each end may be made for; raises
        ``EnvironmentFault`` where the ports are not open."""
        ...

    async def close(self, ports: tuple[int, int]) -> None:
        """Takes ports back; what is not open is no error. Nothing crosses once it returns."""
        ...

    async def freeze(self, ports: tuple[int, int], at_s: float) -> None:
        """Lets nothing cross from an instant on (CLOCK_BOOTTIME seconds); raises ``EnvironmentFault`` where
        the ports are not open."""
        ...

    async def wake(self, ports: tuple[int, int]) -> None:
        """Ends a freeze, or calls it off; raises ``EnvironmentFault`` where the ports are not open."""
        ...

    async def look(self) -> Sequence[RelayedPair]:
        """Returns what crossed so far, of every pair that is open."""
        ...


# --- executor -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFile:
    """One file to stand in the scratch folder before the task starts: a copy or reflink of a blob, or content
    of the agent's own."""

    path: str
    source: Path | bytes
    executable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an attempt may take; 0 for what the executor gives all of them."""

    memory_bytes: int = 0
    processes: int = 0
    output_bytes: int = 0
    """stdout, stderr and the scratch folder together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptPlan:
    """All that running one attempt takes."""

    key: str
    """Unique on this node; safe as a file name."""
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    staged: tuple[StagedFile, ...]
    outputs: tuple[str, ...]
    timeout_s: float
    """0 for no limit."""
    limits: Limits = Limits()
    network: bool = True
    """Without it the attempt has a loopback of its own and nothing else."""
    report: str = ""
    """A file that is kept, where it is there, although the attempt has failed; empty for none."""
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Variables whose values appear nowhere but in the process: masked in what it writes to stdout and
    stderr, and no part of any output file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOutcome:
    """How an attempt ended. ``exit_code`` is None where no process ran; a signal ``n`` reads as ``128 +
    n``."""

    exit_code: int | None
    error: str
    """Empty for success; else one line: ``exit code 3``, ``killed by SIGSEGV``, ``timed out after 5 s``,
    ``output 'frame-*.ppm' is missing``, ``no such program: rendr``, ``killed by SIGKILL: it used more than
    128 MiB of memory``."""
    started_at_unix_s: float
    finished_at_unix_s: float
    stdout: BlobRef
    stderr: BlobRef
    outputs: tuple[FileRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonFound:
    """The Python that runs functions of jobs."""

    program: str
    version: str
    """``3.11``."""


class Interpreter(Protocol):
    """What this machine runs functions with."""

    @property
    def kit(self) -> bytes:
        """A zip application that makes a call: pure Python, for any version that tasks may have."""
        ...

    @property
    def cloudpickle(self) -> str:
        """The version of cloudpickle that the kit brings along."""
        ...

    async def find(self) -> PythonFound:
        """Raises ``EnvironmentFault`` where there is none that works."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that this machine does not keep attempts from, and what mends it."""

    what: str
    hint: str


class Executor(Protocol):
    """Runs attempts of commands in slots of this machine."""

    @property
    def slots(self) -> int: ...

    @property
    def isolation(self) -> str:
        """For ``status``: ``a uid per slot (61000-61003)`` or ``the agent's own user``."""
        ...

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """In what attempts are kept in less than they should be, on this machine."""
        ...

    async def run(self, plan: AttemptPlan) -> AttemptOutcome:
        """Runs one attempt to its end in a free slot (waits for one).

        Cancelling it ends the process group with SIGTERM, after a grace SIGKILL, and raises
        ``trio.Cancelled``.
        Raises ``EnvironmentFault`` where this machine can't run it at all (disk full, helper gone).
        """
        ...

    def log(self, key: str, stream: str, offset: int, length: int) -> bytes | None:
        """Reads ``stdout`` or ``stderr`` of a running attempt; None where it isn't running here."""
        ...


class Secrets(Protocol):
    """This machine's secrets, by name."""

    def read(self, names: Sequence[str], submitter: Collection[str]) -> tuple[tuple[str, str], ...]:
        """Returns names and values for a job of a submitter (its name and id); raises ``LocalFault`` where
        one is not here, or not for them, or all can't be read, or could be by others. No error tells a value.
        """
        ...


# --- links and discovery ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundNode:
    """A node that announced itself on the local network. Unauthenticated: a hint whom to dial, nothing
    more."""

    mesh_hint: str
    node_hint: str
    addresses: tuple[str, ...]
    """``host:port``, IPv6 in brackets."""


class Discovery(Protocol):
    """Announces this node on the LAN, and reports others."""

    def browse(self) -> AsyncIterator[FoundNode]: ...

    async def announce(self, *, mesh_hint: str, node_hint: str, port: int, addresses: Sequence[str]) -> None:
        """Announces until cancelled; returns at once where there is no network to announce on."""
        ...


class Tally(Protocol):
    """What adapters count into: ``core.counters.Counters``, or nothing."""

    def add(self, counter: Counter, by: int = 1) -> None: ...


class NoTally:
    """Counts nothing, for who has no metrics to show."""

    def add(self, counter: Counter, by: int = 1) -> None:
        pass


class Link(Protocol):
    """One authenticated, ordered, framed channel to a peer."""

    @property
    def peer(self) -> NodeId:
        """The public key that the handshake proved."""
        ...

    @property
    def dialled(self) -> str:
        """The address that we dialled; empty where the peer did."""
        ...

    @property
    def shown(self) -> bytes:
        """This node's own DER leaf in the handshake."""
        ...

    @property
    def remote(self) -> str:
        """The underlay address that the link comes from or goes to, ``host:port``."""
        ...

    @property
    def local(self) -> str:
        """This machine's own address of the link; empty where that is not known."""
        ...

    @property
    def leaf(self) -> bytes:
        """The DER leaf certificate of the handshake."""
        ...

    @property
    def carrier(self) -> NodeId | None:
        """The member that passes its bytes on; None for a link that goes straight."""
        ...

    def send_soon(self, frame: bytes) -> bool:
        """Queues one control frame; False where the queue is full and the frame was dropped."""
        ...

    async def send_bulk(self, frame: bytes) -> None:
        """Sends one bulk frame when no control frame waits; blocks while the peer is slow. Raises
        ``LinkOver``."""
        ...

    async def receive(self) -> bytes:
        """Returns the next frame; raises ``LinkOver`` when the link has ended, and ``PeerFault`` where the
        peer broke its rules (a frame too large, or none)."""
        ...

    def close_soon(self, reason: str) -> None:
        """Closes once the queued control frames are sent."""
        ...


class LinkOver(EnvironmentFault):
    """A link has ended; the text says why."""


class DialFault(EnvironmentFault):
    """No address led to a member. ``refused``: somebody is there and said no at once."""

    def __init__(
        self, what: str, hint: str = "", *, refused: bool = False, foreign: bool = False, cut: bool = False
    ) -> None:
        super().__init__(what, hint)
        self.refused = refused
        self.cut = cut
        """Somebody took the connection and ended it without a word, as one does at whose door many stand."""
        self.foreign = foreign
        """Somebody answered, who is no member of this mesh or does not take us for one."""


class Transport(Protocol):
    @property
    def port(self) -> int:
        """The TCP port that answers."""
        ...

    def dial(self, addresses: Sequence[str]) -> contextlib.AbstractAsyncContextManager[Link]:
        """Opens a link to the first address that answers, each tried a moment after the one before.

        Entering raises ``DialFault``; the link lives as long as the context.
        """
        ...

    async def serve(self, handler: Callable[[Link], Awaitable[None]]) -> None:
        """Accepts links until cancelled; a link lives as long as its handler.

        A handler that ends with ``PeerFault`` or ``LinkOver`` ends its link and nothing else.
        """
        ...

    def show(self, chain: Sequence[bytes]) -> None:
        """Proves this node's identity with another chain from now on."""
        ...

    def trust(self, roots: Sequence[bytes]) -> None:
        """Takes these for the mesh's roots from now on, founding root first."""
        ...
