"""Tries of a hostile member with facts: records, counters, addresses, routes, suspicions, revocations."""

from __future__ import annotations

import os
import time

import msgspec
from hostile_member import Member
from hostile_mesh import Mesh, until
from hostile_stage import Stage, attempt

from meshpeer.core.antientropy.messages import Facts, Revoked
from meshpeer.core.identity.certificates import SERIAL_BYTES, make_invite, make_provisional_leaf
from meshpeer.core.identity.constraints import INVITE_DEFAULT, Capability
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.ids import NodeId
from meshpeer.core.membership.opinions import State
from meshpeer.core.node.layout import first_of_each_key
from meshpeer.core.node.rights import overreach
from meshpeer.core.records.kinds import (
    CharterRecord,
    HubReport,
    LeaveRecord,
    MemberRecord,
    RegionDistance,
    RevocationRecord,
    SuspectRecord,
    precedence,
)
from meshpeer.runtime.doctor import Finding

RECORDS = "Records of others, and its own"
PLACES = "Addresses, keys, routes, and who carries what"
WORDS = "Suspicions, revocations, charters"
FLOOD = 1_000


# --- records ------------------------------------------------------------------------------------------------


@attempt(
    RECORDS, "a newer record in another member's name", "the member's record is the one that it signed itself"
)
async def forged(stage: Stage) -> None:
    beta = record_of(stage.mesh, stage.mesh.beta.node.me)
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.tell(msgspec.structs.replace(beta, incarnation=beta.incarnation + 1, name="mine"))
        await stage.see(voice)
    assert record_of(stage.mesh, stage.mesh.beta.node.me).name == "beta"


@attempt(RECORDS, "a leave in another member's name", "the member is still in")
async def forged_leave(stage: Stage) -> None:
    beta = record_of(stage.mesh, stage.mesh.beta.node.me)
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.tell(
            LeaveRecord(
                node=beta.node,
                incarnation=beta.incarnation,
                sequence=beta.sequence + 1,
                issued_at=int(time.time()),
                ttl_s=86_400,
            )
        )
        await stage.see(voice)
    assert stage.mesh.alpha.node.ledger.is_in(beta.node)


@attempt(RECORDS, "an old record of another member, played back", "the newer one stands")
async def replayed(stage: Stage) -> None:
    carol = stage.mesh.member("carol-1")
    old, new = carol.record(), carol.record(region="eu")
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.say(Facts(chains=(carol.chain,), records=(carol.sign(new),), push=True))
        voice.say(Facts(records=(carol.sign(old),), push=True))
        await stage.see(voice)
    assert record_of(stage.mesh, carol.id).region == "eu"


@attempt(RECORDS, "the last record of a member that has left, played back", "it stays away")
async def replayed_after_leave(stage: Stage) -> None:
    carol = stage.mesh.member("carol-2")
    last = carol.record()
    leave = LeaveRecord(
        node=carol.id,
        incarnation=last.incarnation,
        sequence=last.sequence + 1,
        issued_at=last.issued_at,
        ttl_s=86_400,
    )
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.say(Facts(chains=(carol.chain,), records=(carol.sign(last), carol.sign(leave)), push=True))
        voice.say(Facts(chains=(carol.chain,), records=(carol.sign(last),), push=True))
        await stage.see(voice)
    assert not stage.mesh.holds(carol.id)


