"""A document with positions: what adapters make of YAML, JSON or TOML, and what ``jobs.spec`` reads.

Values stay as close to the source as an error message needs them: a scalar keeps the characters it was
written with, a mapping keeps its keys in order (twice the same one included), and everything knows its line
and column, both counted from 1. Nodes are immutable, so a YAML alias may share one; ``size`` is what the tree
counts when sharing is undone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

DOCUMENT_NODES_MAX = 2_000_000
"""Nodes of one document, aliases counted as often as they stand: 100,000 tasks of 20 nodes each."""
DOCUMENT_DEPTH_MAX = 32
"""Nesting of lists and mappings; a job file needs six."""

FieldPath = tuple[str | int, ...]
"""Steps from the root: keys of mappings and positions in lists."""


class Place(NamedTuple):
    """Where something stands in a file; both count from 1, columns in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """Text, a number, a truth value or nothing, and the characters that it was written with."""

    value: str | int | float | bool | None
    written: str
    place: Place | None = None
    size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    items: tuple[Located, ...]
    place: Place | None = None
    size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One ``key: value`` of a mapping."""

    key: Scalar
    value: Located


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    entries: tuple[Entry, ...]
    place: Place | None = None
    size: int = 1


Located = Scalar | Sequence | Mapping


def kind_of(node: Located) -> str:
    """Names what a node is, as errors say it."""
    match node:
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"
        case Scalar(value=str()):
            return "text"
        case Scalar(value=bool()):
            return "a truth value"
        case Scalar(value=None):
            return "nothing"
        case Scalar():
            return "a number"


def place_of(document: Located, path: FieldPath) -> Place | None:
    """Returns where the field stands, or the nearest thing above it that has a place.

    The last step of a path points at a mapping's key, not at its value: that is where a person looks for a
    field.
    """
    node, place = document, document.place
    for step in path:
        match node, step:
            case Mapping(), str():
                entry = next((entry for entry in node.entries if entry.key.written == step), None)
                if entry is None:
                    return place
                node, place = entry.value, entry.key.place or entry.value.place or place
            case Sequence(), int() if step < len(node.items):
                node = node.items[step]
                place = node.place or place
            case _:
                return place
    return place


def path_text(path: FieldPath) -> str:
    """Returns ``tasks.render.needs[0]`` for the steps of a path."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if step.isprintable() else repr(step)
            text += f".{name}" if text else name
    return text
