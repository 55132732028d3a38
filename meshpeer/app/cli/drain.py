"""``meshpeer drain`` and ``undrain``: a node takes no new work until it is told to again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.app.cli.faults import INTERRUPTED

if TYPE_CHECKING:
    from meshpeer.runtime.job_docs import Drain

LOOK_S = 0.5
NodeName = Annotated[
    str, typer.Argument(metavar="[NODE]", help="A member's name [this node].", show_default=False)
]
_DRAIN = """
Examples:
  meshpeer drain --wait && sudo reboot    let what runs here end, then restart
  meshpeer drain gamma                    of another node, typed on an admin
  meshpeer undrain gamma
"""


def add_to(app: typer.Typer) -> None:
    command(app, "drain", panel="Working", examples=_DRAIN)(drain)
    command(app, "undrain", panel="Working")(undrain)


def drain(
    asked: Asked,
    node: NodeName = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until nothing runs there, and results are home.")
    ] = False,
) -> None:
    """Take no new work at a node; what runs there goes on to its end.

    Tasks that wait there go to other nodes at once. Jobs that it owns go on, elsewhere. It stays so through
    restarts, until `meshpeer undrain`.
    """
    client = asked.client()
    found = client.drain(node, True)
    if not wait:
        _answer(asked, found)
        return
    told = ""
    try:
        while found.running or found.waiting or found.results:
            text = f"{show.clean(found.node)} is drained, and has {_left(found)}"
            if text != told and not asked.quiet and not asked.json:
                show.remark(text)
                told = text
            time.sleep(LOOK_S)
            found = client.drain_of(node)
    except KeyboardInterrupt:
        show.remark(f"{show.clean(found.node)} stays drained; `meshpeer undrain` takes that back")
        raise typer.Exit(INTERRUPTED) from None
    _answer(asked, found)


def undrain(asked: Asked, node: NodeName = "") -> None:
    """Take work at a node again."""
    found = asked.client().drain(node, False)
    if asked.json:
        show.document(found)
    elif not asked.quiet:
        show.line(f"{show.clean(found.node)} takes work")


def _answer(asked: Asked, found: Drain) -> None:
    if asked.json:
        show.document(found)
    elif not asked.quiet:
        left = _left(found)
        has = f"it still has {left}" if left else "it has nothing left"
        show.line(f"{show.clean(found.node)} is drained: {has}")
        show.line(f"  let it work again with: meshpeer undrain {show.clean(found.node)}")


def _left(found: Drain) -> str:
    parts = []
    if found.running:
        parts.append(f"{show.count(found.running, 'task')} running")
    if found.waiting:
        parts.append(f"{show.count(found.waiting, 'task')} waiting")
    if found.results:
        parts.append(f"{show.count(found.results, 'result')} to bring home")
    return ", ".join(parts)
