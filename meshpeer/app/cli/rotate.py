"""Changing this node's WireGuard key."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.core.errors import EnvironmentFault

if TYPE_CHECKING:
    from meshpeer.runtime.control import KeyRotation

_ROTATE = """
Examples:
  meshpeer rotate-key                  a second or two, no connection breaks
  meshpeer rotate-key --json

  # /etc/meshpeer/meshpeer.toml: by itself, every 90 days
  [wireguard]
  rotate_days = 90
"""
LOOK_S = 0.2
WAIT_S_MAX = 150.0
"""Longer than a change takes that waits for peers, for other members, and for a slow disk."""


def add_to(app: typer.Typer) -> None:
    command(app, "rotate-key", panel="Being in a mesh", examples=_ROTATE)(rotate_key)


def rotate_key(asked: Asked) -> None:
    """Give this node a new WireGuard key, under tunnels that are in use.

    Peers let the new key in first; then this node changes over, and shakes hands with all of them at once.
    No connection breaks, and nothing has to be done elsewhere. Members that are away take the new key when
    they are back. The node's own key, by which the mesh knows it, stays: if that one was lost or stolen,
    revoke the node and let it join anew.
    """
    client = asked.client()
    before = client.rotation()
    at = client.rotate_key()
    waits_until_s = time.monotonic() + WAIT_S_MAX
    said = ""
    while at.state != "steady":
        if time.monotonic() > waits_until_s:
            raise EnvironmentFault(
                "the key was not changed within 150 s; the change goes on",
                "see `meshpeer status` and the agent's log; run this again to see how it stands",
            )
        if (words := _waits(at)) != said and not asked.quiet and not asked.json:
            show.remark(show.clean(words))
            said = words
        time.sleep(LOOK_S)
        at = client.rotation()
    if at.public_key == before.public_key:
        raise EnvironmentFault(
            "the key was not changed: another member shows the one that this node was about to take",
            "run it again: it takes another one",
        )
    if asked.json:
        show.document(at)
    elif not asked.quiet:
        show.line(f"this node has a new WireGuard key: {at.public_key}")
        show.line(f"{show.count(at.ready, 'peer')} had let it in before")
        if at.missed:
            names = show.clean(", ".join(at.missed))
            show.line(f"not heard from: {names}; they take it from this node's record")


def _waits(at: KeyRotation) -> str:
    """Returns what a change waits for."""
    if at.state != "announced":
        return "changing over"
    if at.held_up:
        return f"waiting: {at.held_up}"
    if at.waiting_for:
        return f"waiting for {', '.join(at.waiting_for)} to let the new key in"
    return "telling peers of the new key"
