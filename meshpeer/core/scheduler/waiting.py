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
    allowed = [one for one in workers if is_allowed(demand.where, one)]
    return _why_too_little(demand, allowed) if allowed else _why_nowhere(demand, workers)


def _why_nowhere(demand: Demand, workers: Sequence[Profile]) -> str:
    assert demand.where is not None
    missed = [dict.fromkeys(unmatched(demand.where, one)) for one in workers]
    nobodys = [one for one in missed[0] if all(one in other for other in missed)]
    if nobodys:
        return _said(*nobodys[0])
    asked = dict.fromkeys(one for each in missed for one in each)
    return f"no node matches {' and '.join(f'{field} {text}' for field, text in asked)} at once"


def _said(field: str, text: str) -> str:
    match field:
        case "node":
            return f"no node that takes tasks is called {text}"
        case "region":
            return f"no node that takes tasks is in region {text}"
        case _:
            return f"no node that takes tasks has the {field} {text}"


def _why_too_little(demand: Demand, allowed: Sequence[Profile]) -> str:
    which = "no node" if demand.where is None else "no node that it may run on"
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
