"""How jobs and tasks are put in words, wherever the command line shows them."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import show

if TYPE_CHECKING:
    from meshpeer.runtime.control import Job, JobMessage, TaskCounts

HINDRANCES = ("busy", "no_worker", "no_fit", "paused", "listening", "group")
"""Reasons that have a subject of their own (``core.scheduler.explaining``)."""
STATE_COLOURS = {
    "succeeded": "green",
    "running": "yellow",
    "failed": "red",
    "cancelled": "dim",
    "skipped": "dim",
    "paused": "yellow",
}
STATES = ("succeeded", "failed", "running", "ready", "waiting", "skipped", "cancelled")
"""Of tasks, in the order in which they are counted."""
JobName = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, the beginning of it, or its name.")]


def painted(state: str) -> str:
    return show.paint(state, STATE_COLOURS[state]) if state in STATE_COLOURS else state


def ended_of(counts: TaskCounts) -> int:
    return counts.succeeded + counts.failed + counts.skipped + counts.cancelled


def counted(states: dict[str, int]) -> str:
    """Returns ``17 succeeded, 5 running, 2 ready``."""
    return ", ".join(f"{states[state]:,} {state}" for state in STATES if states.get(state))


def states_of(counts: TaskCounts) -> dict[str, int]:
    return {state: getattr(counts, state) for state in STATES}


def took_s(job: Job) -> float | None:
    """Returns how long a job that has ended took."""
    if job.finished_at is None:
        return None
    began, ended = (datetime.datetime.fromisoformat(one) for one in (job.submitted_at, job.finished_at))
    return (ended - began).total_seconds()


def print_job(job: Job) -> None:
    """Prints a job in a few lines: how it is, how far, who did it."""
    counts = job.tasks
    show.line(f"{show.heading(f'{job.id} ({show.clean(job.name)})')}: {painted(job.shown_state)}")
    took = took_s(job)
    show.facts(
        [
            ("tasks", f"{counts.total:,}: {counted(states_of(counts))}"),
            ("done by", _shares(job.done_on, most_first=True)),
            ("running on", _shares(job.running_on)),
            ("owner", job.owner),
            ("priority", str(job.priority) if job.priority else ""),
            ("submitted", show.moment(job.submitted_at) + " UTC"),
            ("took", "" if took is None else f"{show.seconds(took)}{_pace(job, took)}"),
            ("durability", "blocked: no quorum" if job.durability == "blocked" else job.durability),
            ("as of", f"{show.moment(job.as_of)} UTC: its owner is away" if job.as_of else ""),
            *((one.event, _told(one)) for one in job.webhooks),
        ]
    )


def _pace(job: Job, took: float) -> str:
    """Returns how many tasks that came to; nothing where that says little."""
    done = sum(job.done_on.values())
    return f", {rate_text(done / took)}" if done > 1 and took > 0 else ""


def rate_text(rate: float) -> str:
    """Returns ``41 tasks/s``, ``2.5 tasks/s``, ``12 tasks/min`` or ``3 tasks/h``."""
    for value, unit in ((rate, "s"), (rate * 60, "min")):
        if value >= 1:
            return f"{value:,.0f} tasks/{unit}" if value >= 10 else f"{value:.1f} tasks/{unit}"
    return f"{rate * 3600:.1f} tasks/h"


def _shares(shares: dict[str, int], *, most_first: bool = False) -> str:
    rows = sorted(shares.items(), key=lambda one: (-one[1], one[0]) if most_first else (0, one[0]))
    return ", ".join(f"{name} {number:,}" for name, number in rows if number)


def _told(message: JobMessage) -> str:
    trouble = f" ({message.trouble})" if message.trouble else ""
    return f"{message.state.replace('_', ' ')}: {message.url}{trouble}"
