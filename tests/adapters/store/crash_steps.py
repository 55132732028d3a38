"""Runs a workload once per step and ends its process there with SIGKILL; run by ``test_store_crash.py``.

python crash_steps.py FOLDER BATCH

For step 1, 2, ... a child opens ``FOLDER/STEP/state.db``, commits tickets, ``BATCH`` of them in flight,
and prints each that is acknowledged. It is killed just before the ``STEP``-th SQL statement, counted from
the first that opens the journal to the last that a commit takes. Prints one line of JSON per step; ends
after the first child that was not killed. Children are forks of one process that has imported everything
and has started no thread.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import trio

from meshpeer.adapters.store import open_store
from meshpeer.core.effects import Delete, Put, Table
from meshpeer.core.ids import Ticket
from meshpeer.runtime.ports import Committed

TICKETS = 6
STEPS_MAX = 500


async def commit_all(path: Path, kill_at: int, batch: int, acknowledged: int) -> None:
    """Every ticket writes two tables and deletes what the ticket before it left: all of that, or nothing."""
    statements = 0

    def count(_: str) -> None:
        nonlocal statements
        statements += 1
        if statements == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    async with open_store(path, trace=count) as store:
        for first in range(1, TICKETS + 1, batch):
            tickets = range(first, first + batch)
            for ticket in tickets:
                value = b"%d" % ticket
                store.commit_soon(
                    Ticket(ticket),
                    [
                        Put(table=Table.TASKS, key=f"task {ticket}", value=value),
                        Put(table=Table.RESULTS, key="last", value=value),
                        Delete(table=Table.GRANTS, key=f"grant {ticket - 1}"),
                        Put(table=Table.GRANTS, key=f"grant {ticket}", value=value),
                    ],
                )
            missing = set(tickets)
            while missing:
                outcome = await store.outcomes.receive()
                assert isinstance(outcome, Committed)
                for ticket in outcome.tickets:
                    os.write(acknowledged, b"%d " % ticket)
                missing -= set(outcome.tickets)


def main() -> None:
    folder, batch = Path(sys.argv[1]), int(sys.argv[2])
    for step in range(1, STEPS_MAX):
        path = folder / str(step) / "state.db"
        path.parent.mkdir()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            trio.run(commit_all, path, step, batch, writer)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as lines:
            tickets = [int(word) for word in lines.read().split()]
        _, status = os.waitpid(child, 0)
        print(
            json.dumps({"step": step, "tickets": tickets, "status": os.waitstatus_to_exitcode(status)}),
            flush=True,
        )
        if status == 0:
            return


if __name__ == "__main__":
    main()
