"""Joins a mesh: judges the invite, reaches a member, learns the mesh's facts from it, and only then writes
this node's state.

Everything that can go wrong goes wrong before the first file is written: a bad invite, no seed that answers,
a name in use, a subnet in
the way. The joiner signs its own provisional leaf with the invite's key; an issuer makes it durable once it
hears of it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import platform
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import trio

from meshpeer.adapters.discovery import open_discovery
from meshpeer.adapters.transport import TlsIdentity, TlsTransport
from meshpeer.app.clock import SystemClock
from meshpeer.app.config import Settings
from meshpeer.app.founding import check_endpoint, check_region, check_tasks, refuse_overlap, write_rows
from meshpeer.app.interface import open_interface
from meshpeer.app.options import JoinOptions
from meshpeer.app.ports import check_ports, settle_ports
from meshpeer.app.reach import local_only, ports_to_open
from meshpeer.app.state import NodeFile, StateWriter, refuse_existing
from meshpeer.core.addressing.labels import check_name, suggest_name
from meshpeer.core.antientropy.messages import Compare, Facts, Revoked, Synced, Want
from meshpeer.core.counters import Counters
from meshpeer.core.errors import EnvironmentFault, LocalFault, PeerFault, Refused
from meshpeer.core.identity.certificates import SERIAL_BYTES, make_provisional_leaf
from meshpeer.core.identity.invites import Invite, decode_invite
from meshpeer.core.identity.keys import SEED_BYTES, SigningKey
from meshpeer.core.ids import LinkId, NodeId
from meshpeer.core.membership.messages import PROTOCOL_VERSIONS, Hello, Refusal
from meshpeer.core.node.codec import CODEC
from meshpeer.core.node.gossip import Gossip, Outcome
from meshpeer.core.node.revoking import Revoking
from meshpeer.core.node.rows import row_of_chains, rows_of
from meshpeer.core.records.ledger import Chain, Ledger
from meshpeer.runtime.ports import DialFault, Link, LinkOver

CONTACT_S = 12.0
DIALS_MAX = 4
CUT_PAUSE_S = (0.1, 0.4)
"""Between two dials; drawn, so that those who were cut together don't come again together."""
LAN_S = 6.0
DEFAULT_CONTROL_PORT = 51821
DEFAULT_WIREGUARD_PORT = 51820
ONLY_LINK = LinkId(1)
"""Who joins has one link, and no others to tell apart."""


@dataclass(slots=True)
class _Contact:
    """What a member told us."""

    seed: str
    peer: NodeId
    ledger: Ledger
    observed_me: str = ""


def enrol(options: JoinOptions, settings: Settings, say: Callable[[str], None]) -> None:
    """Makes the state of a node that joins; raises ``MeshpeerError``, and then nothing has changed."""
    refuse_existing(settings.state_dir, "join")
    settings = settle_ports(settings)
    invite = decode_invite(options.invite, now_unix_s=int(time.time()))
    endpoint = check_endpoint(
        options.endpoint or settings.file.node.endpoint, settings.file.wireguard.listen_port
    )
    asked_name = options.name or settings.file.node.name
    if asked_name:
        check_name(asked_name)
    trio.run(_enrol, invite, options, settings, say, asked_name, endpoint)


