"""Prints: answers to standard output, all else to standard error.

Colour and rules only on a terminal that wants them (NO_COLOR, https://no-color.org, and TERM=dumb say
no); elsewhere the same words in plain aligned columns, which ``awk`` can read. Names, errors and paths
come from other machines, so control characters are shown, never sent to the terminal.
"""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from meshpeer.app.spans import seconds as seconds

GAP = 2


def document(value: object) -> None:
    """Prints one JSON document, indented for a terminal, on one line for a program."""
    import msgspec

    encoded = msgspec.json.encode(value)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded, indent=2)
    sys.stdout.write(encoded.decode("utf-8") + "\n")
    sys.stdout.flush()


def line(text: str = "") -> None:
    """Prints one line of an answer."""
    sys.stdout.write(f"{_encodable(text, sys.stdout)}\n")


def remark(text: str) -> None:
    """Prints one line that is not part of the answer, to standard error."""
    sys.stderr.write(f"{_encodable(text, sys.stderr)}\n")
    sys.stderr.flush()


def clean(text: str) -> str:
    """Returns the text with control characters (and those that turn the writing direction) made visible."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(letter) for letter in text)


def pieces(row: Sequence[tuple[str, str]]) -> None:
    """Prints one line of an answer from texts with the colour of each, or nothing for none."""
    shown = [*row]
    while shown and not shown[-1][0].rstrip():
        shown.pop()
    if shown:
        shown[-1] = (shown[-1][0].rstrip(), shown[-1][1])
    line("".join(paint(text, colour) if colour else text for text, colour in shown))


def cut(text: str, columns: int) -> str:
    """Returns as much of a text as so many columns hold, with an ellipsis where something is left out."""
    if width_of(text) <= columns:
        return text
    kept = ""
    for letter in text:
        if width_of(kept + letter) >= columns:
            break
        kept += letter
    return f"{kept}…" if columns > 0 else ""


def can_print(text: str) -> bool:
    """Says whether standard output's encoding has these letters."""
    return _encodable(text, sys.stdout) == text


def heading(text: str) -> str:
    """Returns the text in bold where standard output is a terminal."""
    return f"\x1b[1m{text}\x1b[0m" if is_rich(sys.stdout) else text


def paint(text: str, colour: str) -> str:
    """Returns the text in a colour where standard output is a terminal: ``red``, ``green``, ``yellow``,
    ``dim`` or ``bold``.
    """
    code = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}[colour]
    return f"\x1b[{code}m{text}\x1b[0m" if is_rich(sys.stdout) else text


def is_rich(stream: TextIO) -> bool:
    """Tells whether the stream is a terminal that takes colour."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Prints named facts, one a line, values aligned; a fact without a value is left out."""
    shown = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        line(f"  {name:<{width}}  {clean(value)}")


def table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    colours: dict[str, str] | None = None,
) -> None:
    """Prints a table; ``right`` are columns of numbers, ``colours`` paints cells with these words.

    On a terminal too narrow for it the last column that is not a number is cut; elsewhere nothing is.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    if is_rich(sys.stdout):
        _rich_table(titles, cells, right, colours or {})
        return
    widths = [max(width_of(row[column]) for row in [list(titles), *cells]) for column in range(len(titles))]
    for row in [list(titles), *cells]:
        line(
            (" " * GAP)
            .join(_aligned(cell, widths[column], column in right) for column, cell in enumerate(row))
            .rstrip()
        )


def moment(text: str) -> str:
    """Returns a time of a document, to the second: ``2026-01-31 08:15:00``."""
    return text[:19].replace("T", " ")


def size(value: int) -> str:
    """Returns a number of bytes for people, in binary units."""
    if value < 1_024:
        return f"{value} B"
    amount = float(value)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1_024
        if amount < 1_024:
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{amount / 1_024:.1f} TiB"


def count(number: int, noun: str) -> str:
    """Returns ``1 task``, ``24 tasks``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _rich_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int], colours: dict[str, str]
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column, title in enumerate(titles):
        made.add_column(
            title, justify="right" if column in right else "left", no_wrap=True, overflow="ellipsis"
        )
    for row in rows:
        made.add_row(*(Text(cell, style=colours.get(cell, "")) for cell in row))
    Console(file=sys.stdout, width=shutil.get_terminal_size().columns, highlight=False).print(made)


def _aligned(cell: str, width: int, right: bool) -> str:
    space = " " * (width - width_of(cell))
    return space + cell if right else cell + space


def width_of(text: str) -> int:
    """Returns how many columns a terminal gives the text (UAX #11: wide letters take two, marks none)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def _visible(letter: str) -> str:
    if letter.isprintable() or letter == " ":
        return letter
    return letter.encode("unicode_escape").decode("ascii")


def _encodable(text: str, stream: TextIO) -> str:
    """Returns the text as the stream's encoding can carry it: a C locale must not turn a name into a
    crash.
    """
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
