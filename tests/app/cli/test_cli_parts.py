"""A command line loads what it needs and nothing else: a person waits for it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
import typer
from cli_calls import Call
from typer.main import get_command

from meshpeer.app.cli import parts, plain
from meshpeer.app.cli.commands import group
from meshpeer.app.cli.main import build

HEAVY = ("pydantic", "rich", "trio", "cryptography", "httpx", "zeroconf", "starlette", "meshpeer.app.agent")
LOADED = """
import json, sys
from meshpeer.app.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("\\n" + json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("module", parts.PARTS)
def test_table_names_exactly_the_words_that_a_module_adds(module: str) -> None:
    app = group("meshpeer", "")
    importlib.import_module(f"meshpeer.app.cli.{module}").add_to(app)

    added = [one.name for one in (*app.registered_commands, *app.registered_groups)]

    assert sorted(str(one) for one in added) == sorted(parts.PARTS[module])


@pytest.mark.parametrize(
    "arguments", [["status"], ["--json", "--run-dir", "jobs", "peers"], ["jobs", "list"], ["ping", "x"]]
)
def test_asking_the_agent_loads_no_heavy_library(arguments: list[str], tmp_path: object) -> None:
    found = _loaded(arguments, str(tmp_path))

    assert not [one for one in HEAVY if one in found]
    assert "meshpeer.app.cli.sim" not in found


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["status", "--json"], "status"),
        (["-v", "--state-dir", "jobs", "status"], "status"),
        (["--state-dir=jobs", "status"], "--state-dir=jobs"),
        (["--help", "status"], "--help"),
        (["--state-dir"], ""),
        ([], ""),
        (["nonsense"], "nonsense"),
    ],
)
def test_first_word_is_a_command_only_where_it_is_what_is_run(arguments: list[str], word: str) -> None:
    assert parts.first_word(arguments) == word


def test_help_before_a_command_lists_all_commands(call: Call) -> None:
    assert call("--help", "status").out == call("--help").out


def test_part_of_the_command_line_has_the_help_of_the_whole() -> None:
    whole, part = get_command(build()), get_command(build(["jobs"]))

    assert list(getattr(part, "commands", {})) == ["jobs"]
    assert (
        getattr(whole, "commands", {})["jobs"].get_short_help_str()
        == part.commands["jobs"].get_short_help_str()
    )  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--count", "3"], "3 [] None False"),
        (["--tag", "a", "--tag", "b"], "1 ['a', 'b'] None False"),
        (["--text", "7", "--flag"], "1 [] '7' True"),
    ],
)
def test_spared_values_arrive_as_the_library_would_convert_them(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer(add_completion=False)

    @app.command()
    def run(count: int = 1, tag: list[str] = [], text: str | None = None, flag: bool = False) -> None:  # noqa: B006
        print(count, tag, repr(text), flag)

    command = get_command(app)
    plain.spare_conversions(command.params)
    command.main(words, standalone_mode=False)

    assert capsys.readouterr().out.strip() == said


def test_value_that_is_no_number_is_still_refused(call: Call) -> None:
    done = call("ping", "x", "--count", "many")

    assert done.code == 2
    assert "many" in done.err or "integer" in done.err


def _loaded(arguments: list[str], folder: str) -> set[str]:
    """Returns the modules that a call loads, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        env={"PATH": "/usr/bin:/bin", "MESHPEER_STATE_DIR": folder, "MESHPEER_RUN_DIR": folder},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))
