"""Unit files: whole, readable by all, and never over somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshpeer.adapters.systemd.unit_files import MARK, UnitFiles
from meshpeer.core.errors import EnvironmentFault, Refused

OURS = f"{MARK}\n[Unit]\n"


@pytest.fixture
def files(tmp_path: Path) -> UnitFiles:
    return UnitFiles(tmp_path / "units")


def test_a_unit_is_written_whole_and_readable_by_all(files: UnitFiles) -> None:
    assert files.write({"a.service": OURS}) == ["a.service"]

    path = files.path("a.service")
    assert path.read_text() == OURS
    assert path.stat().st_mode & 0o7777 == 0o644
    assert os.listdir(path.parent) == ["a.service"]


def test_writing_again_changes_what_differs(files: UnitFiles) -> None:
    files.write({"a.service": OURS, "b.service": OURS})

    assert files.write({"a.service": OURS, "b.service": OURS + "#"}) == ["b.service"]
    assert files.write({"a.service": OURS, "b.service": OURS + "#"}) == []


def test_a_unit_of_somebody_else_is_refused_and_nothing_changes(files: UnitFiles) -> None:
    files.write({"a.service": OURS})
    files.path("b.service").write_text("[Unit]\n")

    for attempt in (
        lambda: files.write({"a.service": OURS + "#", "b.service": OURS}),
        lambda: files.remove(["a.service", "b.service"]),
    ):
        with pytest.raises(Refused, match=r"b\.service exists, and meshpeer did not write it"):
            attempt()

    assert files.path("a.service").read_text() == OURS
    assert files.path("b.service").read_text() == "[Unit]\n"


def test_a_masked_unit_is_not_ours(files: UnitFiles) -> None:
    files.write({"a.service": OURS})
    files.path("b.service").symlink_to("/dev/null")
    files.path("c.service").symlink_to("a.service")

    for name in ("b.service", "c.service"):
        with pytest.raises(Refused):
            files.write({name: OURS})


def test_removing_takes_ours_and_only_what_is_there(files: UnitFiles) -> None:
    files.write({"a.service": OURS})

    assert files.remove(["a.service", "b.service"]) == ["a.service"]
    assert files.present(["a.service", "b.service"]) == []


def test_a_folder_that_can_not_be_written_is_said_in_two_lines(tmp_path: Path) -> None:
    (tmp_path / "units").write_text("a file stands in the way")

    with pytest.raises(EnvironmentFault) as failed:
        UnitFiles(tmp_path / "units").write({"a.service": OURS})

    assert "a.service can't be" in failed.value.what
    assert failed.value.hint == "run with sudo"
