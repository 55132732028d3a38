"""Runs the real command line in this process, against an agent that answers from memory on a real socket."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parents[1] / "adapters" / "control")]

from cli_calls import Call, Ran  # noqa: E402
from fake_control_api import FakeApi, serving  # noqa: E402

from meshpeer.app.cli.main import main  # noqa: E402


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own: folders, settings and working folder below the test's."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (tmp_path / "meshpeer.toml").write_text("")
    for key in ("JSON", "DEBUG", "INVITE", "LISTEN_PORT", "CONTROL_PORT", "BACKEND"):
        monkeypatch.delenv(f"MESHPEER_{key}", raising=False)
    monkeypatch.setenv("MESHPEER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("MESHPEER_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("MESHPEER_CONFIG", str(tmp_path / "meshpeer.toml"))
    return tmp_path


@pytest.fixture
def agent(api: FakeApi, home: Path) -> Iterator[FakeApi]:
    """An agent that runs on that machine."""
    with serving(api, home / "run" / "agent.sock"):
        yield api


@pytest.fixture
def call(home: Path, capfd: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: str) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, out, err)

    return call
