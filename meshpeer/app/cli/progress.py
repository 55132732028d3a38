"""Shows how a job goes on: a live bar on a terminal, a line now and then elsewhere. All of it on standard
error.

The job is read in a thread of its own, so that the bar's time goes on while nothing happens, and Ctrl-C is
heard at once.
"""

from __future__ import annotations

import collections
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable

from meshpeer.app.cli import show
from meshpeer.app.cli.job_words import ended_of, rate_text
from meshpeer.core.errors import NotRunning
from meshpeer.runtime.control import Job

FRAME_S = 0.1
REDRAW_S = 0.5
LINE_S = 1.0
"""Lines for a log: at most one this often, and one for the end."""
BAR_COLUMNS = 24
WINDOW_S = 30.0
"""The rate is that of so long."""
RATE_AFTER_S, ENDED_MIN = 2.0, 3
"""A rate from less would be a guess."""
ENDED = ("succeeded", "failed", "cancelled")


def follow(updates: Iterable[Job], *, quiet: bool) -> Job:
    """Shows the updates as they come and returns the last one; raises ``NotRunning`` where there is none."""
    live = not quiet and show.is_rich(sys.stderr)
    pace = Pace(time.monotonic)
    last: Job | None = None
    shown: Job | None = None
    shown_at_s = float("-inf")
    try:
        for update in _with_pauses(updates, REDRAW_S if live else None):
            if update is not None:
                last = update
                pace.note(ended_of(last.tasks))
            now_s = time.monotonic()
            if last is None or quiet or now_s - shown_at_s < (FRAME_S if live else LINE_S):
                continue
            _show(last, pace, live)
            shown, shown_at_s = last, now_s
        if last is not None and not quiet and shown is not last:
            _show(last, pace, live)
    finally:
        if live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
    if last is None or (last.finished_at is None and last.state not in ENDED):
        raise NotRunning("the agent ended the watch before the job had ended", "watch it again")
    return last


class Pace:
    """How many tasks end a second, and how long the rest will take at that."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: collections.deque[tuple[float, int]] = collections.deque()

    def note(self, ended: int) -> None:
        now_s = self._clock()
        if not self._seen or self._seen[-1][1] != ended:
            self._seen.append((now_s, ended))
        while len(self._seen) > 2 and self._seen[1][0] < now_s - WINDOW_S:
            self._seen.popleft()

    def rate(self) -> float | None:
        """Returns tasks a second; None while that would be a guess."""
        if len(self._seen) < 2:
            return None
        (began_s, before), (_, after) = self._seen[0], self._seen[-1]
        span_s = self._clock() - began_s
        if span_s < RATE_AFTER_S or after - before < ENDED_MIN:
            return None
        return (after - before) / span_s


def bar(done: int, total: int, columns: int = BAR_COLUMNS) -> str:
    """Returns a bar in eighths of a column, such as ``████▌   ``."""
    eighths = columns * 8 * done // total if total else 0
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(columns)


def words(job: Job, rate: float | None = None, *, nodes: bool = True) -> str:
    """Returns the counts in one line: ``17 of 26 done, 6 running, 2.5 tasks/s, 4 s left: alpha 6``."""
    counts = job.tasks
    parts = [f"{counts.succeeded:,} of {counts.total:,} done"]
    parts += [
        f"{number:,} {word}"
        for number, word in (
            (counts.failed, "failed"),
            (counts.skipped, "skipped"),
            (counts.cancelled, "cancelled"),
            (counts.running, "running"),
        )
        if number
    ]
    if job.shown_state == "paused":
        parts.append("paused")
    left = counts.total - ended_of(counts)
    if rate and left:
        parts += [rate_text(rate), f"{show.seconds(max(1.0, round(left / rate)))} left"]
    text = ", ".join(parts)
    if nodes and counts.running and job.running_on:
        text += ": " + ", ".join(f"{name} {number}" for name, number in sorted(job.running_on.items()))
    return show.clean(text)


def _with_pauses(updates: Iterable[Job], pause_s: float | None) -> Iterable[Job | None]:
    """Yields the updates, and None where none came for so long; raises what reading them raises."""
    come: queue.SimpleQueue[tuple[Job | None, BaseException | None]] = queue.SimpleQueue()

    def read() -> None:
        try:
            for one in updates:
                come.put((one, None))
            come.put((None, StopIteration()))
        except BaseException as error:  # noqa: BLE001  raised again in the thread that waits
            come.put((None, error))

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            update, error = come.get(timeout=pause_s or REDRAW_S)
        except queue.Empty:
            if pause_s is not None:
                yield None
            continue
        if isinstance(error, StopIteration):
            return
        if error is not None:
            raise error
        yield update


def _show(job: Job, pace: Pace, live: bool) -> None:
    if not live:
        show.remark(words(job, pace.rate()))
        return
    columns = shutil.get_terminal_size().columns
    drawn, told = bar(ended_of(job.tasks), job.tasks.total), words(job, pace.rate())
    if BAR_COLUMNS + 1 + show.width_of(told) >= columns:
        told = words(job, pace.rate(), nodes=False)
    sys.stderr.write(f"\r{show.cut(f'{drawn} {told}', columns - 1)}\x1b[K")
    sys.stderr.flush()
