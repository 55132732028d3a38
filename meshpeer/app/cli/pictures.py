"""Pictures that commands draw, written where they were asked for."""

from __future__ import annotations

import sys
from pathlib import Path

from meshpeer.app.cli import show
from meshpeer.core.errors import EnvironmentFault


def write_picture(name: str, picture: bytes, *, quiet: bool) -> None:
    """Writes a picture into a file, or to standard output for ``-``; raises ``EnvironmentFault``."""
    if name == "-":
        sys.stdout.buffer.write(picture)
        sys.stdout.buffer.flush()
        return
    try:
        Path(name).write_bytes(picture)
    except OSError as error:
        raise EnvironmentFault(
            f"{name} can't be written: {error.strerror}", "name a file in a folder that you may write"
        ) from error
    if not quiet:
        show.remark(f"drawn in {show.clean(name)}")
