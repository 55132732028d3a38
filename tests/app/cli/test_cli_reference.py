"""The reference page is made from the command line, so it can't leave anything out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from meshpeer.app.cli.main import build

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "reference_cli"


def test_the_page_has_every_command_and_every_option_of_it(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=60, check=True
    )
    waiting: list[tuple[str, object]] = [("meshpeer", get_command(build()))]
    seen = 0
    while waiting:
        path, command = waiting.pop()
        seen += 1
        assert path == "meshpeer" or f"# {path}\n" in done.stdout
        for parameter in getattr(command, "params", ()):
            longest = max(parameter.opts, key=len)
            assert parameter.param_type_name == "argument" or longest in done.stdout, f"{path} {longest}"
        waiting += [(f"{path} {name}", one) for name, one in getattr(command, "commands", {}).items()]
    assert seen > 20


def test_a_page_that_did_not_change_is_left_alone(home: Path) -> None:
    page = home / "docs" / "reference.md"
    line = [sys.executable, str(SCRIPT), "--output", str(page)]
    subprocess.run(line, timeout=60, check=True)
    before = page.stat().st_mtime_ns
    subprocess.run(line, timeout=60, check=True)
    assert page.stat().st_mtime_ns == before
    assert page.read_text("utf-8").startswith("# Command reference\n")
