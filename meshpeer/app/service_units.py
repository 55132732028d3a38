"""Writes a node's units for systemd: the agent's, and that of WireGuard where it may be a program.

Each line that grants something stands under the reason why. What the options mean: systemd.exec(5),
systemd.service(5), systemd.path(5); what they are worth: ``systemd-analyze security``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from meshpeer.adapters.systemd.unit_files import MARK
from meshpeer.adapters.wireguard import UNIT_VARIABLE, request_file, unit_script
from meshpeer.app.service_plan import ServicePlan

AGENT = "meshpeer.service"
TUNNEL = "meshpeer-wireguard.service"
TUNNEL_PATH = "meshpeer-wireguard.path"
UNITS = (AGENT, TUNNEL, TUNNEL_PATH)
"""All that may be installed."""
WATCHDOG_S = 30
START_S_MAX = 90
"""A node is ready after 18 s where it reaches nobody, and a small machine takes its time to load it."""
STOP_S_MAX = 30
"""Tasks have 5 s to end, and an interface that is taken down 10 s."""
BACK_OFF_SINCE = 254
"""The first systemd that lets pauses between restarts grow."""
SOCKETS = Path("/run/wireguard")
"""The usual folder, by the name that systemd has for it."""


def render_units(plan: ServicePlan, *, systemd: int, packaged: bool = False) -> dict[str, str]:
    """Returns the units by name; ``systemd`` is its version, 0 where that is not known.

    ``packaged`` units are a package's, for whatever node will be there; they say so at their top.
    """
    units = {AGENT: _agent(plan, systemd)}
    if plan.userspace:
        units[TUNNEL] = _tunnel(plan)
        units[TUNNEL_PATH] = _tunnel_path(plan)
    head = _packaged_head if packaged else _head
    return {name: "\n".join([*head(name), *lines]) + "\n" for name, lines in units.items()}


def _agent(plan: ServicePlan, systemd: int) -> Iterator[str]:
    yield "[Unit]"
    yield "Description=meshpeer: this machine's node of a private mesh"
    yield f"After=network-online.target{f' {TUNNEL_PATH}' if plan.userspace else ''}"
    yield f"Wants=network-online.target{f' {TUNNEL_PATH}' if plan.userspace else ''}"
    yield f"RequiresMountsFor={_word(plan.state_dir)}"
    yield "# A node that has left is none: nothing to start."
    yield f"ConditionPathExists={_path(plan.state_dir / 'node.json')}"
    yield "# It never gives up: whatever was missing may come back."
    yield "StartLimitIntervalSec=0"
    yield ""
    yield "[Service]"
    yield "# Ready: the first membership sync is done, and the interface is applied."
    yield "Type=notify"
    yield "NotifyAccess=main"
    yield f"ExecStart={_command(plan.command)}"
    for name, value in plan.environment:
        yield f"Environment={_word(f'{name}={value}')}"
    if plan.userspace:
        yield "# WireGuard as a program runs in a unit of its own, so that tunnels outlive the agent."
        yield f"Environment={UNIT_VARIABLE}={TUNNEL}"
    yield from _life(plan, systemd)
    yield from _user(plan)
    yield from _folders(plan)
    yield ""
    if plan.jobs:
        yield "# Tasks stand within the same walls."
    yield "PrivateDevices=yes"
    yield "DevicePolicy=closed"
    yield from _walls(jobs=plan.jobs, namespaces=plan.namespaces)
    yield ""
    yield "[Install]"
    yield "WantedBy=multi-user.target"


def _head(name: str) -> Iterator[str]:
    yield f"{MARK}, from this node's settings: run it again after changing them."
    yield f"# Changes in this file will be lost; your own belong into `systemctl edit {name}`."
    yield ""


def _packaged_head(name: str) -> Iterator[str]:
    yield "# Of the package, for a node of root with default settings. Nothing starts it by itself."
    yield "# `meshpeer service install` writes one with what this node's own settings need, and no more."
    yield f"# Changes in this file will be lost; your own belong into `systemctl edit {name}`."
    yield ""


def _life(plan: ServicePlan, systemd: int) -> Iterator[str]:
    yield f"TimeoutStartSec={START_S_MAX}"
    yield f"TimeoutStopSec={STOP_S_MAX}"
    yield "# An agent whose loop hangs is ended and started anew; its log shows where it hung."
    yield f"WatchdogSec={WATCHDOG_S}"
    yield "Restart=on-failure"
    if systemd >= BACK_OFF_SINCE:
        yield "RestartSec=1"
        yield "RestartSteps=6"
        yield "RestartMaxDelaySec=60"
    else:
        yield "RestartSec=5"
    yield "# 2: a setting is wrong; 4: the mesh refuses this node. Trying again helps neither."
    yield "RestartPreventExitStatus=2 4"
    yield "# The agent ends its tasks itself; what is left when it is gone is killed."
    yield "KillMode=mixed"
    yield "# A core would hold this node's keys."
    yield "LimitCORE=0"
    if plan.jobs:
        yield "# A task that takes all memory is killed, and the agent is not."
        yield "OOMPolicy=continue"
        yield "# Each slot's tasks are bounded by a control group of their own, below this service's."
        yield "Delegate=cpu memory pids"
    if plan.tasks_max:
        yield "# As many as all slots' tasks may start (512 each), so that they can't crowd out the agent."
        yield f"TasksMax={plan.tasks_max}"


def _user(plan: ServicePlan) -> Iterator[str]:
    yield ""
    if plan.owner.root:
        yield "# Root, for what is listed and nothing else."
    else:
        yield "# The owner of the state folder."
        yield f"User={plan.owner.user}"
        yield f"Group={plan.owner.group}"
        if plan.jobs:
            yield "# Tasks run as this user, too, and can read its keys; [jobs] accept = false: no tasks."
    if not plan.grants:
        yield "CapabilityBoundingSet="
    for grant in plan.grants:
        yield f"# {_sentence(grant.reason)}"
        yield f"CapabilityBoundingSet={grant.capability}"
    if plan.grants and not plan.owner.root:
        yield f"AmbientCapabilities={' '.join(grant.capability for grant in plan.grants)}"
    yield "NoNewPrivileges=yes"
    yield "UMask=0077"


def _folders(plan: ServicePlan) -> Iterator[str]:
    yield ""
    yield "# The whole disk is read-only, but for:"
    yield "ProtectSystem=strict"
    yield "# Said once more: some versions of systemd leave it writable beside a /proc of the service's own."
    yield "ReadOnlyPaths=/run"
    yield f"# state{'' if len(plan.writable) < 2 else ' and control socket'}"
    yield f"ReadWritePaths={' '.join(_word(path) for path in plan.writable)}"
    if plan.runtime_folders:
        said = {
            "meshpeer-users": "locks on the tasks' users",
            "wireguard": "where `wg` finds a WireGuard program",
        }
        what = [said.get(name, "the control socket") for name in plan.runtime_folders]
        yield f"# {', '.join(what)} (kept at a stop)"
        yield f"RuntimeDirectory={' '.join(plan.runtime_folders)}"
        yield "RuntimeDirectoryMode=0755"
        yield "RuntimeDirectoryPreserve=yes"
    if plan.keeps_hosts:
        yield "# names of members ([mesh] hosts_file)"
        yield "ReadWritePaths=-/etc/hosts"
    if plan.forwards:
        yield "# forwarding on this node's interface, as a hub ([node] hub) or to a LAN ([node] advertise)"
        yield "ReadWritePaths=-/proc/sys/net/ipv4/conf -/proc/sys/net/ipv6/conf"
    if plan.in_homes:
        yield "# Program, settings or state are in a home, which is therefore not hidden."
        yield "ProtectHome=read-only"
    else:
        yield "ProtectHome=yes"
    if plan.in_temporary:
        yield "# Program, settings or state are in a folder for temporary files, which is therefore shared."
        yield "PrivateTmp=no"
    else:
        yield "PrivateTmp=yes"
    yield "# Root without capabilities could still ask those for more who trust root."
    yield "InaccessiblePaths=-/run/dbus -/run/systemd/private -/run/docker.sock -/run/containerd"


def _walls(*, jobs: bool, namespaces: bool = False) -> Iterator[str]:
    """Yields what neither an agent nor a task has any business with."""
    yield "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"
    if namespaces:
        yield "# A task that says network: none gets a network namespace, by way of a user namespace."
    elif jobs:
        yield "# Tasks that say network: none do not run here: [jobs] namespaces is off."
    yield f"RestrictNamespaces={'user net' if namespaces else 'yes'}"
    for name in (
        "ProtectClock",
        *(() if jobs else ("ProtectControlGroups",)),
        "ProtectHostname",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "LockPersonality",
        "PrivateMounts",
    ):
        yield f"{name}=yes"
    yield "ProtectProc=invisible"
    yield "SystemCallArchitectures=native"
    yield "SystemCallErrorNumber=EPERM"
    yield "SystemCallFilter=@system-service"
    if jobs:
        yield "# Tasks take no priority and no processor for their own: neither taskset nor nice."
        yield "SystemCallFilter=~@resources"
        yield "# No MemoryDenyWriteExecute: tasks may be programs that compile as they run (Java, Node.js)."
    else:
        yield "SystemCallFilter=~@privileged @resources"
        yield "MemoryDenyWriteExecute=yes"


# --- WireGuard as a program ---------------------------------------------------------------------------------


def _tunnel(plan: ServicePlan) -> Iterator[str]:
    becomes = unit_script(plan.interface, SOCKETS)
    yield "[Unit]"
    yield f"Description=meshpeer: WireGuard as a program, for {plan.interface}"
    yield "# Each start was asked for by the agent, which waits for the outcome."
    yield "StartLimitIntervalSec=0"
    yield ""
    yield "[Service]"
    yield "# The next agent finds the program by this file, and the request must not start it twice."
    yield f"ExecStart={_command(('/bin/sh', '-c', becomes, *plan.userspace))}"
    yield "Environment=WG_PROCESS_FOREGROUND=1 LOG_LEVEL=error"
    yield "LimitCORE=0"
    yield "# the interface"
    yield "CapabilityBoundingSet=CAP_NET_ADMIN"
    if plan.low_port:
        yield "# a port below 1024"
        yield "CapabilityBoundingSet=CAP_NET_BIND_SERVICE"
    yield "NoNewPrivileges=yes"
    yield "UMask=0077"
    yield "DevicePolicy=closed"
    yield "DeviceAllow=/dev/net/tun rw"
    yield "ProtectSystem=strict"
    yield "ReadOnlyPaths=/run"
    yield f"ProtectHome={'read-only' if plan.in_homes else 'yes'}"
    yield "PrivateTmp=yes"
    yield "RuntimeDirectory=wireguard"
    yield "RuntimeDirectoryMode=0755"
    yield "RuntimeDirectoryPreserve=yes"
    yield "InaccessiblePaths=-/run/dbus -/run/systemd/private -/run/docker.sock -/run/containerd"
    yield ""
    yield from _walls(jobs=False)


def _tunnel_path(plan: ServicePlan) -> Iterator[str]:
    yield "[Unit]"
    yield "Description=meshpeer: starts WireGuard as a program when the agent asks for it"
    yield ""
    yield "[Path]"
    yield f"PathExists={request_file(plan.interface, SOCKETS)}"
    yield f"Unit={TUNNEL}"


# --- words of a unit file -----------------------------------------------------------------------------------


def _command(words: Sequence[str]) -> str:
    """Returns a command line (systemd.service(5)): words may hold what systemd would replace."""
    return " ".join(_word(word).replace("$", "$$") for word in words)


def _word(text: str | Path) -> str:
    """Returns one word (systemd.syntax(7)), in quotes where it has to be."""
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    plain = escaped and not any(letter.isspace() or letter in "\"'\\;#" for letter in escaped)
    return escaped if plain else f'"{escaped}"'


def _path(path: Path) -> str:
    """Returns a path that is the whole value, which knows no quotes."""
    return str(path).replace("%", "%%")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
