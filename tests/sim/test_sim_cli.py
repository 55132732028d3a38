"""``meshpeer sim``: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from meshpeer.app.cli.main import main
from meshpeer.sim.plot import check_plot
from meshpeer.sim.result import Result

pytestmark = pytest.mark.sim

SMALL = "name = 'small'\nsize = 3\nduration_s = 5\n"
CRASH = "[[events]]\ndo = 'crash'\nat_s = 1\ncount = 1\n"


# --- answers ------------------------------------------------------------------------------------------------


def test_first_line_is_the_answer_and_the_rest_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = ran(capsys, "sim", file(tmp_path, SMALL))
    lines = out.splitlines()
    assert (code, lines[0], err) == (0, "small: ok", "")
    assert any(line.split()[:3] == ["all", "know", "all"] for line in lines)
    assert lines[lines.index("") + 1].startswith("MESSAGE")


def test_failed_expectation_ends_with_one_and_the_command_that_replays_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(tmp_path, f"{SMALL}{CRASH}[expect]\ndead_within_s = 0.1")
    code, out, err = ran(capsys, "sim", path, "--seeds", "4..5", "--size", "4", "--quiet")
    what, hint = err.splitlines()
    assert (code, out) == (1, "failed\n")
    assert what.startswith("error: seed 4: a crash is known to all")
    assert hint == f" hint: replay it with: meshpeer sim {path} --seed 4 --size 4 --check every"


def test_bad_scenario_ends_with_two_lines_and_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path, "size = 3\nspeed = 9")
    code, out, err = ran(capsys, "sim", path)
    what, hint = err.splitlines()
    assert (code, out) == (2, "")
    assert what == f"error: {path}: the file: object contains unknown field 'speed'"
    assert hint.startswith(" hint: keys allowed there: name, size")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--seeds", "5..1"), "no range"),
        (("--seeds", "1..2", "--seed", "1"), "different things"),
        (("--check", "never"), "no number of steps"),
        (("--trace", "t", "--seeds", "1..2"), "--trace is for one run"),
        (("--plot", "picture.gif"), "can't be written as 'picture.gif'"),
        (("--plot", "nowhere/picture.svg"), "there is no folder nowhere"),
        (("--trace", "nowhere/trace"), "can't be written"),
    ],
)
def test_wrong_options_end_with_two_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], what: str
) -> None:
    code, out, err = ran(capsys, "sim", file(tmp_path, SMALL), *arguments)
    assert (code, out) == (2, "")
    assert what in err.splitlines()[0]


def test_json_holds_the_whole_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "sim", file(tmp_path, f"{SMALL}settle_s = 0"), "--json", "--seed", "9")
    found = msgspec.json.decode(out, type=Result)
    assert (code, found.seed, found.size, found.failures) == (0, 9, 3, ())
    assert {price.kind for price in found.prices} >= {"ping", "pong"}
    assert found.curve[-1][1] == 1.0


def test_seeds_report_the_worst_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ran(capsys, "sim", file(tmp_path, f"{SMALL}{CRASH}"), "--seeds", "1..3")
    assert code == 0
    assert out.splitlines()[0] == "ok: 3 of 3 seeds as expected"
    assert any(line.startswith("worst: seed ") for line in out.splitlines())
    assert [line.partition(" (")[0] for line in err.splitlines()] == [
        "seed 1: ok",
        "seed 2: ok",
        "seed 3: ok",
    ]


# --- files --------------------------------------------------------------------------------------------------


def test_one_seed_gives_one_trace_under_any_hash_seed(tmp_path: Path) -> None:
    path = file(tmp_path, f"{SMALL}loss = 0.05\n{CRASH}".replace("size = 3", "size = 6"))
    traces = [tmp_path / "trace1", tmp_path / "trace2"]
    for number, trace in enumerate(traces, 1):
        subprocess.run(
            [sys.executable, "-m", "meshpeer", "sim", path, "--quiet", "--trace", str(trace)],
            env={**os.environ, "PYTHONHASHSEED": str(number)},
            check=True,
            timeout=60,
        )
    assert traces[0].read_bytes() == traces[1].read_bytes()
    assert len(traces[0].read_text().splitlines()) > 200


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_picture_of_a_run_and_of_a_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    pytest.importorskip("matplotlib")
    for name, text in (("run", SMALL), ("sweep", f"{SMALL}[sweep]\nover = 'loss'\nvalues = [0, 0.02]")):
        picture = tmp_path / f"{name}.{suffix}"
        code, _, _ = ran(capsys, "sim", file(tmp_path, text), "--quiet", "--plot", str(picture))
        assert code == 0
        assert picture.read_bytes().startswith(b"<?xml" if suffix == "svg" else b"\x89PNG")


def test_absent_plot_library_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = ran(capsys, "sim", file(tmp_path, SMALL), "--plot", str(tmp_path / "picture.svg"))
    assert (code, out) == (5, "")
    assert err.splitlines()[1] == " hint: pip install 'meshpeer[plot]'"


def test_known_format_is_no_error() -> None:
    pytest.importorskip("matplotlib")
    check_plot(Path("picture.svg"))


# --- helpers ------------------------------------------------------------------------------------------------


def file(folder: Path, text: str) -> str:
    path = folder / "scenario.toml"
    path.write_text(text)
    return str(path)


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), out, err
