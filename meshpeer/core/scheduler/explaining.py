"""Why a task is where it is, in words: what it waits for, and who has what it waits for. Reads only.

A reason is a code, for programs, and a sentence without its subject: ``waits for render (17 of 24 done, 5
running)``.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import assert_never

from meshpeer.core.ids import NodeId, TaskIndex
from meshpeer.core.scheduler.owner import JobOwner
from meshpeer.core.scheduler.seats import Seat, Seats
from meshpeer.core.scheduler.tables import COMMITTED, TaskState
from meshpeer.core.scheduler.views import task_state
from meshpeer.core.scheduler.waiting import why_waiting

NAMED_MAX = 3
"""Things that a reason names before it counts the rest."""
EXAMPLES_MAX = 5
"""Tasks that a group of equal reasons names."""
GROUPS_MAX = 50
HINDRANCES = ("busy", "no_worker", "no_fit", "paused", "listening", "group")
"""Codes of reasons why a task that could run does not; their sentences have subjects of their own."""

NameOf = Callable[[NodeId], str]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one task is where it is."""

    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tasks of one state for one reason."""

    state: str
    reason: Reason
    count: int
    examples: tuple[TaskIndex, ...]


class Explainer:
    """Explains the tasks of one job."""

    def __init__(
        self, owner: JobOwner, others: Iterable[JobOwner], seats: Seats, name_of: NameOf, now_s: float
    ) -> None:
        """``others``: the open jobs of this node, the job itself among them or not; ``name_of`` says what
        people call a node."""
        self._owner = owner
        self._jobs = {one.job: one for one in (*others, owner)}
        self._seats = seats
        self._name_of = name_of
        self._now_s = now_s

    def groups(self) -> list[Group]:
        """Returns why what has not ended has not, and what failed: equal reasons together, the most tasks
        first."""
        found: dict[tuple[str, Reason], list[TaskIndex]] = {}
        known: dict[object, Reason] = {}
        for number, state in enumerate(self._owner.states):
            if state in (TaskState.SUCCEEDED, TaskState.CANCELLED):
                continue
            task = TaskIndex(number)
            key = self._alike(task, state)
            if key is None:
                reason = self._told_of(task)
            else:
                reason = known.get(key) or known.setdefault(key, self.explain(task))
            found.setdefault((task_state(self._owner, task), reason), []).append(task)
        groups = [
            Group(state=state, reason=reason, count=len(tasks), examples=tuple(tasks[:EXAMPLES_MAX]))
            for (state, reason), tasks in found.items()
        ]
        return sorted(groups, key=lambda one: -one.count)[:GROUPS_MAX]

    def explain(self, task: TaskIndex) -> Reason:
        """Returns why a task is in its state."""
        owner, state = self._owner, self._owner.states[task]
        match state:
            case TaskState.WAITING:
                return self._why_waiting(task)
            case TaskState.READY:
                return self._why_ready(task)
            case TaskState.LEASED:
                lease = owner.leases[task]
                stolen = f", stolen from {self._name_of(lease.stolen_from)}" if lease.stolen_from else ""
                code, doing = ("running", "runs on") if lease.running else ("in_line", "is in line on")
                tries = len(owner.tries_of(task))
                nth = f", attempt {tries}" if tries > 1 else ""
                return Reason(code, f"{doing} {self._name_of(lease.node)}{nth}{stolen}")
            case TaskState.SUCCEEDED:
                return Reason("succeeded", f"succeeded on {self._name_of(owner.results[task].node)}")
            case TaskState.FAILED:
                row = owner.results[task]
                return Reason(
                    "failed", f"failed on {self._name_of(row.node)}: {row.error or 'it says no more'}"
                )
            case TaskState.SKIPPED:
                return self._why_skipped(task)
            case TaskState.CANCELLED:
                how = " with its job" if owner.cancelled else ": another task has failed"
                return Reason("cancelled", f"was cancelled{how}")
            case _:
                assert_never(state)

    def _told_of(self, task: TaskIndex) -> Reason:
        """Returns the reason of one among many: of what is leased, only who has it."""
        lease = self._owner.leases.get(task)
        if lease is None:
            return self.explain(task)
        code, doing = ("running", "runs on") if lease.running else ("in_line", "is in line on")
        return Reason(code, f"{doing} {self._name_of(lease.node)}")

    def _alike(self, task: TaskIndex, state: TaskState) -> object | None:
        """Returns what tasks share that have one reason; None for a task that has its own."""
        graph = self._owner.graph
        row = graph.row_of(task)
        if state is TaskState.WAITING:
            return None if graph.same_index_needs(row) else (state, row)
        if state is TaskState.READY and self._owner.backlog.retry_at_s(task) is None:
            return (state, row)
        return None

    # --- waiting ------------------------------------------------------------------------------------------

    def _why_waiting(self, task: TaskIndex) -> Reason:
        graph, states = self._owner.graph, self._owner.states
        needed: dict[int, list[TaskIndex]] = {}
        for one, _ in graph.needs_of(task):
            needed.setdefault(graph.row_of(one), []).append(one)
        said = [
            self._need(tasks)
            for tasks in needed.values()
            if any(states[one] not in COMMITTED for one in tasks)
        ]
        paused = "; the job is paused" if self._owner.paused else ""
        return Reason("needs", f"waits for {listed(said)}{paused}")

    def _need(self, tasks: list[TaskIndex]) -> str:
        """Says how far one need is: ``split (running on beta)``, ``render (17 of 24 done, 5 running)``."""
        owner = self._owner
        if len(tasks) == 1:
            (one,) = tasks
            lease = owner.leases.get(one)
            where = f" on {self._name_of(lease.node)}" if lease is not None and lease.running else ""
            return f"{owner.graph.id_of(one)} ({task_state(owner, one)}{where})"
        counts = collections.Counter(task_state(owner, one) for one in tasks)
        done = counts.pop("succeeded", 0)
        rest = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        return f"{owner.graph.spec_of(tasks[0]).name} ({done} of {len(tasks)} done, {rest})"

    # --- ready --------------------------------------------------------------------------------------------

    def _why_ready(self, task: TaskIndex) -> Reason:
        owner = self._owner
        if owner.paused:
            return Reason("paused", "its job is paused")
        retry_at_s = owner.backlog.retry_at_s(task)
        if retry_at_s is not None:
            return self._why_later(task, retry_at_s)
        if owner.backlog.suspects:
            heard = listed([self._name_of(node) for node in owner.backlog.suspects])
            return Reason("listening", f"its owner was started again and waits to hear what {heard} may run")
        spec = owner.graph.spec_of(task)
        resting = [seat.node for seat in self._seats if owner.granting.rests(seat.node)]
        takers = [seat for seat in self._seats if seat.linked and seat.slots and seat.node not in resting]
        if not takers:
            return Reason("no_worker", f"no node takes it now{self._absent()}")
        unfit = why_waiting(spec, self._seats.profiles(without=resting))
        if unfit:
            return Reason("no_fit", f"{unfit}{self._absent()}")
        if spec.group and owner.granting.is_full(spec.group):
            return Reason("group", f"group {spec.group} has as many at once as it may")
        return self._why_busy(takers)

    def _why_later(self, task: TaskIndex, retry_at_s: float) -> Reason:
        ended = [one for one in self._owner.tries_of(task) if one.error]
        wait_s = max(0.0, retry_at_s - self._now_s)
        last = f" (last on {self._name_of(ended[-1].node)}: {ended[-1].error})" if ended else ""
        failed = f"failed {_times(len(ended))}{last}" if ended else "could not get what it needs"
        return Reason("backoff", f"{failed}, and is tried again in {wait_s:.0f} s")

    def _why_busy(self, takers: list[Seat]) -> Reason:
        slots = sum(seat.slots for seat in takers)
        has: dict[NodeId, collections.Counter[str]] = {}
        for job in self._jobs.values():
            for lease in job.leases.values():
                has.setdefault(lease.node, collections.Counter())[job.record.spec.name] += 1
        told = [
            f"{self._name_of(seat.node)} has {_of_jobs(has[seat.node])}"
            for seat in takers
            if seat.node in has
        ]
        nodes = f"{len(takers)} node{'s' * (len(takers) != 1)}, {slots} slot{'s' * (slots != 1)}"
        whose = f": {listed(told)}" if told else ": other owners' tasks have them"
        return Reason("busy", f"every slot is taken ({nodes}){whose}{self._absent()}")

    def _absent(self) -> str:
        """Says who could take work and does not."""
        drained = [self._name_of(seat.node) for seat in self._seats if seat.linked and seat.drained]
        resting = [
            self._name_of(seat.node)
            for seat in self._seats
            if seat.linked and seat.slots and self._owner.granting.rests(seat.node)
        ]
        away = [self._name_of(seat.node) for seat in self._seats if not seat.linked]
        said = ""
        for names, words in (
            (drained, "drained"),
            (resting, "not taking it for a while (refused, or could not run it)"),
            (away, "away"),
        ):
            if names:
                said += f"; {listed(names)} {'is' if len(names) == 1 else 'are'} {words}"
        return said

    # --- skipped ------------------------------------------------------------------------------------------

    def _why_skipped(self, task: TaskIndex) -> Reason:
        owner = self._owner
        for one in self._needed_by(task):
            if owner.states[one] is TaskState.FAILED:
                row = owner.results[one]
                where = f"{owner.graph.id_of(one)} failed on {self._name_of(row.node)}"
                return Reason("skipped", f"is skipped: {where}: {row.error or 'it says no more'}")
        return Reason("skipped", "is skipped: what it needs did not end as it asks for")

    def _needed_by(self, task: TaskIndex) -> Iterator[TaskIndex]:
        """Yields what a task needs, near things first, without what was skipped for the same reason twice."""
        seen = {task}
        line = collections.deque([task])
        while line:
            for one, _ in self._owner.graph.needs_of(line.popleft()):
                if one not in seen:
                    seen.add(one)
                    yield one
                    if self._owner.states[one] is TaskState.SKIPPED:
                        line.append(one)


def listed(names: list[str]) -> str:
    """Returns ``a``, ``a and b``, ``a, b and c``, or ``a, b, c and 7 more``."""
    shown = names[:NAMED_MAX]
    if len(names) > NAMED_MAX:
        return f"{', '.join(shown)} and {len(names) - NAMED_MAX} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def _of_jobs(counts: collections.Counter[str]) -> str:
    return listed([f"{count} of {name}" for name, count in counts.most_common()])


def _times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count} times"


def why(owner: JobOwner, seats: Seats, task: TaskIndex, name_of: NameOf, now_s: float = 0.0) -> str:
    """Returns one line that says why a task is in its state."""
    reason = Explainer(owner, (), seats, name_of, now_s).explain(task)
    return f"waiting: {reason.text}" if reason.code in HINDRANCES else reason.text
