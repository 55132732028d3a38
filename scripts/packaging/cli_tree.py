"""The command line as a tree, for whatever is written from it: the reference page, manual pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import typer

from meshpeer.app.cli import asked


class Parameter(Protocol):
    """What of a parameter is printed."""

    param_type_name: str
    opts: list[str]
    metavar: str | None
    name: str | None

    def get_help_record(self, ctx: typer.Context) -> tuple[str, str] | None: ...


class Command(Protocol):
    """What of a command is printed."""

    help: str | None
    epilog: str | None
    hidden: bool

    def get_params(self, ctx: typer.Context) -> list[Parameter]: ...

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]: ...


def walk(
    command: Command, path: tuple[str, ...], parent: typer.Context | None
) -> Iterator[tuple[tuple[str, ...], Command, typer.Context]]:
    """Yields every command, a group before what it holds."""
    context = typer.Context(command, info_name=path[-1], parent=parent)
    yield path, command, context
    inner: dict[str, Command] = getattr(command, "commands", {})
    for name, one in inner.items():
        if not one.hidden:
            yield from walk(one, (*path, name), context)


def titled(parameter: Parameter) -> str:
    """Returns the title under which help lists the parameter."""
    if parameter.param_type_name == "argument":
        return "Arguments"
    if "--help" in parameter.opts:
        return asked.GLOBAL
    panel = getattr(parameter, "rich_help_panel", None)
    return panel if isinstance(panel, str) else "Options"
