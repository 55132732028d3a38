"""What a page shows, as a value: tables of rows by key; and what is different between two of them. Pure.

A page that follows holds a copy. It is sent the differences alone, as changes that each say what to do with
one row, so that a page of thousands of rows is brought in step by few. The law, for any two views:

    applied(old, differences(old, new)) == new

Changes are bounded: with ``most`` the first of them are returned, and what they lead to is a view, too, from
which the rest follow. Rows are values, so one that is the very same object is not looked into; a table that
is, is passed over whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from meshpeer.runtime.control import Doc

CHANGES_MAX = 2_000
"""In one message to a page; more follow in the next."""
Table = Mapping[str, Doc]
_NOTHING: Table = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class View:
    """All that one page shows at one moment. A table without rows is as good as none."""

    tables: Mapping[str, Table] = field(default_factory=dict)

    def table(self, name: str) -> Table:
        return self.tables.get(name, _NOTHING)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and _filled(self) == _filled(other)

    __hash__ = None  # type: ignore[assignment]


class RowDropped(msgspec.Struct, frozen=True, array_like=True, tag="drop"):
    """A row is gone."""

    table: str
    key: str


class RowPut(msgspec.Struct, frozen=True, array_like=True, tag="put"):
    """A row is new, or another one than before."""

    table: str
    key: str
    row: Doc


Change = RowDropped | RowPut


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a button of the page says."""

    what: str
    """``cancel``, ``retry``, ``pause``, ``resume`` (a job), ``drain``, ``undrain`` (a node)."""
    job: str = ""
    node: str = ""
    tasks: tuple[str, ...] = ()
    """Which of the job's to retry; none for all that failed."""


def differences(old: View, new: View, most: int | None = None) -> tuple[Change, ...]:
    """Returns what turns the old view into the new one, at most so many changes; what is gone first."""
    return tuple(itertools.islice(_changes(old, new), most))


def applied(view: View, changes: Iterable[Change]) -> View:
    """Returns the view after these changes."""
    tables = dict(view.tables)
    own: dict[str, dict[str, Doc]] = {}
    for change in changes:
        table = own.get(change.table)
        if table is None:
            table = tables[change.table] = own[change.table] = dict(view.table(change.table))
        match change:
            case RowDropped():
                table.pop(change.key, None)
            case RowPut():
                table[change.key] = change.row
    return View(tables)


def _changes(old: View, new: View) -> Iterator[Change]:
    names = dict.fromkeys((*old.tables, *new.tables))
    for name in names:
        before, after = old.table(name), new.table(name)
        if before is not after:
            yield from (RowDropped(name, key) for key in before if key not in after)
    for name in names:
        before, after = old.table(name), new.table(name)
        if before is not after:
            for key, row in after.items():
                known = before.get(key)
                if known is not row and known != row:
                    yield RowPut(name, key, row)


def _filled(view: View) -> dict[str, Table]:
    return {name: table for name, table in view.tables.items() if table}
