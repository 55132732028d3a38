"""``meshpeer hosts``: the members as other programs take lists of hosts."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.core.errors import MeshpeerError

if TYPE_CHECKING:
    from meshpeer.app.host_lists import Host
    from meshpeer.runtime.control import Peer, Status

PANEL = "Looking at it"
_EXAMPLES = """
Examples:
  meshpeer hosts --format ssh > ~/.ssh/config.d/mesh     with `Include config.d/*` in ~/.ssh/config
  meshpeer hosts --format ansible > mesh.yaml            ansible -i mesh.yaml region_eu -m ping
  meshpeer hosts --format mpi --role compute > hosts     mpirun --hostfile hosts ./solve
  meshpeer hosts --format dask > hosts                   dask-ssh --hostfile hosts
  meshpeer hosts --format ray > cluster.yaml             ray up cluster.yaml
"""


class Format(StrEnum):
    """What a program takes."""

    SSH = "ssh"
    ANSIBLE = "ansible"
    MPI = "mpi"
    DASK = "dask"
    RAY = "ray"


def add_to(app: typer.Typer) -> None:
    command(app, "hosts", panel=PANEL, examples=_EXAMPLES)(hosts)


def hosts(
    asked: Asked,
    form: Annotated[
        Format,
        typer.Option("--format", "-f", metavar="FORMAT", help="ssh, ansible, mpi, dask or ray."),
    ],
    region: Annotated[str, typer.Option("--region", metavar="R", help="Of this region alone.")] = "",
    role: Annotated[str, typer.Option("--role", metavar="R", help="With this role alone.")] = "",
    everyone: Annotated[
        bool, typer.Option("--all", help="Also who is suspect or dead, and who has no tunnel.")
    ] = False,
    user: Annotated[
        str, typer.Option("--user", metavar="NAME", help="Whom to log in as; your own name without.")
    ] = "",
) -> None:
    """List the members as other programs take hosts: SSH, Ansible, MPI, Dask, Ray.

    This node comes first; then who is alive and has an address in a tunnel, by name. Where programs log in,
    they do by their own keys: meshpeer makes the addresses reachable and no more.
    """
    from meshpeer.app.host_lists import WRITERS

    client = asked.client()
    found = hosts_of(client.status(), client.peers(), user, everyone=everyone)
    found = [one for one in found if (not region or one.region == region) and (not role or role in one.roles)]
    if not found:
        wanted = " and ".join([f"of region {region}"] * bool(region) + [f"with role {role}"] * bool(role))
        raise MeshpeerError(
            f"no member {wanted} can be used now", "see `meshpeer peers`; --all also takes who is away"
        )
    if asked.json:
        show.document([one.name for one in found] if asked.quiet else found)
    else:
        show.line(WRITERS[form.value](found).rstrip("\n"))


def hosts_of(status: Status, peers: list[Peer], user: str, *, everyone: bool) -> list[Host]:
    """Returns this node, and the members that can be used now (or all that have not left), by name."""
    from meshpeer.app.host_lists import Host

    node = status.node
    mine = Host(
        name=node.name, ipv4=node.ipv4, ipv6=node.ipv6, region=node.region, roles=node.roles, user=user
    )
    states = ("alive", "suspect", "dead") if everyone else ("alive",)
    others = [
        Host(name=one.name, ipv4=one.ipv4, ipv6=one.ipv6, region=one.region, roles=one.roles, user=user)
        for one in peers
        if one.state in states and (everyone or one.path not in ("link", "none"))
    ]
    return [mine, *sorted(others, key=lambda one: one.name)]
