"""Job files before they are jobs: ``jobs validate`` and ``jobs graph``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.app.cli.faults import WRONG_USAGE
from meshpeer.app.cli.pictures import write_picture
from meshpeer.core.errors import LocalFault
from meshpeer.runtime.job_docs import GraphTask, JobGraph

if TYPE_CHECKING:
    from meshpeer.adapters.specfile import LoadedJob
    from meshpeer.core.jobs.model import JobSpec

COLUMNS = 80
"""Of a drawing away from a terminal."""
SUFFIXES = (".yaml", ".yml", ".toml", ".json")
_GRAPH = """
Examples:
  meshpeer jobs graph film.yaml            of a file; no agent is needed
  meshpeer jobs graph film                 of a job, with how far it is
  meshpeer jobs graph film --svg film.svg
"""


def add_to_jobs(jobs: typer.Typer) -> None:
    command(jobs, "validate", panel="Run")(validate)
    command(jobs, "graph", panel="Look", examples=_GRAPH)(graph)


def validate(
    asked: Asked,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A job file (YAML, TOML or JSON), or - for standard input.")
    ],
) -> None:
    """Check a job file; no agent is needed.

    Every error is printed as FILE:LINE:COLUMN: field: what is wrong. Exit code 2 if there is one.
    """
    from meshpeer.adapters.specfile import load_job
    from meshpeer.core.jobs.problems import InvalidJob

    try:
        loaded = load_job(file)
    except InvalidJob as invalid:
        if not asked.json:
            raise
        errors = [
            {
                "field": one.field,
                "line": one.place.line if one.place else None,
                "column": one.place.column if one.place else None,
                "what": one.what,
                "hint": one.hint,
            }
            for one in invalid.errors
        ]
        show.document({"valid": False, "name": None, "tasks": 0, "files": 0, "bytes": 0, "errors": errors})
        raise typer.Exit(WRONG_USAGE) from invalid
    total = sum(1 if one.array is None else one.array.size for one in loaded.spec.tasks)
    carried = sum(one.size for one in loaded.spec.files)
    if asked.json:
        show.document(
            {
                "valid": True,
                "name": loaded.spec.name,
                "tasks": total,
                "files": len(loaded.spec.files),
                "bytes": carried,
                "errors": [],
            }
        )
    elif not asked.quiet:
        _print_valid(file, loaded, total, carried)


def _print_valid(file: str, loaded: LoadedJob, total: int, carried: int) -> None:
    show.line(
        show.heading(
            f"{show.clean(file)} is valid: {show.clean(loaded.spec.name)}, {show.count(total, 'task')}"
        )
    )
    for one in loaded.spec.tasks:
        elements = f" ({one.array.size})" if one.array is not None else ""
        needs = f" after {', '.join(need.task for need in one.needs)}" if one.needs else ""
        show.line(f"  {show.clean(one.name)}{elements}{show.clean(needs)}")
    if loaded.spec.files:
        show.line(f"  carries {show.count(len(loaded.spec.files), 'file')}, {show.size(carried)}")


def graph(
    asked: Asked,
    job: Annotated[
        str, typer.Argument(metavar="FILE|JOB", help="A job file (- for standard input), or a job.")
    ],
    svg: Annotated[
        str | None, typer.Option("--svg", metavar="FILE", help="Write a picture instead; - for stdout.")
    ] = None,
) -> None:
    """Draw what needs what: a task of the file is one line, an array too.

    Of a job that was submitted it shows how many tasks are in which state.
    """
    from meshpeer.app.cli.graph_svg import draw_svg
    from meshpeer.app.cli.graph_text import ASCII, LINES, draw_text

    if svg is not None and asked.json:
        raise LocalFault("a graph is a document or a picture", "give --json or --svg, not both")
    found = _graph_of_file(job) if _is_file(job) else asked.client().graph(job)
    if asked.json:
        show.document(found)
    elif svg is not None:
        write_picture(svg, draw_svg(found), quiet=asked.quiet)
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else COLUMNS
        letters = LINES if show.can_print("".join(LINES)) else ASCII
        for row in draw_text(found, columns=columns, letters=letters):
            show.pieces(row)


def _is_file(name: str) -> bool:
    """Says whether a file is meant: one that is there, or whose name ends like one."""
    return name == "-" or Path(name).is_file() or Path(name).suffix in SUFFIXES


def _graph_of_file(file: str) -> JobGraph:
    from meshpeer.adapters.specfile import load_job

    return graph_of(load_job(file).spec)


def graph_of(spec: JobSpec) -> JobGraph:
    """Returns the graph of a job that was not submitted."""
    return JobGraph(
        job="",
        name=spec.name,
        state="",
        tasks=tuple(
            GraphTask(
                name=one.name,
                count=1 if one.array is None else one.array.size,
                array=one.array is not None,
                needs=tuple(dict.fromkeys(need.task for need in one.needs)),
                states={},
            )
            for one in spec.tasks
        ),
    )
