"""``meshpeer top``: members and jobs, live, in a terminal."""

from __future__ import annotations

import contextlib
import datetime
import os
import select
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.app.cli.look import PANEL
from meshpeer.core.errors import EnvironmentFault, MeshpeerError, NotRunning

if TYPE_CHECKING:
    from meshpeer.adapters.control.client import ControlClient
    from meshpeer.app.cli.top_view import Line, Look
    from meshpeer.runtime.job_docs import JobList

EVERY_S_MIN = 0.2
ENDS = (b"q", b"Q", b"\x1b", b"\x03", b"\x04", b"")
"""Keys: q, escape, Ctrl-C, Ctrl-D, and a terminal that is gone."""
JOBS_S_MIN = 1.0
"""Between two times that all members are asked."""
ROWS_AWAY = 10_000
"""Where there is no terminal all is shown."""
_EXAMPLES = """
Examples:
  meshpeer top                          q ends it
  meshpeer top --every 5
  meshpeer top | head -20               one look, without a terminal
"""
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""The other screen, without a cursor, and back (xterm's control sequences)."""


def add_to(app: typer.Typer) -> None:
    command(app, "top", panel=PANEL, examples=_EXAMPLES)(top)


def top(
    asked: Asked,
    every: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=EVERY_S_MIN, help="Between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
) -> None:
    """Show members and jobs, live.

    Members in trouble come first, with what is said against them; rates are those of their tunnels. Jobs are
    those of all members that can be asked. Without a terminal it looks once.
    """
    client = asked.client()
    if asked.json:
        look = _look(client, client.all_jobs())
        show.document({"status": look.status, "peers": look.peers, "jobs": look.jobs, "silent": look.silent})
    elif once or not show.is_rich(sys.stdout):
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else ROWS_AWAY
        for line in _drawn(_look(client, client.all_jobs()), None, columns, ROWS_AWAY):
            show.pieces(line)
    else:
        jobs = _Jobs(asked.client(), every)
        with _screen() as pressed:
            _follow(client, jobs, every, pressed)


def _follow(client: ControlClient, jobs: _Jobs, every_s: float, pressed: _Keys) -> None:
    """Looks and draws until somebody has had enough. An agent that is away is waited for."""
    before, now, away_since = None, _look(client, jobs.found, jobs.trouble), ""
    while True:
        size = shutil.get_terminal_size()
        stale = f"no agent answers since {away_since}: what follows is of then" if away_since else ""
        lines = _drawn(now, before, size.columns, size.lines, stale)
        sys.stdout.write("\x1b[H")
        for number, line in enumerate(lines):
            sys.stdout.write("".join(show.paint(text, colour) if colour else text for text, colour in line))
            sys.stdout.write("\x1b[K" + ("\r\n" if number < size.lines - 1 else ""))
        sys.stdout.write("\x1b[J")
        sys.stdout.flush()
        if pressed.end_it(every_s):
            return
        try:
            before, now, away_since = now, _look(client, jobs.found, jobs.trouble), ""
        except (NotRunning, EnvironmentFault):
            away_since = away_since or _clock()


def _drawn(look: Look, before: Look | None, columns: int, rows: int, stale: str = "") -> list[Line]:
    from meshpeer.app.cli.top_view import draw

    return draw(look, before, columns=columns, rows=rows, clock=_clock(), stale=stale)


def _clock() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%H:%M:%S} UTC"


def _look(client: ControlClient, jobs: JobList, trouble: str = "") -> Look:
    from meshpeer.app.cli.top_view import Look

    return Look(time.monotonic(), client.status(), client.peers(), jobs.jobs, jobs.silent, trouble)


class _Jobs:
    """The jobs of all members, asked for beside the rest: the screen waits for no silent one."""

    def __init__(self, client: ControlClient, every_s: float) -> None:
        self._client, self._every_s = client, max(every_s, JOBS_S_MIN)
        self.found, self.trouble = client.all_jobs(), ""
        self._at = _clock()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while True:
            time.sleep(self._every_s)
            try:
                self.found, self.trouble = self._client.all_jobs(), ""
                self._at = _clock()
            except MeshpeerError as error:
                self.trouble = f"jobs as of {self._at}: {error.what}"


class _Keys:
    """What is pressed at a terminal."""

    def __init__(self, typed: bool) -> None:
        self._typed = typed

    def end_it(self, timeout_s: float) -> bool:
        """Says whether somebody wants to go, within so long; any other key ends the wait. An arrow is a
        sequence that begins as the escape key does."""
        if not self._typed:
            # What is at its end can be read for ever.
            time.sleep(timeout_s)
            return False
        ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
        # Of a descriptor: a buffered reader would keep the rest of what was typed from the next look.
        return bool(ready) and os.read(sys.stdin.fileno(), 64) in ENDS


@contextlib.contextmanager
def _screen() -> Iterator[_Keys]:
    """Takes the terminal's other screen, and keys as they are pressed; gives both back whatever happens."""
    import termios
    import tty

    typed = sys.stdin.isatty()
    before = termios.tcgetattr(sys.stdin) if typed else None
    sys.stdout.write(_ENTER)
    try:
        if typed:
            tty.setcbreak(sys.stdin)
        yield _Keys(typed)
    finally:
        if before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
