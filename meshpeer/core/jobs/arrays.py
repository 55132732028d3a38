"""Reads ``array``: a count, a range, a list, or a product of lists with named fields.

Every form comes to elements that count from 0. A list of plain values has one field, ``value``; a mapping of
lists is their product, the last field changing fastest, as nested loops in the file's order would.
"""

from __future__ import annotations

import itertools
import math
import re

from meshpeer.core.jobs import rules
from meshpeer.core.jobs.located import FieldPath, Located, Mapping, Scalar, Sequence, kind_of
from meshpeer.core.jobs.model import Array, Element
from meshpeer.core.jobs.reading import Reader
from meshpeer.core.wire.limits import JOB_TASKS_MAX

VALUE_FIELD = "value"
"""The field of an array that is a list of plain values."""

_RANGE = re.compile(r"(0|[1-9][0-9]{0,8})-(0|[1-9][0-9]{0,8})", re.ASCII)
_FORMS = "write 0-23, a count, a list, or lists by field: {lens: [24mm, 50mm], seed: 1-10}"


def read_array(reader: Reader, node: Located, path: FieldPath) -> Array | None:
    """Returns the array, or None where it can't be used, having said why."""
    match node:
        case Scalar(value=str() as text):
            return _read_range(reader, node, text, path)
        case Scalar(value=bool() | float() | None):
            reader.reject(path, node, f"it is {kind_of(node)}, and no array", _FORMS)
            return None
        case Scalar():
            size = reader.whole_number(node, path, 1, 10**9)
            return None if size is None else Array(size=size)
        case Sequence():
            return _read_list(reader, node, path)
        case Mapping():
            return _read_product(reader, node, path)


def _read_range(reader: Reader, node: Located, text: str, path: FieldPath) -> Array | None:
    match = _RANGE.fullmatch(text)
    if match is None:
        reader.reject(path, node, f"{rules.shown(text)} is no range", _FORMS)
        return None
    first, last = int(match[1]), int(match[2])
    if last < first:
        reader.reject(path, node, f"the range {text} is empty", f"write {last}-{first}")
        return None
    if first:
        hint = f"write 0-{last - first}, or name a field that counts otherwise: {{number: {text}}}"
        reader.reject(path, node, f"the range {text} does not start at 0, and elements count from 0", hint)
        return None
    return Array(size=last + 1)


def _read_list(reader: Reader, node: Sequence, path: FieldPath) -> Array | None:
    if not node.items:
        reader.reject(path, node, "the array has no elements", "give it one, or leave array out")
        return None
    if _too_many(reader, len(node.items), node, path):
        return None
    elements: list[Element] = []
    names: list[str] | None = None
    for position, item in enumerate(node.items):
        at: FieldPath = (*path, position)
        fields = _read_element(reader, item, at)
        if fields is None:
            continue
        if names is None:
            names = list(fields)
        if sorted(fields) != sorted(names):
            what = f"this element has the fields {_listed(fields)}, and the first has {_listed(names)}"
            reader.reject(at, item, what, "give all elements the same fields")
            continue
        elements.append(Element(fields=tuple((name, fields[name]) for name in names)))
    if len(elements) != len(node.items):
        reader.rejected.add(path)
        return None
    return Array(size=len(elements), elements=tuple(elements))


def _read_element(reader: Reader, node: Located, path: FieldPath) -> dict[str, str] | None:
    if not isinstance(node, Mapping):
        value = reader.text_or_number(node, path)
        return None if value is None else {VALUE_FIELD: value}
    found = reader.mapping(node, path, _FORMS) or {}
    values = {name: reader.text_or_number(value, (*path, name)) for name, value in found.items()}
    if not values:
        reader.reject(path, node, "this element has no fields", "write one, such as {frame: 1}")
        return None
    read = {name: value for name, value in values.items() if value is not None}
    return read if len(read) == len(node.entries) else None


def _read_product(reader: Reader, node: Mapping, path: FieldPath) -> Array | None:
    found = reader.mapping(node, path, _FORMS) or {}
    lists = {name: _read_values(reader, value, (*path, name)) for name, value in found.items()}
    if not lists:
        reader.reject(path, node, "the array has no fields", _FORMS)
        return None
    read = {name: values for name, values in lists.items() if values}
    if len(read) != len(node.entries):
        reader.rejected.add(path)
        return None
    size = math.prod(len(values) for values in read.values())
    if _too_many(reader, size, node, path):
        return None
    rows = itertools.product(*read.values())
    elements = tuple(Element(fields=tuple(zip(read, row, strict=True))) for row in rows)
    return Array(size=size, elements=elements)


def _read_values(reader: Reader, node: Located, path: FieldPath) -> tuple[str, ...]:
    """Reads one field of a product: a list of values, or a range, which may start anywhere."""
    match = _RANGE.fullmatch(node.value) if isinstance(node, Scalar) and isinstance(node.value, str) else None
    if match is not None:
        first, last = int(match[1]), int(match[2])
        if last < first:
            reader.reject(path, node, f"the range {match[0]} is empty", f"write {last}-{first}")
        elif not _too_many(reader, last - first + 1, node, path):
            return tuple(map(str, range(first, last + 1)))
        return ()
    items = reader.items(node, path, "write its values as a list, or as a range such as 1-10")
    if isinstance(node, Sequence) and not items:
        reader.reject(path, node, "the list is empty", "give it a value")
    if _too_many(reader, len(items), node, path):
        return ()
    values = [reader.text_or_number(item, (*path, position)) for position, item in enumerate(items)]
    return () if None in values else tuple(value for value in values if value is not None)


def _too_many(reader: Reader, size: int, node: Located, path: FieldPath) -> bool:
    if size > JOB_TASKS_MAX:
        what = f"the array has {size:,} elements, and a job has at most {JOB_TASKS_MAX:,} tasks"
        reader.reject(path, node, what, "split it into several jobs")
    return size > JOB_TASKS_MAX


def _listed(names: dict[str, str] | list[str]) -> str:
    return ", ".join(names)
