"""Errors as a person reads them: one line that says what is wrong, one that says what to do, and an exit
code.

Nothing else is printed unless ``--debug`` asks for the traceback. A job file may have many errors: then
each has its own line, in the form that editors jump to, above the two.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Protocol, runtime_checkable

from meshpeer.app.cli import show
from meshpeer.core.errors import MeshpeerError

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
PIPE_CLOSED = 141
"""128 + SIGPIPE, as a shell reports a program whose reader went away."""


@runtime_checkable
class _Shown(Protocol):
    """What the command line library raises for wrong usage."""

    exit_code: int

    def format_message(self) -> str: ...


def report(error: BaseException, *, command: str, debug: bool) -> int:
    """Prints the error in its two lines; returns the exit code."""
    if debug:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    match error:
        case MeshpeerError():
            _many(error)
            _two_lines(error.what, error.hint or f"see `{command} --help`, or run it again with --debug")
            return error.exit_code
        case _Shown():
            _two_lines(_plain(error.format_message()), f"see `{command} --help`")
            return error.exit_code
        case BaseExceptionGroup() if len(error.exceptions) == 1:
            return report(error.exceptions[0], command=command, debug=False)
        case _:
            _two_lines(
                f"a bug in meshpeer: {type(error).__name__}: {error}",
                "run it again with --debug and report what it prints; nothing was hidden",
            )
            return FAILED


def leave_pipe() -> None:
    """Points standard output elsewhere once its reader has gone: closing it at exit must not fail again."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def tell(what: str, hint: str) -> None:
    """Prints the two lines of something that is no exception, such as a job that failed."""
    _two_lines(what, hint)


def _many(error: MeshpeerError) -> None:
    if "meshpeer.core.jobs.problems" not in sys.modules:
        return  # then nobody can have raised it, and a person waits for this line
    from meshpeer.core.jobs.problems import InvalidJob, describe_errors

    if isinstance(error, InvalidJob) and len(error.errors) > 1:
        for one in describe_errors(error.errors, error.source_name):
            show.remark(show.clean(one))


def _two_lines(what: str, hint: str) -> None:
    red, bold, end = ("\x1b[31;1m", "\x1b[1m", "\x1b[0m") if show.is_rich(sys.stderr) else ("", "", "")
    show.remark(f"{red}error:{end} {show.clean(' '.join(what.split()))}")
    show.remark(f" {bold}hint:{end} {show.clean(' '.join(hint.split()))}")


def _plain(message: str) -> str:
    return message.rstrip(".")
