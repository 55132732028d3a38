"""`meshpeer service`, with programs and folders of the test in the place of systemctl and /etc."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_calls import Call
from fake_control_api import FakeApi, serving

from meshpeer.adapters.store.lock import lock_state
from meshpeer.app.config import ControlSettings, File, JobSettings, Settings, WireGuardSettings
from meshpeer.app.founding import found
from meshpeer.app.options import InitOptions

AGENT = "meshpeer.service"
SYSTEMCTL = """#!/bin/sh
# Notes each call; answers what the files beside it say.
cd "$(dirname "$0")"
shift 2
echo "$*" >>calls
if [ -f "$1.fails" ]; then cat "$1.fails" >&2; exit 1; fi
if [ -f "$1.says" ]; then cat "$1.says"; fi
if [ -f "$1.code" ]; then exit "$(cat "$1.code")"; fi
"""


class Systemctl:
    """What systemd was asked, and what it is to answer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def says(self, verb: str, text: str) -> None:
        (self._folder / f"{verb}.says").write_text(text)

    def fails(self, verb: str, text: str) -> None:
        (self._folder / f"{verb}.fails").write_text(text)

    def calls(self) -> list[str]:
        """Returns what was asked since the last time, but for its version."""
        path = self._folder / "calls"
        asked = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [one for one in asked if not one.startswith("show ")]


