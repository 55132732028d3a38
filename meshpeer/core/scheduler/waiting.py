"""Why a task waits that no node can run: words for people, from what is known of the nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshpeer.core.jobs.model import TaskSpec
from meshpeer.core.jobs.rules import size_text
from meshpeer.core.scheduler.fitting import (
    MEMORY,
    Demand,
    Profile,
    can_run,
    demand_of,
    is_allowed,
    unmatched,
)

PYTHONS_NAMED_MAX = 5


def why_waiting(task: TaskSpec, members: Iterable[Profile]) -> str:
    """Says in words why none of ``members`` could run a task even if all were idle; empty where one could.

    The words go behind a state and a colon, as ``waiting: no node has gpu >= 2 (gamma has 1)``; they
    name the one thing that nobody has, or all that nobody has at once. ``members`` are the nodes that may be
    asked, with slots 0 where they take no work: at an owner ``seat.profile`` of its ``Seats``.
    """
    demand = demand_of(task)
    workers = [one for one in members if one.slots]
    if not workers:
        return "no node takes tasks"
    if any(can_run(demand, one) for one in workers):
        return ""
    allowed = [one for one in workers if is_allowed(demand, one)]
    return _why_too_little(demand, allowed) if allowed else _why_nowhere(demand, workers)


def _why_nowhere(demand: Demand, workers: Sequence[Profile]) -> str:
    missed = [dict.fromkeys(unmatched(demand, one)) for one in workers]
    nobodys = [one for one in missed[0] if all(one in other for other in missed)]
    if nobodys:
        return _said(*nobodys[0], workers)
    asked = dict.fromkeys(one for each in missed for one in each)
    return f"no node matches {' and '.join(f'{field} {text}' for field, text in asked)} at once"


def _pythons(workers: Sequence[Profile]) -> str:
    """Returns who has which other Python, a few of them."""
    has = [f"{one.name or 'one'} has {one.python}" for one in workers if one.python]
    return f" ({', '.join(has[:PYTHONS_NAMED_MAX])})" if has else ""


def _said(field: str, text: str, workers: Sequence[Profile]) -> str:
    match field:
        case "node":
            return f"no node that takes tasks is called {text}"
        case "region":
            return f"no node that takes tasks is in region {text}"
        case "python":
            return f"no node that takes tasks runs functions with Python {text}{_pythons(workers)}"
        case _:
            return f"no node that takes tasks has the {field} {text}"


def _why_too_little(demand: Demand, allowed: Sequence[Profile]) -> str:
    which = "no node" if demand.where is None and not demand.python else "no node that it may run on"
    for name, count in demand.amounts:
        totals = [one.total(name) for one in allowed]
        if all(total is not None and total < count for total in totals):
            has, most = max(
                ((one.total(name) or 0, one) for one in allowed), key=lambda pair: (pair[0], pair[1].name)
            )
            best = f"{most.name or 'the best'} has {_amount(name, has)}" if has else "nobody has any"
            return f"{which} has {name} >= {_amount(name, count)} ({best})"
    asked = " and ".join(f"{name} >= {_amount(name, count)}" for name, count in demand.amounts)
    return f"{which} has {asked} at once"


def _amount(name: str, count: int) -> str:
    return size_text(count) if name == MEMORY and count else str(count)
