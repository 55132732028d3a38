"""Judges this node's interface, its tunnels, what it passes on, and routes that are in the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshpeer.app.spans import seconds
from meshpeer.app.words import few
from meshpeer.core.paths.reflections import CHANGING, NONE, STEADY
from meshpeer.core.topology.mtus import IPV6_MTU_MIN
from meshpeer.core.wgconf.model import HANDSHAKE_FRESH_S
from meshpeer.runtime.doctor import BAD, OK, UNKNOWN, WARNING, Finding

INTERFACE, TUNNELS, ROUTES = "interface", "tunnels", "routes"
YOUNG_S = 20.0
"""A node that has run no longer may have no handshake yet."""
DRIFT_SHOWN_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceSeen:
    """The interface against the plan."""

    name: str
    backend: str
    there: bool
    up: bool
    mtu: int
    mtu_wanted: int
    steps: tuple[str, ...]
    """What would be applied now."""
    fault: tuple[str, str] | None = None
    """Why it can't be brought in step, and what to do."""
    drift_ago_s: float | None = None
    drift: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelSeen:
    """A tunnel that the plan wants."""

    name: str
    handshake_ago_s: float | None
    """None for never."""
    alive: bool
    """The member is held alive, whatever its tunnel does."""
    answers: bool | None = None
    """A ping through it came back just now; None: none was sent."""

    @property
    def is_fresh(self) -> bool:
        return self.handshake_ago_s is not None and abs(self.handshake_ago_s) < HANDSHAKE_FRESH_S


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthSeen:
    """How wide a path is."""

    name: str
    mtu: int
    underlay_bytes: int


def judge_interface(seen: InterfaceSeen) -> list[Finding]:
    """Is it there, up, and as planned?"""
    if seen.backend == "none":
        return [_finding("interface", OK, "none, as this node was set up: control and jobs go by links")]
    if seen.fault is not None:
        what, hint = seen.fault
        return [_finding("interface", BAD, f"{seen.name} can't be brought in step: {what}", hint)]
    if not seen.there:
        text = f"there is no interface {seen.name}"
        return [_finding("interface", BAD, text, "meshpeer plan shows what is to be done, agent.log why not")]
    found: list[Finding] = []
    if not seen.up:
        found.append(_finding("interface", BAD, f"{seen.name} is down", f"ip link set {seen.name} up"))
    elif seen.steps:
        text = f"{seen.name} is not as planned yet: {few(seen.steps)}"
        found.append(_finding("interface", WARNING, text, "look again in 5 s, then: meshpeer plan"))
    else:
        found.append(_finding("interface", OK, f"{seen.name} ({seen.backend}) is up and as planned"))
    if seen.mtu != seen.mtu_wanted:
        text = f"its MTU is {seen.mtu}, and should be {seen.mtu_wanted}"
        found.append(_finding("mtu", WARNING, text, f"ip link set {seen.name} mtu {seen.mtu_wanted}"))
    else:
        found.append(_finding("mtu", OK, f"its MTU is {seen.mtu}, as planned"))
    if seen.drift_ago_s is not None and seen.drift_ago_s < DRIFT_SHOWN_S:
        text = f"somebody changed {seen.name} {seconds(seen.drift_ago_s)} ago: {'; '.join(seen.drift)}"
        todo = "it was repaired; find what changes it (another program that manages networks?)"
        found.append(_finding("drift", WARNING, text, todo))
    return found


def judge_widths(
    widths: Sequence[WidthSeen], usual: int, fault: tuple[str, str] | None = None
) -> list[Finding]:
    """Which paths carry less than the usual, and what suffers? ``fault``: why none can be probed, and what to
    do."""
    if fault is not None:
        text = f"how wide paths are is not known here: {fault[0]}"
        return [_finding("widths", WARNING, text, fault[1])]
    narrow = [one for one in widths if one.mtu < usual]
    if not widths:
        return []
    if not narrow:
        text = f"{len(widths)} of {len(widths)} paths that answer probes carry MTU {usual} or more"
        return [_finding("widths", OK, text)]
    shown = few([f"{one.name} (MTU {one.mtu}: packets of {one.underlay_bytes} bytes)" for one in narrow])
    if all(one.mtu >= IPV6_MTU_MIN for one in narrow):
        return [_finding("widths", OK, f"narrow paths, and packets are cut to fit: {shown}")]
    text = f"narrow paths, where UDP over IPv6 in packets of more than that is lost: {shown}"
    return [
        _finding("widths", WARNING, text, "find what is narrow there (a VPN, a tunnel), or use IPv4 for UDP")
    ]


