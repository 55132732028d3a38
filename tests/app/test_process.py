"""What holds keys leaves no core file, and may hold enough descriptors."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from meshpeer.app.process import DESCRIPTORS

PROGRAM = """
import ctypes, os, resource, sys
from meshpeer.app.process import prepare_process
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
prepare_process()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE),
      resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
os.close(os.open("/proc/self/fd/0", os.O_RDONLY))
os.abort()
"""


def test_a_process_that_holds_keys_is_not_dumped(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    dumpable, soft, hard, descriptors = map(int, child.stdout.read().split())
    child.stdout.close()
    _, status = os.waitpid(child.pid, 0)
    child.returncode = status
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert (dumpable, soft, hard) == (0, 0, 0)
    assert descriptors == (DESCRIPTORS if most < 0 else min(DESCRIPTORS, most))
    assert os.WIFSIGNALED(status)
    assert not os.WCOREDUMP(status)
    assert list(tmp_path.iterdir()) == []
