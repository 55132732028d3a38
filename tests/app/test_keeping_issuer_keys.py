"""An issuer's key is on disk before anybody hears of it; a disk that has no room stops nothing for ever."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from meshpeer.app.agent import Agent
from meshpeer.app.performer import Performer
from meshpeer.app.state import read_key
from meshpeer.core.node.handover import IssuerKeyKept, IssuerKeyLost, KeepIssuerKey

SEED = b"k" * 32


def test_a_full_disk_is_said_and_the_key_is_kept_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").mkdir()
    posted: list[object] = []
    logged: list[str] = []
    performer = Performer(
        cast(
            "Agent",
            SimpleNamespace(
                settings=SimpleNamespace(state_dir=tmp_path),
                driver=SimpleNamespace(post=posted.append),
                log=SimpleNamespace(write=lambda _level, fact, _fields: logged.append(fact)),
            ),
        )
    )

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        performer.perform(KeepIssuerKey(seed=SEED))
    assert posted == [IssuerKeyLost()]
    assert "No space left" in logged[0]
    assert list((tmp_path / "keys").iterdir()) == [], "half a key would keep the agent from starting"
    performer.perform(KeepIssuerKey(seed=SEED))
    assert posted[1:] == [IssuerKeyKept(seed=SEED)]
    assert read_key(tmp_path, "issuer", "issuer") == SEED
