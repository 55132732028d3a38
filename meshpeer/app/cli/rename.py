"""Giving this node another name."""

from __future__ import annotations

from typing import Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command

_RENAME = """
Examples:
  meshpeer rename render-3             on the node that is to be called so
"""


def add_to(app: typer.Typer) -> None:
    command(app, "rename", panel="Being in a mesh", examples=_RENAME)(rename)


def rename(
    asked: Asked,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Small letters, digits and inner dashes.")],
) -> None:
    """Give this node another name.

    Its addresses, tunnels and running tasks stay as they are; members hear of it within a second, those that
    are away when they are back. Jobs that ask for a node by its old name find none of that name.
    """
    made = asked.client().rename(name)
    if asked.json:
        show.document(made)
    elif not asked.quiet:
        show.line(f"this node is called {made.name} now (was {made.before})")
