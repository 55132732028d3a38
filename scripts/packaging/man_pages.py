#!/usr/bin/env python3
"""Writes manual pages (mdoc(7)) from the command line itself: one of the whole, and one a command.

scripts/packaging/man_pages.py FOLDER    meshpeer.1, meshpeer-init.1, ... into the folder

A group of commands (`meshpeer jobs`) has one page with all that it holds. The date on them is
SOURCE_DATE_EPOCH's, or today's.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parents[1])]

import typer
from cli_tree import Command, Parameter, titled, walk
from typer.main import get_command

from meshpeer.app.cli import asked
from meshpeer.app.cli.main import PROGRAM, build

EXIT_CODES = (
    ("0", "Done."),
    ("1", "It failed: a job failed, a check is red, nobody answered."),
    ("2", "Wrong usage, or a file that can't be read as what it should be."),
    ("3", "No agent is running."),
    ("4", "Refused: not admitted, or not allowed."),
    ("5", "This machine lacks something, which is named with the package to install."),
    ("130", "Interrupted."),
    ("141", "Whoever read the output went away."),
)
FILES = (
    ("/etc/meshpeer/meshpeer.toml", "This node's own settings; every key is optional."),
    ("/var/lib/meshpeer/keys", "The node's private keys. They are made here and never sent."),
    ("/var/lib/meshpeer/state.db", "What the mesh said, and this node's jobs."),
    ("/var/lib/meshpeer/blobs", "Inputs and outputs of tasks."),
    ("/run/meshpeer/agent.sock", "The agent's control socket: HTTP, mode 0600."),
)
VARIABLES = (
    ("MESHPEER_STATE_DIR", "As --state-dir does."),
    ("MESHPEER_RUN_DIR", "As --run-dir does."),
    ("MESHPEER_CONFIG", "As --config does."),
    ("MESHPEER_INVITE", "An invite for join."),
    ("NO_COLOR", "Where it is set, nothing is coloured."),
)
_MACRO = re.compile(r"[A-Z%][A-Za-z0-9]{0,2}|[,.:;()\[\]?!|]+")
"""Words that mdoc would take for macros or delimiters."""
LINE_BYTES_MAX = 78
"""Of a line of text in a page; the reader's program fills lines by itself."""
Found = tuple[tuple[str, ...], Command, typer.Context]


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))).items():
        (folder / name).write_text(text, encoding="utf-8")


def pages(at_s: int) -> dict[str, str]:
    """Returns all pages, dated so (seconds since 1970), by the names of their files."""
    moment = time.gmtime(at_s)
    date = time.strftime(f"%B {moment.tm_mday}, %Y", moment)
    root, *found = walk(get_command(build()), (PROGRAM,), None)
    made = {f"{PROGRAM}.1": "\n".join(_whole(root, date, [one for one in found if len(one[0]) == 2])) + "\n"}
    for one in found:
        if len(one[0]) == 2:
            inner = [other for other in found if other[0][:2] == one[0] and other is not one]
            made[f"{'-'.join(one[0])}.1"] = "\n".join(_command(one, date, inner)) + "\n"
    return made


# --- pages ------------------------------------------------------------------------------------------------


def _whole(root: Found, date: str, commands: list[Found]) -> Iterator[str]:
    _, command, ctx = root
    about, *_ = _paragraphs(command.help)
    yield from _head(PROGRAM, about, date)
    yield from (".Nm", ".Op Ar options", ".Ar command", ".Op Ar arguments")
    yield ".Sh DESCRIPTION"
    for paragraph in _paragraphs(command.help):
        yield from _text(paragraph)
    yield ".Sh COMMANDS"
    panels: dict[str, list[Found]] = {}
    for one in commands:
        panels.setdefault(str(getattr(one[1], "rich_help_panel", None) or "Commands"), []).append(one)
    for panel, held in panels.items():
        yield f".Ss {_escaped(panel)}"
        yield ".Bl -tag -width Ds"
        for path, each, _ in held:
            yield f".It Xr {'-'.join(path)} 1"
            yield from _text(_paragraphs(each.help)[0])
        yield ".El"
    yield ".Sh OPTIONS"
    yield "Global options stand before the command or after it, alike."
    yield from _list(_rows(command, ctx, asked.GLOBAL))
    yield from _environment()
    yield ".Sh FILES"
    yield from _pairs(FILES, ".It Pa")
    yield ".Sh EXIT STATUS"
    yield from _pairs(EXIT_CODES, ".It")
    yield from _examples(command)
    yield ".Sh SEE ALSO"
    others = [f".Xr {'-'.join(path)} 1 ," for path, *_ in sorted(commands, key=lambda one: one[0])]
    yield from (*others, ".Xr wg 8")


