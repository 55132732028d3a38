"""Reads the secrets of webhooks: a file of mode 0600 with one ``whsec_...`` a line, the newest first.

It is read each time, so that a secret can be changed under a running agent.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from meshpeer.core.errors import LocalFault
from meshpeer.core.wire.webhook_signatures import read_secret

FILE_BYTES_MAX = 4 * 1024
KEYS_MAX = 8
_WHAT = "this node's webhook secrets"


def read_keys(path: Path) -> tuple[bytes, ...]:
    """Returns the keys; raises ``LocalFault``, which tells none of them, where they can't be had."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise LocalFault(
            f"{_WHAT} can't be read: {error.strerror}", "see secret_file under [webhooks]"
        ) from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            raise LocalFault(f"{_WHAT} are in no file of this agent's user", "chown the file to it")
        if status.st_mode & 0o077:
            raise LocalFault(f"{_WHAT} can be read or written by others", f"chmod 600 {path}")
        content = file.read(FILE_BYTES_MAX + 1)
    lines = [line for line in content.decode("ascii", "replace").split() if line]
    keys = [read_secret(line) for line in lines]
    if not keys or len(keys) > KEYS_MAX or len(content) > FILE_BYTES_MAX or None in keys:
        raise LocalFault(
            f"{_WHAT} are not one to {KEYS_MAX} lines of whsec_ and base64",
            "make one: echo whsec_$(head -c 32 /dev/urandom | base64)",
        )
    return tuple(key for key in keys if key is not None)
