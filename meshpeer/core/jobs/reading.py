"""Reads typed values out of a document, and gathers what is wrong instead of stopping at the first error.

A reader returns None where the value can't be used, having said why; the caller goes on with a stand-in. So a
file with five mistakes is answered with five lines.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, TypeVar

from meshpeer.core.jobs.located import FieldPath, Located, Mapping, Place, Scalar, Sequence, kind_of
from meshpeer.core.jobs.nearest import did_you_mean
from meshpeer.core.jobs.problems import SpecError
from meshpeer.core.jobs.rules import Fault, duration_ms, shown, size_bytes

Value = TypeVar("Value")

NOT_YET: Final = "this version of meshpeer does not have"


class Reader:
    """Collects errors while values are read; ``rejected`` names the fields that could not be used."""

    def __init__(self) -> None:
        self.errors: list[SpecError] = []
        self.rejected: set[FieldPath] = set()

    def reject(self, path: FieldPath, node: Located | None, what: str, hint: str = "") -> None:
        """Says what is wrong with a field, at its value where there is one."""
        place = node.place if node is not None else None
        self.errors.append(SpecError(path=path, what=what, hint=hint, place=place))
        self.rejected.add(path)

    def mapping(self, node: Located, path: FieldPath, hint: str) -> dict[str, Located] | None:
        """Reads a mapping with text keys; a key that stands twice is an error, and its first value counts."""
        if not isinstance(node, Mapping):
            self.reject(path, node, f"it is {kind_of(node)}, and must be a mapping", hint)
            return None
        values: dict[str, Located] = {}
        places: dict[str, Place | None] = {}
        for entry in node.entries:
            key = entry.key.value
            if not isinstance(key, str):
                what = f"the key {entry.key.written} is {kind_of(entry.key)}, not text"
                self.reject((*path, entry.key.written), entry.key, what, f'write "{entry.key.written}"')
            elif key in values:
                first = places[key]
                where = f", first at line {first.line}" if first is not None else ""
                self.reject((*path, key), entry.key, f"{shown(key)} is given twice{where}", "remove one")
            else:
                values[key] = entry.value
                places[key] = entry.key.place
        return values

    def fields(
        self,
        node: Located,
        path: FieldPath,
        known: Collection[str],
        later: Collection[str],
        hint: str,
    ) -> dict[str, Located]:
        """Reads a mapping of known fields; unknown ones are named with the nearest known one."""
        found = self.mapping(node, path, hint) or {}
        for name in found:
            if name not in known:
                self._reject_field(node, (*path, name), name, known, later)
        return {name: value for name, value in found.items() if name in known}

    def text(self, node: Located, path: FieldPath) -> str | None:
        """Reads text; a number or truth value must be quoted to be text."""
        if isinstance(node, Scalar):
            if isinstance(node.value, str):
                return node.value
            what = f"{node.written or 'an empty value'} is {kind_of(node)} here, and must be text"
            self.reject(path, node, what, f'quote it: "{node.written}"')
        else:
            self.reject(path, node, f"it is {kind_of(node)}, and must be text")
        return None

    def text_or_number(self, node: Located, path: FieldPath) -> str | None:
        """Reads text, or a number as it was written (``1.10`` stays ``1.10``)."""
        if isinstance(node, Scalar) and type(node.value) in (int, float):
            return node.written
        return self.text(node, path)

    def whole_number(self, node: Located, path: FieldPath, least: int, most: int) -> int | None:
        """Reads a whole number within a range."""
        value = node.value if isinstance(node, Scalar) else None
        if type(value) is not int:
            digits = isinstance(value, str) and value.isdecimal()
            hint = f"write {value} without quotes" if digits else f"{least} to {most:,}"
            kind = kind_of(node) if type(value) is not float else "a fraction"
            self.reject(path, node, f"it is {kind}, and must be a whole number", hint)
            return None
        if not least <= value <= most:
            self.reject(path, node, f"{value} is out of range", f"{least} to {most:,}")
            return None
        return value

    def duration(self, node: Located, path: FieldPath) -> int | None:
        """Reads a duration such as ``90s``, in milliseconds; ``none`` is 0, no limit."""
        return self._limit(node, path, duration_ms, "s, or another of ms, s, m and h")

    def size(self, node: Located, path: FieldPath) -> int | None:
        """Reads a size such as ``512MiB``, in bytes; ``none`` is 0, no limit."""
        return self._limit(node, path, size_bytes, "MiB, or another of KiB and GiB")

    def items(self, node: Located, path: FieldPath, hint: str) -> tuple[Located, ...]:
        """Reads a list; returns no items for anything else."""
        if isinstance(node, Sequence):
            return node.items
        self.reject(path, node, f"it is {kind_of(node)}, and must be a list", hint)
        return ()

    def sound(self, value: Value | Fault, node: Located, path: FieldPath) -> Value | None:
        """Returns the value of a rule, or says its fault and returns None."""
        if isinstance(value, Fault):
            self.reject(path, node, value.what, value.hint)
            return None
        return value

    def _limit(
        self, node: Located, path: FieldPath, rule: Callable[[str], int | Fault], units: str
    ) -> int | None:
        value = node.value if isinstance(node, Scalar) else None
        if type(value) is int:
            self.reject(path, node, f"{value} has no unit", f"write {value}{units}")
            return None
        text = self.text(node, path)
        if text is None or text == "none":
            return None if text is None else 0
        return self.sound(rule(text), node, path)

    def _reject_field(
        self,
        node: Located,
        path: FieldPath,
        name: str,
        known: Collection[str],
        later: Collection[str],
    ) -> None:
        key = (
            next((e.key for e in node.entries if e.key.value == name), None)
            if isinstance(node, Mapping)
            else None
        )
        if name in later:
            self.reject(path, key, f"{NOT_YET} {shown(name)} yet", "remove it")
            return
        hint = did_you_mean(name, known) or f"known are {', '.join(sorted(known))}"
        self.reject(path, key, f"unknown field {shown(name)}", hint)
