"""``meshpeer why``: why the path between two members is what it is."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.app.cli.look import PANEL
from meshpeer.core.errors import LocalFault

if TYPE_CHECKING:
    from meshpeer.runtime.control import Why, WhyCandidate, WhyTunnel

COLUMNS = 80
COLOURS = {"direct": "green", "relay": "green", "hubs": "green", "link": "yellow", "none": "red"}
SOURCES = {
    "near": "on a network of this machine",
    "link": "where its control link is",
    "configured": "named by its owner",
    "public": "public, it says",
    "reflected": "where others see it",
    "private": "private, it says",
    "relay": "lent by a relay",
    "seen": "seen there",
}
_EXAMPLES = """
Examples:
  meshpeer why delta          from this node
  meshpeer why alpha delta    any two, as this node knows them
"""


def add_to(app: typer.Typer) -> None:
    command(app, "why", panel=PANEL, examples=_EXAMPLES)(why)


def why(
    asked: Asked,
    members: Annotated[
        list[str], typer.Argument(metavar="[A] B", help="Two members by name; without A, this node and B.")
    ],
) -> None:
    """Explain the path between two members: which rule, what was tried, what to do.

    What only another node can know is said to be unknown, with the node that knows it.
    """
    if len(members) > 2:
        raise LocalFault(f"{len(members)} members were named", "name one, or two: meshpeer why [A] B")
    source, target = members if len(members) == 2 else ("", members[0])
    found = asked.client().why(source, target)
    if asked.json:
        show.document(found)
    elif asked.quiet:
        show.line(found.verdict)
    else:
        _print(found)


def _print(found: Why) -> None:
    colour = COLOURS.get(found.verdict, "bold")
    for line in _wrapped(show.clean(found.answer), "", "  "):
        show.line(show.paint(line, colour))
    _section("Why", [one.text for one in found.rule])
    for tunnel in found.tunnels:
        _print_tunnel(tunnel, found)
    _section("Not known here", found.unknown)
    _section("What to do", found.todo)


def _section(title: str, texts: list[str] | tuple[str, ...]) -> None:
    if texts:
        show.line()
        show.line(show.heading(title))
    for text in texts:
        for line in _wrapped(show.clean(text), "  ", "    "):
            show.line(line)


def _print_tunnel(tunnel: WhyTunnel, found: Why) -> None:
    shaken = (
        "no handshake yet"
        if tunnel.last_handshake_s is None
        else f"last handshake {show.seconds(tunnel.last_handshake_s)} ago"
    )
    show.line()
    show.line(show.heading(f"The tunnel to {show.clean(tunnel.to)}: {shaken}"))
    rows = [
        (one.endpoint, SOURCES.get(one.source, one.source), _state(one), _known(one))
        for one in found.candidates
        if one.tunnel == tunnel.to
    ]
    if not rows:
        show.line("  no endpoint is known that could be tried")
    widths = [max((show.width_of(show.clean(row[column])) for row in rows), default=0) for column in range(4)]
    if tunnel.mtu:
        carried = (
            "its path answers no probes"
            if tunnel.underlay_bytes is None
            else f"its path carries packets of {tunnel.underlay_bytes} bytes"
        )
        show.line(f"  MTU {tunnel.mtu}: {carried}")
    for row in rows:
        cells = [show.clean(cell).ljust(width) for cell, width in zip(row, widths, strict=True)]
        for line in _wrapped("  ".join(cells).rstrip(), "  ", "      ", keep_gaps=True):
            show.line(line)


def _known(one: WhyCandidate) -> str:
    if one.known_since is None:
        return ""
    return f"known for {_span(one.known_since)}"


def _span(since: str) -> str:
    return show.seconds(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()))


def _state(one: WhyCandidate) -> str:
    """Returns a state with its time: ``working for 12 s``, ``given up 3 min ago``."""
    state = one.state.replace("_", " ")
    if one.since is None:
        return state
    span = _span(one.since)
    return f"{state} for {span}" if one.state in ("working", "trying") else f"{state} {span} ago"


def _wrapped(text: str, first: str, rest: str, *, keep_gaps: bool = False) -> list[str]:
    if keep_gaps and len(first) + show.width_of(text) <= COLUMNS:
        return [first + text]
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