def _command(one: Found, date: str, inner: list[Found]) -> Iterator[str]:
    path, command, ctx = one
    about, *_ = _paragraphs(command.help)
    yield from _head("-".join(path), about, date)
    for each in inner or [one]:
        if not getattr(each[1], "commands", {}):
            yield from _usage(each)
    yield ".Sh DESCRIPTION"
    for paragraph in _paragraphs(command.help):
        yield from _text(paragraph)
    yield from _parameters(command, ctx)
    if inner:
        yield ".Sh COMMANDS"
        for each in inner:
            yield f".Ss {_escaped(' '.join(each[0]))}"
            for number, paragraph in enumerate(_paragraphs(each[1].help)):
                yield from _text(paragraph, opens=number == 0)
            yield from _parameters(each[1], each[2])
    yield from _examples(command, *(each[1] for each in inner))
    yield ".Sh SEE ALSO"
    yield f"The global options, exit codes and files are those of {PROGRAM}:"
    yield f".Xr {PROGRAM} 1"


def _head(name: str, about: str, date: str) -> Iterator[str]:
    yield '.\\" Written by scripts/packaging/man_pages.py from the command line.'
    yield f".Dd {date}"
    yield f".Dt {name.upper()} 1"
    yield ".Os"
    yield ".Sh NAME"
    yield f".Nm {name}"
    yield f".Nd {_escaped(about.rstrip('.'))}"
    yield ".Sh SYNOPSIS"


def _usage(one: Found) -> Iterator[str]:
    path, command, ctx = one
    yield f".Nm {' '.join(path)}"
    for piece in command.collect_usage_pieces(ctx):
        optional = piece.startswith("[") and piece.endswith("]") and piece.count("[") == 1
        word = _escaped(piece[1:-1] if optional else piece)
        yield f".Op Ar {word}" if optional else f".Ar {word}"


# --- parts of pages -----------------------------------------------------------------------------------------


def _parameters(command: Command, ctx: typer.Context) -> Iterator[str]:
    rows = [row for title in ("Arguments", "Options", asked.NODE) for row in _rows(command, ctx, title)]
    if rows:
        yield ".Pp"
        yield "Arguments and options:"
        yield from _list(rows)


def _rows(command: Command, ctx: typer.Context, title: str) -> list[tuple[str, str]]:
    return [row for one in command.get_params(ctx) if titled(one) == title and (row := _row(one, ctx))]


def _row(parameter: Parameter, ctx: typer.Context) -> tuple[str, str] | None:
    record = parameter.get_help_record(ctx)
    if record is None:
        return None
    name = str(parameter.metavar or parameter.name) if titled(parameter) == "Arguments" else record[0]
    return name, re.sub(r"\s*\[required\]", "", " ".join(record[1].split()))


def _list(rows: list[tuple[str, str]]) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for name, meaning in rows:
        yield f".It {'Sy' if name.startswith('-') else 'Ar'} {_escaped(name)}"
        yield from _text(meaning)
    yield ".El"


def _environment() -> Iterator[str]:
    yield ".Sh ENVIRONMENT"
    yield "A flag beats a variable, and a variable beats the file of settings."
    yield from _pairs(VARIABLES, ".It Ev")


def _pairs(rows: tuple[tuple[str, str], ...], item: str) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for name, meaning in rows:
        yield f"{item} {_escaped(name)}"
        yield from _text(meaning)
    yield ".El"


def _examples(*commands: Command) -> Iterator[str]:
    lines = [
        line.strip()
        for one in commands
        if one.epilog
        for line in inspect.cleandoc(one.epilog).splitlines()
        if line and line != "Examples:"
    ]
    if lines:
        yield ".Sh EXAMPLES"
        yield ".Bd -literal"
        yield from (_line(one) for one in dict.fromkeys(lines))
        yield ".Ed"


def _paragraphs(text: str | None) -> list[str]:
    """Returns the paragraphs of a help text; what it sets apart (after a ``\\b``) keeps its lines."""
    return [one for one in inspect.cleandoc(text or "").split("\n\n") if one.strip()] or ["-"]


def _text(paragraph: str, *, opens: bool = True) -> Iterator[str]:
    """Yields a paragraph, a sentence on each line, as mdoc wants it."""
    if not opens:
        yield ".Pp"
    if paragraph.startswith("\b"):
        yield ".Bd -literal"
        yield from (_line(one) for one in paragraph.splitlines()[1:])
        yield ".Ed"
        return
    for sentence in re.split(r"(?<=[.!?]) +(?=[A-Z`])", " ".join(paragraph.split())):
        line = ""
        for word in map(_line, sentence.split()):
            if line and len(line) + 1 + len(word) > LINE_BYTES_MAX:
                yield line
                line = word
            else:
                line = f"{line} {word}" if line else word
        yield line


def _line(text: str) -> str:
    """Returns a line of text that can't be read as a macro."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("'", "\\(aq")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def _escaped(text: str) -> str:
    """Returns text as the arguments of a macro: words that are macros' names, too, stay words."""
    words = [_line(word).replace('"', "\\(dq") for word in text.split()]
    guarded = [f"\\&{word}" if _MACRO.fullmatch(word) else word for word in words]
    if guarded and guarded[-1][-1] in ".,:;)]?!":
        guarded[-1] += "\\&"  # the end of a word, not of a sentence
    return " ".join(guarded)


if __name__ == "__main__":
    main()