def judge_tunnels(tunnels: Sequence[TunnelSeen], port: int, uptime_s: float) -> list[Finding]:
    """Which tunnels had a handshake of late, and what of those that had none?"""
    if not tunnels:
        return [_finding("handshakes", OK, "no tunnel is wanted: there is no other member yet")]
    fresh = [one for one in tunnels if one.is_fresh]
    stale = [one for one in tunnels if not one.is_fresh and one.alive]
    gone = [one for one in tunnels if not one.is_fresh and not one.alive]
    count = f"{len(fresh)} of {len(tunnels)} tunnels had a handshake in the last 3 min"
    found = [_finding("handshakes", OK, count)] if fresh else []
    found += _judge_pings(fresh, port)
    if stale and uptime_s < YOUNG_S and not any(one.handshake_ago_s for one in stale):
        text = f"{few([one.name for one in stale])}: no handshake yet, in {seconds(uptime_s)}"
        return [*found, _finding("handshakes", UNKNOWN, text, "look again in half a minute")]
    if stale and not fresh:
        text = f"no tunnel works although members live: UDP {port} is dropped on the way ({_since(stale)})"
        found.append(_finding("handshakes", BAD, text, *_open_udp(port), f"meshpeer why {stale[0].name}"))
    elif stale:
        todo = f"meshpeer why {stale[0].name} says what was tried; one of the two must open UDP {port}"
        found.append(_finding("handshakes", WARNING, f"no handshake with {_since(stale)}", todo))
    if gone:
        text = f"no handshake with {_since(gone)}, and no sign of life"
        todo = f"is {gone[0].name} up? There: meshpeer doctor"
        found.append(_finding("lost", WARNING, text, todo))
    return found


def _judge_pings(fresh: Sequence[TunnelSeen], port: int) -> list[Finding]:
    """Do pings come back through tunnels that shook hands of late? Firewalls may drop pings alone, so none
    that doesn't is worth more than a warning."""
    mute = [one.name for one in fresh if one.answers is False and one.alive]
    tried = [one for one in fresh if one.answers is not None]
    if mute:
        text = f"no ping comes back from {few(mute)}: the tunnel is cut, or pings are dropped there"
        todo = f"was UDP {port} closed a moment ago? Look again in 3 min; meshpeer why {mute[0]}"
        return [_finding("pings", WARNING, text, todo)]
    if tried:
        return [_finding("pings", OK, f"pings come back through {len(tried)} of {len(tried)} tunnels tried")]
    return []


def judge_router(router: str, port: int, *, fresh: bool, has_endpoint: bool) -> list[Finding]:
    """What stands before WireGuard's port, as far as others can tell? It answers no stranger that tries."""
    if router == NONE:
        return [_finding("router", OK, "members see its tunnels come from its own public address")]
    if router == STEADY:
        text = "it is behind a router that keeps one mapping for all: tunnels get through (hole punching)"
        return [_finding("router", OK, text)]
    if router == CHANGING and not has_endpoint:
        text = "it is behind a router that maps anew for each member: others like it can't be reached"
        todo = f"forward UDP {port} to this machine, and name it: endpoint = HOST:{port} under [node]"
        return [_finding("router", WARNING, text, todo)]
    if router == CHANGING:
        return [_finding("router", OK, "its router maps anew for each member, and its endpoint is named")]
    why = "no member beyond its own network sees its tunnels" if fresh else "no tunnel works"
    return [_finding("router", UNKNOWN, f"whether a router lets UDP {port} in, nobody can tell: {why}")]


def judge_forwarding(
    *, hub: bool, lans: Sequence[str], fault: tuple[str, str] | None, said: Iterable[str]
) -> list[Finding]:
    """Does this node pass on what it should? ``said``: what others report, in sentences with hints."""
    found: list[Finding] = []
    if fault is not None:
        what, hint = fault
        found.append(_finding("forwarding", BAD, f"this node can't forward for others: {what}", hint))
    for one in said:
        text, _, hint = one.partition(" (")
        found.append(_finding("hub", BAD, text, *([hint.removesuffix(")")] if hint else [])))
    if not found and (hub or lans):
        does = (["hub"] if hub else []) + (["router of " + few(lans)] if lans else [])
        text = f"it passes on traffic as {' and '.join(does)}; rules and switches are set"
        found.append(_finding("forwarding", OK, text))
    return found


def judge_routes(
    subnet: str, overlaps: Sequence[tuple[str, str, bool]], left_out: Sequence[tuple[str, str]]
) -> list[Finding]:
    """Do networks of this machine meet the mesh's? ``overlaps``: prefix, device, whether it takes traffic;
    ``left_out``: what is not routed and why, and what to do."""
    found = [
        Finding(
            group=ROUTES,
            check="subnet",
            level=BAD if takes else WARNING,
            text=f"the route {prefix} by {device} meets the mesh's subnet {subnet}",
            todo=("remove that route, or move the mesh: meshpeer charter set --subnet CIDR",),
        )
        for prefix, device, takes in overlaps
    ]
    found += [
        Finding(group=ROUTES, check="lan", level=WARNING, text=text, todo=(hint,) if hint else ())
        for text, hint in left_out
    ]
    if not found:
        text = f"no network here meets {subnet} or LANs of members"
        found.append(Finding(group=ROUTES, check="subnet", level=OK, text=text))
    return found


def _since(tunnels: Sequence[TunnelSeen]) -> str:
    return few(
        [
            f"{one.name} (never)"
            if one.handshake_ago_s is None
            else f"{one.name} (since {seconds(one.handshake_ago_s)})"
            for one in tunnels
        ]
    )


def _open_udp(port: int) -> tuple[str, ...]:
    return (
        f"open UDP {port} here and there: ufw allow {port}/udp, or firewall-cmd --add-port={port}/udp, "
        "and in a cloud its security group",
    )


def _finding(check: str, level: str, text: str, *todo: str) -> Finding:
    group = INTERFACE if check in ("interface", "mtu", "drift") else TUNNELS
    return Finding(group=group, check=check, level=level, text=text, todo=todo)