@pytest.fixture
def systemctl(home: Path, monkeypatch: pytest.MonkeyPatch) -> Systemctl:
    folder = home / "bin"
    folder.mkdir()
    (folder / "systemctl").write_text(SYSTEMCTL)
    (folder / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    made = Systemctl(folder)
    made.says("show", "252.38-1~deb12u1\n")
    made.says("is-active", "inactive\n")
    return made


@pytest.fixture
def units(home: Path) -> Path:
    return home / "units"


@pytest.fixture
def node(home: Path) -> Settings:
    """A node that was founded on that machine."""
    settings = Settings(
        state_dir=home / "state",
        run_dir=home / "run",
        file=File(
            wireguard=WireGuardSettings(backend="none"),
            control=ControlSettings(listen_port=0, web_port=0),
            jobs=JobSettings(accept=False),
        ),
    )
    found(InitOptions(name="alpha"), settings)
    return settings


def test_installing_writes_enables_and_says_what_is_next(
    call: Call, systemctl: Systemctl, units: Path, node: Settings
) -> None:
    ran = call("service", "install", "--unit-dir", str(units))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[0] == "meshpeer.service is installed: the node starts at every boot"
    assert "meshpeer service install --now" in ran.out
    assert systemctl.calls() == ["daemon-reload", f"enable {AGENT}"]
    assert os.listdir(units) == [AGENT]
    text = (units / AGENT).read_text()
    assert f"up --state-dir {node.state_dir} --run-dir {node.run_dir} --config" in text
    assert node.run_dir.is_dir(), "what is not there can't be made writable"


def test_installing_again_changes_nothing_and_does_not_restart(
    call: Call, systemctl: Systemctl, units: Path, node: Settings
) -> None:
    call("service", "install", "--unit-dir", str(units), "--now")
    assert systemctl.calls()[-1] == f"start {AGENT}"
    systemctl.says("is-active", "active\n")
    before = (units / AGENT).stat().st_mtime_ns
    ran = call("service", "install", "--unit-dir", str(units), "--now")
    assert "nothing had changed" in ran.out
    assert (units / AGENT).stat().st_mtime_ns == before
    assert systemctl.calls() == ["daemon-reload", f"enable {AGENT}", f"is-active {AGENT}"]


def test_a_running_service_is_restarted_when_its_unit_changes(
    call: Call, systemctl: Systemctl, units: Path, node: Settings
) -> None:
    call("service", "install", "--unit-dir", str(units))
    systemctl.calls()
    systemctl.says("is-active", "active\n")
    found = call("service", "install", "--unit-dir", str(units), "--now", "--slots", "3", "--json").json()
    assert found == {"units": [str(units / AGENT)], "changed": True, "started": True}
    assert systemctl.calls()[-1] == f"restart {AGENT}"
    assert "Environment=MESHPEER_SLOTS=3" in (units / AGENT).read_text()


def test_now_takes_the_place_of_an_agent_that_runs(
    api: FakeApi, home: Path, call: Call, systemctl: Systemctl, units: Path, node: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("meshpeer.app.cli.mesh.END_WAIT_S", 0.0)
    with lock_state(node.state_dir), serving(api, home / "run" / "agent.sock"):
        ran = call("service", "install", "--unit-dir", str(units), "--now")
    assert ran.code == 0
    assert ("stop", False) in [one[:2] for one in api.asked]
    assert systemctl.calls()[-1] == f"start {AGENT}"


def test_print_shows_the_units_and_changes_nothing(
    call: Call, systemctl: Systemctl, units: Path, node: Settings
) -> None:
    ran = call("service", "install", "--print", "--unit-dir", str(units))
    assert ran.code == 0
    assert ran.out.startswith("# Written by `meshpeer service install`")
    assert not units.exists()
    assert systemctl.calls() == []
    call("service", "install", "--unit-dir", str(units))
    assert (units / AGENT).read_text() == ran.out


def test_print_needs_no_systemd(
    call: Call, node: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert call("service", "install", "--print").code == 0


def test_a_machine_without_a_node_is_sent_to_init_or_join(
    call: Call, systemctl: Systemctl, units: Path
) -> None:
    ran = call("service", "install", "--unit-dir", str(units))
    assert ran.code == 2
    assert ran.two_lines[0].startswith("this machine is no node of a mesh")
    assert "meshpeer init" in ran.two_lines[1]
    assert not units.exists()
    assert systemctl.calls() == []


def test_a_machine_without_systemd_lacks_something(
    call: Call, node: Settings, units: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = call("service", "install", "--unit-dir", str(units))
    assert ran.code == 5
    assert ran.two_lines[0] == "there is no systemd on this machine (no `systemctl`)"
    assert not units.exists()


def test_a_systemd_that_does_not_run_the_machine_is_none(
    call: Call, systemctl: Systemctl, units: Path, node: Settings
) -> None:
    systemctl.fails("show", "System has not been booted with systemd as init system (PID 1).\n")
    ran = call("service", "install", "--unit-dir", str(units))
    assert (ran.code, ran.two_lines[0]) == (5, "systemd does not run this machine")
    assert not units.exists()


def test_a_unit_of_somebody_else_is_refused(
    call: Call, systemctl: Systemctl, units: Path, node: Settings
) -> None:
    units.mkdir()
    (units / AGENT).write_text("[Unit]\nDescription=mine\n")
    for command in ("install", "remove"):
        ran = call("service", command, "--unit-dir", str(units))
        assert ran.code == 4
        assert ran.two_lines[0] == f"{units / AGENT} exists, and meshpeer did not write it"
    assert (units / AGENT).read_text() == "[Unit]\nDescription=mine\n"
    assert systemctl.calls() == []


def test_a_service_that_does_not_start_points_to_its_log(
    call: Call, systemctl: Systemctl, units: Path, node: Settings
) -> None:
    systemctl.fails("start", "Job for meshpeer.service failed.\n")
    ran = call("service", "install", "--unit-dir", str(units), "--now")
    assert ran.code == 1
    assert ran.two_lines == (
        "meshpeer.service is installed, but did not start",
        "its log says why: journalctl -u meshpeer.service -n 20",
    )


def test_removing_leaves_nothing_behind_but_the_node(
    call: Call, systemctl: Systemctl, units: Path, node: Settings
) -> None:
    call("service", "install", "--unit-dir", str(units))
    before = sorted(path.name for path in node.state_dir.iterdir())
    systemctl.calls()
    ran = call("service", "remove", "--unit-dir", str(units))
    assert (ran.code, ran.out.splitlines()[0]) == (0, "the service is removed")
    assert os.listdir(units) == []
    assert systemctl.calls()[:2] == [f"disable --now {AGENT}", "daemon-reload"]
    assert sorted(path.name for path in node.state_dir.iterdir()) == before


def test_removing_what_is_not_there_is_no_error(call: Call, units: Path) -> None:
    ran = call("service", "remove", "--unit-dir", str(units))
    assert (ran.code, ran.out) == (0, "there is no service of meshpeer to remove\n")
    assert call("service", "remove", "--unit-dir", str(units), "--json").json() == {"removed": []}
