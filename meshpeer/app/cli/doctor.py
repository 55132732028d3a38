"""``meshpeer doctor``: what is wrong with this node, and the command that mends it."""

from __future__ import annotations

import collections
import textwrap
from typing import TYPE_CHECKING

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.app.cli.faults import FAILED
from meshpeer.app.cli.look import PANEL
from meshpeer.core.errors import NotRunning, Refused

if TYPE_CHECKING:
    from meshpeer.runtime.doctor import AgentFindings, Doctor, Finding

COLUMNS = 80
_ORDER = ("bad", "warning", "unknown", "ok")
_COLOURS = {"bad": "red", "warning": "yellow", "unknown": "dim", "ok": "green"}
_WORDS = {"unknown": "not known"}
_LEVEL, _GROUP = 10, 12
"""Widths of the first two columns."""
_EXAMPLES = """
Examples:
  meshpeer doctor                     what is wrong, and what mends it
  meshpeer doctor -v                  all checks in full
  meshpeer doctor --quiet || alert    exit code 1 where something is bad
"""


def add_to(app: typer.Typer) -> None:
    command(app, "doctor", panel=PANEL, examples=_EXAMPLES)(doctor)


def doctor(asked: Asked) -> None:
    """Look for what is wrong with this node; say what mends it.

    Asks the agent, other members through it (up to 7 s), and this machine; without an agent, the machine
    alone. Exit code 1 where something is bad.
    """
    from meshpeer.app.doctor.local import examine
    from meshpeer.runtime.doctor import UNKNOWN, Finding, diagnosis

    settings = asked.settings()
    agent: AgentFindings | None = None
    why, denied = "", ""
    try:
        agent = asked.client(settings).doctor()
    except NotRunning as fault:
        why = fault.what
    except Refused as fault:
        denied = fault.what
    own = [*agent.findings] if agent else []
    local = examine(settings, agent, why, may_ask=not denied)
    if denied:
        todo = ("run it with sudo",)
        own.append(Finding(group="machine", check="agent", level=UNKNOWN, text=denied, todo=todo))
    found = diagnosis([*local, *own], agent=agent is not None)
    if asked.json:
        show.document(found)
    elif asked.quiet:
        show.line(next(one for one in _ORDER if one == "ok" or any(f.level == one for f in found.findings)))
    else:
        _print(found, agent.name if agent else "this machine", asked.verbose)
    if found.bad:
        raise typer.Exit(FAILED)


def _print(found: Doctor, name: str, verbose: int) -> None:
    worst = "bad" if found.bad else "warning" if found.warnings else "ok"
    counts = [
        (found.bad, "bad"),
        (found.warnings, "warning" if found.warnings == 1 else "warnings"),
        (found.ok, "ok"),
        (found.unknown, "not known"),
    ]
    said = ", ".join(f"{count} {word}" for count, word in counts if count)
    show.line(f"{show.heading(show.clean(name))}: {show.paint(said, _COLOURS[worst])}")
    show.line()
    # What is well has a line each where that is all there is to say.
    brief = not verbose and bool(found.bad or found.warnings)
    for level in _ORDER:
        for one in found.findings:
            if one.level == level and not (brief and level == "ok"):
                _print_finding(one, verbose)
    if brief and found.ok:
        groups = collections.Counter(one.group for one in found.findings if one.level == "ok")
        named = [group if count == 1 else f"{group} ({count})" for group, count in groups.items()]
        text = f"{', '.join(named)}; -v shows them"
        _print_columns("ok", "", _wrapped(show.clean(text), COLUMNS - _LEVEL))


def _print_columns(level: str, group: str, lines: list[str]) -> None:
    margin = _LEVEL + (_GROUP if group else 0)
    word = show.paint(_WORDS.get(level, level).ljust(_LEVEL), _COLOURS.get(level, "bold"))
    show.line(f"{word}{group.ljust(_GROUP) if group else ''}{lines[0] if lines else ''}")
    for line in lines[1:]:
        show.line(" " * margin + line)


def _print_finding(one: Finding, verbose: int) -> None:
    text = show.clean(one.text)
    room = COLUMNS - _LEVEL - _GROUP
    if one.level == "ok" and not verbose:
        text = textwrap.shorten(text, room, placeholder=" ...")
    _print_columns(one.level, show.clean(one.group), _wrapped(text, room))
    if one.level == "ok" and not verbose:
        return
    for todo in one.todo:
        for number, line in enumerate(_wrapped(show.clean(todo), room - 3)):
            show.line(" " * (_LEVEL + _GROUP) + ("-> " if number == 0 else "   ") + line)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=True, break_on_hyphens=False)
