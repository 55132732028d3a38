"""What members say of hubs that carry nothing for them, in words."""

from __future__ import annotations

from meshpeer.core.ids import NodeId
from meshpeer.core.node.node import Node
from meshpeer.core.topology.hub_reports import FORWARDING, TUNNEL

UNWATCHED_FOR_S = 180.0
"""How long a hub has to be reached by a probe, before that is worth a word."""
_FAILS = {TUNNEL: "its tunnel carries nothing", FORWARDING: "it passes nothing on from tunnel to tunnel"}


def reports_of(node: Node) -> dict[NodeId, dict[str, list[str]]]:
    """Returns, for each member that is reported in its present run, by what it fails and the names of those
    who say so."""
    reports: dict[NodeId, dict[str, list[str]]] = {}
    for one in node.roster.members:
        for report in one.record.hubs_failed:
            hub = node.roster.get(report.node)
            if hub is not None and hub.record.incarnation == report.incarnation:
                reports.setdefault(report.node, {}).setdefault(report.kind, []).append(one.name)
    return reports


def said_of(reports: dict[str, list[str]]) -> str:
    """Returns ``alpha, bravo: its tunnel carries nothing``."""
    return "; ".join(
        f"{', '.join(sorted(names))}: {_FAILS.get(kind, kind)}" for kind, names in sorted(reports.items())
    )


def lines_of(node: Node) -> list[str]:
    """Returns one line for each reported hub but this node."""
    names = {one.node: one.name for one in node.roster.members}
    return sorted(
        f"hub {names[hub]} is reported by {said_of(reports)}"
        for hub, reports in reports_of(node).items()
        if hub != node.me
    )


def unwatched_hubs(node: Node, now_unix_s: float) -> list[str]:
    """Returns a line for the hubs of which nobody could tell that they carry nothing: for long no probe has
    reached them."""
    routes = node.tunnels.routes
    hubs = {hub.node: hub for cell in routes.cells.values() for hub in cell.active} if routes else {}
    names = sorted(
        hub.name
        for hub in hubs.values()
        if not hub.answers and hub.node != node.me and hub.incarnation + UNWATCHED_FOR_S < now_unix_s
    )
    if not names:
        return []
    return [
        f"whether {', '.join(names)} carry traffic as hubs is not watched: no probe has reached them "
        "(does a firewall there drop UDP port 51821 on the mesh's interface?)"
    ]


def own_troubles(node: Node) -> list[str]:
    """Returns what members say of this node as a hub, and where to look."""
    interface, port = node.config.interface, node.config.wireguard_port
    hints = {
        TUNNEL: f"look for a firewall that drops UDP port {port} (nft list ruleset)",
        FORWARDING: f"look for a firewall that drops forwarded packets, such as Docker's: it must let "
        f"{interface} to {interface} pass (nft list ruleset); then start the agent anew",
    }
    fails = {
        TUNNEL: "its tunnel carries nothing for them",
        FORWARDING: "it passes nothing on from tunnel to tunnel",
    }
    return [
        f"this node is no good hub, say {', '.join(sorted(names))}: {fails.get(kind, kind)} "
        f"({hints.get(kind, 'see `meshpeer peers` there')})"
        for kind, names in sorted(reports_of(node).get(node.me, {}).items())
    ]
