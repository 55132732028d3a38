"""Turns a Wiring into bridges, veth pairs, addresses, routes and router rules, by ``ip`` and ``nft``.

All of it happens inside the lab's namespaces, by tools of this machine that enter only the network
namespace: bridges and their ports stand in the namespace of the *fabric*, a machine with no name and no
address.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from meshlab.errors import CommandFailed
from meshlab.spec import LabSpec, RouterSpec
from meshlab.wiring import Interface, Route, Wiring

COMMAND_TIMEOUT_S = 30.0


def in_network(pid: int, argv: Sequence[str], text: str = "", *, check: bool = True) -> str:
    """Runs a tool of this machine in the network namespace of ``pid``; returns its standard output.

    Raises CommandFailed.
    """
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *argv]
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise CommandFailed("lab", argv, None, "", text) from error
    if check and done.returncode != 0:
        raise CommandFailed("lab", argv, done.returncode, done.stdout, f"{done.stderr}{text}")
    return done.stdout


def build_network(spec: LabSpec, wiring: Wiring, fabric_pid: int, pids: Mapping[str, int]) -> None:
    """Wires the machines of a lab together; ``pids`` are their inits. Raises CommandFailed."""
    _batch(fabric_pid, fabric_commands(spec, wiring, pids))
    for machine, pid in pids.items():
        routes = [route for route in wiring.routes if route.machine == machine]
        _batch(pid, machine_commands(wiring.of(machine), routes))
    for router in spec.routers.values():
        if rules := router_rules(router, wiring):
            in_network(pids[router.name], ["nft", "-f", "-"], rules)


def fabric_commands(spec: LabSpec, wiring: Wiring, pids: Mapping[str, int]) -> list[str]:
    """Returns the ``ip`` commands for the fabric: one bridge per LAN, one port per interface."""
    # mcast_snooping off: a bridge with no querier would soon stop carrying mDNS.
    lines = ["link set lo up"]
    for lan in spec.lans.values():
        options = "stp_state 0 forward_delay 0 mcast_snooping 0"
        lines.append(f"link add name br-{lan.name} mtu {lan.mtu} type bridge {options}")
        lines.append(f"link set dev br-{lan.name} up")
    for i in wiring.interfaces:
        peer = f"peer name {i.name} mtu {i.mtu} netns {pids[i.machine]}"
        lines.append(f"link add name {i.port} mtu {i.mtu} type veth {peer}")
        lines.append(f"link set dev {i.port} master br-{i.name} up")
    return lines


def machine_commands(interfaces: Sequence[Interface], routes: Sequence[Route]) -> list[str]:
    """Returns the ``ip`` commands for one node or router."""
    lines = ["link set lo up"]
    for interface in interfaces:
        lines.append(f"link set dev {interface.name} up")
        for address in interface.addresses:
            options = "nodad" if address.version == 6 else "brd +"
            lines.append(f"addr add {address} {options} dev {interface.name}")
    for route in routes:
        everything = "::/0" if route.gateway.version == 6 else "0.0.0.0/0"
        lines.append(f"route add {route.destination or everything} via {route.gateway}")
    return lines


def router_rules(router: RouterSpec, wiring: Wiring) -> str:
    """Returns the nftables rules of a router, or "" for one that only routes.

    New inbound traffic is dropped on the INPUT hook as well as on FORWARD: Linux would otherwise track the
    other side's first packet as a connection to the router itself and take the port, and hole punching would
    fail in a way that no real router shows.
    """
    prerouting, postrouting, inbound, forward, outbound = [], [], [], [], []
    for protocol in router.block:
        match = "meta l4proto { icmp, ipv6-icmp }" if protocol == "icmp" else f"meta l4proto {protocol}"
        forward.append(f"{match} drop")
        if protocol == "icmp":
            # Nor does it say itself that a packet was too big for it.
            outbound += ["icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop"]
    if router.outside is not None:
        if router.nat != "none":
            how = "masquerade fully-random" if router.nat == "symmetric" else "masquerade"
            postrouting.append(f'oifname "{router.outside}" meta nfproto ipv4 {how}')
        for f in router.forwards:
            to = next(a for lan in router.inside for a in wiring.addresses(f.to, lan) if a.version == 4)
            match = f'iifname "{router.outside}" meta nfproto ipv4 {f.proto} dport {f.port}'
            prerouting.append(f"{match} dnat ip to {to}:{f.to_port}")
        if router.firewall:
            inbound.append(f'iifname "{router.outside}" ct state {{ new, invalid }} drop')
            forward.append("ct status dnat accept")
            forward.append(f'iifname "{router.outside}" ct state {{ new, invalid }} drop')
    chains = {
        "prerouting": ("type nat hook prerouting priority dstnat", prerouting),
        "postrouting": ("type nat hook postrouting priority srcnat", postrouting),
        "inbound": ("type filter hook input priority filter", inbound),
        "forwarding": ("type filter hook forward priority filter", forward),
        "outbound": ("type filter hook output priority filter", outbound),
    }
    body = [
        f"  chain {name} {{\n    {hook}\n" + "".join(f"    {rule}\n" for rule in rules) + "  }\n"
        for name, (hook, rules) in chains.items()
        if rules
    ]
    return f"table inet router {{\n{''.join(body)}}}\n" if body else ""


def _batch(pid: int, lines: Sequence[str]) -> None:
    in_network(pid, ["ip", "-batch", "-"], "\n".join(lines) + "\n")
