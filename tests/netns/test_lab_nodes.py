"""A node is a machine of its own: network, folders, names, processes."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from meshlab import CommandFailed

if TYPE_CHECKING:
    from conftest import Eventually, MakeLab

pytestmark = pytest.mark.netns


def test_nodes_on_a_lan_reach_each_other_by_both_families(make_lab: MakeLab) -> None:
    lab = make_lab("lan3")
    for family in (4, 6):
        for target in ("bravo", "charlie"):
            address = lab.node(target).address("lan0", family)
            lab.node("alpha").run(["ping", "-c1", "-W5", address])


def test_no_route_leads_out_of_a_lab(make_lab: MakeLab) -> None:
    alpha = make_lab("two-nodes").node("alpha")
    refused = alpha.run(["ping", "-c1", "-W1", "203.0.113.1"], check=False)
    assert refused.returncode == 2
    assert "unreachable" in refused.stderr


def test_a_node_has_its_own_name_and_folders(make_lab: MakeLab) -> None:
    lab = make_lab("two-nodes")
    alpha, bravo = lab.node("alpha"), lab.node("bravo")
    folders = ("/etc/meshpeer", "/var/lib/meshpeer", "/run", "/var/run/wireguard", "/var/log")
    for folder in folders:
        alpha.run(["touch", f"{folder}/mark"])
        assert bravo.run(["ls", "-A", folder]).stdout.split().count("mark") == 0
        assert not Path(folder, "mark").exists()
    assert alpha.run(["hostname"]).stdout == "alpha\n"
    alpha.run(["sh", "-c", "echo 10.0.0.9 zulu > /etc/hosts.new && mv /etc/hosts.new /etc/hosts"])
    assert alpha.run(["getent", "hosts", "zulu"]).stdout.split() == ["10.0.0.9", "zulu"]
    assert bravo.run(["getent", "hosts", "bravo"]).stdout.split() == ["127.0.1.1", "bravo"]
    assert "zulu" not in Path("/etc/hosts").read_text()


def test_mounts_of_a_node_do_not_reach_the_machine(make_lab: MakeLab) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    alpha = make_lab("two-nodes").node("alpha")
    alpha.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])
    assert Path("/proc/self/mountinfo").read_text() == before


def test_commands_of_the_checkout_and_tun_are_there(make_lab: MakeLab) -> None:
    alpha = make_lab("two-nodes").node("alpha")
    meshpeer = alpha.run(["sh", "-c", "command -v meshpeer"]).stdout
    assert meshpeer.endswith("/.venv/bin/meshpeer\n")
    assert alpha.run(["sh", "-c", "test -c /dev/net/tun && ls /sys/class/net"]).stdout.split() == [
        "lan0",
        "lo",
    ]


def test_an_unprivileged_uid_finds_python_on_the_path_of_tasks(make_lab: MakeLab) -> None:
    alpha = make_lab("two-nodes").node("alpha")
    task_path = "PATH=/usr/local/bin:/usr/bin:/bin"
    program = "import os; print(os.getuid())"
    setpriv = ["setpriv", "--reuid=61000", "--regid=61000", "--clear-groups"]
    shown = alpha.run([*setpriv, "env", "-i", "-C", "/", task_path, "python3", "-c", program])
    assert shown.stdout == "61000\n"


def test_a_command_is_a_child_whose_signals_and_exit_code_are_its_own(make_lab: MakeLab) -> None:
    alpha = make_lab("two-nodes").node("alpha")
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    process = alpha.popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as stdout:
        assert stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(timeout=10) == 7


def test_a_command_can_be_interrupted_wherever_the_harness_was_started(make_lab: MakeLab) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = make_lab("two-nodes").node("alpha").popen(["sh", "-c", "kill -INT $$; sleep 60"])
        assert process.wait(timeout=10) == -signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_failed_command_tells_what_it_said(make_lab: MakeLab) -> None:
    alpha = make_lab("two-nodes").node("alpha")
    with pytest.raises(CommandFailed, match=r"alpha\$ sh -c .*exited with 3\n  no luck") as failure:
        alpha.run(["sh", "-c", "echo no luck >&2; exit 3"])
    assert (failure.value.code, failure.value.stderr) == (3, "no luck\n")
    with pytest.raises(CommandFailed, match="took too long") as failure:
        alpha.run(["sh", "-c", "echo started; exec sleep 60"], timeout=0.5)
    assert failure.value.stdout == "started\n"
    assert alpha.pgrep("sleep 60") == []


def test_processes_are_found_and_signalled_by_the_pid_that_the_node_knows(
    make_lab: MakeLab, eventually: Eventually
) -> None:
    lab = make_lab("two-nodes")
    alpha, bravo = lab.node("alpha"), lab.node("bravo")
    process = alpha.popen(["sleep", "1234"])
    eventually(lambda: alpha.pgrep("^sleep 1234$") != [], "sleep runs")
    (pid,) = alpha.pgrep("^sleep 1234$")
    assert pid < 100
    assert bravo.pgrep("sleep 1234") == []
    alpha.kill(pid, signal.SIGKILL)
    assert process.wait(timeout=10) == -signal.SIGKILL


def test_init_reaps_what_lost_its_parent(make_lab: MakeLab) -> None:
    alpha = make_lab("two-nodes").node("alpha")
    alpha.run(["sh", "-c", "(setsid sh -c 'exit 0' &) ; (sleep 0.01 &)"])
    shown = alpha.run(
        ["sh", "-c", "while ps -eo stat,comm | grep -E '^Z|sleep'; do sleep 0.01; done; echo none"]
    )
    assert shown.stdout.splitlines()[-1] == "none"


def test_crash_kills_all_and_keeps_the_state_folder_unless_it_is_wiped(make_lab: MakeLab) -> None:
    alpha = make_lab("two-nodes").node("alpha")
    alpha.put_file("/var/lib/meshpeer/keys/node.key", "secret", mode=0o600)
    alpha.put_file("/run/meshpeer/agent.sock", "")
    process = alpha.popen(["sleep", "1234"])
    alpha.crash()
    assert process.wait(timeout=10) == -signal.SIGKILL
    assert alpha.run(["cat", "/var/lib/meshpeer/keys/node.key"]).stdout == "secret"
    assert not alpha.path("/run/meshpeer").exists()
    alpha.crash(wipe_state=True)
    assert alpha.run(["ls", "-A", "/var/lib/meshpeer"]).stdout == ""
    alpha.run(["mkdir", "/run/meshpeer"])


def test_pause_stops_a_node_until_it_is_resumed(make_lab: MakeLab, eventually: Eventually) -> None:
    alpha = make_lab("two-nodes").node("alpha")
    process = alpha.popen(["sleep", "1234"])
    eventually(lambda: _state(process.pid) == "S", "the process is asleep")
    alpha.pause()
    eventually(lambda: _state(process.pid) == "T", "the process is stopped")
    alpha.resume()
    eventually(lambda: _state(process.pid) == "S", "the process is asleep")


def test_a_limited_state_folder_is_full_early_and_keeps_its_files(make_lab: MakeLab) -> None:
    alpha = make_lab("two-nodes").node("alpha")
    alpha.put_file("/var/lib/meshpeer/state.db", "kept")
    alpha.limit_state_dir("1m")
    filling = alpha.run(["dd", "if=/dev/zero", "of=/var/lib/meshpeer/big", "bs=64k", "count=32"], check=False)
    assert "No space left on device" in filling.stderr
    assert alpha.path("/var/lib/meshpeer/state.db").read_text() == "kept"


def test_logs_of_a_node_can_be_shown(make_lab: MakeLab) -> None:
    alpha = make_lab("two-nodes").node("alpha")
    alpha.put_file("/var/lib/meshpeer/agent.log", "one line\n")
    assert alpha.logs() == "--- alpha:/var/lib/meshpeer/agent.log\none line\n"


def test_a_segment_has_the_mtu_of_its_file(make_lab: MakeLab) -> None:
    lab = make_lab("""
        [lans.jumbo]
        ipv4 = "10.9.0.0/24"
        mtu = 9000
        [nodes.alpha]
        lans = ["jumbo"]
        [nodes.bravo]
        lans = ["jumbo"]
    """)
    target = lab.node("bravo").address()
    lab.node("alpha").run(["ping", "-c1", "-W5", "-M", "do", "-s", "8972", target])
    refused = lab.node("alpha").run(["ping", "-c1", "-W1", "-M", "do", "-s", "8973", target], check=False)
    assert refused.returncode != 0


def test_the_environment_of_a_node_is_a_fresh_login(
    make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHPEER_STATE_DIR", "/elsewhere")
    alpha = make_lab("two-nodes").node("alpha")
    names = {line.split("=")[0] for line in alpha.run(["env"], env={"EXTRA": "1"}).stdout.splitlines()}
    assert "MESHPEER_STATE_DIR" not in names
    assert {"PATH", "HOME", "LANG", "EXTRA"} <= names
    assert os.environ["MESHPEER_STATE_DIR"] == "/elsewhere"


def _state(pid: int) -> str:
    """The letter of a process's state (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
