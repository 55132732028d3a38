"""Reads secrets from a TOML file of mode 0600, each time that they are asked for: a new value counts at once,
and none stays in memory longer than its task takes to start.

    API_TOKEN = "..."

    [DATABASE_PASSWORD]
    value = "..."
    from = ["alpha"]

It refuses a file that others can read, as with keys. Its errors travel to whoever submitted the job, so they
tell neither values nor where the file is.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path

from meshpeer.core.errors import LocalFault
from meshpeer.core.jobs.secrets import Secret, choose_secrets, parse_secrets
from meshpeer.core.wire.unreadable import UNREADABLE

FILE_BYTES_MAX = 1024 * 1024
_AT_LINE = re.compile(r"at line (\d+)")


class FileSecrets:
    """Implements ``runtime.ports.Secrets``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, names: Sequence[str], submitter: Collection[str]) -> tuple[tuple[str, str], ...]:
        return choose_secrets(self.load(), names, submitter) if names else ()

    def load(self) -> dict[str, Secret]:
        """Returns all that the file holds, nothing where there is none; raises ``LocalFault``."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise LocalFault(f"this node's secrets can't be read: {error.strerror}") from error
        with open(descriptor, "rb") as file:
            _require_private(os.fstat(descriptor))
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise LocalFault("this node's secrets file is larger than 1 MiB", "keep fewer secrets in it")
        try:
            document = tomllib.loads(content.decode("utf-8"))
        except UnicodeDecodeError:
            raise LocalFault("this node's secrets file is not UTF-8", "save it as UTF-8") from None
        except UNREADABLE as error:
            # Not its text, which may quote what stands there.
            line = _AT_LINE.search(str(error))
            where = f" at line {line[1]}" if line else ""
            raise LocalFault(f"this node's secrets file is not valid TOML{where}", "mend it") from None
        return parse_secrets(document)


def _require_private(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise LocalFault("this node's secrets file is no regular file", "make it one")
    if status.st_uid not in (0, os.geteuid()):
        raise LocalFault("this node's secrets file belongs to another user", "chown it to the agent's user")
    if status.st_mode & 0o077:
        raise LocalFault("this node's secrets file can be read or written by others", "chmod 600 it")
