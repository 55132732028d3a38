"""The program as a process: wrong usage, pipes, Ctrl-C, terminals, locales, completion, the background."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_calls import Call
from fake_control_api import FakeApi, make_peer

PROGRAM = [sys.executable, "-m", "meshpeer"]
BOUND_S = 30.0


@pytest.mark.parametrize(
    ("arguments", "what", "helper"),
    [
        (("--jsn",), "--jsn", "meshpeer --help"),
        (("status", "--jsn"), "--jsn", "meshpeer status --help"),
        (("jobs", "submit"), "FILE", "meshpeer jobs submit --help"),
        (("statsu",), "statsu", "meshpeer --help"),
        (("jobs", "lsit"), "lsit", "meshpeer jobs --help"),
        (("status", "extra"), "extra", "meshpeer status --help"),
        (("ping", "beta", "--count", "0"), "--count", "meshpeer ping --help"),
        (("init", "--topology", "star"), "star", "meshpeer init --help"),
        (("join",), "join needs an invite", ""),
        (("join", "203.0.113.9"), "joining through 203.0.113.9 needs an invite", ""),
        (("join", "lan"), "joining through lan needs an invite", ""),
        (("join", "./absent.txt"), "./absent.txt is neither an invite nor a file", ""),
        (("up", "--listen-port", "many"), "--listen-port: 'many' is not a number", ""),
        (("status", "--config", "absent.toml"), "absent.toml does not exist", ""),
    ],
)
def test_wrong_usage_is_two_lines_and_2(
    call: Call, arguments: tuple[str, ...], what: str, helper: str
) -> None:
    ran = call(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert what in ran.two_lines[0]
    assert helper in ran.two_lines[1]


def test_no_command_at_all_shows_help(call: Call) -> None:
    ran = call()
    assert ran.code == 2
    assert "Usage: meshpeer" in ran.out + ran.err


def test_a_traceback_comes_only_with_debug(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("oops")

    monkeypatch.setattr("meshpeer.adapters.control.client.ControlClient.status", fail)
    assert call("status").two_lines[0] == "a bug in meshpeer: ValueError: oops"
    assert "Traceback" not in call("status").err
    ran = call("status", "--debug")
    assert "Traceback" in ran.err
    assert ran.err.splitlines()[-2].startswith("error: ")


def test_debug_of_somebody_elses_command_line_is_not_ours(home: Path, call: Call) -> None:
    assert "Traceback" not in call("jobs", "run", "--", "x", "--debug").err


def test_every_command_has_help_of_80_columns(call: Call) -> None:
    for arguments in _commands(call):
        ran = call(*arguments, "--help")
        assert ran.code == 0
        assert ran.err == ""
        assert "Global options:" in ran.out
        assert max(map(len, ran.out.splitlines())) <= 100, arguments
        assert call(*arguments, "-h").out == ran.out


def test_a_reader_that_goes_away_ends_the_program_quietly(agent: FakeApi) -> None:
    agent.members = [make_peer(name=f"node-{number}") for number in range(3_000)]
    with subprocess.Popen([*PROGRAM, "peers"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(BOUND_S) == 141
        assert process.stderr.read() == b""


def test_a_closed_output_is_no_traceback(agent: FakeApi) -> None:
    line = f"exec {sys.executable} -m meshpeer status >&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=BOUND_S, check=False)
    assert b"Traceback" not in done.stderr


def test_an_ascii_locale_is_no_crash(agent: FakeApi) -> None:
    agent.members = [make_peer(name="名前")]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [*PROGRAM, "peers"], env=environment, capture_output=True, timeout=BOUND_S, check=False
    )
    assert done.returncode == 0
    assert b"\\u540d" in done.stdout


def test_ctrl_c_ends_the_waiting_with_130_and_never_the_job(agent: FakeApi) -> None:
    agent.ends = False
    Path("job.yaml").write_text("name: j\ntasks: {a: {run: ['true']}}\n")
    process = subprocess.Popen(
        [*PROGRAM, "jobs", "submit", "job.yaml", "--wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert agent.watching.wait(BOUND_S)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith(b"the job goes on; `meshpeer jobs watch j")
    assert not [one for one in agent.asked if one[0] == "cancel"]


def test_a_terminal_gets_colour_unless_it_says_no(agent: FakeApi) -> None:
    assert b"\x1b[" in _at_terminal(["status"], {})
    assert b"\x1b[" in _at_terminal(["peers"], {})
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert b"\x1b[" not in _at_terminal(["status"], environment)
        assert b"\x1b[" not in _at_terminal(["peers"], environment)


def test_a_document_is_indented_for_a_terminal(agent: FakeApi) -> None:
    assert b'{\r\n  "mesh": {\r\n' in _at_terminal(["status", "--json"], {})


def test_progress_at_a_terminal_is_one_line_that_goes_away(agent: FakeApi) -> None:
    Path("job.yaml").write_text("name: j\ntasks: {a: {run: ['true'], array: 0-9}}\n")
    shown = _at_terminal(["jobs", "submit", "job.yaml", "--wait"], {})
    assert b"0 of 10 done, 10 running: beta 10" in shown
    assert b"\r\x1b[K" in shown
    assert b"succeeded" in shown.rpartition(b"\r\x1b[K")[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_there_for_each_shell(home: Path, shell: str) -> None:
    environment = {
        **os.environ,
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
        "SHELL": f"/bin/{shell}",
    }
    done = subprocess.run(
        [*PROGRAM, "--show-completion", shell],
        env=environment,
        capture_output=True,
        timeout=BOUND_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"meshpeer" in done.stdout


def test_completion_knows_the_commands(home: Path) -> None:
    environment = {
        **os.environ,
        "_MESHPEER_COMPLETE": "complete_bash",
        "COMP_WORDS": "meshpeer jobs s",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(PROGRAM, env=environment, capture_output=True, timeout=BOUND_S, check=False)
    assert done.stdout.split() == [b"submit", b"status"]


# --- the node in fore- and background ----------------------------------


def test_detach_returns_once_the_node_is_ready(node: list[str], home: Path) -> None:
    done = _node(node, "init", "--name", "alpha", "--detach", "-v")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "alpha is ready in the mesh home (1 member)"
    assert "  addresses  10.10.0.1  fd00::1" in lines
    assert "  warning: mind the step" in lines
    assert any(line.endswith("s  preparing") for line in lines)
    assert "  meshpeer invite" in lines
    assert lines[-1] == f"Runs in the background; its log is {home}/state/agent.log"
    _wait_until(lambda: (home / "state" / "ended").exists())
    log = (home / "state" / "agent.log").read_text()
    assert "from the agent" in log
    assert (home / "state" / "agent.log").stat().st_mode & 0o077 == 0


def test_a_detached_node_is_a_session_of_its_own_without_a_terminal(node: list[str], home: Path) -> None:
    done = _node(node, "up", "--detach", "--quiet")
    assert done.stdout == "alpha 10.10.0.1 fd00::1\n"
    _wait_until(lambda: (home / "state" / "ended").exists())
    pid, session, folder, stdin = (home / "state" / "ended").read_text().split()
    assert pid == session
    assert (folder, stdin) == ("/", "/dev/null")


def test_detach_answers_with_one_document(node: list[str]) -> None:
    import msgspec

    done = _node(node, "up", "--detach", "--json")
    found = msgspec.json.decode(done.stdout)
    assert (found["name"], found["mesh"], found["interface"], done.stderr) == ("alpha", "home", "wg0", "")


def test_a_failed_preparation_ends_with_its_own_code_in_two_lines(node: list[str], home: Path) -> None:
    for flags in (("--detach",), ()):
        done = _node(node, "init", *flags, FAIL="found")
        assert (done.returncode, done.stdout) == (5, "")
        assert done.stderr.splitlines() == ["error: no wg", " hint: apt install wireguard-tools"]
    assert not (home / "state").exists()


def test_an_agent_that_fails_ends_with_its_own_code(node: list[str]) -> None:
    for flags in (("--detach",), ()):
        done = _node(node, "init", *flags, FAIL="agent")
        assert done.returncode == 4
        assert done.stderr.splitlines()[-2:] == ["error: refused by all", " hint: ask for an invite"]


def test_an_agent_that_crashes_shows_the_end_of_its_log(node: list[str], home: Path) -> None:
    done = _node(node, "init", "--detach", FAIL="crash")
    assert done.returncode == 1
    assert "ZeroDivisionError: a bug" in done.stderr
    assert done.stderr.splitlines()[-2] == "error: the agent ended with exit code 1 before it was ready"
    assert f"{home}/state/agent.log" in done.stderr.splitlines()[-1]


def test_an_agent_that_is_killed_says_by_what(node: list[str]) -> None:
    done = _node(node, "init", "--detach", FAIL="kill")
    assert done.returncode == 1
    assert "was killed by signal 9" in done.stderr


def test_a_second_agent_is_not_started_beside_the_first(agent: FakeApi, node: list[str]) -> None:
    done = _node(node, "up", "--detach")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("error: alpha is running already")


def test_in_the_foreground_the_report_comes_before_the_log(node: list[str]) -> None:
    done = _node(node, "init")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "alpha is ready in the mesh home (1 member)"
    assert "running in the foreground" in done.stderr
    assert done.stderr.splitlines()[-1] == "stopped; `meshpeer up` runs this node again"


def test_join_hands_over_what_it_found(node: list[str], home: Path) -> None:
    Path("invite.txt").write_text("\ufeff meshpeer1.FILE\n", "utf-8")
    cases: list[tuple[list[str], str, str, str]] = [
        (["meshpeer1.TEXT"], "", "meshpeer1.TEXT", ""),
        (["invite.txt"], "", "meshpeer1.FILE", ""),
        (["203.0.113.9:1", "-i", "invite.txt"], "203.0.113.9:1", "meshpeer1.FILE", ""),
        (["lan", "--invite", "meshpeer1.TEXT"], "lan", "meshpeer1.TEXT", ""),
        (["-"], "", "meshpeer1.STDIN", "meshpeer1.STDIN\n"),
        (["lan", "-i", "-"], "lan", "meshpeer1.STDIN", "meshpeer1.STDIN\n"),
    ]
    for arguments, seed, invite, stdin in cases:
        done = _node(node, "join", *arguments, "--name", "gamma", "--quiet", stdin=stdin)
        assert done.returncode == 0, done.stderr
        assert (home / "joined").read_text().split("|") == [seed, invite, "gamma"]
    done = _node(node, "join", "host", "--name", "gamma", MESHPEER_INVITE="meshpeer1.ENV")
    assert (home / "joined").read_text() == "host|meshpeer1.ENV|gamma"
    assert "looking for a member" in done.stderr


def test_ctrl_c_before_the_node_is_ready_stops_it(node: list[str], home: Path) -> None:
    process = subprocess.Popen(
        [*node, "init", "--detach"],
        env={**os.environ, "FAIL": "hang"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        _wait_until(lambda: (home / "state" / "hangs").exists())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 130
    assert b"stopped before the node was ready" in err
    pid = int((home / "state" / "hangs").read_text())
    _wait_until(
        lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
    )


# --- helpers -----------------------------------------------------------

FAKE_NODE = '''
"""Stands in for the agent: found, enrol and run_agent as the command line calls them."""
import os, pathlib, sys, time, types

from meshpeer.app.options import ReadyReport
from meshpeer.core.errors import EnvironmentFault, Refused

fail = os.environ.get("FAIL", "")

def found(options, settings):
    if fail == "found":
        raise EnvironmentFault("no wg", "apt install wireguard-tools")
    settings.state_dir.mkdir(exist_ok=True)

def enrol(options, settings, say):
    say("looking for a member")
    settings.state_dir.mkdir(exist_ok=True)
    text = "|".join((options.seed, options.invite.strip(), options.name))
    (settings.state_dir.parent / "joined").write_text(text)

def run_agent(settings, on_ready):
    if fail == "agent":
        raise Refused("refused by all", "ask for an invite")
    if fail == "crash":
        raise ZeroDivisionError("a bug")
    if fail == "kill":
        os.kill(os.getpid(), 9)
    if fail == "hang":
        draft = settings.state_dir / "draft"
        draft.write_text(str(os.getpid()))
        draft.rename(settings.state_dir / "hangs")
        time.sleep(60)
    report = ReadyReport(
        mesh="home", name="alpha", ipv4="10.10.0.1", ipv6="fd00::1", interface="wg0", backend="kernel",
        members=1, warnings=("mind the step",), next_steps=("meshpeer invite",),
        timings=(("opening the journal", 0.01),),
    )
    on_ready(report)
    print("from the agent", file=sys.stderr, flush=True)
    facts = (os.getpid(), os.getsid(0), os.getcwd(), os.readlink("/proc/self/fd/0"))
    draft = settings.state_dir / "draft"
    draft.write_text(" ".join(map(str, facts)))
    draft.rename(settings.state_dir / "ended")

for name, function in (("founding", found), ("enrolment", enrol), ("agent", run_agent)):
    module = types.ModuleType(f"meshpeer.app.{name}")
    setattr(module, function.__name__, function)
    sys.modules[module.__name__] = module
state = types.ModuleType("meshpeer.app.state")
state.load_state = lambda folder: folder.mkdir(exist_ok=True)
sys.modules["meshpeer.app.state"] = state

from meshpeer.app.cli.main import main

main()
'''


@pytest.fixture
def node(home: Path) -> list[str]:
    """The program, with an agent that is ready at once and ends at once."""
    program = home / "fake_node.py"
    program.write_text(FAKE_NODE)
    return [sys.executable, str(program)]


def _node(
    node: list[str], *arguments: str, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*node, *arguments],
        env={**os.environ, **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


def _commands(call: Call) -> Iterator[tuple[str, ...]]:
    """Yields every command, as its group's help lists it."""
    from typer.main import get_command

    from meshpeer.app.cli.main import build

    waiting: list[tuple[tuple[str, ...], object]] = [((), get_command(build()))]
    while waiting:
        path, command = waiting.pop()
        yield path
        waiting += [((*path, name), one) for name, one in getattr(command, "commands", {}).items()]


def _at_terminal(arguments: list[str], environment: dict[str, str]) -> bytes:
    """Runs the program at a terminal of its own; returns what it showed."""
    ours, theirs = pty.openpty()
    base = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM")}
    full = {**base, "TERM": "xterm", "COLUMNS": "100", **environment}
    with subprocess.Popen(
        [*PROGRAM, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=full
    ) as process:
        os.close(theirs)
        shown, deadline_s = b"", time.monotonic() + BOUND_S
        while time.monotonic() < deadline_s:
            if not select.select([ours], [], [], 1.0)[0]:
                continue
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # EIO: the other side is closed
                break
            if not piece:
                break
            shown += piece
        os.close(ours)
        assert process.wait(BOUND_S) == 0, shown
        return shown


def _wait_until(condition: object) -> None:
    assert callable(condition)
    deadline_s = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.02)
