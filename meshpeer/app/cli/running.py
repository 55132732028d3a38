"""Runs the node that ``init``, ``join`` and ``up`` start: in the foreground, or in the background once it
is ready.

``--detach`` forks before anything is imported or opened, so the parent is nothing but a reader of a pipe:
the child prepares (with this terminal for what it has to say), becomes the leader of a session of its
own, sends its output to ``agent.log`` in the state folder, and reports over the pipe, in one line of JSON
(``_Word``), that it is ready, or why it never will be. An end of the pipe without a word is a crash, and
the log has the reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec
import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.options import ReadyReport
from meshpeer.app.process import prepare_process
from meshpeer.core.errors import EnvironmentFault, MeshpeerError

if TYPE_CHECKING:
    from meshpeer.app.config import Settings

READY_S = 60.0
"""How long ``--detach`` waits; the agent goes on after that, and so may become ready later."""
SLOW_S = 2.0
"""After this long a person at a terminal is told what is being waited for."""
LOG_LINES_SHOWN = 5
LOG_TAIL_BYTES = 8_192
REPORT_BYTES_MAX = 1024 * 1024
LOG_FILE = "agent.log"

Prepare = Callable[["Settings"], None]


class _Word(msgspec.Struct, frozen=True, kw_only=True):
    """What the child says to the parent: it is ready, or what is wrong."""

    ready: ReadyReport | None = None
    what: str = ""
    hint: str = ""
    exit_code: int = 0


def run_node(asked: Asked, settings: Settings, prepare: Prepare, *, detach: bool) -> None:
    """Prepares this machine's node and runs it until it is told to stop; with ``detach``, until it is ready.

    Raises ``MeshpeerError``, and ``typer.Exit`` where it has said itself what is wrong.
    """
    if detach:
        _run_detached(asked, settings, prepare)
    else:
        _run_here(asked, settings, prepare)


def _run_here(asked: Asked, settings: Settings, prepare: Prepare) -> None:
    began_s = time.monotonic()
    by_hand = "NOTIFY_SOCKET" not in os.environ
    prepare_process()
    prepare(settings)
    prepared_s = time.monotonic() - began_s
    from meshpeer.app.agent import run_agent

    imported_s = time.monotonic() - began_s - prepared_s

    def on_ready(report: ReadyReport) -> None:
        _print_report(asked, _with_start(report, prepared_s, imported_s))
        if by_hand and not asked.quiet and not asked.json:
            show.remark("running in the foreground; Ctrl-C stops the agent and leaves the tunnels up")

    try:
        run_agent(settings, on_ready)
    except KeyboardInterrupt:
        _say_stopped(asked)
        raise
    _say_stopped(asked)


def _say_stopped(asked: Asked) -> None:
    if not asked.quiet:
        show.remark("stopped; `meshpeer up` runs this node again")


# --- in the background ------------------------------------------------------------


def _run_detached(asked: Asked, settings: Settings, prepare: Prepare) -> None:
    _refuse_running(settings)
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_agent(settings, prepare, writing)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        try:
            _await_ready(asked, settings, pipe.fileno(), child)
        except KeyboardInterrupt:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
            show.remark("stopped before the node was ready; `meshpeer up` goes on from here if it has joined")
            raise


def _refuse_running(settings: Settings) -> None:
    """Raises ``EnvironmentFault`` where an agent answers already: two of them would share one state
    folder.
    """
    if settings.socket.exists():
        from meshpeer.adapters.control.client import ControlClient

        with contextlib.suppress(MeshpeerError):
            name = ControlClient(settings.socket).status().node.name
            raise typer.Exit(_already(name, settings))


def _already(name: str, settings: Settings) -> int:
    from meshpeer.app.cli.faults import FAILED, tell

    tell(
        f"{name} is running already: an agent answers on {settings.socket}",
        "see `meshpeer status`; `meshpeer stop` stops it",
    )
    return FAILED


def _be_agent(settings: Settings, prepare: Prepare, pipe: int) -> NoReturn:
    """Is the child: prepares, lets go of the terminal, runs the agent. Never returns."""
    code, in_background = 1, False
    try:
        began_s = time.monotonic()
        prepare_process()
        prepare(settings)
        prepared_s = time.monotonic() - began_s
        from meshpeer.app.agent import run_agent

        imported_s = time.monotonic() - began_s - prepared_s
        _let_go_of_terminal(settings.state_dir / LOG_FILE)
        in_background = True
        reported = False

        def on_ready(report: ReadyReport) -> None:
            nonlocal reported
            reported = True
            _send(pipe, _Word(ready=_with_start(report, prepared_s, imported_s)))
            os.close(pipe)

        run_agent(settings, on_ready)
        if not reported:
            what = "the agent was stopped before it was ready"
            _send(pipe, _Word(what=what, hint="start it again with `meshpeer up`", exit_code=1))
        code = 0
    except KeyboardInterrupt:
        code = 130
    except MeshpeerError as error:
        _send(pipe, _Word(what=error.what, hint=error.hint, exit_code=error.exit_code))
        if in_background:
            show.remark(f"error: {error.what} ({error.hint})")
        code = error.exit_code
    except BaseException:  # noqa: BLE001  a fork must never return into the parent's code; the log keeps the traceback
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _let_go_of_terminal(log: Path) -> None:
    """Makes the process a daemon: a session of its own, no terminal, output to the log, no folder held."""
    os.setsid()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise EnvironmentFault(
            f"{log} can't be written: {error.strerror}", "check the state folder's owner, and df -h"
        ) from error
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)
    os.chdir("/")


def _send(pipe: int, word: _Word) -> None:
    data = msgspec.json.encode(word) + b"\n"
    with contextlib.suppress(OSError):  # nobody waits any more: the node runs all the same
        while data:
            data = data[os.write(pipe, data) :]


def _await_ready(asked: Asked, settings: Settings, pipe: int, child: int) -> None:
    """Waits for the child's word, prints it; raises ``MeshpeerError`` or ``typer.Exit`` with the child's
    own exit code.
    """
    word = _hear(asked, pipe, settings)
    if word is None:
        raise typer.Exit(_died(settings, child))
    if word.ready is None:
        os.waitpid(child, 0)
        fault = MeshpeerError(word.what, word.hint)
        fault.exit_code = word.exit_code
        raise fault
    _print_report(asked, word.ready)
    if not asked.quiet and not asked.json:
        show.line(f"Runs in the background; its log is {settings.state_dir / LOG_FILE}")


def _hear(asked: Asked, pipe: int, settings: Settings) -> _Word | None:
    """Returns the child's word, or None where it ended without one; raises ``MeshpeerError`` when it
    takes too long.
    """
    began_s, received, told = time.monotonic(), b"", False
    while not received.endswith(b"\n") and len(received) < REPORT_BYTES_MAX:
        waited_s = time.monotonic() - began_s
        if waited_s >= READY_S:
            hint = f"see `meshpeer status` and {settings.state_dir / LOG_FILE}"
            raise MeshpeerError(f"the agent runs, but was not ready after {READY_S:.0f} s", hint)
        if waited_s >= SLOW_S and not told and not asked.quiet and sys.stderr.isatty():
            told = True
            show.remark("waiting for the first membership sync and the interface ...")
        if select.select([pipe], [], [], 0.25)[0]:
            piece = os.read(pipe, 65_536)
            if not piece:
                return None
            received += piece
    return msgspec.json.decode(received, type=_Word)


def _died(settings: Settings, child: int) -> int:
    from meshpeer.app.cli.faults import FAILED, tell

    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    for text in _log_tail(settings.state_dir / LOG_FILE):
        show.remark(f"  {show.clean(text)}")
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    tell(f"the agent {how} before it was ready", f"its log is {settings.state_dir / LOG_FILE}")
    return code if code > 0 else FAILED


def _log_tail(log: Path) -> Iterator[str]:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        yield from file.read().decode("utf-8", "replace").splitlines()[-LOG_LINES_SHOWN:]


# --- what it says ------------------------------------------------------------


def _with_start(report: ReadyReport, prepared_s: float, imported_s: float) -> ReadyReport:
    before = (("preparing", prepared_s), ("loading the agent", imported_s))
    return dataclasses.replace(report, timings=(*before, *report.timings))


def _print_report(asked: Asked, report: ReadyReport) -> None:
    """Prints name and addresses, then what is odd, then what to do next."""
    if asked.json:
        show.document(dataclasses.asdict(report))
        return
    if asked.quiet:
        show.line(f"{report.name} {report.ipv4} {report.ipv6}".rstrip())
        sys.stdout.flush()
        return
    show.line(
        show.heading(
            f"{report.name} is ready in the mesh {report.mesh} ({show.count(report.members, 'member')})"
        )
    )
    addresses = "  ".join(one for one in (report.ipv4, report.ipv6) if one)
    show.facts(
        [
            ("addresses", addresses),
            (
                "interface",
                f"{report.interface} ({report.backend})"
                if report.interface
                else "none: control and jobs go over links, without tunnels",
            ),
        ]
    )
    for warning in report.warnings:
        show.line(show.paint(f"  warning: {show.clean(warning)}", "yellow"))
    if asked.verbose:
        total_s = sum(took for _, took in report.timings)
        show.line(f"Ready after {total_s:.2f} s:")
        for what, took in report.timings:
            show.line(f"  {took:6.3f} s  {show.clean(what)}")
    if report.next_steps:
        show.line("Next:")
        for step in report.next_steps:
            show.line(f"  {show.clean(step)}")
    sys.stdout.flush()
