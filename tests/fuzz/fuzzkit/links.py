"""Targets that read what comes over links: frames, records, facts, and what a whole node makes of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from fuzzkit import mesh, mutate
from fuzzkit.samples import samples
from fuzzkit.target import Target
from meshpeer.adapters.specfile import load_text
from meshpeer.core.antientropy.facts import facts_about
from meshpeer.core.antientropy.messages import Compare, Revoked
from meshpeer.core.antientropy.ranges import Fingerprints, Reconciler
from meshpeer.core.antientropy.telling import read_told
from meshpeer.core.deadline import Instant
from meshpeer.core.effects import Tick
from meshpeer.core.errors import InvariantBroken, PeerFault
from meshpeer.core.identity.certificates import make_durable_leaf
from meshpeer.core.identity.constraints import Capability
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import LinkId
from meshpeer.core.jobs.calls import HEAD_BYTES, ROW_BYTES, decode_head, decode_row, encode_calls, row_offset
from meshpeer.core.jobs.check import require_valid
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import FileRef, JobRecord, JobSpec
from meshpeer.core.jobs.problems import InvalidJob
from meshpeer.core.membership.messages import Hello, LinkClosed, LinkOpened
from meshpeer.core.node.codec import CODEC
from meshpeer.core.node.messages import FrameReceived
from meshpeer.core.node.node import BAN_S, Node
from meshpeer.core.node.rows import unpack_chains, unpack_revocation
from meshpeer.core.records import envelope
from meshpeer.core.records.judge import Judge
from meshpeer.core.records.ledger import CHARTER_ID, Ledger
from meshpeer.core.records.revocation import read_revocation
from meshpeer.core.scheduler.rows import (
    GivenRow,
    JobRow,
    ResultRow,
    SeatRow,
    TaskRow,
    put_given,
    put_seat,
    read_grants,
)
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import FRAME_BYTES_MAX, RECORD_BYTES_MAX
from meshpeer.runtime.bulk import CODEC as BULK
from meshpeer.sim.world import World

_KNOWN = (
    mesh.ADMIN.public,
    mesh.OTHER.public,
    mesh.GUEST.public,
    mesh.MESH,
    bytes(32),
    b"",
    *mesh.ADMIN_CHAIN,
)
EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "sweep.yaml"
_CONTROL_HEAD, _BULK_HEAD = b"\0", b"\1"
_CASES_PER_NODE = 400
"""A node that is lied to for ever holds more and more within its limits: then another takes its place."""


# --- frames -------------------------------------------------------------------------------------------------


def _control_frames() -> list[bytes]:
    return [CODEC.encode(one) for kind in CODEC.kinds for one in samples(kind, _KNOWN)]


def _bulk_frames() -> list[bytes]:
    return [BULK.encode(one) for kind in BULK.kinds for one in samples(kind, _KNOWN)]


# --- records ------------------------------------------------------------------------------------------------


def _merge_body(body: bytes) -> object:
    """Merges a record whose signature is right, whatever it says: a member signs what it likes."""
    signature = mesh.ADMIN.sign(envelope.RECORD_CONTEXT, mesh.MESH, body)
    return mesh.ledger().merge(cbor.encode(envelope.Signed(body, signature)), mesh.NOW)


def _open_envelope(data: bytes) -> object:
    return Judge().open(data)


def _merge_envelope(data: bytes) -> object:
    return mesh.ledger().merge(data, mesh.NOW)


def _bodies() -> list[bytes]:
    return [cbor.encode(one) for one in (mesh.MEMBER, mesh.LEAVE, mesh.CHARTER, mesh.SUSPECT)]


def _envelopes() -> list[bytes]:
    bodies = (mesh.MEMBER, mesh.LEAVE, mesh.CHARTER, mesh.SUSPECT)
    return [envelope.sign(mesh.ADMIN, mesh.MESH, one) for one in bodies]


def _merge_revocation(body: bytes) -> object:
    signature = mesh.ADMIN.sign(envelope.RECORD_CONTEXT, mesh.MESH, body)
    data = cbor.encode(envelope.Signed(body, signature))
    roots, judge = (mesh.ROOT.certificate,), mesh.JUDGE
    one = read_revocation(data, mesh.ADMIN_CHAIN, mesh=mesh.MESH, roots=roots, judge=judge)
    return mesh.ledger().revoke(one)


def _revocation_bodies() -> list[bytes]:
    return [cbor.encode(one) for one in (mesh.REVOCATION, mesh.INVITE_REVOKED)]


def _read_told(data: bytes) -> object:
    """Reads revocations as a link tells them, each with its author's chain."""
    message = cbor.decode(data, Revoked, bytes_max=FRAME_BYTES_MAX)
    roots, judge = (mesh.ROOT.certificate,), mesh.JUDGE
    held = mesh.ledger()
    told = read_told(message)
    held.revoke(
        *(read_revocation(said, chain, mesh=mesh.MESH, roots=roots, judge=judge) for said, chain in told)
    )
    return held.fingerprint


