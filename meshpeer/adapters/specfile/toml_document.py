"""TOML (v1.0, by ``tomllib``) to a located document.

``tomllib`` tells no positions, so they are found again afterwards by reading the lines that open tables and
assign keys; what stands in the middle of a line keeps the place of its key. Only errors use places, and each
names its field too.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from meshpeer.adapters.specfile.broken import BrokenDocument
from meshpeer.core.jobs.located import (
    DOCUMENT_DEPTH_MAX,
    DOCUMENT_NODES_MAX,
    Entry,
    FieldPath,
    Located,
    Mapping,
    Place,
    Scalar,
    Sequence,
    path_text,
)

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\\]*"|'[^']*')"""
_TABLE = re.compile(rf"\s*\[\[?\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*\]\]?\s*(?:#.*)?$")
_ASSIGNMENT = re.compile(rf"\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*=")
_PART = re.compile(_KEY)


class _Written(str):
    """The characters of a float, so that ``1.10`` stays ``1.10``."""


def read_toml(text: str) -> Located:
    """Returns the document of a TOML text; raises ``BrokenDocument``."""
    try:
        tree: object = tomllib.loads(text, parse_float=_Written)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        match = _AT.search(message)
        place: Place | None = None
        if match is not None:
            place = Place(int(match[1]), int(match[2])) if match[1] is not None else _end_of(text)
        what = _AT.sub("", message)
        raise BrokenDocument(what[:1].lower() + what[1:], place) from error
    except RecursionError as error:
        raise BrokenDocument(f"it nests deeper than {DOCUMENT_DEPTH_MAX}") from error
    except ValueError as error:
        raise BrokenDocument("it holds a number of thousands of digits", None, "write it as text") from error
    return _located(tree, (), dict(_places(text)))


def _located(value: object, path: FieldPath, places: dict[FieldPath, Place]) -> Located:
    place = next((places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in places), None)
    if len(path) >= DOCUMENT_DEPTH_MAX:
        raise BrokenDocument(f"it nests deeper than {DOCUMENT_DEPTH_MAX}", place)
    match value:
        case dict():
            entries = tuple(
                Entry(
                    key=Scalar(value=key, written=key, place=places.get((*path, key), place)),
                    value=_located(item, (*path, key), places),
                )
                for key, item in value.items()
            )
            size = 1 + sum(entry.value.size for entry in entries)
            return Mapping(entries=entries, place=place, size=_bounded(size, place))
        case list():
            items = tuple(_located(item, (*path, position), places) for position, item in enumerate(value))
            size = 1 + sum(item.size for item in items)
            return Sequence(items=items, place=place, size=_bounded(size, place))
        case _Written():
            return Scalar(value=float(value), written=str(value), place=place)
        case bool():
            return Scalar(value=value, written=str(value).lower(), place=place)
        case str():
            return Scalar(value=value, written=value, place=place)
        case int():
            try:
                return Scalar(value=value, written=str(value), place=place)
            except ValueError as error:
                raise BrokenDocument(f"the number of {path_text(path)} is too long", place) from error
        case _:
            what = f"{path_text(path)} is a date or time, and nothing in a job is"
            raise BrokenDocument(what, place, f'quote it: "{value}"')


def _end_of(text: str) -> Place:
    last = text[text.rfind("\n") + 1 :]
    return Place(text.count("\n") + 1, len(last) + 1)


def _bounded(size: int, place: Place | None) -> int:
    if size > DOCUMENT_NODES_MAX:
        raise BrokenDocument(f"it has more than {DOCUMENT_NODES_MAX:,} values", place)
    return size


def _places(text: str) -> Iterator[tuple[FieldPath, Place]]:
    """Yields where tables open and keys are assigned; lines inside of multi-line strings are stepped over."""
    table: FieldPath = ()
    closing = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if closing:
            if closing in line:
                closing = ""
            continue
        opened = _TABLE.match(line)
        assigned = _ASSIGNMENT.match(line) if opened is None else None
        match = opened or assigned
        if match is not None:
            steps = tuple(part.strip("\"'") for part in _PART.findall(match[1]))
            path = steps if opened is not None else (*table, *steps)
            table = steps if opened is not None else table
            yield path, Place(number, match.start(1) + 1)
        closing = next((mark for mark in ('"""', "'''") if line.count(mark) % 2), "")
