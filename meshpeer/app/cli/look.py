"""Looking at the mesh: status, peers, the plan, a ping, an export, versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer import __version__
from meshpeer.app.cli import show
from meshpeer.app.cli.agreement import agreement_rows
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.channel import channel_rows
from meshpeer.app.cli.commands import command, group
from meshpeer.app.cli.faults import FAILED, tell
from meshpeer.app.cli.revoke import revocation_line

if TYPE_CHECKING:
    from meshpeer.runtime.control import MeshInfo, NodeInfo, Peer, Plan, Status

PANEL = "Looking at it"
USUAL_MTU = 1_420
"""Who has another is shown with it."""
REVOCATIONS_SHOWN = 5
"""Lines of a status; all of them have a command of their own."""
STATE_COLOURS = {
    "alive": "green",
    "suspect": "yellow",
    "dead": "red",
    "revoked": "red",
    "left": "dim",
    "none": "red",
    "down": "red",
}
_PING = """
Examples:
  meshpeer ping beta
  meshpeer ping beta --count 1 --quiet && echo reachable
"""
_EXPORT = """
Examples:
  meshpeer export wg-quick > wg0.conf   keep it secret: it holds the private key
"""


def add_to(app: typer.Typer) -> None:
    command(app, "status", panel=PANEL)(status)
    command(app, "peers", panel=PANEL)(peers)
    command(app, "plan", panel=PANEL)(plan)
    command(app, "ping", panel=PANEL, examples=_PING)(ping)
    exports = group("export", "Write this node's configuration for other programs.")
    command(exports, "wg-quick", examples=_EXPORT)(export_wg_quick)
    app.add_typer(exports, name="export", rich_help_panel=PANEL)
    command(app, "version", panel=PANEL)(version)


def status(asked: Asked) -> None:
    """Show this node and its mesh on one screen."""
    found = asked.client().status()
    if asked.json:
        show.document(found)
    elif asked.quiet:
        show.line(found.health)
    else:
        _print_status(found, asked.verbose)


def _files(found: Status) -> str:
    """Returns what files of jobs take, and what is on its way: nothing where that is nothing."""
    use = found.files
    if use is None or not (use.bytes or use.coming):
        return ""
    text = f"{show.size(use.bytes)} of {show.size(use.bytes_max)}"
    if use.coming:
        text += f"; {show.count(use.coming, 'file')} on the way here: "
        text += f"{show.size(use.here_bytes)} of {show.size(use.coming_bytes)}"
    return text


def _print_status(found: Status, verbose: int) -> None:
    mesh, node, members = found.mesh, found.node, found.members
    colour = {"ok": "green", "degraded": "yellow"}.get(found.health, "red")
    show.line(f"{show.heading(f'{node.name} in the mesh {mesh.name}')}: {show.paint(found.health, colour)}")
    others = ", ".join(
        f"{count} {state}"
        for state, count in (
            ("suspect", members.suspect),
            ("dead", members.dead),
            ("left", members.left),
            ("revoked", members.revoked),
        )
        if count
    )
    interface = (
        f"{node.interface} ({node.backend}), UDP {node.port}, MTU {node.mtu}"
        + (" (to some members less: `meshpeer peers`)" if node.mtu_differs else "")
        if node.interface
        else "none: links only"
    )
    admission = "provisional: not admitted by an issuer yet" if node.admission == "provisional" else ""
    jobs = ", ".join(f"{count} {state}" for state, count in sorted(found.jobs.items()) if count)
    show.facts(
        [
            ("members", f"{members.alive} alive of {members.total}" + (f" ({others})" if others else "")),
            ("addresses", "  ".join(one for one in (node.ipv4, node.ipv6) if one)),
            ("interface", interface),
            ("links", f"TCP {node.control_port}"),
            ("region", node.region),
            ("roles", ", ".join(node.roles)),
            ("topology", _topology(mesh)),
            *agreement_rows(found.agreement),
            *channel_rows(found.channel),
            ("subnet", mesh.subnet),
            ("leads to", ", ".join(node.routes)),
            ("relays", show.count(node.relays_for, "pair") if node.relays_for else ""),
            ("relayed by", ", ".join(f"{name} ({count})" for name, count in node.relayed_by.items())),
            ("jobs", jobs),
            (
                "tasks",
                f"{show.count(node.slots, 'slot')}, {node.isolation}" if node.slots else _no_tasks(node),
            ),
            ("files", _files(found)),
            ("admission", admission),
            ("up for", show.seconds(node.uptime_s)),
        ]
    )
    if verbose:
        show.facts(
            [
                ("node id", node.id),
                ("mesh id", mesh.id),
                ("public key", node.public_key),
                ("certificate", f"{node.admission}, ends {node.certificate_ends}"),
                ("agent", node.version),
            ]
        )
    for one in found.revocations[:REVOCATIONS_SHOWN]:
        show.line(show.clean(revocation_line(one)))
    if len(found.revocations) > REVOCATIONS_SHOWN:
        show.line("more are revoked: `meshpeer revoke` lists all")
    for warning in found.warnings:
        show.line(show.paint(f"warning: {show.clean(warning)}", "yellow"))


def _topology(mesh: MeshInfo) -> str:
    asked = "" if mesh.topology == mesh.topology_mode else f" (asked for: {mesh.topology})"
    hubs = f", by {', '.join(mesh.hubs)}" if mesh.hubs else ""
    return f"{mesh.topology_mode}{asked}{hubs}"


def _no_tasks(node: NodeInfo) -> str:
    return "drained: none are taken until `meshpeer undrain`" if node.drained else "none are taken"


def peers(asked: Asked) -> None:
    """List the other members, and how each is reached.

    State is this node's own opinion. The path is direct (a tunnel to it), hub or relay (through another),
    link (control only), or none.
    """
    found = asked.client().peers()
    if asked.json:
        show.document(found)
        return
    if asked.quiet:
        for one in found:
            show.line(one.name)
        return
    if not found:
        show.line("No other member yet.")
        show.line("  make an invite with `meshpeer invite`, and on the other machine: meshpeer join INVITE")
        return
    titles = ["NAME", "ADDRESS", "STATE", "PATH", "RTT", "HANDSHAKE", "REGION", "ENDPOINT"]
    rows = [_peer_row(one) for one in found]
    if any(one.work == "drained" for one in found):
        titles.append("WORK")
        rows = [[*row, one.work or "-"] for row, one in zip(rows, found, strict=True)]
    if any(one.mtu not in (0, USUAL_MTU) for one in found):
        titles.append("MTU")
        rows = [[*row, str(one.mtu or "-")] for row, one in zip(rows, found, strict=True)]
    if asked.verbose:
        titles += ["RECEIVED", "SENT", "IPV6"]
        rows = [
            [*row, show.size(one.rx_bytes), show.size(one.tx_bytes), one.ipv6 or "-"]
            for row, one in zip(rows, found, strict=True)
        ]
    show.table(titles, rows, right=(4, 5), colours=STATE_COLOURS)
    for one in found:
        if one.routes:
            show.line(show.clean(f"{one.name} leads to {', '.join(one.routes)}"))
    for one in found:
        if one.state in ("suspect", "dead") and one.because:
            show.line(f"{show.clean(one.name)} is {one.state}: {show.clean(one.because)}")
        if one.state == "revoked":
            show.line(f"{show.clean(one.name)} was {show.clean(one.because)}")
        if one.reported:
            show.line(f"hub {show.clean(one.name)} is reported {show.clean(one.reported)}")


def _peer_row(one: Peer) -> list[str]:
    return [
        one.name,
        one.ipv4 or one.ipv6 or "-",
        one.state,
        f"{one.path} via {one.via}" if one.via else one.path,
        "-" if one.rtt_ms is None else f"{one.rtt_ms:.1f} ms",
        "-" if one.last_handshake_s is None else f"{show.seconds(max(one.last_handshake_s, 0.0))} ago",
        one.region or "-",
        one.endpoint or "-",
    ]


def plan(asked: Asked) -> None:
    """Show what this node's interface should hold, without applying it."""
    found = asked.client().plan()
    if asked.json:
        show.document(found)
    else:
        _print_plan(found)