def _told() -> list[bytes]:
    said = envelope.sign(mesh.ADMIN, mesh.MESH, mesh.REVOCATION)
    by_root = msgspec.structs.replace(mesh.REVOCATION, author=SigningKey(mesh.ROOT.seed).public)
    rooted = envelope.sign(SigningKey(mesh.ROOT.seed), mesh.MESH, by_root)
    return [cbor.encode(Revoked(chains=(mesh.ADMIN_CHAIN,), said=((1, said), (0, rooted)), last=True))]


# --- reconciliation -----------------------------------------------------------------------------------------


def _compare(data: bytes) -> object:
    held = mesh.ledger()
    message = cbor.decode(data, Compare, bytes_max=FRAME_BYTES_MAX)
    return Reconciler(held, _sums(held)).on_compare(message)


def _sums(held: Ledger) -> Fingerprints:
    sums = Fingerprints(held)
    for node in (*(member.node for member in held), CHARTER_ID):
        sums.replace(node, None, held.item_of(node))
    return sums


def _comparisons() -> list[bytes]:
    held = mesh.ledger()
    asked = Compare(want=(mesh.ADMIN.public,))
    return [cbor.encode(Reconciler(held, _sums(held)).open()), cbor.encode(asked)]


# --- rows of the journal and of jobs ------------------------------------------------------------------------


def _read_job(body: bytes) -> object:
    """Judges a job's record as the agent does once its signature holds, and makes the graph of it."""
    record = cbor.decode(body, JobRecord, bytes_max=1 << 20)
    require_valid(record.spec)
    graph = Graph.of(record.spec)
    return [graph.id_of(task) for task in range(min(len(graph), 50))]


def _job_records() -> list[bytes]:
    made = [msgspec.structs.replace(one, spec=_spec()) for one in samples(JobRecord, _KNOWN)]
    return [cbor.encode(one) for one in made]


def _spec() -> JobSpec:
    return load_text(EXAMPLE.read_bytes(), source_name="sweep.yaml", folder=EXAMPLE.parent).spec


def _read_rows(data: bytes) -> object:
    """Reads a row of the journal as each of its tables: a disk that was written to by others."""
    refused = []
    for read in _ROW_READERS:
        try:
            read(data)
        except PeerFault as fault:
            refused.append(fault)
    if len(refused) == len(_ROW_READERS):
        raise refused[0]
    return refused


_ROW_READERS: tuple[Callable[[bytes], object], ...] = (
    unpack_chains,
    unpack_revocation,
    lambda data: read_grants([(_key_of(SeatRow), data)]),
    lambda data: read_grants([(_key_of(GivenRow), data)]),
    *(functools.partial(cbor.decode, kind=kind, bytes_max=1 << 20) for kind in (JobRow, TaskRow, ResultRow)),
)


