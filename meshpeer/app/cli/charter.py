"""The charter: the settings that hold for the whole mesh, shown and changed while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command, group
from meshpeer.app.cli.invites import duration_s
from meshpeer.core.errors import LocalFault

if TYPE_CHECKING:
    from meshpeer.runtime.control import Charter

_SET = """
Examples:
  meshpeer charter set --topology regional    traffic between regions goes by hubs
  meshpeer charter set --subnet 10.10.0.0/20  more addresses; nobody gets another
  meshpeer charter set --keepalive 15s --mtu 1380
"""


def add_to(app: typer.Typer) -> None:
    charter = group("charter", "Settings of the whole mesh.")
    command(charter, "show")(show_charter)
    command(charter, "set", examples=_SET)(set_charter)
    app.add_typer(charter, name="charter", rich_help_panel="Being in a mesh")


def show_charter(asked: Asked) -> None:
    """Show the settings that hold for the whole mesh, and who changed them last."""
    _print(asked, asked.client().charter())


def set_charter(
    asked: Asked,
    topology: Annotated[
        str | None,
        typer.Option("--topology", metavar="auto|full|regional", help="Who has a tunnel to whom."),
    ] = None,
    subnet: Annotated[
        str | None, typer.Option("--subnet", metavar="CIDR", help="A wider one that contains the present.")
    ] = None,
    hubs: Annotated[
        int | None, typer.Option("--hubs", metavar="N", help="Active hubs per region; one more stands by.")
    ] = None,
    keepalive: Annotated[
        str | None, typer.Option("--keepalive", metavar="DURATION", help="WireGuard's; 0s switches it off.")
    ] = None,
    mtu: Annotated[
        int | None,
        typer.Option("--mtu", metavar="BYTES", help="The most for all; 1420: found for each path."),
    ] = None,
    idle: Annotated[
        str | None,
        typer.Option("--idle", metavar="DURATION", help="How long a tunnel is idle before hubs take over."),
    ] = None,
    away_max: Annotated[
        str | None,
        typer.Option("--away-max", metavar="DURATION", help="How long a member may be away."),
    ] = None,
) -> None:
    """Change settings of the whole mesh while it runs.

    Every member has them within seconds; connections that are open stay open. Only a node whose certificate
    allows `admin` may, as the founder does.
    """
    from meshpeer.runtime.control import CharterChange

    change = CharterChange(
        subnet=subnet,
        topology=topology,
        hubs=hubs,
        keepalive_s=None if keepalive is None else _seconds(keepalive, "--keepalive"),
        mtu=mtu,
        idle_s=None if idle is None else _seconds(idle, "--idle"),
        away_max_s=None if away_max is None else _seconds(away_max, "--away-max"),
    )
    if change == CharterChange():
        raise LocalFault("nothing to change", "name a setting: see `meshpeer charter set --help`")
    client = asked.client()
    before = client.charter()
    after = client.change_charter(change)
    if not (asked.json or asked.quiet):
        if after.version == before.version:
            show.line("nothing changed: the charter says so already")
        else:
            show.line(f"charter {after.version} is signed and on its way to all members")
    if not asked.quiet:
        _print(asked, after)


def _seconds(text: str, option: str) -> int:
    """Returns a duration in seconds; 0 in any unit, too."""
    return 0 if text in ("0", "0s") else duration_s(text, option)


def _print(asked: Asked, charter: Charter) -> None:
    if asked.json:
        show.document(charter)
        return
    mode = f", which is {charter.topology_mode} now" if charter.topology == "auto" else ""
    rows = [
        ("mesh", charter.mesh),
        ("charter", f"{charter.version}, by {charter.changed_by} at {charter.changed_at}"),
        ("topology", f"{charter.topology}{mode}"),
        ("hubs", f"{charter.hubs} active per region, one more stands by"),
        ("subnet", charter.subnet),
        ("port", f"UDP {charter.wireguard_port} (a node may have its own)"),
        ("keepalive", f"{charter.keepalive_s} s" if charter.keepalive_s else "off"),
        ("mtu", str(charter.mtu)),
        ("idle", f"{charter.idle_s} s without traffic before a tunnel gives way to hubs"),
        ("away", f"{charter.away_max_s} s before a member drops out"),
    ]
    for label, value in rows:
        show.line(f"{label:<10} {value}")