@attempt(RECORDS, "its own counters at their end (2^63 - 1)", "no ledger takes the record")
async def counters_at_their_end(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.tell(stage.liar.record(incarnation=2**63 - 1, sequence=2**63 - 1))
        await stage.see(voice)
    assert record_of(stage.mesh, stage.liar.id).incarnation < 2**62


@attempt(RECORDS, "a record of its own that is dated an hour ahead", "no ledger takes the record")
async def dated_ahead(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.tell(stage.liar.record(issued_at=int(time.time()) + 3_600, region="tomorrow"))
        await stage.see(voice)
    assert record_of(stage.mesh, stage.liar.id).region == ""


@attempt(
    RECORDS,
    "two records of its own with one counter (equivocation)",
    "both agents hold both as the proof, and `status` names it",
)
async def equivocation(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        one = stage.liar.record(region="eu")
        voice.tell(one, msgspec.structs.replace(one, region="us"))
        await stage.see(voice)
        await until(lambda: all(is_quarantined(agent, stage.liar.id) for agent in stage.mesh.honest))
    assert "contradicts itself" in await warnings_of(stage.mesh)


@attempt(RECORDS, f"{FLOOD:,} newer records of its own in one go", "a job of the honest ends meanwhile")
async def record_flood(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        records = [stage.liar.sign(stage.liar.record()) for _ in range(FLOOD)]
        for at in range(0, FLOOD, 50):
            voice.say(Facts(records=tuple(records[at : at + 50]), push=True))
            if not at % 500:
                await voice.settled()
        await stage.mesh.runs_a_job()
        await stage.see(voice)


@attempt(
    RECORDS,
    "500 keys of its own, certified with an invite for two",
    "the invite's places are all that it got",
)
async def invite_flood(stage: Stage) -> None:
    issuer = stage.mesh.state.issuer
    assert issuer is not None
    now = int(time.time())
    invite = make_invite(
        issuer,
        os.urandom(32),
        capabilities=INVITE_DEFAULT,
        uses=2,
        expires_s=3_600,
        now_unix_s=now,
        serial=os.urandom(SERIAL_BYTES),
    )
    known = len(stage.mesh.alpha.node.ledger)
    async with stage.liar.linked(stage.mesh.port) as voice:
        for _ in range(50):
            voice.say(Facts(chains=tuple(_fresh_chain(invite, issuer.certificate, now) for _ in range(10))))
        await stage.see(voice)
    assert len(stage.mesh.alpha.node.ledger) <= known + 1 + 2 + 8


@attempt(
    RECORDS, "1,000 tombstones and 1,000 suspicions of nodes that nobody admitted", "no ledger has grown"
)
async def tables_of_strangers(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        known = len(stage.mesh.alpha.node.ledger)
        now = int(time.time())
        for _ in range(20):
            strangers = [NodeId(os.urandom(32)) for _ in range(50)]
            voice.tell(
                *(
                    LeaveRecord(node=one, incarnation=1, sequence=1, issued_at=now, ttl_s=60)
                    for one in strangers
                )
            )
            voice.tell(*(_suspicion(stage.liar.id, one, 1, 1) for one in strangers))
            await voice.settled()
        await stage.see(voice)
        assert len(stage.mesh.alpha.node.ledger) == known


@attempt(
    RECORDS,
    "a record with 1,000 endpoints, names of 10,000 letters, and control characters",
    "no ledger takes any of it",
)
async def bulky_records(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        for claims in (
            {"control_endpoints": tuple(f"192.0.2.1:{port}" for port in range(1, 1_000))},
            {"name": "n" * 10_000},
            {"name": "\x1b[31mred"},
            {"roles": tuple(f"r{number}" for number in range(200))},
        ):
            voice.tell(stage.liar.record(**claims))
        await stage.see(voice)
    assert record_of(stage.mesh, stage.liar.id).name == stage.liar.name


# --- places -------------------------------------------------------------------------------------------------


@attempt(
    PLACES, "the mesh address of a member that was admitted before", "the address stays with that member"
)
async def foreign_address(stage: Stage) -> None:
    carol = await enlisted(stage, "carol-3", ipv4="10.10.0.77", wireguard_port=51820)
    async with stage.liar.linked(stage.mesh.port, ipv4="10.10.0.77", wireguard_port=51820) as voice:
        await stage.see(voice)
        assert stage.mesh.alpha.node.roster.taken["10.10.0.77"] == carol.id


@attempt(PLACES, "addresses outside the mesh's subnet", "it has no IPv4 address")
async def address_outside(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port, wireguard_port=51820) as voice:
        for ipv4 in ("192.0.2.1", "127.0.0.1", "10.10.0.0", "10.10.0.255"):
            voice.tell(stage.liar.record(ipv4=ipv4, wireguard_port=51820))
            await voice.settled()
            listed = stage.mesh.alpha.node.roster.get(stage.liar.id)
            assert listed is not None
            assert listed.ipv4 == ""
        await stage.see(voice)


@attempt(PLACES, "another member's WireGuard key", "the tunnel of that key stays that member's")
async def foreign_key(stage: Stage) -> None:
    carol = await enlisted(stage, "carol-4", wireguard_port=51820)
    async with stage.liar.linked(
        stage.mesh.port, wireguard_port=51820, wireguard_key=carol.wireguard.public
    ) as voice:
        await stage.see(voice)
        holders = {
            one.record.wireguard_key: one.node for one in first_of_each_key(stage.mesh.alpha.node.roster)
        }
        assert holders[carol.wireguard.public] == carol.id


@attempt(
    PLACES,
    "a default route, loopback, and a LAN that its certificate does not name",
    "nobody leads there through it",
)
async def foreign_routes(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port, wireguard_port=51820) as voice:
        for route in ("0.0.0.0/0", "127.0.0.0/8", "192.168.77.0/24", "::/0"):
            voice.tell(stage.liar.record(wireguard_port=51820, routes=(route,)))
        await stage.see(voice)
    assert record_of(stage.mesh, stage.liar.id).routes == ()


@attempt(
    PLACES,
    "to be a hub and a relay without the right, with round trips of 0 ms to every region",
    "no plan makes it one; `status` and `doctor` name it",
)
async def topology_lies(stage: Stage) -> None:
    stage.liar = stage.mesh.member(without=frozenset({Capability.HUB, Capability.RELAY}))
    near = tuple(RegionDistance(region, 0) for region in ("asia", "eu", "us"))
    claims = {
        "hub": "prefer",
        "warm": True,
        "relay": True,
        "distances": near,
        "wireguard_port": 51820,
        "configured_endpoint": True,
        "wireguard_endpoints": ("203.0.113.66:51820",),
    }
    async with stage.liar.linked(stage.mesh.port, **claims) as voice:
        await stage.see(voice)
        node = stage.mesh.alpha.node
        listed = node.roster.get(stage.liar.id)
        assert listed is not None
        assert overreach(listed) == "a hub and a relay"
        assert node.ledger.charter is not None
        layout = node.derived.layout(node.ledger.charter, ())
        assert {one.node: one.hub for one in layout.shape.view.members}[stage.liar.id] == "never"
        assert "which its certificate does not allow" in await warnings_of(stage.mesh)
        found: list[Finding] = (await stage.mesh.alpha.api.doctor()).findings  # type: ignore[assignment]
        assert "capabilities" in [one.check for one in found]


@attempt(PLACES, "reports that every member's hub carries nothing", "nobody loses a place that it has")
async def false_hub_reports(stage: Stage) -> None:
    nodes = [agent.node for agent in stage.mesh.honest]
    reports = tuple(
        HubReport(one.me, record_of(stage.mesh, one.me).incarnation, "forwarding")
        for one in sorted(nodes, key=lambda one: one.me)
    )
    before = [hubs_of(agent) for agent in stage.mesh.honest]
    async with stage.liar.linked(stage.mesh.port, hubs_failed=reports, region="elsewhere") as voice:
        await stage.see(voice)
        assert [hubs_of(agent) for agent in stage.mesh.honest] == before


# --- words on others ----------------------------------------------------------------------------------------


@attempt(
    WORDS,
    "suspicions of everybody, again with each of their records",
    "nobody is taken for dead; the suspected refute",
)
async def suspects_all(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        for _ in range(5):
            for agent in stage.mesh.honest:
                held = record_of(stage.mesh, agent.node.me)
                voice.tell(_suspicion(stage.liar.id, held.node, *precedence(held)))
            await voice.settled()
        await stage.see(voice)
    for agent in stage.mesh.honest:
        for other in stage.mesh.honest:
            assert agent.node.detector.opinion(other.node.me).state is State.ALIVE


@attempt(WORDS, "a suspicion in another member's name", "it does not count")
async def forged_suspicion(stage: Stage) -> None:
    alpha, beta = (record_of(stage.mesh, agent.node.me) for agent in stage.mesh.honest)
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.tell(_suspicion(beta.node, alpha.node, *precedence(alpha)))
        await stage.see(voice)
    member = stage.mesh.beta.node.ledger.get(alpha.node)
    assert member is not None
    assert beta.node not in [one.observer for one in member.suspicions]


@attempt(WORDS, "a charter, without the right to sign one", "the settings are as they were")
async def charter(stage: Stage) -> None:
    before = stage.mesh.alpha.node.ledger.charter
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.tell(_charter(stage.liar.id))
        await stage.see(voice)
    assert stage.mesh.alpha.node.ledger.charter == before


@attempt(WORDS, "a charter in the founder's name", "the settings are as they were")
async def forged_charter(stage: Stage) -> None:
    before = stage.mesh.alpha.node.ledger.charter
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.tell(_charter(stage.mesh.alpha.node.me))
        await stage.see(voice)
    assert stage.mesh.alpha.node.ledger.charter == before


@attempt(WORDS, "the revocation of another member, without the right to sign one", "nobody is shut out")
async def revocation(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.say(_revoked(stage, stage.liar.id, stage.liar.chain))
        await stage.see(voice)
    assert not stage.mesh.alpha.node.ledger.revocations


@attempt(WORDS, "the revocation of another member in the founder's name", "nobody is shut out")
async def forged_revocation(stage: Stage) -> None:
    async with stage.liar.linked(stage.mesh.port) as voice:
        voice.say(_revoked(stage, stage.mesh.alpha.node.me, stage.mesh.state.chain))
        await stage.see(voice)
    assert not stage.mesh.alpha.node.ledger.revocations


# --- helpers ------------------------------------------------------------------------------------------------


def record_of(mesh: Mesh, node: NodeId) -> MemberRecord:
    member = mesh.alpha.node.ledger.get(node)
    assert member is not None
    assert member.record is not None
    return member.record


def is_quarantined(agent: object, node: NodeId) -> bool:
    listed = agent.node.roster.get(node)  # type: ignore[attr-defined]
    return listed is not None and listed.quarantined


def hubs_of(agent: object) -> tuple[object, ...]:
    return agent.node.tunnels.plan.hubs  # type: ignore[attr-defined, no-any-return]


async def warnings_of(mesh: Mesh) -> str:
    return "\n".join((await mesh.alpha.api.status()).warnings)


async def enlisted(stage: Stage, name: str, **claims: object) -> Member:
    """Returns an honest member that is known by its record alone, and was admitted long ago."""
    carol = stage.mesh.member(name, admitted_s_ago=3_000)
    speaker = stage.mesh.member()
    async with speaker.linked(stage.mesh.port) as voice:
        signed = carol.sign(carol.record(**claims))
        voice.say(Facts(chains=(carol.chain,), records=(signed,), push=True))
        await voice.settled()
    assert stage.mesh.holds(carol.id)
    return carol


def _fresh_chain(invite: object, issuer: bytes, now: int) -> tuple[bytes, ...]:
    key = SigningKey(os.urandom(32))
    leaf = make_provisional_leaf(invite, key.public, now_unix_s=now, serial=os.urandom(SERIAL_BYTES))  # type: ignore[arg-type]
    return (leaf, invite.certificate, issuer)  # type: ignore[attr-defined]


def _suspicion(observer: NodeId, subject: NodeId, incarnation: int, sequence: int) -> SuspectRecord:
    return SuspectRecord(
        observer=observer,
        subject=subject,
        incarnation=incarnation,
        sequence=sequence,
        issued_at=int(time.time()),
        closed=True,
    )


def _charter(author: NodeId) -> CharterRecord:
    return CharterRecord(
        version=99, issued_at=int(time.time()), author=author, mesh_name="mine", subnet="10.99.0.0/24"
    )


def _revoked(stage: Stage, author: NodeId, chain: tuple[bytes, ...]) -> Revoked:
    record = RevocationRecord(
        what="node", subject=stage.mesh.beta.node.me, author=author, issued_at=int(time.time())
    )
    return Revoked(chains=(chain,), said=((1, stage.liar.sign(record)),))
