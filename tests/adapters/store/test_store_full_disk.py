"""A disk that is really full: nothing acknowledged is lost, and nothing else is claimed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("full_disk.py")
MOUNT_AND_RUN = 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" "$3" "$1"'


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_fails_what_it_could_not_hold_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", MOUNT_AND_RUN, "sh", str(tmp_path), sys.executable, str(SCRIPT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["acknowledged"]) > 100
    assert report["failed"]
    assert report["acknowledged"] + report["failed"] == list(range(1, report["failed"][-1] + 1))
    assert report["found"] == report["acknowledged"]
    assert report["again"]
    (error,) = report["errors"]
    assert error.startswith(f"the disk under {tmp_path}/state.db is full|free some space (df -h {tmp_path})")
    assert "is full" in report["blob_error"]
    assert report["drafts"] == 0
    assert list(tmp_path.iterdir()) == []