def _print_plan(found: Plan) -> None:
    if found.changes:
        show.line(show.heading(f"{show.count(len(found.changes), 'step')} to apply:"))
        for change in found.changes:
            show.line(f"  {show.clean(change)}")
    else:
        show.line(show.heading("The interface is as it should be."))
    if found.hubs:
        mine = "this node forwards for others" if found.forwards else f"this node's is {found.hub}"
        standbys = f", standing by {', '.join(found.standbys)}" if found.standbys else ""
        show.line(f"Hubs {', '.join(found.hubs)}{standbys}; {mine}")
    if found.coming:
        show.line(f"About to take over, once all their tunnels are made: {', '.join(found.coming)}")
    if found.keeps:
        show.line(f"Tunnels kept until they are idle, then by hubs: {', '.join(found.keeps)}")
    if found.waits_for:
        show.line(f"By hubs until a tunnel of their own works: {', '.join(found.waits_for)}")
    for line in found.reported:
        show.line(show.clean(line))
    show.line(
        f"Mode {found.mode}; {show.count(len(found.peers), 'peer')}, "
        f"routes: {', '.join(found.routes) or 'none'}"
    )
    if found.peers:
        rows = [
            [
                one.name,
                one.endpoint or "-",
                f"{one.keepalive_s} s" if one.keepalive_s else "-",
                ", ".join(one.allowed_ips),
            ]
            for one in found.peers
        ]
        show.table(["PEER", "ENDPOINT", "KEEPALIVE", "ALLOWED IPS"], rows, right=(2,))


