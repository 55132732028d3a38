"""Keeps the block of one hosts file in step, without harm to the file."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from meshpeer.adapters.hosts.block import replace_block
from meshpeer.core.errors import EnvironmentFault

_IN_PLACE = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)
"""Why a file can't be swapped whole though it may be written: it is a mount of its own (a container's), or
its folder is read-only."""


class HostsFile:
    """One hosts file; touches the lines between our marks, and nothing else."""

    def __init__(self, path: Path = Path("/etc/hosts")) -> None:
        self._path = path

    def write(self, block: str) -> bool:
        """Writes the block where it differs, an empty one removes it; says whether it did.

        Blocks for a moment (a few KiB). Raises ``EnvironmentFault``.
        """
        try:
            target = self._path.resolve()
            before = target.read_bytes() if target.exists() else b""
            after = replace_block(before.decode("utf-8", "surrogateescape"), block)
            data = after.encode("utf-8", "surrogateescape")
            if data == before:
                return False
            _swap(target, data)
        except OSError as error:
            raise EnvironmentFault(
                f"{self._path} can't be written: {error.strerror}", _hint(error)
            ) from error
        return True


def _hint(error: OSError) -> str:
    do_without = "set hosts_file = false under [mesh] in meshpeer.toml to do without"
    if error.errno == errno.EROFS:
        # Under systemd the file can be written in a folder that can't, until another takes its place.
        return f"`systemctl restart meshpeer` where another program has replaced it, or {do_without}"
    return f"run as root, or {do_without}"


def _swap(target: Path, data: bytes) -> None:
    """Replaces the file whole, so that nobody reads half of it; in place where that can't be done."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        beside = Path(name)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _like(target, beside)
            os.replace(beside, target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno not in _IN_PLACE:
            raise
        target.write_bytes(data)


def _like(target: Path, beside: Path) -> None:
    """Gives the new file the mode, the owner and the labels (SELinux) of the old one."""
    if not target.exists():
        beside.chmod(0o644)
        return
    status = target.stat()
    with contextlib.suppress(PermissionError):
        os.chown(beside, status.st_uid, status.st_gid)
    beside.chmod(status.st_mode & 0o7777)
    for label in os.listxattr(target):
        with contextlib.suppress(OSError):
            os.setxattr(beside, label, os.getxattr(target, label))
