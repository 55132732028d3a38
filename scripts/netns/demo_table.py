"""Which node did how much of a job: a few lines of text from what ``meshpeer jobs tasks --json`` says.
Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

BAR_WIDTH = 30


class Attempt(TypedDict):
    """The part of an attempt that is read here."""

    stolen_from: str | None


class JobTask(TypedDict):
    """The part of a task that is read here."""

    name: str
    node: str | None
    attempts: Sequence[Attempt]


def who_did_what(tasks: Sequence[JobTask]) -> list[str]:
    """Returns one line per node, the busiest first: its tasks as a bar, their number, their names, and its
    steals."""
    done: dict[str, Counter[str]] = {}
    stolen: Counter[str] = Counter()
    for task in tasks:
        node = task["node"]
        if node is None:
            continue
        done.setdefault(node, Counter())[task["name"]] += 1
        if task["attempts"] and task["attempts"][-1]["stolen_from"]:
            stolen[node] += 1
    most = max((count.total() for count in done.values()), default=0)
    width = max(map(len, done), default=0)
    lines = []
    for node, counts in sorted(done.items(), key=lambda item: (-item[1].total(), item[0])):
        bar = "#" * max(1, round(BAR_WIDTH * counts.total() / most))
        names = ", ".join(f"{count} {name}" if count > 1 else name for name, count in counts.items())
        steals = f", {stolen[node]} of them stolen" if stolen[node] else ""
        lines.append(f"  {node:<{width}}  {bar:<{BAR_WIDTH}} {counts.total():>4}  ({names}{steals})")
    return lines
