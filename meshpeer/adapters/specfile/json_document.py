"""JSON (RFC 8259) to a located document: a small reader of our own, because ``json`` forgets where things
stood.

Strict where it matters for a job: keys that stand twice are kept for ``core.jobs`` to refuse, NaN and
comments are errors, nesting is bounded. Strings are scanned by the standard library.
"""

from __future__ import annotations

import bisect
import json
import re

from meshpeer.adapters.specfile.broken import BrokenDocument
from meshpeer.core.jobs.located import (
    DOCUMENT_DEPTH_MAX,
    DOCUMENT_NODES_MAX,
    Entry,
    Located,
    Mapping,
    Place,
    Scalar,
    Sequence,
)

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_WORD = re.compile(r"true|false|null")
_WORDS = {"true": True, "false": False, "null": None}
_DIGITS_MAX = 300
"""A number longer than any value of a job, and short enough to convert at once."""


def read_json(text: str) -> Located:
    """Returns the document of a JSON text; raises ``BrokenDocument``."""
    return _JsonReader(text).document()


class _JsonReader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._nodes = 0
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def document(self) -> Located:
        self._skip_space()
        if self._at == len(self._text):
            raise BrokenDocument("the file is empty", Place(1, 1), 'start with {"name": ..., "tasks": ...}')
        root = self._value(1)
        self._skip_space()
        if self._at != len(self._text):
            raise self._broken("something follows the end of the document")
        return root

    def _value(self, depth: int) -> Located:
        self._nodes += 1
        if self._nodes > DOCUMENT_NODES_MAX:
            raise self._broken(f"it has more than {DOCUMENT_NODES_MAX:,} values")
        if depth > DOCUMENT_DEPTH_MAX:
            raise self._broken(f"it nests deeper than {DOCUMENT_DEPTH_MAX}")
        match self._next_character():
            case "{":
                return self._mapping(depth)
            case "[":
                return self._sequence(depth)
            case _:
                return self._scalar()

    def _mapping(self, depth: int) -> Mapping:
        place, before = self._place(), self._nodes
        self._at += 1
        entries: list[Entry] = []
        while self._more("}", bool(entries)):
            if self._next_character() != '"':
                raise self._broken("a key in double quotes is missing here")
            key = self._scalar()
            self._skip_space()
            self._expect(":")
            entries.append(Entry(key=key, value=self._value(depth + 1)))
        return Mapping(entries=tuple(entries), place=place, size=self._nodes - before + 1)

    def _sequence(self, depth: int) -> Sequence:
        place, before = self._place(), self._nodes
        self._at += 1
        items: list[Located] = []
        while self._more("]", bool(items)):
            items.append(self._value(depth + 1))
        return Sequence(items=tuple(items), place=place, size=self._nodes - before + 1)

    def _more(self, closing: str, started: bool) -> bool:
        """Steps over a comma or the closing bracket; tells whether another entry follows."""
        self._skip_space()
        if self._text.startswith(closing, self._at):
            self._at += 1
            return False
        if started:
            self._expect(",")
            self._skip_space()
        return True

    def _scalar(self) -> Scalar:
        place, start = self._place(), self._at
        if self._text.startswith('"', start):
            try:
                value, self._at = _DECODER.raw_decode(self._text, start)
            except json.JSONDecodeError as error:
                self._at = error.pos
                raise self._broken(error.msg[0].lower() + error.msg[1:]) from error
            return Scalar(value=value, written=value, place=place)
        number = _NUMBER.match(self._text, start)
        word = _WORD.match(self._text, start)
        match = number or word
        if match is None or match.end() - start > _DIGITS_MAX:
            raise self._broken("a value is missing here" if match is None else "this number is too long")
        self._at = match.end()
        written = match[0]
        if number is None:
            return Scalar(value=_WORDS[written], written=written, place=place)
        whole = number[1] is None and number[2] is None
        return Scalar(value=int(written) if whole else float(written), written=written, place=place)

    def _expect(self, character: str) -> None:
        if not self._text.startswith(character, self._at):
            raise self._broken(f"{character!r} is missing here")
        self._at += 1

    def _next_character(self) -> str:
        self._skip_space()
        return self._text[self._at : self._at + 1]

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match is not None else self._at

    def _place(self) -> Place:
        line = bisect.bisect_right(self._lines, self._at)
        return Place(line, self._at - self._lines[line - 1] + 1)

    def _broken(self, what: str) -> BrokenDocument:
        return BrokenDocument(what, self._place())
