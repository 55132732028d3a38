"""The members of a mesh as the lists of hosts that other programs read: pure, one function for each program.

Names are labels of DNS (``core.addressing.labels``) and addresses are what the mesh derived, so nothing that
stands here can break out of a line; regions and roles are free text, and become names of groups by their
letters and digits alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
import yaml

SLOTS = 1
"""Of a host whose slots this node does not know."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A member that another program is to use."""

    name: str
    ipv4: str
    ipv6: str
    region: str = ""
    roles: tuple[str, ...] = ()
    slots: int = SLOTS
    user: str = ""
    """Whom to log in as; empty for whatever the program takes."""

    @property
    def address(self) -> str:
        """The overlay address that the program connects to."""
        return self.ipv4 or self.ipv6


def ssh(hosts: list[Host]) -> str:
    """Returns blocks of ssh_config(5). A host's key goes by its name, whatever address it has."""
    blocks = []
    for one in hosts:
        lines = [
            f"Host {one.name} {one.name}.mesh",
            f"  HostName {one.address}",
            f"  HostKeyAlias {one.name}.mesh",
        ]
        blocks.append("\n".join([*lines, *([f"  User {one.user}"] if one.user else [])]))
    return "\n\n".join(blocks) + "\n"


def ansible(hosts: list[Host]) -> str:
    """Returns an inventory in YAML: all hosts, and a group for each region and role."""
    groups: dict[str, dict[str, dict[str, dict[str, str]]]] = {}
    known: dict[str, dict[str, str]] = {}
    for one in hosts:
        known[one.name] = {"ansible_host": one.address, **({"ansible_user": one.user} if one.user else {})}
        names = [("region", one.region)] * bool(one.region) + [("role", role) for role in one.roles]
        for kind, name in names:
            groups.setdefault(f"{kind}_{_identifier(name)}", {"hosts": {}})["hosts"][one.name] = {}
    return _yaml({"all": {"hosts": known, "children": dict(sorted(groups.items()))}})


def mpi(hosts: list[Host]) -> str:
    """Returns a hostfile of Open MPI, one host a line, with its slots."""
    return "".join(f"{one.address} slots={one.slots}  # {one.name}\n" for one in hosts)


def dask(hosts: list[Host]) -> str:
    """Returns what ``dask-ssh --hostfile`` reads: addresses, the scheduler's first."""
    return "".join(f"{one.address}\n" for one in hosts)


def ray(hosts: list[Host]) -> str:
    """Returns a configuration of Ray's cluster launcher for machines that are there already, the first as the
    head. Ray must listen on overlay addresses: each node starts with its own."""
    head, workers = hosts[0], hosts[1:]
    address = f"$(ip -o -4 route get {head.address} | sed -n 's/.* src \\([0-9.]*\\).*/\\1/p')"
    start = "ray stop; ray start --node-ip-address="
    return _yaml(
        {
            "cluster_name": "mesh",
            "provider": {
                "type": "local",
                "head_ip": head.address,
                "worker_ips": [one.address for one in workers],
            },
            "auth": {"ssh_user": head.user or "ray"},
            "head_start_ray_commands": [
                f"{start}{head.address} --head --port=6379 --autoscaling-config=~/ray_bootstrap_config.yaml"
            ],
            "worker_start_ray_commands": [f"{start}{address} --address=$RAY_HEAD_IP:6379"],
        }
    )


WRITERS: dict[str, Callable[[list[Host]], str]] = {
    "ssh": ssh,
    "ansible": ansible,
    "mpi": mpi,
    "dask": dask,
    "ray": ray,
}
"""By the name of the format."""


def _identifier(text: str) -> str:
    return re.sub(r"\W", "_", text, flags=re.ASCII)


def _yaml(document: object) -> str:
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=False, width=1_000)
