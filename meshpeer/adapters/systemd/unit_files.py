"""Unit files in one folder: written whole, and never over one that somebody else wrote.

Ours begin with a mark. A name that leads elsewhere (``systemctl mask`` makes a link to /dev/null) is not ours
either.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from meshpeer.core.errors import EnvironmentFault, Refused

MARK = "# Written by `meshpeer service install`"


class UnitFiles:
    """The unit files of one folder, such as /etc/systemd/system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        return self._folder / name

    def check(self, names: Sequence[str]) -> None:
        """Raises ``Refused`` where one of them is there and not ours."""
        for name in names:
            path = self.path(name)
            if os.path.lexists(path) and not self._is_ours(path):
                raise Refused(
                    f"{path} exists, and meshpeer did not write it",
                    f"move it away, then try again; your own changes belong into `systemctl edit {name}`",
                )

    def present(self, names: Sequence[str]) -> list[str]:
        """Returns those of the names that are there."""
        return [name for name in names if os.path.lexists(self.path(name))]

    def write(self, units: Mapping[str, str]) -> list[str]:
        """Writes what differs, each file whole (0644); returns the names of those. Raises ``Refused``, and
        then nothing has changed, and ``EnvironmentFault``."""
        self.check(list(units))
        changed = [name for name, text in units.items() if self._content(name) != text]
        for name in changed:
            self._write(self.path(name), units[name])
        return changed

    def remove(self, names: Sequence[str]) -> list[str]:
        """Removes those that are there; returns their names. Raises like ``write``."""
        self.check(names)
        gone = self.present(names)
        for name in gone:
            try:
                self.path(name).unlink(missing_ok=True)
            except OSError as error:
                raise _cannot(self.path(name), "removed", error) from error
        return gone

    def _is_ours(self, path: Path) -> bool:
        return not path.is_symlink() and self._content(path.name).startswith(MARK)

    def _content(self, name: str) -> str:
        try:
            return self.path(name).read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise _cannot(self.path(name), "read", error) from error

    def _write(self, path: Path, text: str) -> None:
        beside: Path | None = None
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            beside = Path(name)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.chmod(0o644)
            os.replace(beside, path)
        except OSError as error:
            if beside is not None:
                beside.unlink(missing_ok=True)
            raise _cannot(path, "written", error) from error


def _cannot(path: Path, verb: str, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(f"{path} can't be {verb}: {error.strerror}", "run with sudo")
