"""What ``doctor`` asks, prints, and how it ends; with an agent, without, and where none may be asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_calls import Call
from fake_control_api import FakeApi, make_findings

from meshpeer.core.errors import Refused
from meshpeer.runtime.doctor import Finding

LONG = "members of the mesh " * 12
WELL = Finding(group="tunnels", check="handshakes", level="ok", text="2 of 2 tunnels had a handshake")
BAD = Finding(group="clock", check="clock", level="bad", text=LONG, todo=("timedatectl set-ntp true", LONG))
WARNING = Finding(group="membership", check="issuer", level="warning", text="the only issuer", todo=("keep",))


@pytest.fixture(autouse=True)
def no_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own programs and rules are not what is tested."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("meshpeer.adapters.machine.observe.SYSTEM_FOLDERS", "/nonexistent")


def test_counts_come_first_then_what_is_bad_with_what_mends_it(agent: FakeApi, call: Call) -> None:
    agent.examined = make_findings(WELL, WARNING, BAD, interface="", wireguard_port=0)
    ran = call("doctor")
    lines = ran.out.splitlines()
    assert (ran.code, ran.err) == (1, "")
    assert lines[0].startswith("alpha: 1 bad, 1 warning, ")
    assert lines[2].startswith("bad       clock       members of the mesh")
    assert max(map(len, lines)) <= 80
    first_todo = next(line for line in lines if "->" in line)
    assert first_todo.strip() == "-> timedatectl set-ntp true"
    assert [line.split()[0] for line in lines if line and not line.startswith(" ")][1:] == [
        "bad",
        "warning",
        "not",
        "ok",
    ]
    assert lines[-1].endswith("-v shows them")


def test_a_warning_is_no_failure_and_quiet_says_the_worst(agent: FakeApi, call: Call) -> None:
    agent.examined = make_findings(WELL, WARNING, interface="", wireguard_port=0)
    assert call("doctor").code == 0
    assert call("doctor", "--quiet").out == "warning\n"
    assert agent.asked == [("doctor",), ("doctor",)]


def test_all_checks_are_shown_where_asked_for_or_where_nothing_is_wrong(agent: FakeApi, call: Call) -> None:
    agent.examined = make_findings(WELL, interface="", wireguard_port=0)
    assert WELL.text in call("doctor").out
    agent.examined = make_findings(WELL, WARNING, interface="", wireguard_port=0)
    assert WELL.text not in call("doctor").out
    assert WELL.text in call("doctor", "-v").out


def test_the_document_has_its_keys(agent: FakeApi, call: Call) -> None:
    agent.examined = make_findings(BAD, interface="", wireguard_port=0)
    ran = call("doctor", "--json")
    found = ran.json()
    assert isinstance(found, dict)
    assert (ran.code, found["agent"], found["bad"]) == (1, True, 1)
    assert set(found) == {"agent", "bad", "warnings", "ok", "unknown", "findings"}
    assert set(found["findings"][-1]) == {"group", "check", "level", "text", "todo"}


def test_without_an_agent_the_machine_is_looked_at_all_the_same(home: Path, call: Call) -> None:
    ran = call("doctor", "--json")
    found = ran.json()
    assert isinstance(found, dict)
    assert found["agent"] is False
    checks = {one["check"]: one for one in found["findings"]}
    assert (checks["agent"]["level"], checks["agent"]["todo"]) == (
        "unknown",
        ["meshpeer init, or meshpeer join INVITE"],
    )
    assert {"tools", "backend", "disk", "ports", "rules"} <= set(checks)
    assert (ran.code, found["bad"] > 0) == (1, True), "programs are missing"


def test_a_state_folder_that_can_not_be_read_is_bad(home: Path, call: Call) -> None:
    (home / "state").mkdir()
    (home / "state" / "node.json").write_text("{")
    found = call("doctor", "--json").json()
    assert isinstance(found, dict)
    levels = {one["check"]: one["level"] for one in found["findings"]}
    assert (levels["state"], levels["agent"]) == ("bad", "bad")


def test_who_may_not_ask_the_agent_is_told_so(agent: FakeApi, call: Call) -> None:
    agent.fault = Refused("this user may not ask the agent", "use sudo")
    found = call("doctor", "--json").json()
    assert isinstance(found, dict)
    checks = {one["check"]: one["level"] for one in found["findings"]}
    assert checks["agent"] == "unknown"
    assert "ports" not in checks, "they are the agent's"


def test_what_others_named_never_reaches_the_terminal_raw(agent: FakeApi, call: Call) -> None:
    odd = Finding(group="x\x1b[2J", check="x", level="bad\x1b", text="a\x1b[2Jb", todo=("\u202ex",))
    agent.examined = make_findings(odd, name="n\x1b]0;t\x07", interface="", wireguard_port=0)
    out = call("doctor").out
    assert not {letter for letter in out if not letter.isprintable()} - {"\n"}