@functools.cache
def _key_of(kind: type[SeatRow | GivenRow]) -> str:
    one = samples(kind, _KNOWN)[0]
    if isinstance(one, SeatRow):
        return put_seat(one.job, one.node).key
    assert isinstance(one, GivenRow)
    return put_given(one).key


def _rows() -> list[bytes]:
    said = envelope.sign(mesh.ADMIN, mesh.MESH, mesh.REVOCATION)
    kinds = (SeatRow, GivenRow, JobRow, TaskRow, ResultRow)
    return [
        cbor.encode([list(mesh.ADMIN_CHAIN), list(mesh.GUEST_CHAIN)]),
        cbor.encode([said, list(mesh.ADMIN_CHAIN)]),
        *(cbor.encode(one) for kind in kinds for one in samples(kind, _KNOWN)),
    ]


def _read_manifest(data: bytes) -> object:
    return cbor.decode(data, tuple[FileRef, ...], bytes_max=1 << 20)


def _cut_calls(data: bytes) -> object:
    head = decode_head(data[:HEAD_BYTES])
    found = []
    for number in range(min(head.count, 3)):
        at = row_offset(number)
        found += decode_row(data[at : at + ROW_BYTES], head=head, file_bytes=len(data))
    assert all(data[part.offset : part.offset + part.size] for part in found)
    return found


def _manifests() -> list[bytes]:
    return [cbor.encode(tuple(samples(FileRef, _KNOWN)))]


# --- a whole node -------------------------------------------------------------------------------------------


class _LiedTo:
    """A founder, and a member without a node that says anything to it, each time on a link of its own."""

    def __init__(self) -> None:
        world = World(7)
        self.host = world.found("alpha")
        world.run(2)
        assert self.host.node is not None
        self.node: Node = self.host.node
        self.key = SigningKey(b"l" * 32)
        started = world.instant(self.host)
        self._mono_s, self._unix_s = started.mono_s, started.unix_s
        leaf = make_durable_leaf(
            world.issuer,
            self.key.public,
            capabilities={
                Capability.MEMBER,
                Capability.SUBMIT,
                Capability.WORK,
                Capability.HUB,
                Capability.RELAY,
            },
            admitted_at=int(self._unix_s),
            now_unix_s=int(self._unix_s),
            serial=bytes(8),
        )
        self.chain = (leaf, world.issuer.certificate)
        self.hello = CODEC.encode(
            Hello(
                versions=(1,),
                mesh=world.mesh,
                chain=self.chain,
                clock_ms=int(self._unix_s * 1000),
                observed="192.0.2.1:51821",
                control_port=1,
            )
        )
        self.cases = 0

    def hear(self, frame: bytes) -> None:
        self.cases += 1
        link = LinkId(100_000 + self.cases)
        self._pass(0.05)
        opened = LinkOpened(
            link=link, peer=self.key.public, leaf=self.chain[0], remote="192.0.2.66:1", dialled=""
        )
        self._tell(opened)
        self._tell(FrameReceived(link=link, frame=self.hello))
        self._tell(FrameReceived(link=link, frame=frame))
        self._tell(Tick())
        self._tell(LinkClosed(link=link, reason="it said all"))
        self.node.links.check()
        if self.node.presence.record is None:
            raise InvariantBroken("a member's word took the node's own record")
        if self.key.public in self.node.links.banned(self._now()):
            self._pass(BAN_S)

    def _tell(self, event: object) -> None:
        self.node.handle(event, self._now())  # type: ignore[arg-type]

    def _pass(self, span_s: float) -> None:
        self._mono_s, self._unix_s = self._mono_s + span_s, self._unix_s + span_s

    def _now(self) -> Instant:
        return Instant(self._mono_s, self._unix_s)

    def frames(self) -> list[bytes]:
        known = [self.key.public, self.host.id, *self.chain, bytes(32), *self.host.disk.values()]
        honest: list[msgspec.Struct] = [
            Reconciler(self.node.ledger, _sums(self.node.ledger)).open(),
            *facts_about(self.node.ledger, [self.host.id, CHARTER_ID]),
        ]
        drawn = [one for kind in CODEC.kinds for one in samples(kind, known)]
        return [CODEC.encode(one) for one in (*honest, *drawn) if _fits(one)]