async def _enrol(
    invite: Invite,
    options: JoinOptions,
    settings: Settings,
    say: Callable[[str], None],
    asked_name: str,
    endpoint: str,
) -> None:
    check_ports(settings)
    check_tasks(settings)
    wireguard = await open_interface(settings, invite.mesh, lambda _: None)
    if wireguard.backend != "none":
        await wireguard.observe()
    seed, wireguard_seed = os.urandom(SEED_BYTES), os.urandom(SEED_BYTES)
    key = SigningKey(seed)
    leaf = make_provisional_leaf(
        invite.authority, key.public, now_unix_s=int(time.time()), serial=os.urandom(SERIAL_BYTES)
    )
    chain: Chain = (leaf, invite.authority.certificate, invite.issuer)
    forwarded = settings.file.mesh.seeds if settings.file.mesh.via and not options.seed else ()
    addresses = forwarded or await _addresses(options.seed, invite, say)
    contact = await _contact(
        invite, TlsIdentity(seed=seed, chain=chain, roots=invite.roots), chain, addresses, settings
    )
    charter = contact.ledger.charter
    if charter is None:
        raise PeerFault(
            f"{contact.seed} did not say what the mesh's settings are",
            "try another seed, and look at the log of that node",
        )
    _refuse_spent(invite, contact.ledger)
    if wireguard.backend != "none":
        hint = "remove the route, or join with --backend none (control and jobs only)"
        await refuse_overlap(ipaddress.IPv4Network(charter.subnet), settings, hint)
    constraints = invite.constraints
    node = NodeFile(
        mesh=invite.mesh,
        roots=invite.roots,
        name=_choose_name(asked_name, contact, say),
        region=check_region(options.region or constraints.region or settings.file.node.region),
        roles=constraints.roles or ("compute",),
        endpoint=endpoint,
        seeds=tuple(dict.fromkeys((contact.seed, *invite.seeds))),
        wireguard_port=settings.file.wireguard.listen_port if wireguard.backend != "none" else 0,
        control_port=settings.file.control.listen_port,
    )
    writer = StateWriter(settings.state_dir)
    try:
        writer.key("node", "node", seed)
        writer.key("wireguard", "wireguard", wireguard_seed)
        writer.node(node, chain)
        await write_rows(writer.draft, [row_of_chains(key.public, [chain]), *rows_of(contact.ledger)])
        writer.publish()
    finally:
        writer.discard()


async def _addresses(seed: str, invite: Invite, say: Callable[[str], None]) -> tuple[str, ...]:
    if seed == "lan":
        return await _browse(invite, say)
    if seed:
        host, colon, port = seed.rpartition(":")
        whole = (
            seed
            if colon and port.isdigit() and not (":" in host and not host.startswith("["))
            else f"{seed}:{DEFAULT_CONTROL_PORT}"
        )
        return (whole,)
    if not invite.seeds:
        raise LocalFault(
            "the invite names no seed",
            "give one: meshpeer join HOST --invite INVITE, or `meshpeer join lan --invite INVITE`",
        )
    return invite.seeds


async def _browse(invite: Invite, say: Callable[[str], None]) -> tuple[str, ...]:
    """Looks for members of the invite's mesh on the local network."""
    say("looking for members on the local network")
    with trio.move_on_after(LAN_S):
        async for found in open_discovery(mdns=True).browse():
            if found.mesh_hint == invite.fingerprint and found.addresses:
                return found.addresses
    raise EnvironmentFault(
        "no member of this mesh announces itself on the local network",
        "is one running here, and mDNS (UDP 5353) let through? else: meshpeer join HOST --invite INVITE",
    )


async def _contact(
    invite: Invite, identity: TlsIdentity, chain: Chain, addresses: Sequence[str], settings: Settings
) -> _Contact:
    """Greets a member, and learns all that it knows."""
    transport = TlsTransport(identity, ())
    found: _Contact | None = None
    problem: Exception | None = None
    with trio.move_on_after(CONTACT_S) as scope:
        try:
            async with _dialled(transport, addresses) as link:
                try:
                    found = await _learn(invite, link, chain, settings)
                except (LinkOver, PeerFault, Refused) as error:
                    problem = error
        except DialFault as fault:
            raise (Refused if fault.foreign else EnvironmentFault)(
                fault.what if len(addresses) == 1 else f"no seed lets this node in: {fault.what}",
                _hint_of(fault, addresses),
            ) from fault
    if isinstance(problem, LinkOver):
        raise PeerFault(
            f"{addresses[0]} closed the link: {problem.what}", "look at the log of that node"
        ) from problem
    if problem is not None:
        raise problem
    if found is None:
        assert scope.cancelled_caught
        raise EnvironmentFault(
            f"{', '.join(addresses)} took the link and then said nothing for {CONTACT_S:.0f} s",
            "is that node well? see its `meshpeer status`",
        )
    return found


