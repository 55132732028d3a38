"""Manual pages say what the command line says, in a form that manual page readers accept."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main
from man_pages import pages

from meshpeer.app.cli.main import build
from meshpeer.app.cli.parts import PARTS

AT_S = 1_795_713_953
WORDS = [word for words in PARTS.values() for word in words]


def test_every_command_has_its_page_and_is_named_in_that_of_the_whole() -> None:
    made = pages(AT_S)

    assert set(made) == {"meshpeer.1", *(f"meshpeer-{word}.1" for word in WORDS)}
    for word in WORDS:
        assert f".Xr meshpeer-{word} 1" in made["meshpeer.1"]


def test_page_of_a_group_has_every_command_in_it() -> None:
    commands = getattr(typer.main.get_command(build()), "commands", {})
    for word, command in commands.items():
        for inner in getattr(command, "commands", {}):
            assert f".Ss meshpeer {word} {inner}".replace("-", "\\-") in pages(AT_S)[f"meshpeer-{word}.1"]


def test_pages_are_the_same_for_the_same_date() -> None:
    assert pages(AT_S) == pages(AT_S)
    assert ".Dd November 26, 2026\n" in pages(AT_S)["meshpeer.1"]


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="there is no mandoc")
def test_mandoc_finds_nothing_wrong(tmp_path: Path) -> None:
    assert _complaints(tmp_path, "mandoc", "-T", "lint") == []


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
def test_groff_finds_nothing_wrong(tmp_path: Path) -> None:
    assert _complaints(tmp_path, "groff", "-mdoc", "-Tascii", "-ww", "-z") == []


def _complaints(folder: Path, *command: str) -> list[str]:
    made = pages(AT_S)
    for name, text in made.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        [*command, *made], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    said = (done.stdout if command[0] == "mandoc" else "") + done.stderr
    # What other pages this machine has is not about ours.
    others = ("referenced manual not found", "mandoc.db")
    return [line for line in said.splitlines() if not any(one in line for one in others)]
