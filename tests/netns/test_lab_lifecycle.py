"""Labs live side by side, and nothing of one is left after its end, whatever ended it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from meshlab import Lab, LabError

StartHarness = Callable[[str], subprocess.Popen[str]]

if TYPE_CHECKING:
    from conftest import Eventually, MakeLab

pytestmark = pytest.mark.netns

_NETNS = Path(__file__).resolve().parents[2] / "scripts" / "netns"
_LAN3 = _NETNS / "labs" / "lan3.toml"
_LAB = str(_NETNS / "lab")

# A harness as a user would write it: a lab, processes in a node that ignore what they can, and an end.
_HARNESS = f"""
import signal, sys, time; sys.path.insert(0, {str(_NETNS)!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # as at a terminal, wherever the tests were started
from meshlab import Lab
with Lab.from_toml({str(_LAN3)!r}) as lab:
    lab.node("alpha").popen(["sh", "-c", "trap '' TERM INT HUP; setsid sleep 4321 & sleep 4321"])
    while len(lab.node("alpha").pgrep("^sleep 4321")) < 2: time.sleep(0.01)
    print(lab.name, flush=True)
    sys.stdin.readline()
    {{ending}}
"""


@pytest.fixture(autouse=True)
def own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps the labs of these tests apart from all others on this machine."""
    monkeypatch.setenv("MESHPEER_LABS", str(tmp_path / "labs"))
    return tmp_path / "labs"


@pytest.fixture
def start_harness() -> Iterator[StartHarness]:
    """Returns a function that starts a program which makes a lab and then does as it is told."""
    started: list[subprocess.Popen[str]] = []

    def start(ending: str) -> subprocess.Popen[str]:
        program = _HARNESS.format(ending=ending)
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        argv = [sys.executable, "-c", program]
        started.append(subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=nothing, text=True))
        return started[-1]

    yield start
    for harness in started:
        harness.kill()
        harness.communicate()


@pytest.fixture
def unchanged_machine() -> _Machine:
    """Returns what this machine's own network, mounts and named namespaces look like before the test."""
    return _Machine()


class _Machine:
    """What a lab must not change."""

    def __init__(self) -> None:
        self._before = self._look()

    def check(self) -> None:
        assert self._look() == self._before

    def _look(self) -> list[str]:
        links = sorted(path.name for path in Path("/sys/class/net").iterdir())
        named = sorted(str(path) for path in Path("/run/netns").glob("*"))
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        folders = [str(Path(path).exists()) for path in ("/etc/meshpeer", "/var/lib/meshpeer")]
        return [*links, *named, *mounts, *folders]


def test_two_labs_of_one_file_run_at_once(make_lab: MakeLab) -> None:
    one, two = make_lab("two-nodes"), make_lab("two-nodes")
    assert one.name != two.name
    assert one.node("alpha").address() == two.node("alpha").address()
    one.partition(["alpha"], ["bravo"])
    ping = ["ping", "-c1", "-W1", two.node("bravo").address()]
    assert one.node("alpha").run(ping, check=False).returncode != 0
    assert two.node("alpha").run(ping).returncode == 0
    one.close()
    assert two.node("alpha").run(ping).returncode == 0


def test_closing_leaves_nothing(
    make_lab: MakeLab, unchanged_machine: _Machine, own_registry: Path, eventually: Eventually
) -> None:
    lab = make_lab("lan3")
    process = lab.node("alpha").popen(["sleep", "4321"])
    eventually(lambda: lab.node("alpha").pgrep("^sleep 4321$") != [], "sleep runs")
    inits = [node.init_pid for node in lab.nodes.values()]
    unchanged_machine.check()
    lab.close()
    lab.close()
    assert process.wait(timeout=10) == -signal.SIGKILL
    assert not any(Path(f"/proc/{pid}").exists() for pid in inits)
    assert list(own_registry.iterdir()) == []
    unchanged_machine.check()


@pytest.mark.parametrize(
    "ending", ["sys.exit(3)", "assert False", "import os; os.abort()", "raise MemoryError"]
)
def test_a_harness_that_ends_by_itself_leaves_nothing(
    ending: str,
    start_harness: StartHarness,
    unchanged_machine: _Machine,
    own_registry: Path,
    eventually: Eventually,
) -> None:
    harness = start_harness(ending)
    namespaces = _namespaces(_line(harness), own_registry)
    harness.communicate("go on\n", timeout=20)
    assert harness.returncode != 0
    eventually(lambda: not _alive(namespaces) and list(own_registry.iterdir()) == [], "the lab is gone")
    unchanged_machine.check()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_harness_that_is_killed_leaves_nothing(
    number: signal.Signals,
    start_harness: StartHarness,
    unchanged_machine: _Machine,
    own_registry: Path,
    eventually: Eventually,
) -> None:
    harness = start_harness("pass")
    namespaces = _namespaces(_line(harness), own_registry)
    assert len(_alive(namespaces)) > 5
    harness.send_signal(number)
    harness.wait(timeout=20)
    eventually(lambda: not _alive(namespaces) and list(own_registry.iterdir()) == [], "the lab is gone")
    unchanged_machine.check()


def test_a_lab_that_can_not_start_leaves_nothing(unchanged_machine: _Machine, own_registry: Path) -> None:
    # Two routers that are each other's way out: the kernel refuses a second default route.
    lab = Lab.from_toml("""
        [lans.lan0]
        ipv4 = "10.9.0.0/24"
        [lans.lan1]
        ipv4 = "10.9.0.0/16"
        [nodes.alpha]
        lans = ["lan0", "lan1"]
        [routers.r1]
        outside = "lan1"
        inside = ["lan0"]
        [routers.r2]
        outside = "lan0"
        inside = ["lan1"]
    """)
    with pytest.raises(LabError, match="exited with"):
        lab.start()
    assert list(own_registry.iterdir()) == []
    unchanged_machine.check()


def test_the_copy_of_a_lab_in_a_forked_child_owns_nothing(make_lab: MakeLab) -> None:
    lab = make_lab("two-nodes")
    child = os.fork()
    if child == 0:
        lab.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    lab.node("alpha").run(["true"])


def test_the_command_starts_enters_lists_and_ends_a_lab(
    unchanged_machine: _Machine, own_registry: Path
) -> None:
    up = _lab("up", str(_LAN3))
    assert up.returncode == 0, up.stderr
    name = up.stdout.split(":")[0]
    try:
        assert _lab("exec", "bravo", "--", "hostname").stdout == "bravo\n"
        assert _lab("exec", "bravo", "--", "sh", "-c", "exit 7").returncode == 7
        assert _lab("exec", "bravo", "--", "cat", stdin="through\n").stdout == "through\n"
        assert _lab("exec", "--lab", name, "zulu", "--", "true").returncode == 1
        listed = _lab("list").stdout
        assert name in listed
        assert "192.168.77.12" in listed
    finally:
        down = _lab("down", name)
    assert down.stdout == f"{name}: ended\n"
    assert _lab("list").stdout == "no lab is running\n"
    assert list(own_registry.iterdir()) == []
    unchanged_machine.check()


def test_down_ends_a_lab_whose_keeper_hangs(own_registry: Path) -> None:
    name = _lab("up", str(_LAN3)).stdout.split(":")[0]
    record = json.loads((own_registry / f"{name}.json").read_text())
    namespaces = _namespaces(name, own_registry)
    os.kill(record["owner"]["pid"], signal.SIGSTOP)
    try:
        assert _lab("down", name).returncode == 0
        assert not _alive(namespaces)
    finally:
        os.kill(record["owner"]["pid"], signal.SIGKILL)


def test_errors_of_the_command_say_what_to_do(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[lans.lan0]\nipv4 = '10.9.0.0/24'\n[nodes.alpha]\nlans = ['lan1']\n")
    for argv, said in (
        (("down",), "no lab is running"),
        (("exec", "alpha", "--", "true"), "scripts/netns/lab up"),
        (("up", str(tmp_path / "none.toml")), "No such file"),
        (("up", str(bad)), "there is no 'lan1'"),
    ):
        done = _lab(*argv)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _lab(*argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([_LAB, *argv], input=stdin, capture_output=True, text=True, timeout=30)


def _namespaces(name: str, registry: Path) -> set[str]:
    """The PID namespaces of a lab's machines, as the links in /proc name them."""
    record = json.loads((registry / f"{name}.json").read_text())
    inits = [record["fabric"]["pid"], *(process["pid"] for process in record["inits"].values())]
    return {os.readlink(f"/proc/{pid}/ns/pid") for pid in inits}


def _alive(namespaces: set[str]) -> list[int]:
    """All processes of this machine that run in one of these PID namespaces (a zombie doesn't)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and os.readlink(entry / "ns" / "pid") in namespaces:
                    found.append(int(entry.name))
            except OSError:
                # It ended meanwhile, or is not for us to look at, and so not ours.
                continue
    return found
