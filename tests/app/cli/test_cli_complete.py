"""What a shell is offered: commands from the program, names from its agent, and never a word of trouble."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_calls import Call
from fake_control_api import FakeApi

Offered = Callable[..., list[str]]


@pytest.fixture
def offered(call: Call, monkeypatch: pytest.MonkeyPatch) -> Offered:
    """Asks as bash does: the words of a line, the last of which is being typed."""

    def offered(*words: str) -> list[str]:
        monkeypatch.setenv("_MESHPEER_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["meshpeer", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        done = call()
        assert (done.code, done.err) == (0, "")
        return done.out.split()

    return offered


def test_commands_are_offered_without_an_agent(offered: Offered) -> None:
    assert offered("jobs", "li") == ["list"]
    assert offered("ro") == ["rotate-key", "root"]


@pytest.mark.parametrize("words", [("ping",), ("why",), ("issuer", "add"), ("revoke",)])
def test_members_are_offered_by_name(offered: Offered, agent: FakeApi, words: tuple[str, ...]) -> None:
    assert set(offered(*words, "")) >= {"alpha", "beta"}
    assert offered(*words, "be") == ["beta"]


def test_jobs_and_their_tasks_are_offered(offered: Offered, agent: FakeApi, call: Call, home: Path) -> None:
    (home / "work" / "job.yaml").write_text("name: film\ntasks: {cut: {run: ['true']}}\n")
    job = call("jobs", "submit", "job.yaml", "--quiet").out.strip()

    assert offered("jobs", "status", job[:3]) == [job]
    assert job in offered("jobs", "logs", "")
    assert offered("jobs", "result", job, "") == [one.id for one in agent.tasks_of[job]]


@pytest.mark.usefixtures("home")
def test_without_an_agent_nothing_is_offered_and_nothing_said(offered: Offered) -> None:
    assert offered("ping", "") == []


def test_agent_of_the_line_is_asked(offered: Offered, agent: FakeApi, home: Path) -> None:
    assert offered("--run-dir", str(home / "none"), "ping", "") == []
    assert offered("--run-dir", str(home / "run"), "ping", "be") == ["beta"]