def _fits(message: msgspec.Struct) -> bool:
    try:
        return len(CODEC.encode(message)) < 8_000
    except ValueError:
        return False


_lied_to: list[_LiedTo] = []


def _tell_node(frame: bytes) -> object:
    if not _lied_to or _lied_to[0].cases >= _CASES_PER_NODE:
        _lied_to[:] = [_LiedTo()]
    return _lied_to[0].hear(frame)


def _node_frames() -> Sequence[bytes]:
    return _LiedTo().frames()


TARGETS = (
    Target(
        name="wire.cbor",
        run=lambda data: cbor.decode_plain(data, bytes_max=FRAME_BYTES_MAX),
        refusals=(PeerFault,),
        seeds=lambda: [one[1:] for one in _control_frames()],
        bytes_max=4_096,
    ),
    Target(
        name="wire.frame",
        run=CODEC.decode,
        refusals=(PeerFault,),
        seeds=_control_frames,
        mutate=mutate.cbor(head=_CONTROL_HEAD),
        bytes_max=4_096,
    ),
    Target(
        name="wire.bulk",
        run=BULK.decode,
        refusals=(PeerFault,),
        seeds=_bulk_frames,
        mutate=mutate.cbor(head=_BULK_HEAD),
    ),
    Target(
        name="records.envelope",
        run=_open_envelope,
        refusals=(PeerFault,),
        seeds=_envelopes,
        mutate=mutate.cbor(),
        bytes_max=RECORD_BYTES_MAX + 64,
    ),
    Target(
        name="records.merge",
        run=_merge_envelope,
        refusals=(PeerFault,),
        seeds=_envelopes,
        mutate=mutate.cbor(),
    ),
    Target(name="records.body", run=_merge_body, refusals=(PeerFault,), seeds=_bodies, mutate=mutate.cbor()),
    Target(
        name="records.revocation",
        run=_merge_revocation,
        refusals=(PeerFault,),
        seeds=_revocation_bodies,
        mutate=mutate.cbor(),
    ),
    Target(name="records.revoked", run=_read_told, refusals=(PeerFault,), seeds=_told, mutate=mutate.cbor()),
    Target(
        name="records.compare",
        run=_compare,
        refusals=(PeerFault,),
        seeds=_comparisons,
        mutate=mutate.cbor(),
    ),
    Target(
        name="records.rows",
        run=_read_rows,
        refusals=(PeerFault,),
        seeds=_rows,
        mutate=mutate.cbor(),
        bytes_max=4_096,
    ),
    Target(
        name="jobs.record",
        run=_read_job,
        refusals=(PeerFault, InvalidJob),
        seeds=_job_records,
        mutate=mutate.cbor(),
        bytes_max=4_096,
    ),
    Target(
        name="jobs.calls",
        run=_cut_calls,
        refusals=(PeerFault,),
        seeds=lambda: [encode_calls((3, 11), "3.1.2", [(b"f", b"abc"), (b"f", b"d"), (b"g", b"e")])],
        bytes_max=512,
    ),
    Target(
        name="jobs.manifest",
        run=_read_manifest,
        refusals=(PeerFault,),
        seeds=_manifests,
        mutate=mutate.cbor(),
    ),
    Target(
        name="node.frame",
        run=_tell_node,
        refusals=(),
        seeds=_node_frames,
        mutate=mutate.cbor(head=_CONTROL_HEAD),
        bytes_max=8_192,
    ),
)