def ping(
    asked: Asked,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A member's name.")],
    count: Annotated[
        int, typer.Option("--count", "-c", metavar="N", min=1, max=100, help="How many packets.")
    ] = 3,
) -> None:
    """Ping a member through its tunnel, or over its link where there is none."""
    answer = asked.client().ping(node, count)
    times = [one for one in answer.rtt_ms if one is not None]
    if asked.json:
        show.document(answer)
    elif times and not asked.quiet:
        name = f"{answer.node} ({answer.address}) over its {answer.over}"
        show.line(f"{show.clean(name)}: {len(times)} of {len(answer.rtt_ms)} answered")
        show.line(
            f"  round trip {min(times):.2f} ms at best, {sum(times) / len(times):.2f} on average, "
            f"{max(times):.2f} at worst"
        )
    if not times:
        if not asked.json:
            tell(
                f"{answer.node} ({answer.address}) does not answer over its {answer.over}",
                "see `meshpeer peers`: is it alive, and is its path direct?",
            )
        raise typer.Exit(FAILED)


def export_wg_quick(asked: Asked) -> None:
    """Print the interface's configuration in the form of wg-quick(8)."""
    text = asked.client().export_wg_quick()
    if asked.json:
        show.document({"wg_quick": text})
    else:
        show.line(text.rstrip("\n"))


def version(asked: Asked) -> None:
    """Print the version of this program, and whether it is a checkout."""
    import dataclasses
    import platform

    from meshpeer.app.checkout import find_checkout

    checkout = find_checkout()
    system = f"{platform.system()} {platform.release()}"
    if asked.json:
        show.document(
            {
                "version": __version__,
                "python": platform.python_version(),
                "system": system,
                "checkout": dataclasses.asdict(checkout) if checkout else None,
            }
        )
    elif asked.quiet:
        show.line(__version__)
    else:
        facts = [f"Python {platform.python_version()}", system, *([checkout.words()] if checkout else [])]
        show.line(f"meshpeer {__version__} ({', '.join(facts)})")