@contextlib.asynccontextmanager
async def _dialled(transport: TlsTransport, addresses: Sequence[str]) -> AsyncIterator[Link]:
    """Dials again where the handshake was cut without a word: at that door stand many just now."""
    async with contextlib.AsyncExitStack() as stack:
        for left in reversed(range(DIALS_MAX)):
            try:
                link = await stack.enter_async_context(transport.dial(addresses))
            except DialFault as fault:
                if not (fault.cut and left):
                    raise
                await trio.sleep(random.uniform(*CUT_PAUSE_S))
            else:
                yield link
                return


def _hint_of(fault: DialFault, addresses: Sequence[str]) -> str:
    """Says what to check: mostly it is a router between here and a founder that knows its LAN alone."""
    if fault.foreign or fault.refused or not local_only(addresses):
        return fault.hint
    ports = ports_to_open(DEFAULT_CONTROL_PORT, DEFAULT_WIREGUARD_PORT)
    return (
        "is this machine on that member's local network? if not, its mesh has to be founded with "
        f"--endpoint HOST, and its router to let {ports} through to it"
    )


async def _learn(invite: Invite, link: Link, chain: Chain, settings: Settings) -> _Contact:
    ledger = Ledger(invite.mesh, invite.roots)
    gossip = Gossip(ledger, linked=list, jitter=random.Random(), counters=Counters())
    revoking = Revoking(ledger, list, Counters())
    contact = _Contact(seed=link.dialled, peer=link.peer, ledger=ledger)
    now = time.time()
    link.send_soon(
        CODEC.encode(
            Hello(
                versions=PROTOCOL_VERSIONS,
                mesh=invite.mesh,
                chain=chain,
                clock_ms=int(now * 1000),
                observed=link.remote,
                control_port=settings.file.control.listen_port,
                revocations=revoking.say(ONLY_LINK),
            )
        )
    )
    while True:
        message = CODEC.decode(await link.receive())
        match message:
            case Hello(chain=theirs, observed=observed, revocations=word, roots=roots):
                revoking.hear_roots(roots, SystemClock().now())
                ledger.admit(theirs, SystemClock().now().unix_s)
                contact.observed_me = observed
                revoking.hear(ONLY_LINK, word)
                for told in revoking.on_up(ONLY_LINK):
                    link.send_soon(CODEC.encode(told))
                _answer(link, gossip.on_up(link.peer, SystemClock().now(), opens=True))
            case Refusal(reason=reason):
                raise Refused(
                    f"{link.dialled} does not let this node in: {reason}",
                    "ask for a new invite (`meshpeer invite`), and check the clocks of both (timedatectl)",
                )
            case Revoked():
                revoking.on_frame(ONLY_LINK, link.peer, message, SystemClock().now())
            case Synced(more=False):
                return contact
            case Facts():
                _answer(link, gossip.on_facts(link.peer, message, SystemClock().now()))
            case Compare() | Want() | Synced():
                outcome = gossip.on_message(link.peer, message, SystemClock().now())
                _answer(link, outcome)
                if outcome.synced:
                    # The member asked last: nothing is left that it holds and this node lacks.
                    return contact


def _answer(link: Link, outcome: Outcome) -> None:
    for _, message in outcome.sends:
        link.send_soon(CODEC.encode(message))


def _refuse_spent(invite: Invite, ledger: Ledger) -> None:
    used = [
        one
        for one in ledger
        if one.best and one.best.identity.durable and one.best.identity.invite == invite.id
    ]
    uses = max(1, invite.constraints.uses)
    if len(used) >= uses:
        who = ", ".join(one.record.name for one in used if one.record)
        raise Refused(
            f"the invite was used {len(used)} of {uses} times already (by {who})",
            "ask for a new one: `meshpeer invite`",
        )


def _choose_name(asked: str, contact: _Contact, say: Callable[[str], None]) -> str:
    """Returns the name to claim. One that was asked for and that a live node has is refused; the host's own
    name gets a number."""
    live = {
        one.record.name for one in contact.ledger if one.record and one.leave is None and not one.suspicions
    }
    if asked:
        if asked in live:
            raise Refused(
                f"the name {asked!r} is in use by a live node of this mesh", "choose another with --name"
            )
        return asked
    base = suggest_name(platform.node())
    name, number = base, 2
    while name in live:
        name, number = f"{base}-{number}", number + 1
    if name != base:
        say(f"the name {base} is taken: this node is {name} (--name chooses another)")
    return name
