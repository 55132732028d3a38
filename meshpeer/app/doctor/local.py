"""Gathers what can be seen of this machine without its agent, and lets the doctor judge it."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from meshpeer.adapters.hosts import names_in
from meshpeer.adapters.machine import Machine, newest_file, observe_machine, resolve
from meshpeer.app import state
from meshpeer.app.config import ControlSettings, Settings, WireGuardSettings
from meshpeer.app.doctor.firewall import Wanted, judge_firewall
from meshpeer.app.doctor.machine import (
    Programs,
    judge_absence,
    judge_backend,
    judge_clock_alone,
    judge_disk,
    judge_hosts,
    judge_lookups,
    judge_ports,
    judge_tools,
    names_of,
)
from meshpeer.app.ports import check_ports
from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.runtime.doctor import BAD, OK, AgentFindings, Finding

NAMES_TRIED = 4
"""Of members in the hosts file: where one is found, the others are."""
INTERFACES = Path("/sys/class/net")


def examine(
    settings: Settings, agent: AgentFindings | None, why_none: str = "", *, may_ask: bool = True
) -> list[Finding]:
    """Returns what is found on this machine; ``agent`` is what its agent said, ``why_none`` why it said
    nothing. Without ``may_ask`` there is one, which this user may not ask."""
    found: list[Finding] = []
    node = _node_of(settings, found) if state.exists(settings.state_dir) and may_ask else None
    if agent is None and may_ask:
        is_node = state.exists(settings.state_dir)
        left = settings.file.wireguard.interface if _holds_interface(settings) else ""
        found.insert(0, judge_absence(is_node=is_node, why=why_none, interface=left))
    wireguard = settings.file.wireguard
    tunnels = bool(agent.interface) if agent else wireguard.backend != "none"
    if agent is None and node is not None:
        tunnels = tunnels and bool(node.wireguard_port)
    udp, tcp = _ports(settings, node, agent, tunnels=tunnels)
    machine = observe_machine(("wg", "ip", "nft", wireguard.program[0]), settings.state_dir)
    programs = Programs(
        installed=machine.programs,
        kernel=machine.kernel_wireguard,
        tun=machine.tun,
        userspace=wireguard.program[0],
        tunnels=tunnels,
        backend=wireguard.backend,
        forwards=agent.forwards if agent else False,
    )
    found += [*judge_tools(programs), *judge_backend(programs)]
    if machine.disk is not None:
        found.append(
            judge_disk(machine.disk.folder, machine.disk.free_bytes, machine.disk.total_bytes),
        )
    if agent is None and may_ask:
        found += _free_ports(settings, udp, tcp)
        if node is not None:
            found.append(judge_clock_alone(newest_file(settings.state_dir), time.time()))
    rules = machine.ruleset
    wanted = Wanted(
        wireguard_port=udp,
        control_port=tcp,
        interface=wireguard.interface,
        forwards=agent.forwards if agent else False,
    )
    found += judge_firewall(rules.text, rules.why_not, rules.iptables_legacy, wanted)
    return found + _names(settings, node, agent, machine)


def _node_of(settings: Settings, found: list[Finding]) -> state.NodeFile | None:
    try:
        node = state.load_state(settings.state_dir).node
    except (EnvironmentFault, LocalFault) as fault:
        found.append(
            Finding(group="machine", check="state", level=BAD, text=fault.what, todo=(fault.hint,)),
        )
        return None
    text = f"state and keys in {settings.state_dir} are in order"
    found.append(Finding(group="machine", check="state", level=OK, text=text))
    return node


def _ports(
    settings: Settings, node: state.NodeFile | None, agent: AgentFindings | None, *, tunnels: bool
) -> tuple[int, int]:
    """Returns the ports of WireGuard (0 for none) and of links; those of this run's settings win."""
    if agent is not None:
        return agent.wireguard_port, agent.control_port
    udp, tcp = settings.file.wireguard.listen_port, settings.file.control.listen_port
    if node is not None:
        udp = udp if udp not in (0, WireGuardSettings().listen_port) else node.wireguard_port
        tcp = tcp if tcp not in (0, ControlSettings().listen_port) else node.control_port
    return (udp if tunnels else 0), tcp


def _free_ports(settings: Settings, udp: int, tcp: int) -> list[Finding]:
    """The interface outlives the agent, and holds its port: then it is not asked for."""
    held = _holds_interface(settings)
    faults: list[tuple[str, str]] = []
    for udp_port, tcp_port in ((0 if held else udp, 0), (0, tcp)):
        try:
            check_ports(_with_ports(settings, udp_port, tcp_port))
        except EnvironmentFault as fault:
            faults.append((fault.what, fault.hint))
    words = ([f"UDP {udp}"] if udp and not held else []) + ([f"TCP {tcp}"] if tcp else [])
    return judge_ports(faults, " and ".join(words)) if words else []


def _holds_interface(settings: Settings) -> bool:
    return (INTERFACES / settings.file.wireguard.interface).exists()


def _with_ports(settings: Settings, udp: int, tcp: int) -> Settings:
    file = settings.file
    wireguard = msgspec.structs.replace(file.wireguard, listen_port=udp)
    control = msgspec.structs.replace(file.control, listen_port=tcp)
    file = msgspec.structs.replace(file, wireguard=wireguard, control=control)
    return msgspec.structs.replace(settings, file=file)


def _names(
    settings: Settings, node: state.NodeFile | None, agent: AgentFindings | None, machine: Machine
) -> list[Finding]:
    block = names_in(machine.hosts)
    named = [settings.file.node.endpoint, *settings.file.mesh.seeds]
    if node is not None:
        named += [node.endpoint, *node.seeds]
    lookups = names_of(one for one in named if one)
    members = [name for name in block if name.endswith(".mesh")][:NAMES_TRIED]
    resolved = resolve([*lookups, *members])
    found: list[Finding] = []
    if agent is not None:
        answers = {name: resolved[name] for name in members}
        found.append(judge_hosts(block, answers, kept=agent.keeps_hosts))
    return found + judge_lookups({name: resolved[name] for name in lookups})
