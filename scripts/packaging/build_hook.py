"""Has hatchling put the manual pages into the wheel, written from the command line that is in it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.builders.utils import get_reproducible_timestamp


class ManualPages(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling finds it by its base."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path.insert(0, str(Path(self.root) / "scripts" / "packaging"))
        from man_pages import pages

        self._folder = tempfile.TemporaryDirectory()
        for name, text in pages(get_reproducible_timestamp()).items():
            page = Path(self._folder.name) / name
            page.write_text(text, encoding="utf-8")
            build_data["shared_data"][str(page)] = f"share/man/man1/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()
