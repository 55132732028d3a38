"""JSON inside of a job: values that a file writes as YAML, TOML or JSON and that travel as JSON text, since
signed records carry no floats.

Their strings are expanded value by value after the text is parsed, so that no field can break out of its
string.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from meshpeer.core.errors import LocalFault
from meshpeer.core.jobs import rules
from meshpeer.core.jobs.located import FieldPath, Located, Scalar, Sequence
from meshpeer.core.jobs.located import Mapping as LocatedMapping
from meshpeer.core.jobs.reading import Reader
from meshpeer.core.jobs.rules import Fault
from meshpeer.core.jobs.template import expand, names_in

TEXT_BYTES_MAX = 256 * 1024
DEPTH_MAX = 24
EXPANDED_CHARACTERS_MAX = 1024 * 1024
"""Of all texts of a value after expansion."""

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"


def written(reader: Reader, node: Located, path: FieldPath) -> str:
    """Returns a document's part as JSON text; what can't be is rejected."""
    value = _value(reader, node, path, 0)
    if path in reader.rejected or any(one[: len(path)] == path for one in reader.rejected):
        return ""
    return text_of(value)


def text_of(value: JsonValue) -> str:
    """Returns a value as JSON text without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse(text: str, what: str) -> JsonValue | Fault:
    """Returns the value of JSON text, or why it is none; ``what`` is what it is called in an error."""
    if len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX:
        return Fault(f"{what} is larger than {TEXT_BYTES_MAX // 1024} KiB", "let the task fetch the rest")
    fault = rules.text_fault(text, bytes_max=TEXT_BYTES_MAX)
    if fault is not None:
        return fault
    try:
        value: JsonValue = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return Fault(f"{what} is not JSON", "write it as values, lists and mappings")
    return _shape_fault(value, what) or value


def texts(value: JsonValue) -> Iterator[str]:
    """Yields the strings of a value that are expanded: all but the keys of mappings."""
    match value:
        case str():
            yield value
        case list():
            for one in value:
                yield from texts(one)
        case dict():
            for one in value.values():
                yield from texts(one)


def expanded(value: JsonValue, fields: Mapping[str, str], what: str) -> JsonValue:
    """Puts the fields into a value's strings; raises ``LocalFault`` for what grows too large."""
    if sum(_expanded_length(text, fields) for text in texts(value)) > EXPANDED_CHARACTERS_MAX:
        raise LocalFault(f"{what} is too large once its fields are expanded", "use fewer of them")
    return _expanded(value, fields)


def _refuse_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is no JSON")


def _shape_fault(value: JsonValue, what: str, depth: int = 0) -> Fault | None:
    if depth > DEPTH_MAX:
        return Fault(f"{what} is nested more than {DEPTH_MAX} deep", "flatten it")
    match value:
        case str():
            return rules.text_fault(value, bytes_max=TEXT_BYTES_MAX)
        case float() if not math.isfinite(value):
            return Fault(f"{what} holds a number that JSON has not", "write a finite one")
        case list():
            faults = (_shape_fault(one, what, depth + 1) for one in value)
            return next((fault for fault in faults if fault is not None), None)
        case dict():
            found = (
                _shape_fault(key, what, depth + 1) or _shape_fault(one, what, depth + 1)
                for key, one in value.items()
            )
            return next((fault for fault in found if fault is not None), None)
        case _:
            return None


def _value(reader: Reader, node: Located, path: FieldPath, depth: int) -> JsonValue:
    if depth > DEPTH_MAX:
        reader.reject(path, node, f"it is nested more than {DEPTH_MAX} deep", "flatten it")
        return None
    match node:
        case LocatedMapping():
            named = reader.mapping(node, path, "") or {}
            return {key: _value(reader, one, (*path, key), depth + 1) for key, one in named.items()}
        case Sequence(items=items):
            return [_value(reader, one, (*path, place), depth + 1) for place, one in enumerate(items)]
        case Scalar(value=float() as number) if not math.isfinite(number):
            reader.reject(path, node, f"{node.written} is no number that JSON has", "write a finite one")
            return None
        case Scalar(value=value):
            return value


def _expanded_length(text: str, fields: Mapping[str, str]) -> int:
    return len(text) + sum(len(fields[name]) for name in names_in(text) if name is not None)


def _expanded(value: JsonValue, fields: Mapping[str, str]) -> JsonValue:
    match value:
        case str():
            return expand(value, fields)
        case list():
            return [_expanded(one, fields) for one in value]
        case dict():
            return {key: _expanded(one, fields) for key, one in value.items()}
        case _:
            return value
