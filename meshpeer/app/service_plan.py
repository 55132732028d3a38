"""What this machine's node needs of its machine: the rights, folders and devices that its unit grants it.

Derived from the settings and from what was settled when the node was founded or joined; nothing is granted
for what is switched off. The node runs as the owner of its state folder: whoever else owned it could read its
keys anyway. So root's node runs as root with a bounded set of capabilities, and a folder that was given to a
user of its own makes a node of that user (ADR 14).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshpeer.adapters.executor import PROCESSES_MAX
from meshpeer.adapters.wireguard import UserspaceProcess
from meshpeer.app.config import FLAGS, FOLDERS, Settings
from meshpeer.app.state import NodeFile

RUN = Path("/run")
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
TEMPORARY = (Path("/tmp"), Path("/var/tmp"))
PRIVILEGED_PORT_MAX = 1023
AGENT_PROCESSES_MAX = 256
"""Processes and threads of the agent itself, with the commands that it runs."""
DEFAULTS = Settings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who owns the state folder."""

    user: str
    group: str
    root: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A capability, and the feature that takes it."""

    capability: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlan:
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    """What the command that installed it was told by flags and variables, but for the folders."""
    owner: Owner
    state_dir: Path
    interface: str
    grants: tuple[Grant, ...]
    tunnels: bool
    userspace: tuple[str, ...]
    """The userspace program's command, where there may be one."""
    low_port: bool
    """The interface listens on a port that only some programs may have."""
    forwards: bool
    """It may be a hub or lead to a LAN, and sets forwarding on its interface."""
    keeps_hosts: bool
    jobs: bool
    namespaces: bool
    """Tasks may have a network namespace of their own."""
    tasks_max: int
    """Processes and threads of agent and tasks together; 0 for no bound of our own."""
    runtime_folders: tuple[str, ...]
    """Below /run: made by systemd, and kept when the agent stops."""
    writable: tuple[Path, ...]
    in_homes: bool
    """Something that it needs is below a home."""
    in_temporary: bool


def plan_service(
    settings: Settings,
    node: NodeFile,
    owner: Owner,
    *,
    program: Sequence[str],
    code: Sequence[Path],
    environment: Mapping[str, str],
) -> ServicePlan:
    """Derives it all; ``program`` is the command line before ``up``, ``code`` where it has its files,
    ``environment`` what ``carried`` returned."""
    file, root = settings.file, owner.root
    tunnels = node.wireguard_port > 0 and file.wireguard.backend not in ("none", "dry-run")
    jobs = file.jobs.accept
    users = root and jobs
    userspace = root and tunnels and file.wireguard.backend in ("auto", "userspace")
    process = UserspaceProcess(file.wireguard.interface, file.wireguard.program)
    in_run = RUN in settings.run_dir.parents
    paths = (settings.state_dir, settings.run_dir, settings.config, *code)
    return ServicePlan(
        command=(*program, "up", *_folder_flags(settings)),
        environment=tuple(sorted(environment.items())),
        owner=owner,
        state_dir=settings.state_dir,
        interface=file.wireguard.interface,
        grants=tuple(_grants(settings, node, root=root, tunnels=tunnels, users=users)),
        tunnels=tunnels,
        userspace=tuple(process.argv()) if userspace else (),
        low_port=0 < node.wireguard_port <= PRIVILEGED_PORT_MAX,
        forwards=root and tunnels and (file.node.hub != "never" or bool(file.node.advertise)),
        keeps_hosts=root and tunnels and file.mesh.hosts_file,
        jobs=jobs,
        namespaces=jobs and file.jobs.namespaces,
        tasks_max=settings.slots * PROCESSES_MAX + AGENT_PROCESSES_MAX if users else 0,
        runtime_folders=(
            *((str(settings.run_dir.relative_to(RUN)),) if in_run else ()),
            *(("meshpeer-users",) if users else ()),
            *(("wireguard",) if userspace else ()),
        ),
        writable=(settings.state_dir, *(() if in_run else (settings.run_dir,))),
        in_homes=any(_below(path, HOMES) for path in paths),
        in_temporary=any(_below(path, TEMPORARY) for path in paths),
    )


def plan_packaged(program: str) -> ServicePlan:
    """Derives what a package can say before there is a node: that of root, with all settings at their
    defaults, and the same on whatever machine builds it."""
    node = NodeFile(
        mesh=b"",
        roots=(),
        name="",
        region="",
        roles=(),
        endpoint="",
        seeds=(),
        wireguard_port=DEFAULTS.file.wireguard.listen_port,
        control_port=0,
    )
    root = Owner(user="root", group="root", root=True)
    plan = plan_service(DEFAULTS, node, root, program=(program,), code=(Path(program),), environment={})
    # Slots follow the number of processors, which is another on each machine: systemd's own bound holds.
    return dataclasses.replace(plan, tasks_max=0)


def carried(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> dict[str, str]:
    """Returns what overrides the file in this call, as variables: the service has neither our flags nor our
    environment."""
    found = {}
    for key in FLAGS:
        variable = f"MESHPEER_{key.upper()}"
        value = flags.get(key) or environment.get(variable)
        if value and key not in FOLDERS:
            found[variable] = value
    return found


def _folder_flags(settings: Settings) -> list[str]:
    flags = []
    for flag, path, default in (
        ("--state-dir", settings.state_dir, DEFAULTS.state_dir),
        ("--run-dir", settings.run_dir, DEFAULTS.run_dir),
        ("--config", settings.config, DEFAULTS.config),
    ):
        if path != default:
            flags += [flag, str(path)]
    return flags


def _grants(settings: Settings, node: NodeFile, *, root: bool, tunnels: bool, users: bool) -> list[Grant]:
    file = settings.file
    grants = []
    if tunnels:
        does = "the interface is set up (wg, ip)" + (
            "; a hub, or who leads to a LAN, forwards (nft, /proc/sys/net), a relay carries (nft)"
            if root
            else ""
        )
        grants.append(Grant(capability="CAP_NET_ADMIN", reason=does))
        probes = "paths are probed from WireGuard's own port, which takes raw sockets"
        grants.append(Grant(capability="CAP_NET_RAW", reason=probes))
    ports = (node.control_port, file.control.listen_port, file.control.web_port)
    if any(0 < port <= PRIVILEGED_PORT_MAX for port in ports):
        grants.append(Grant(capability="CAP_NET_BIND_SERVICE", reason="a port below 1024 ([control])"))
    if users:
        grants += [
            Grant(capability="CAP_SETUID CAP_SETGID", reason="each slot's tasks run as a user of their own"),
            Grant(capability="CAP_SETPCAP", reason="and those can never hold any of these rights"),
            Grant(capability="CAP_CHOWN", reason="a task's folder and inputs are given to its user"),
            Grant(
                capability="CAP_DAC_OVERRIDE",
                reason="what a task left in its folder is collected and removed",
            ),
            Grant(capability="CAP_FOWNER", reason="so is what it left in folders with a sticky bit"),
            Grant(
                capability="CAP_KILL", reason="a slot that hangs is ended, which is another user's process"
            ),
        ]
    elif root and file.control.socket_group:
        grants.append(
            Grant(capability="CAP_CHOWN", reason="the control socket is given to [control] socket_group")
        )
    return grants


def _below(path: Path, folders: Sequence[Path]) -> bool:
    return any(folder in (one, *one.parents) for one in (path, path.resolve()) for folder in folders)
