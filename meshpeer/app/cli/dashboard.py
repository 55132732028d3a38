"""``meshpeer dashboard``: the link that opens this machine's page of the mesh."""

from __future__ import annotations

import os
import sys

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command

PANEL = "Looking at it"
_EXAMPLES = """
Examples:
  meshpeer dashboard
  ssh -L 51822:127.0.0.1:51822 HOST meshpeer dashboard --quiet   from afar, while this runs
"""


def add_to(app: typer.Typer) -> None:
    command(app, "dashboard", panel=PANEL, examples=_EXAMPLES)(dashboard)


def dashboard(asked: Asked) -> None:
    """Print the link to this node's page in a browser. It holds a token: keep it to yourself.

    The page shows what status, peers and jobs list show, and follows it. It is served to this machine alone,
    and the link is good until the agent stops. On a desktop it is opened.
    """
    found = asked.client().dashboard()
    if asked.json:
        show.document(found)
        return
    show.line(found.url)
    if asked.quiet or not _is_desktop():
        return
    import webbrowser

    webbrowser.open(found.url)


def _is_desktop() -> bool:
    """Says whether a person's own browser can be opened: never root's."""
    seat = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(seat) and sys.stdout.isatty() and os.geteuid() != 0
