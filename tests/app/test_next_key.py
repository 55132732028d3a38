"""The next WireGuard key rests in a file of its own until it takes the place of the current one."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from meshpeer.app.next_key import (
    drop_next_key,
    keep_next_key,
    load_next_key,
    made_unix_s,
    make_next_key,
)
from meshpeer.app.rotating import DAY_S, SPREAD, due_after_s
from meshpeer.app.state import KEYS, read_key
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.identity.keys import encode_key_file
from meshpeer.core.ids import NodeId

OLD, NEW = bytes([1]) * 32, bytes([2]) * 32


def test_it_is_written_for_its_owner_alone_and_then_takes_the_other_ones_place(folder: Path) -> None:
    key = make_next_key(folder, NEW)
    path = folder / KEYS / "wireguard.next.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(folder, "wireguard", "wireguard") == OLD
    loaded = load_next_key(folder)
    assert loaded is not None
    assert loaded.public == key.public
    made_s = path.stat().st_mtime
    assert keep_next_key(folder, key.public).fault == ""
    assert read_key(folder, "wireguard", "wireguard") == NEW
    assert load_next_key(folder) is None
    assert made_unix_s(folder) == made_s
    assert sorted(one.name for one in (folder / KEYS).iterdir()) == ["wireguard.key"]


def test_another_key_than_was_announced_is_not_kept(folder: Path) -> None:
    key = make_next_key(folder, NEW)
    make_next_key(folder, bytes([3]) * 32)
    assert "another key" in keep_next_key(folder, key.public).fault
    assert read_key(folder, "wireguard", "wireguard") == OLD
    drop_next_key(folder)
    assert load_next_key(folder) is None
    assert keep_next_key(folder, key.public).fault != ""


def test_a_folder_that_can_not_be_flushed_after_the_rename_is_flushed_when_asked_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_next_key(folder, NEW)
    faults = iter([True, True])

    def fsync(_: int) -> None:
        if next(faults, False):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    assert [bool(keep_next_key(folder, key.public).fault) for _ in range(3)] == [True, True, False]
    assert read_key(folder, "wireguard", "wireguard") == NEW
    assert load_next_key(folder) is None


def test_one_that_others_can_read_is_refused(folder: Path) -> None:
    make_next_key(folder, NEW)
    os.chmod(folder / KEYS / "wireguard.next.key", 0o644)
    with pytest.raises(EnvironmentFault, match="can be read by others"):
        load_next_key(folder)


def test_a_key_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="can't be written"):
        make_next_key(tmp_path / "gone", NEW)


def test_keys_of_one_age_are_not_changed_at_one_time() -> None:
    ages = [due_after_s(90, NodeId(bytes([number]) * 32)) for number in range(0, 256, 5)]
    assert len(set(ages)) == len(ages)
    assert all(90 * DAY_S * (1 - SPREAD) <= age <= 90 * DAY_S for age in ages)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / KEYS).mkdir(mode=0o700)
    path = tmp_path / KEYS / "wireguard.key"
    path.write_text(encode_key_file("wireguard", OLD))
    path.chmod(0o600)
    return tmp_path
