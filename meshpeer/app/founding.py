"""Founds a mesh: root, issuer, this node's keys and certificate, the first charter. All or nothing."""

from __future__ import annotations

import ipaddress
import os
import platform
import time
from pathlib import Path

import trio

from meshpeer.adapters.executor import check_passable
from meshpeer.adapters.network import observe_network
from meshpeer.adapters.store import open_store
from meshpeer.app.config import Settings
from meshpeer.app.interface import open_interface
from meshpeer.app.options import InitOptions
from meshpeer.app.ports import check_ports, settle_ports
from meshpeer.app.state import NodeFile, StateWriter, refuse_existing
from meshpeer.core.addressing.labels import check_name, suggest_name
from meshpeer.core.addressing.overlap import overlap_of
from meshpeer.core.addressing.ports import is_port
from meshpeer.core.effects import Change
from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.core.identity.certificates import (
    SERIAL_BYTES,
    make_durable_leaf,
    make_issuer,
    make_root,
    mesh_id_of,
    public_key_of,
)
from meshpeer.core.identity.constraints import ALL
from meshpeer.core.identity.keys import SEED_BYTES, SigningKey
from meshpeer.core.ids import Ticket, key_text
from meshpeer.core.node.rows import row_of_chains, row_of_charter
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import CharterRecord
from meshpeer.core.records.subnets import check_subnet
from meshpeer.runtime.ports import CommitFailed


def found(options: InitOptions, settings: Settings) -> None:
    """Makes the state of a mesh's first node; raises ``MeshpeerError``, and then nothing has changed."""
    refuse_existing(settings.state_dir, "found a mesh")
    settings = settle_ports(settings)
    subnet = check_subnet(options.subnet)
    name = check_name(options.name or settings.file.node.name or suggest_name(platform.node()))
    roles = check_roles(options.roles)
    endpoint = check_endpoint(
        options.endpoint or settings.file.node.endpoint, settings.file.wireguard.listen_port
    )
    has_interface = trio.run(check_machine, settings, subnet)
    now = int(time.time())
    root = make_root(os.urandom(SEED_BYTES), now_unix_s=now, serial=os.urandom(SERIAL_BYTES))
    seed, wireguard_seed = os.urandom(SEED_BYTES), os.urandom(SEED_BYTES)
    key = SigningKey(seed)
    issuer = make_issuer(
        root,
        os.urandom(SEED_BYTES),
        holder=key.public,
        now_unix_s=now,
        serial=os.urandom(SERIAL_BYTES),
    )
    mesh = mesh_id_of(public_key_of(root.certificate))
    leaf = make_durable_leaf(
        issuer, key.public, capabilities=ALL, admitted_at=now, now_unix_s=now, serial=os.urandom(SERIAL_BYTES)
    )
    chain = (leaf, issuer.certificate)
    charter = CharterRecord(
        version=1,
        issued_at=now,
        author=key.public,
        mesh_name=check_name(options.mesh_name) if options.mesh_name else f"m{key_text(mesh)[:6]}",
        subnet=str(subnet),
        topology=options.topology,
        wireguard_port=settings.file.wireguard.listen_port,
    )
    node = NodeFile(
        mesh=mesh,
        roots=(root.certificate,),
        name=name,
        region=check_region(options.region or settings.file.node.region),
        roles=roles,
        endpoint=endpoint,
        seeds=(),
        wireguard_port=settings.file.wireguard.listen_port if has_interface else 0,
        control_port=settings.file.control.listen_port,
        issuer_certificate=issuer.certificate,
    )
    writer = StateWriter(settings.state_dir)
    try:
        for file, kind, secret in (
            ("root", "root", root.seed),
            ("issuer", "issuer", issuer.seed),
            ("node", "node", seed),
            ("wireguard", "wireguard", wireguard_seed),
        ):
            writer.key(file, kind, secret)
        writer.node(node, chain)
        changes: list[Change] = [
            row_of_chains(key.public, [chain]),
            row_of_charter(envelope.sign(key, mesh, charter)),
        ]
        trio.run(write_rows, writer.draft, changes)
        writer.publish()
    finally:
        writer.discard()


async def check_machine(settings: Settings, subnet: ipaddress.IPv4Network) -> bool:
    """Checks that an agent can run here: ports free, tools present, no route in the way. Says whether there
    will be an interface."""
    check_ports(settings)
    check_tasks(settings)
    backend = await open_interface(settings, None, lambda _: None)
    if backend.backend == "none":
        return False
    await backend.observe()
    hint = "found it with another one, for example `meshpeer init --subnet 10.88.0.0/24`, or remove the route"
    await refuse_overlap(subnet, settings, hint)
    return True


def check_tasks(settings: Settings) -> None:
    """Raises ``EnvironmentFault`` where tasks could not run on this machine as users of their own."""
    if os.geteuid() == 0 and settings.file.jobs.accept and len(settings.uids) < settings.slots:
        raise EnvironmentFault(
            f"{settings.slots} slots need as many users, and [jobs] uids has {len(settings.uids)}",
            "widen uids or lower slots under [jobs] in meshpeer.toml",
        )
    if os.geteuid() == 0 and settings.file.jobs.accept:
        check_passable(settings.state_dir)


async def refuse_overlap(subnet: ipaddress.IPv4Network, settings: Settings, hint: str) -> None:
    """Raises ``EnvironmentFault`` where the mesh's subnet would take traffic from a route of this machine."""
    interface = settings.file.wireguard.interface
    network = await observe_network(interface)
    overlap = overlap_of(subnet, network.routes, interface=interface)
    if overlap is not None and overlap.refuse:
        route = f"{overlap.route.prefix} of this machine (device {overlap.route.device})"
        raise EnvironmentFault(f"the mesh's subnet {subnet} overlaps the route {route}", hint)


async def write_rows(folder: Path, changes: list[Change]) -> None:
    """Writes the first rows of a new journal; raises ``StoreFailed``."""
    async with open_store(folder / "state.db") as store:
        store.commit_soon(Ticket(1), changes)
        outcome = await store.outcomes.receive()
        if isinstance(outcome, CommitFailed):
            raise outcome.error


def check_region(region: str) -> str:
    """Returns a region's name; empty for none. Raises ``LocalFault`` where it is no DNS label."""
    return check_name(region) if region else ""


def check_roles(roles: tuple[str, ...]) -> tuple[str, ...]:
    for role in roles:
        check_name(role)
    return tuple(sorted(set(roles)))


def check_endpoint(text: str, default_port: int) -> str:
    """Returns ``HOST:PORT``; raises ``LocalFault`` for anything else."""
    if not text:
        return ""
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port or (":" in host and not host.startswith("[")):
        host, port = text, str(default_port)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    if not host or not is_port(port) or "/" in host:
        raise LocalFault(
            f"{text!r} is not HOST[:PORT]",
            "for example --endpoint 203.0.113.9 or --endpoint home.example.org:51820",
        )
    return f"{host}:{port}"
