"""Renders and replaces the block: ``alpha.MESH.internal`` with the alias ``alpha.mesh`` (``.internal`` is reserved for private use)."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from meshpeer.core.errors import EnvironmentFault

BEGIN = "# meshpeer begin (written by meshpeer; changes between these marks are lost)"
END = "# meshpeer end"


def render_block(mesh: str, members: Iterable[tuple[str, tuple[str, ...]]]) -> str:
    """Returns the block for (name, addresses) pairs; empty where there are none."""
    lines = [f"{address}\t{name}.{mesh}.internal {name}.mesh" for name, addresses in sorted(members) for address in addresses if address]
    return "\n".join([BEGIN, *lines, END]) + "\n" if lines else ""


def replace_block(text: str, block: str) -> str:
    """Returns the file's text with our block replaced, added or (for an empty one) removed; every other line stays."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        if line.startswith("# meshpeer begin"):
            inside = True
        elif inside and line.startswith(END):
            inside = False
        elif not inside:
            kept.append(line)
    rest = "".join(kept)
    if block and rest and not rest.endswith("\n"):
        rest += "\n"
    return rest + block


class HostsFile:
    """Keeps the block of one hosts file in step."""

    def __init__(self, path: Path = Path("/etc/hosts")) -> None:
        self._path = path

    def write(self, block: str) -> bool:
        """Writes the block where it differs; says whether it did. Raises ``EnvironmentFault``."""
        try:
            before = self._path.read_text() if self._path.exists() else ""
            after = replace_block(before, block)
            if after == before:
                return False
            self._replace(after)
        except OSError as error:
            raise EnvironmentFault(f"{self._path} can't be written: {error.strerror}", "set hosts_file = false under [mesh] to do without") from error
        return True

    def _replace(self, text: str) -> None:
        """Swaps the file whole; where it is a mount of its own (a container's), writes in place."""
        target = self._path.resolve()
        beside = target.with_name(f".{target.name}.meshpeer")
        try:
            beside.write_text(text)
            if target.exists():
                status = target.stat()
                os.chmod(beside, status.st_mode & 0o7777)
                with contextlib.suppress(PermissionError):
                    os.chown(beside, status.st_uid, status.st_gid)
            os.replace(beside, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            if error.errno not in (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM):
                raise
            target.write_text(text)
