"""One agent per state folder, for as long as its process lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from meshpeer.adapters.store import lock_state
from meshpeer.core.errors import EnvironmentFault

HOLDER = """
import sys
from pathlib import Path
from meshpeer.adapters.store import lock_state

with lock_state(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_agent_is_told_who_has_the_folder(tmp_path: Path) -> None:
    with _holder(tmp_path) as holder:
        with (
            pytest.raises(EnvironmentFault, match=rf"process {holder.pid}\)") as caught,
            lock_state(tmp_path),
        ):
            pytest.fail("two agents hold one folder")
        assert str(tmp_path) in caught.value.what
        assert "status" in caught.value.hint
        holder.communicate(b"")


def test_the_lock_of_a_killed_agent_is_free_at_once(tmp_path: Path) -> None:
    with _holder(tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock_state(tmp_path) as lock:
            assert lock.path.read_text() == f"{os.getpid()}\n"


def test_a_lock_that_was_left_by_an_error_is_free(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock_state(tmp_path):
        raise KeyError
    with lock_state(tmp_path) as lock:
        assert lock.path.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"nowhere/state\.lock"), lock_state(tmp_path / "nowhere"):
        pytest.fail("a folder that is not there was locked")


def _holder(folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process
