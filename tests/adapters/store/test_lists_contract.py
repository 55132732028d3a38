"""What every ``JobLists`` does, as files and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshpeer.adapters.store.lists import FileLists
from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.cache import JobFiles, Use
from meshpeer.runtime.ports import JobLists
from meshpeer.sim.store import MemoryLists

ALPHA, BRAVO = NodeId(b"a" * 32), NodeId(b"b" * 32)
ONE, TWO = Digest(b"1" * 32), Digest(b"2" * 32)


@pytest.fixture(params=["files", "memory"])
def lists(request: pytest.FixtureRequest, tmp_path: Path) -> JobLists:
    return FileLists(tmp_path / "jobs") if request.param == "files" else MemoryLists()


async def test_what_was_added_is_read_by_job(lists: JobLists) -> None:
    await lists.add(JobId("j2"), ALPHA, [(ONE, Use.WORK)])
    await lists.add(JobId("j1"), ALPHA, [(ONE, Use.WORK)])
    await lists.add(JobId("j2"), ALPHA, [(TWO, Use.RESULT), (ONE, Use.WORK)])
    assert await lists.read() == [
        JobFiles(JobId("j1"), ALPHA, None, {ONE: Use.WORK}),
        JobFiles(JobId("j2"), ALPHA, None, {ONE: Use.WORK, TWO: Use.RESULT}),
    ]


async def test_what_is_a_result_somewhere_is_one(lists: JobLists) -> None:
    for use in (Use.WORK, Use.RESULT, Use.WORK):
        await lists.add(JobId("j"), ALPHA, [(ONE, use)])
    (found,) = await lists.read()
    assert found.files == {ONE: Use.RESULT}


async def test_the_last_owner_counts_and_the_end_is_remembered(lists: JobLists) -> None:
    await lists.add(JobId("j"), ALPHA, [(ONE, Use.WORK)])
    await lists.add(JobId("j"), BRAVO, [(TWO, Use.WORK)])
    await lists.note_over(JobId("j"), 77)
    (found,) = await lists.read()
    assert (found.owner, found.over_s) == (BRAVO, 77.0)


async def test_how_long_a_job_is_to_be_kept_is_remembered(lists: JobLists) -> None:
    await lists.add(JobId("j"), ALPHA, [(ONE, Use.RESULT)], 3_600)
    await lists.add(JobId("j"), ALPHA, [(TWO, Use.RESULT)])
    (found,) = await lists.read()
    assert found.keep_s == 3_600


async def test_what_is_forgotten_is_not_read(lists: JobLists) -> None:
    await lists.add(JobId("j"), ALPHA, [(ONE, Use.WORK)])
    await lists.forget(JobId("j"))
    await lists.forget(JobId("j"))
    assert await lists.read() == []


async def test_lists_are_there_after_a_restart_but_for_what_a_crash_cut_off(tmp_path: Path) -> None:
    await FileLists(tmp_path).add(JobId("j"), ALPHA, [(ONE, Use.WORK), (TWO, Use.RESULT)])
    with (tmp_path / "j").open("r+b") as file:
        file.seek(-5, 2)
        file.truncate()
    (found,) = await FileLists(tmp_path).read()
    assert (found.owner, found.files) == (ALPHA, {ONE: Use.WORK})
    (tmp_path / "j").write_bytes(b"\xff\xfe rubbish\nfile nothex work\nover soon\nowner zz\n")
    (found,) = await FileLists(tmp_path).read()
    assert (found.files, found.over_s) == ({}, None)
