"""What is wrong with a job: one ``SpecError`` per field, gathered, sorted and printed together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshpeer.core.errors import LocalFault
from meshpeer.core.jobs.located import FieldPath, Located, Place, path_text, place_of

ERRORS_SHOWN_MAX = 50
"""Errors of one file that are printed; who has more has one cause for most of them."""
LOOKUPS_MAX = 200
"""Places that are looked up by walking the document; a job of 100,000 tasks may have as many errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecError:
    """One thing wrong with one field.

    ``what`` is wrong, ``hint`` says what to do, ``place`` is None where it isn't known (TOML, a spec from
    elsewhere).
    """

    path: FieldPath
    what: str
    hint: str = ""
    place: Place | None = None

    @property
    def field(self) -> str:
        """The field as people write it, ``tasks.render.needs[0]``; empty for the whole file."""
        return path_text(self.path)


class InvalidJob(LocalFault):
    """A job file that can't be submitted; ``errors`` holds everything that is wrong with it.

    ``what`` and ``hint`` are about the first error, so that the usual two lines make sense without the rest.
    """

    def __init__(self, errors: Sequence[SpecError], source_name: str) -> None:
        first, more = errors[0], len(errors) - 1
        others = f" (and {more} more)" if more else ""
        super().__init__(f"{_where(first, source_name)}{first.what}{others}", first.hint)
        self.errors = tuple(errors)
        self.source_name = source_name


def sorted_errors(errors: Iterable[SpecError], document: Located | None = None) -> tuple[SpecError, ...]:
    """Sorts errors by line; those without a place are looked up in the document, or come last."""
    placed: list[SpecError] = []
    lookups = 0
    for error in errors:
        if error.place is None and document is not None and lookups < LOOKUPS_MAX:
            lookups += 1
            place = place_of(document, error.path)
            placed.append(SpecError(path=error.path, what=error.what, hint=error.hint, place=place))
        else:
            placed.append(error)
    return tuple(sorted(placed, key=lambda error: (error.place is None, error.place or (), error.field)))


def describe_errors(errors: Sequence[SpecError], source_name: str) -> list[str]:
    """Returns one line per error, such as ``render.yaml:12:9: tasks.film.run[2]: 24 is a number ...``."""
    lines = [
        f"{_where(error, source_name)}{error.what}{f' ({error.hint})' if error.hint else ''}"
        for error in errors[:ERRORS_SHOWN_MAX]
    ]
    if len(errors) > ERRORS_SHOWN_MAX:
        lines.append(f"{source_name}: and {len(errors) - ERRORS_SHOWN_MAX} more errors")
    return lines


def _where(error: SpecError, source_name: str) -> str:
    place = f"{error.place.line}:{error.place.column}:" if error.place is not None else ""
    field = f" {error.field}:" if error.path else ""
    return f"{source_name}:{place}{field} "
