"""The spare channel in documents: by what this node reaches the living members, and since when nothing else.

Reads only. What a tunnel that is not this node's own does, nobody here knows: a member behind a hub is as
well reached as the tunnel to the hub is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshpeer.app.words import few
from meshpeer.core.ids import NodeId, key_text
from meshpeer.core.membership.opinions import State
from meshpeer.runtime.control import Channel, LinkOnly, rfc3339

if TYPE_CHECKING:
    from meshpeer.core.node.node import Node
    from meshpeer.core.node.roster import Listed

TOLD_AFTER_S = 30.0
"""A node that hears nothing at all from the start says so as a warning after this long."""
TOGETHER_S = 60.0
"""The tunnels of one network go silent within their keepalives, and are shown as one silence."""
SSH = "ssh"


def leg_of(node: Node, one: Listed) -> NodeId:
    """Returns whose tunnel leads to a member: its own, or its hub's."""
    carrier = node.tunnels.plan.carrier_of(one.ipv6)
    return carrier.node if carrier is not None else one.node


def silent_since(node: Node, who: NodeId) -> float | None:
    """Returns since when nothing answers in this node's tunnel to a member; None where it answers, where that
    is not known, and where there is no tunnel."""
    channel = node.channels.of(who) if node.channels else None
    return channel.silent_since_unix_s if channel else None


def link_via(node: Node, who: NodeId) -> str:
    """Returns what the control link to a member goes over; empty where it goes straight, or there is none."""
    carrier, forwarded = node.links.carrier_of(who), node.links.is_forwarded(who)
    return _name(node, carrier) if carrier is not None else SSH if forwarded else ""


def channel_view(node: Node) -> Channel:
    """Returns by which channel each living member is reached."""
    tunnel, none, unknown = 0, [], []
    straight: list[str] = []
    silent: list[tuple[bool, float, str]] = []
    over: dict[str, list[str]] = {}
    unknown_since = ""
    for one in node.roster.members:
        if one.node == node.me or node.detector.opinion(one.node).state is State.DEAD:
            continue
        channel = node.channels.of(leg_of(node, one)) if node.channels else None
        linked = node.links.link_to(one.node) is not None
        via = link_via(node, one.node)
        if via:
            over.setdefault(via, []).append(one.name)
        if channel is not None and channel.works:
            tunnel += 1
        elif channel is not None and channel.works is None:
            unknown.append(one.name)
            heard = rfc3339(channel.heard_unix_s) if channel.heard_unix_s else ""
            unknown_since = min(filter(None, (unknown_since, heard)), default="")
        elif linked:
            since = channel.silent_since_unix_s if channel else None
            if channel is None or since is None:
                straight.append(one.name)
            else:
                silent.append((channel.heard_unix_s is None, since, one.name))
        else:
            none.append(one.name)
    return Channel(
        tunnel=tunnel,
        link=(
            *((LinkOnly(names=tuple(straight), since=""),) if straight else ()),
            *_together(sorted(silent)),
        ),
        none=tuple(none),
        unknown=tuple(unknown),
        unknown_since=unknown_since,
        over={via: tuple(names) for via, names in sorted(over.items(), key=_ssh_first)},
    )


def _together(silent: list[tuple[bool, float, str]]) -> list[LinkOnly]:
    """Puts together what went silent at about one time, in order: (never heard, since, name). What is said of
    all holds for each, so it is the latest time."""
    groups: list[list[tuple[bool, float, str]]] = []
    for one in silent:
        near = groups and groups[-1][-1][0] == one[0] and one[1] - groups[-1][-1][1] <= TOGETHER_S
        groups[-1].append(one) if near else groups.append([one])
    return [
        LinkOnly(names=tuple(sorted(name for *_, name in group)), since=rfc3339(since), never=never)
        for group in groups
        for never, since, _ in group[-1:]
    ]


def troubles_of_channel(node: Node, now_unix_s: float) -> list[str]:
    """Returns what keeps every tunnel of this node from working while members are linked."""
    if node.channels is None:
        return []
    found = channel_view(node)
    silent = [one for one in found.link if one.since]
    if found.tunnel or found.unknown or not silent:
        return []
    watched = [channel for one in node.roster.members if (channel := node.channels.of(one.node)) is not None]
    if any(one.heard_unix_s is None and now_unix_s - one.since_unix_s < TOLD_AFTER_S for one in watched):
        return []
    names = few([name for one in silent for name in one.names])
    return [
        f"no UDP of {names} answers: jobs go over control links, and nothing else goes at all "
        f"(`meshpeer why` says since when; open UDP {node.config.wireguard_port} to let WireGuard through)"
    ]


def _ssh_first(item: tuple[str, list[str]]) -> tuple[bool, str]:
    return item[0] != SSH, item[0]


def _name(node: Node, who: NodeId) -> str:
    listed = node.roster.get(who)
    return listed.name if listed else key_text(who)[:10]
