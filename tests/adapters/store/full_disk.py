"""Fills a small file system with commits until one fails; run by ``test_store_full_disk.py`` inside a
mount namespace.

python full_disk.py FOLDER

Prints one line of JSON: what was acknowledged, what failed and how, and what was there after room was
made and the journal was opened again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

from meshpeer.adapters.store import open_blobs, open_store
from meshpeer.core.effects import Put, Table
from meshpeer.core.errors import StoreFailed
from meshpeer.core.ids import Ticket
from meshpeer.runtime.ports import Committed

IN_FLIGHT = 4
TICKETS_MAX = 10_000


async def main(folder: Path) -> None:
    path, filler = folder / "state.db", folder / "filler"
    acknowledged: list[int] = []
    failed: list[int] = []
    errors: set[str] = set()
    async with open_store(path) as store:
        filler.write_bytes(bytes(128 * 1024))
        ticket = 0
        while not failed and ticket < TICKETS_MAX:
            for _ in range(IN_FLIGHT):
                ticket += 1
                row = Put(table=Table.RESULTS, key=f"{ticket:06}", value=b"%d " % ticket * 200)
                store.commit_soon(Ticket(ticket), [row])
            while len(acknowledged) + len(failed) < ticket:
                outcome = await store.outcomes.receive()
                if isinstance(outcome, Committed):
                    acknowledged += outcome.tickets
                else:
                    failed += outcome.tickets
                    errors.add(f"{outcome.error.what}|{outcome.error.hint}")
    blob_error = ""
    try:
        await open_blobs(folder / "blobs").add_bytes(bytes(1024 * 1024))
    except StoreFailed as error:
        blob_error = error.what
    filler.unlink()
    async with open_store(path) as store:
        found = [int(key) for key, _ in store.load(Table.RESULTS)]
        store.commit_soon(Ticket(1), [Put(table=Table.JOBS, key="after", value=b"")])
        again = isinstance(await store.outcomes.receive(), Committed)
    report = {
        "acknowledged": acknowledged,
        "failed": failed,
        "errors": sorted(errors),
        "blob_error": blob_error,
        "found": found,
        "again": again,
        "drafts": len(list((folder / "blobs" / "incoming").iterdir())),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
