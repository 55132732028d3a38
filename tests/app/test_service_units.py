"""A node's units: what each setting grants, and that nothing is granted for what is off."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from meshpeer.adapters.systemd.unit_files import MARK
from meshpeer.app.config import (
    ControlSettings,
    File,
    JobSettings,
    MeshSettings,
    NodeSettings,
    Settings,
    WireGuardSettings,
)
from meshpeer.app.service_plan import Owner, ServicePlan, carried, plan_packaged, plan_service
from meshpeer.app.service_units import AGENT, TUNNEL, TUNNEL_PATH, render_units
from meshpeer.app.state import NodeFile

ROOT = Owner(user="root", group="root", root=True)
ALICE = Owner(user="alice", group="users", root=False)
NODE = NodeFile(
    mesh=b"m",
    roots=(),
    name="alpha",
    region="",
    roles=(),
    endpoint="",
    seeds=(),
    wireguard_port=51820,
    control_port=51821,
)
TASKS = {"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL"}
TUNNELS = {"CAP_NET_ADMIN", "CAP_NET_RAW"}
EXPOSURE_MAX, EXPOSURE_WITH_NAMESPACES_MAX = 3.0, 3.5
"""Namespaces for tasks count as exposure of the agent."""

NAMESPACES = File(jobs=JobSettings(namespaces=True))


def none() -> NodeFile:
    return msgspec.structs.replace(NODE, wireguard_port=0)


@pytest.mark.parametrize(
    ("file", "node", "owner", "capabilities"),
    [
        (File(), NODE, ROOT, {*TUNNELS, *TASKS}),
        (File(jobs=JobSettings(accept=False)), NODE, ROOT, TUNNELS),
        (File(), none(), ROOT, TASKS),
        (File(wireguard=WireGuardSettings(backend="none")), NODE, ROOT, TASKS),
        (File(jobs=JobSettings(accept=False)), none(), ROOT, set()),
        (
            File(jobs=JobSettings(accept=False), control=ControlSettings(socket_group="adm")),
            none(),
            ROOT,
            {"CAP_CHOWN"},
        ),
        (
            File(jobs=JobSettings(accept=False), control=ControlSettings(web_port=80)),
            none(),
            ROOT,
            {"CAP_NET_BIND_SERVICE"},
        ),
        (File(), NODE, ALICE, TUNNELS),
        (File(), none(), ALICE, set()),
    ],
)
def test_capabilities_are_those_of_the_features_that_are_on(
    file: File, node: NodeFile, owner: Owner, capabilities: set[str]
) -> None:
    text = agent(plan(file, node, owner))

    assert set(" ".join(values(text, "CapabilityBoundingSet")).split()) == capabilities
    assert values(text, "CapabilityBoundingSet"), "left out, it would mean all of them"
    ambient = " ".join(values(text, "AmbientCapabilities")).split()
    assert set(ambient) == (set() if owner.root else capabilities)
    assert values(text, "User") == ([] if owner.root else ["alice"])


@pytest.mark.parametrize(
    ("file", "node", "owner", "hosts", "forwards", "program"),
    [
        (File(), NODE, ROOT, True, True, True),
        (File(mesh=MeshSettings(hosts_file=False)), NODE, ROOT, False, True, True),
        (File(node=NodeSettings(hub="never")), NODE, ROOT, True, False, True),
        (File(wireguard=WireGuardSettings(backend="kernel")), NODE, ROOT, True, True, False),
        (File(), none(), ROOT, False, False, False),
        (File(), NODE, ALICE, False, False, False),
    ],
)
def test_what_is_writable_follows_the_settings(
    file: File, node: NodeFile, owner: Owner, hosts: bool, forwards: bool, program: bool
) -> None:
    units = render_units(plan(file, node, owner), systemd=252)
    writable = " ".join(values(units[AGENT], "ReadWritePaths"))

    assert ("/etc/hosts" in writable) == hosts
    assert ("/proc/sys/net/ipv4/conf" in writable) == forwards
    assert set(units) == ({AGENT, TUNNEL, TUNNEL_PATH} if program else {AGENT})
    assert (TUNNEL_PATH in units[AGENT]) == program
    assert values(units[AGENT], "ProtectSystem") == ["strict"]


def test_tasks_share_the_walls_so_jobs_decide_how_high_they_are() -> None:
    with_jobs, without = agent(plan()), agent(plan(File(jobs=JobSettings(accept=False))))

    # Programs that compile as they run are common tasks.
    assert values(with_jobs, "MemoryDenyWriteExecute") == []
    assert values(without, "MemoryDenyWriteExecute") == ["yes"]
    assert "~@privileged @resources" in values(without, "SystemCallFilter")
    assert values(with_jobs, "OOMPolicy") == ["continue"]
    # Tasks get control groups, and network namespaces where the settings let them.
    assert values(with_jobs, "Delegate") == ["cpu memory pids"]
    assert values(with_jobs, "RestrictNamespaces") == ["yes"]
    assert values(agent(plan(NAMESPACES)), "RestrictNamespaces") == ["user net"]
    assert values(without, "Delegate") == []
    assert values(without, "RestrictNamespaces") == values(without, "ProtectControlGroups") == ["yes"]
    assert values(agent(plan(File(jobs=JobSettings(slots=3)))), "TasksMax") == [str(3 * 512 + 256)]


def test_the_command_line_names_only_what_is_not_the_default() -> None:
    assert values(agent(plan()), "ExecStart") == ["/usr/bin/meshpeer up"]
    elsewhere = Settings(state_dir=Path("/srv/a b"), run_dir=Path("/run/mesh/b"), config=Path("/etc/m%.toml"))
    text = agent(plan(settings=elsewhere))
    assert values(text, "ExecStart") == [
        '/usr/bin/meshpeer up --state-dir "/srv/a b" --run-dir /run/mesh/b --config /etc/m%%.toml'
    ]
    assert values(text, "ReadWritePaths")[0] == '"/srv/a b"'
    assert values(text, "ConditionPathExists") == ["/srv/a b/node.json"]
    assert values(text, "RuntimeDirectory") == ["mesh/b meshpeer-users wireguard"]


def test_flags_and_variables_of_the_installing_call_go_along() -> None:
    found = carried(
        {"backend": "userspace", "slots": None}, {"MESHPEER_SLOTS": "3", "MESHPEER_STATE_DIR": "/x"}
    )
    assert found == {"MESHPEER_BACKEND": "userspace", "MESHPEER_SLOTS": "3"}
    assert "MESHPEER_SLOTS=3" in values(agent(plan(environment=found)), "Environment")


def test_homes_and_temporary_folders_stay_in_sight_where_the_node_lives_there() -> None:
    assert values(agent(plan()), "ProtectHome") == values(agent(plan()), "PrivateTmp") == ["yes"]
    assert values(agent(plan(code=(Path("/root/venv"),))), "ProtectHome") == ["read-only"]
    at_home = Settings(state_dir=Path("/home/alice/mesh"), run_dir=Path("/tmp/run"))
    text = agent(plan(settings=at_home))
    assert (values(text, "ProtectHome"), values(text, "PrivateTmp")) == (["read-only"], ["no"])
    assert values(text, "ReadWritePaths")[0] == "/home/alice/mesh /tmp/run"


def test_pauses_between_restarts_grow_where_systemd_can_do_that() -> None:
    old, new = agent(plan()), agent(plan(), systemd=254)
    assert (values(old, "RestartSec"), values(old, "RestartMaxDelaySec")) == (["5"], [])
    assert (values(new, "RestartSec"), values(new, "RestartMaxDelaySec")) == (["1"], ["60"])
    for text in (old, new):
        assert values(text, "Restart") == ["on-failure"]
        assert values(text, "StartLimitIntervalSec") == ["0"]
        assert values(text, "Type") == ["notify"]
        assert values(text, "WantedBy") == ["multi-user.target"]


def test_the_shell_of_the_wireguard_unit_gets_its_words_through_systemd() -> None:
    (line,) = values(render_units(plan(), systemd=252)[TUNNEL], "ExecStart")
    assert line.startswith('/bin/sh -c "echo $$$$ >/run/wireguard/wg0.meshpeer.pid && rm -f ')
    assert line.endswith(" wireguard-go --foreground wg0")
    assert 'exec \\"$$0\\" \\"$$@\\"' in line


CASES: list[Callable[[], ServicePlan]] = [
    lambda: plan(),
    lambda: plan(NAMESPACES),
    lambda: plan(File(jobs=JobSettings(accept=False))),
    lambda: plan(File(), none()),
    lambda: plan(File(), none(), Owner(user="daemon", group="daemon", root=False)),
]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize("case", CASES)
def test_every_unit_is_well_below_the_exposure_of_an_ordinary_service(
    case: Callable[[], ServicePlan], tmp_path: Path
) -> None:
    for name, text in render_units(case(), systemd=252).items():
        path = tmp_path / name
        path.write_text(text)
        if name == TUNNEL_PATH:
            continue
        done = analyze("security", "--offline=true", "--no-pager", str(path))
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
        assert found is not None, done.stdout + done.stderr
        most = EXPOSURE_WITH_NAMESPACES_MAX if "RestrictNamespaces=user net" in text else EXPOSURE_MAX
        assert float(found[1]) < most, done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize("case", CASES)
def test_systemd_has_nothing_to_say_against_the_units(
    case: Callable[[], ServicePlan], tmp_path: Path
) -> None:
    units = render_units(case(), systemd=252)
    for name, text in units.items():
        # What is said of a program that is not there is not about the unit.
        (tmp_path / name).write_text(text.replace("/usr/bin/meshpeer", "/bin/true"))
    done = analyze("verify", "--man=no", *(str(tmp_path / name) for name in units))
    ours = [line for line in done.stderr.splitlines() if "meshpeer" in line]
    assert ours == []


def test_packaged_unit_is_that_of_a_node_with_defaults_and_waits_for_one() -> None:
    packaged = render_units(plan_packaged("/usr/bin/meshpeer"), systemd=0, packaged=True)
    ours = render_units(plan(), systemd=0)

    assert packaged.keys() == ours.keys()
    for name, text in packaged.items():
        assert not text.startswith(MARK)
        assert "`meshpeer service install`" in text
        different = set(text.splitlines()) ^ set(ours[name].splitlines())
        assert all(line.startswith(("#", "TasksMax=")) for line in different)
    assert values(packaged[AGENT], "ConditionPathExists") == ["/var/lib/meshpeer/node.json"]
    assert "TasksMax" not in packaged[AGENT], "that follows the processors of whoever built the package"


# --- helpers ------------------------------------------------------------


def plan(
    file: File | None = None,
    node: NodeFile = NODE,
    owner: Owner = ROOT,
    *,
    settings: Settings | None = None,
    code: tuple[Path, ...] = (Path("/usr/bin/meshpeer"),),
    environment: dict[str, str] | None = None,
) -> ServicePlan:
    settings = settings or Settings(file=file or File())
    return plan_service(
        settings, node, owner, program=("/usr/bin/meshpeer",), code=code, environment=environment or {}
    )


def agent(plan: ServicePlan, systemd: int = 252) -> str:
    return render_units(plan, systemd=systemd)[AGENT]


def values(text: str, key: str) -> list[str]:
    """Returns what a unit assigns to a key, in order."""
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False
    )
