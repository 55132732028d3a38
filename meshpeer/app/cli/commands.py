"""How commands are registered, and how their help is laid out.

``command`` adds the global options to a function and hands them over as one value, so that they mean the
same before and after every command and no function repeats them. Help is plain text of 80 columns with
its examples, the same on a terminal, in a pipe and in the reference page; it needs no table library, and
prints at once.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from meshpeer.app.cli import asked, complete, faults, plain
from meshpeer.app.cli.asked import Asked

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 80}

SUMMARY_COLUMNS = 66
"""Of a command's first sentence in the list of its group."""

Own = ParamSpec("Own")
Result = TypeVar("Result")

_SHARED: dict[str, tuple[object, object]] = {
    "state_dir": (asked.StateDir, None),
    "run_dir": (asked.RunDir, None),
    "config": (asked.Config, None),
    "json": (asked.Json, False),
    "quiet": (asked.Quiet, False),
    "verbose": (asked.Verbose, 0),
    "debug": (asked.Debug, False),
}
"""Options that every command takes: annotation and default, by their field of ``Asked``."""


class _Formatter(Protocol):
    """What of the help formatter is used here."""

    def section(self, name: str) -> AbstractContextManager[None]: ...

    def write_dl(self, rows: Sequence[tuple[str, str]]) -> None: ...

    def write_paragraph(self) -> None: ...

    def write(self, string: str) -> None: ...


class MeshCommand(TyperCommand):
    """A command whose help lists its own options first and the global ones last."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        plain.spare_conversions(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def format_options(self, ctx: typer.Context, formatter: _Formatter) -> None:  # type: ignore[override]
        _format_options(self, ctx, formatter)

    def format_epilog(self, ctx: typer.Context, formatter: _Formatter) -> None:  # type: ignore[override]
        _format_epilog(self.epilog, formatter)

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        arguments = [_metavar(one) for one in self.get_params(ctx) if one.param_type_name == "argument"]
        return ["[OPTIONS]", *arguments]


class MeshGroup(TyperGroup):
    """A group of commands whose help lists them by what one wants to do."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        plain.spare_conversions(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def format_options(self, ctx: typer.Context, formatter: _Formatter) -> None:  # type: ignore[override]
        self.format_commands(ctx, formatter)
        _format_options(self, ctx, formatter)

    def format_commands(self, ctx: typer.Context, formatter: _Formatter) -> None:  # type: ignore[override]
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                title = panel if isinstance(panel, str) else "Commands"
                panels.setdefault(title, []).append((name, command.get_short_help_str(SUMMARY_COLUMNS)))
        for title, rows in panels.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: typer.Context, formatter: _Formatter) -> None:  # type: ignore[override]
        _format_epilog(self.epilog, formatter)


def group(name: str, help_text: str, *, epilog: str = "") -> typer.Typer:
    """Makes a group of commands that takes the global options itself, too."""
    made = typer.Typer(
        name=name,
        cls=MeshGroup,
        help=help_text,
        epilog=epilog,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings=CONTEXT,
    )

    def remember(asked: Asked) -> None:
        pass

    made.callback(cls=MeshGroup)(_with_shared(remember, runs=False))
    return made


def command(
    app: typer.Typer, name: str, *, panel: str | None = None, examples: str = "", takes_rest: bool = False
) -> Callable[[Callable[Concatenate[Asked, Own], None]], Callable[Concatenate[Asked, Own], None]]:
    """Registers a function as a command; it gets the global options as its first argument.

    ``examples`` are lines printed as they are below the options; ``takes_rest`` leaves everything after
    the first word of a command line of somebody else's alone.
    """

    def register(
        function: Callable[Concatenate[Asked, Own], None],
    ) -> Callable[Concatenate[Asked, Own], None]:
        context = {**CONTEXT, "allow_interspersed_args": False} if takes_rest else CONTEXT
        app.command(name, cls=MeshCommand, rich_help_panel=panel, epilog=examples, context_settings=context)(
            _with_shared(function)
        )
        return function

    return register


def _with_shared(
    function: Callable[Concatenate[Asked, Own], None], *, runs: bool = True
) -> Callable[..., None]:
    """Returns the function with the global options as parameters of its own, which arrive as one
    ``Asked``.
    """
    own = list(inspect.signature(function).parameters.values())[1:]
    hints = get_type_hints(function, include_extras=True)
    hints.pop(next(iter(inspect.signature(function).parameters)))
    shared = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for key, (kind, default) in _SHARED.items()
    ]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    _complete(hints)
    mine = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[one.name]) for one in own]

    @functools.wraps(function)
    def run(**arguments: object) -> None:
        ctx = cast(typer.Context, arguments.pop("context"))
        nearer = Asked(**{key: arguments.pop(key) for key in _SHARED})  # type: ignore[arg-type]
        before = ctx.obj if isinstance(ctx.obj, Asked) else Asked()
        ctx.obj = before.with_nearer(nearer)
        if runs:
            try:
                cast(Callable[..., None], function)(ctx.obj, **arguments)
                sys.stdout.flush()
            except BrokenPipeError:
                faults.leave_pipe()
                raise typer.Exit(faults.PIPE_CLOSED) from None

    run.__signature__ = inspect.Signature([*mine, *shared, context])  # type: ignore[attr-defined]
    run.__annotations__ = {
        **{one.name: one.annotation for one in (*mine, *shared)},
        "context": typer.Context,
        "return": None,
    }
    del run.__wrapped__  # get_type_hints would look behind it
    return run


def _complete(hints: Mapping[str, object]) -> None:
    """Has arguments completed by what their metavars name."""
    for hint in hints.values():
        for info in getattr(hint, "__metadata__", ()):
            completer = complete.BY_METAVAR.get(getattr(info, "metavar", None) or "")
            if completer is not None and info.autocompletion is None:
                info.autocompletion = completer


def _format_options(command: TyperCommand | TyperGroup, ctx: typer.Context, formatter: _Formatter) -> None:
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            panel = getattr(parameter, "rich_help_panel", None)
            title = (
                "Arguments"
                if parameter.param_type_name == "argument"
                else panel
                if isinstance(panel, str)
                else "Options"
            )
            if "--help" in parameter.opts:
                title = asked.GLOBAL
            if title == "Arguments":
                record = (_metavar(parameter), record[1].removesuffix("[required]").rstrip())
            panels.setdefault(title, []).append(record)
    for title in sorted(panels, key=lambda one: (one == asked.GLOBAL, one == asked.NODE, one == "Options")):
        with formatter.section(title):
            formatter.write_dl(panels[title])


def _metavar(parameter: object) -> str:
    """Returns an argument as its help and usage write it: as it was declared, without a type."""
    return str(getattr(parameter, "metavar", None) or getattr(parameter, "name", "")).upper()


def _format_epilog(epilog: str | None, formatter: _Formatter) -> None:
    """Writes examples as they stand: a command line must not be wrapped."""
    if epilog:
        formatter.write_paragraph()
        for line in inspect.cleandoc(epilog).splitlines():
            formatter.write(f"{line}\n")
