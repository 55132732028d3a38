"""A folder that a task left untouched serves the next one, and only such a folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from meshpeer.adapters.executor.scratch import MARK_NS, Scratch


async def test_folder_is_not_read_again_once_a_change_must_show_in_its_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = Scratch(tmp_path, 0, None)
    reads: list[Path] = []
    list_folder = os.listdir

    def listdir(folder: Path) -> list[str]:
        reads.append(folder)
        return list_folder(folder)

    monkeypatch.setattr(os, "listdir", listdir)
    await scratch.prepare()
    await scratch.clean()
    await scratch.clean()
    assert len(reads) == 4
    later_ns = time.time_ns() + MARK_NS + 1
    monkeypatch.setattr(time, "time_ns", lambda: later_ns)
    await scratch.clean()
    await scratch.clean()
    assert len(reads) == 6


async def test_what_a_task_leaves_in_a_folder_that_is_not_read_again_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = Scratch(tmp_path, 0, None)
    await scratch.prepare()
    made_ns = os.lstat(scratch.work).st_ctime_ns
    later_ns = time.time_ns() + MARK_NS + 1
    monkeypatch.setattr(time, "time_ns", lambda: later_ns)
    await scratch.clean()
    leave_until_marked(scratch.work, made_ns)
    await scratch.clean()
    assert os.listdir(scratch.work) == []


def leave_until_marked(folder: Path, before_ns: int) -> None:
    """Leaves files as a task would that runs long after: in another tick of the kernel's clock."""
    for number in range(1_000_000):
        (folder / f"left-{number % 2}").write_bytes(b"")
        if os.lstat(folder).st_ctime_ns != before_ns:
            return
        (folder / f"left-{number % 2}").unlink()
    pytest.fail("the clock of the file system stands still")
