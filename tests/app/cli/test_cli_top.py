"""`meshpeer top`: one look where nobody watches, and a screen that is given back where somebody does."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

from cli_calls import Call
from fake_control_api import FakeApi, make_peer


def test_without_a_terminal_it_looks_once(agent: FakeApi, call: Call) -> None:
    agent.members = [
        make_peer(),
        make_peer(name="charlie", state="dead", path="none", because="its link broke"),
    ]
    ran = call("top")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].startswith("alpha in home: ok")
    assert [line.split()[0] for line in lines[3:]][:3] == ["alpha", "charlie", "beta"]
    assert "\x1b" not in ran.out


def test_its_document_has_all_that_it_shows(agent: FakeApi, call: Call) -> None:
    shown = call("top", "--json").json()
    assert isinstance(shown, dict)
    assert set(shown) == {"status", "peers", "jobs", "silent"}


def test_without_an_agent_it_ends_in_two_lines(home: Path, call: Call) -> None:
    ran = call("top")
    assert ran.code == 3
    assert ran.two_lines


def test_at_a_terminal_it_follows_until_q_and_gives_the_screen_back(agent: FakeApi) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    environment.pop("NO_COLOR", None)
    program = [sys.executable, "-m", "meshpeer", "top", "--every", "0.2"]
    with subprocess.Popen(program, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as top:
        os.close(theirs)
        seen = _read_until(ours, b"beta")
        assert seen.startswith(b"\x1b[?1049h")
        agent.members = [make_peer(name="delta")]
        _read_until(ours, b"delta")
        os.write(ours, b"\x1b[A")
        agent.members = [make_peer(name="echo")]
        _read_until(ours, b"echo")
        os.write(ours, b"q")
        rest = _read_until(ours, b"\x1b[?1049l")
        assert rest.endswith(b"\x1b[?25h\x1b[?1049l")
        assert top.wait(20) == 0
    os.close(ours)


def test_without_keys_it_looks_no_more_often(agent: FakeApi) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    environment.pop("NO_COLOR", None)
    program = [sys.executable, "-m", "meshpeer", "top", "--every", "30"]
    with subprocess.Popen(
        program, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment
    ) as top:
        os.close(theirs)
        _read_until(ours, b"beta")
        looks = agent.asked.count(("status",))
        while select.select([ours], [], [], 0.5)[0]:
            os.read(ours, 65_536)
        assert agent.asked.count(("status",)) == looks
        top.terminate()
    os.close(ours)


def _read_until(terminal: int, what: bytes, timeout_s: float = 20.0) -> bytes:
    """Returns what is printed up to where something has come; fails past the bound."""
    seen, deadline = b"", time.monotonic() + timeout_s
    while what not in seen:
        assert time.monotonic() < deadline, f"{what!r} was not printed: {seen[-500:]!r}"
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 65_536)
    return seen
