"""A copied journal is told from the one it was copied from; a moved one is not taken for a copy."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from meshpeer.adapters.store import Machine, open_store
from meshpeer.adapters.store.origin import Origin, StoreRow, observe_machine, succeed
from meshpeer.core.effects import Put, Table
from meshpeer.core.ids import Ticket
from meshpeer.runtime.ports import CommitFailed, Committed, Store

MakePut = Callable[..., Put]
OutcomeOf = Callable[[Store, Sequence[int]], Awaitable[list[Committed | CommitFailed]]]

HERE = Machine(system=b"here", hardware=b"board")
ROW = StoreRow(store_id=b"old id", origin=Origin(system=b"here", hardware=b"board", inode=7))


async def test_a_copied_journal_gets_an_id_of_its_own_and_remembers_the_old_one(
    tmp_path: Path, put: MakePut, outcome_of: OutcomeOf
) -> None:
    original, copy = tmp_path / "state.db", tmp_path / "copy.db"
    async with open_store(original, machine=HERE) as store:
        store.commit_soon(Ticket(1), [put("a")])
        await outcome_of(store, [1])
        old = store.store_id
        assert store.copied_from is None
    shutil.copy(original, copy)
    ids: list[bytes] = []
    for _ in range(2):
        async with open_store(copy, machine=HERE) as store:
            assert store.load(Table.TASKS) == [("a", b"v")]
            assert store.copied_from is not None
            assert store.copied_from.store_id == old
            assert not store.copied_from.other_machine
            ids.append(store.store_id)
    assert ids[0] == ids[1] != old
    async with open_store(original, machine=HERE) as store:
        assert (store.store_id, store.copied_from) == (old, None)


async def test_a_renamed_journal_is_no_copy(tmp_path: Path) -> None:
    async with open_store(tmp_path / "draft.db") as store:
        old = store.store_id
    (tmp_path / "node").mkdir()
    (tmp_path / "draft.db").rename(tmp_path / "node" / "state.db")
    async with open_store(tmp_path / "node" / "state.db") as store:
        assert (store.store_id, store.copied_from) == (old, None)


async def test_a_journal_on_another_machine_is_a_copy_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with open_store(path, machine=HERE):
        pass
    async with open_store(path, machine=Machine(system=b"there", hardware=b"board")) as store:
        assert store.copied_from is not None
        assert store.copied_from.other_machine
        assert "another machine" in store.copied_from.explanation
        assert "leave" in store.copied_from.explanation


@pytest.mark.parametrize(
    ("present", "copied"),
    [
        (Origin(system=b"here", hardware=b"board", inode=7), False),
        (Origin(system=b"here", hardware=b"", inode=7), False),
        (Origin(system=b"", hardware=b"", inode=7), False),
        (Origin(system=b"here", hardware=b"board", inode=8), True),
        (Origin(system=b"here", hardware=b"other", inode=7), True),
        (Origin(system=b"other", hardware=b"", inode=7), True),
    ],
)
def test_only_what_is_known_to_differ_makes_a_copy(present: Origin, copied: bool) -> None:
    row = succeed(ROW, present, fresh_id=b"new id", now_unix_s=1_000)
    assert (row.store_id == b"new id") is copied
    assert (row.copied_from is not None) is copied


def test_what_could_not_be_read_this_time_is_not_forgotten() -> None:
    blind = Origin(system=b"", hardware=b"", inode=7)
    assert succeed(ROW, blind, fresh_id=b"new id", now_unix_s=1_000) == ROW


def test_what_can_be_read_for_the_first_time_is_learnt() -> None:
    blind = msgspec.structs.replace(ROW, origin=Origin(system=b"here", hardware=b"", inode=7))
    assert succeed(blind, ROW.origin, fresh_id=b"new id", now_unix_s=1_000) == ROW


def test_this_machine_shows_the_same_fingerprints_twice_and_never_its_ids() -> None:
    machine = observe_machine()
    assert machine == observe_machine()
    assert {len(machine.system), len(machine.hardware)} <= {0, 16}
    plain = Path("/etc/machine-id")
    if plain.exists():
        assert machine.system.hex() != plain.read_text().strip()
