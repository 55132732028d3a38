"""Shows how a job goes on: a live bar on a terminal, a line now and then elsewhere. All of it on standard
error.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable

from meshpeer.app.cli import show
from meshpeer.core.errors import NotRunning
from meshpeer.runtime.control import Job

FRAME_S = 0.1
LINE_S = 1.0
"""Lines for a log: at most one this often, and one for the end."""
BAR_COLUMNS = 24


def follow(updates: Iterable[Job], *, quiet: bool) -> Job:
    """Shows the updates as they come and returns the last one; raises ``NotRunning`` where there is none."""
    live = not quiet and show.is_rich(sys.stderr)
    last: Job | None = None
    shown: Job | None = None
    shown_at_s = float("-inf")
    try:
        for last in updates:
            now_s = time.monotonic()
            if not quiet and now_s - shown_at_s >= (FRAME_S if live else LINE_S):
                _show(last, live)
                shown, shown_at_s = last, now_s
        if last is not None and not quiet and shown is not last:
            _show(last, live)
    finally:
        if live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
    if last is None or (last.finished_at is None and last.state not in ("succeeded", "failed", "cancelled")):
        raise NotRunning("the agent ended the watch before the job had ended", "watch it again")
    return last


def bar(done: int, total: int, columns: int = BAR_COLUMNS) -> str:
    """Returns a bar in eighths of a column, such as ``████▌   ``."""
    eighths = columns * 8 * done // total if total else 0
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(columns)


def words(job: Job) -> str:
    """Returns the counts in one line: ``17 of 26 done, 1 failed, 6 running: alpha 2, beta 2, gamma 2``."""
    counts = job.tasks
    text = f"{counts.succeeded} of {counts.total} done"
    for number, word in (
        (counts.failed, "failed"),
        (counts.skipped, "skipped"),
        (counts.cancelled, "cancelled"),
    ):
        if number:
            text += f", {number} {word}"
    if counts.running:
        where = ", ".join(f"{name} {number}" for name, number in sorted(job.running_on.items()))
        text += f", {counts.running} running" + (f": {where}" if where else "")
    return show.clean(text)


def _show(job: Job, live: bool) -> None:
    if not live:
        show.remark(words(job))
        return
    columns = shutil.get_terminal_size().columns
    text = f"{bar(job.tasks.succeeded, job.tasks.total)} {words(job)}"
    sys.stderr.write(f"\r{text[: columns - 1]}\x1b[K")
    sys.stderr.flush()
