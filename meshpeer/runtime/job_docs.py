"""Documents of the control API about how jobs and nodes work on; keys are only ever added."""

from __future__ import annotations

from meshpeer.runtime.control import Doc, Job


class WhyTasks(Doc, frozen=True, kw_only=True):
    """Tasks of one state for one reason."""

    state: str
    code: str
    """For programs: ``needs``, ``paused``, ``backoff``, ``busy``, ``no_worker``, ... There may be more."""
    text: str
    """Why, in a sentence without its subject."""
    count: int
    tasks: tuple[str, ...]
    """The ids of some of them."""


class JobWhy(Doc, frozen=True, kw_only=True):
    """Why a job, or one task of it, is where it is."""

    job: str
    name: str
    state: str
    owner: str
    paused: bool
    reasons: tuple[WhyTasks, ...]
    """The most tasks first; none for what has succeeded."""


class GraphTask(Doc, frozen=True, kw_only=True):
    """One task of the file; an array is one."""

    name: str
    count: int
    array: bool
    needs: tuple[str, ...]
    states: dict[str, int]
    """How many are in which state; empty for a job that was not submitted."""


class JobGraph(Doc, frozen=True, kw_only=True):
    """A job's graph, arrays as one."""

    job: str
    """Empty for a file."""
    name: str
    state: str
    tasks: tuple[GraphTask, ...]


class Drain(Doc, frozen=True, kw_only=True):
    """Whether a node takes work, and what it still has."""

    node: str
    drained: bool
    running: int
    """Attempts that run there, of anybody's jobs."""
    waiting: int
    results: int
    """Results that their owners have not acknowledged."""


class JobList(Doc, frozen=True, kw_only=True):
    """Jobs of many nodes, newest first."""

    jobs: tuple[Job, ...]
    silent: tuple[str, ...] = ()
    """Members that are in and did not answer: their jobs are not listed."""


class JobHit(Doc, frozen=True, kw_only=True):
    """A job that fits what was asked for, at its owner or at one of its replicas."""

    id: str
    name: str
    submitted_at: str
    as_of: str | None = None
    """Of a replica: when it heard of the job last; null at the owner."""
