"""``meshpeer map``: the mesh as this node knows it, drawn in the terminal or as a picture."""

from __future__ import annotations

import shutil
import sys
from typing import Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.app.cli.look import PANEL
from meshpeer.app.cli.pictures import write_picture
from meshpeer.core.errors import LocalFault

COLUMNS, COLUMNS_MAX = 80, 100
"""Of a drawing: away from a terminal, and on a wide one."""
_EXAMPLES = """
Examples:
  meshpeer map
  meshpeer map --svg mesh.svg
  meshpeer map --svg - > mesh.svg
"""


def add_to(app: typer.Typer) -> None:
    command(app, "map", panel=PANEL, examples=_EXAMPLES)(draw)


def draw(
    asked: Asked,
    svg: Annotated[
        str | None, typer.Option("--svg", metavar="FILE", help="Write a picture instead; - for stdout.")
    ] = None,
) -> None:
    """Draw the mesh: regions, hubs, and the path to each member.

    Lines are this node's own paths, with the round trip of its control link. Of paths between others it
    knows only which tunnels are planned.
    """
    # Here, since few calls of the program draw.
    from meshpeer.app.cli.map_model import map_mesh
    from meshpeer.app.cli.map_svg import draw_svg
    from meshpeer.app.cli.map_text import ASCII, LINES, draw_text

    if svg is not None and asked.json:
        raise LocalFault("a map is a document or a picture", "give --json or --svg, not both")
    client = asked.client()
    found = map_mesh(client.status(), client.peers(), client.plan())
    if asked.json:
        show.document(found)
    elif svg is not None:
        write_picture(svg, draw_svg(found), quiet=asked.quiet)
    else:
        columns = COLUMNS
        if sys.stdout.isatty():
            columns = min(shutil.get_terminal_size().columns, COLUMNS_MAX)
        letters = LINES if show.can_print(LINES.trunk + LINES.direct + LINES.link) else ASCII
        for line in draw_text(found, columns=columns, letters=letters, legend=not asked.quiet):
            show.pieces(line)
