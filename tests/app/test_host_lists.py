"""Lists of hosts for other programs: what each of them reads."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from meshpeer.app.host_lists import Host, ansible, dask, mpi, ray, ssh

ALPHA = Host(
    name="alpha", ipv4="10.99.0.1", ipv6="fd00::1", region="eu-west", roles=("compute", "hub"), user="ann"
)
BRAVO = Host(name="bravo", ipv4="10.99.0.2", ipv6="fd00::2", slots=8)
LATER = Host(name="later", ipv4="", ipv6="fd00::3", region="eu-west")


@pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh")
def test_ssh_finds_each_by_its_name_and_its_name_in_the_mesh(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(ssh([ALPHA, BRAVO, LATER]))
    assert ssh_says(config, "alpha") >= {"hostname 10.99.0.1", "user ann", "hostkeyalias alpha.mesh"}
    assert ssh_says(config, "bravo.mesh") >= {"hostname 10.99.0.2", "hostkeyalias bravo.mesh"}
    assert ssh_says(config, "later") >= {"hostname fd00::3"}


def test_ansible_has_all_and_a_group_for_each_region_and_role() -> None:
    inventory = yaml.safe_load(ansible([ALPHA, BRAVO, LATER]))["all"]
    assert inventory["hosts"] == {
        "alpha": {"ansible_host": "10.99.0.1", "ansible_user": "ann"},
        "bravo": {"ansible_host": "10.99.0.2"},
        "later": {"ansible_host": "fd00::3"},
    }
    assert {name: list(group["hosts"]) for name, group in inventory["children"].items()} == {
        "region_eu_west": ["alpha", "later"],
        "role_compute": ["alpha"],
        "role_hub": ["alpha"],
    }


def test_mpi_has_the_slots_of_each() -> None:
    lines = mpi([ALPHA, BRAVO]).splitlines()
    assert [line.split("#")[0].split() for line in lines] == [
        ["10.99.0.1", "slots=1"],
        ["10.99.0.2", "slots=8"],
    ]


def test_dask_has_addresses_and_nothing_else() -> None:
    assert dask([ALPHA, BRAVO]) == "10.99.0.1\n10.99.0.2\n"


def test_ray_has_the_first_as_its_head_and_starts_each_on_its_own_overlay_address() -> None:
    cluster = yaml.safe_load(ray([ALPHA, BRAVO]))
    assert cluster["provider"] == {"type": "local", "head_ip": "10.99.0.1", "worker_ips": ["10.99.0.2"]}
    assert cluster["auth"] == {"ssh_user": "ann"}
    (head,), (worker,) = cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]
    assert "--node-ip-address=10.99.0.1 --head" in head
    assert "ip -o -4 route get 10.99.0.1" in worker
    assert worker.endswith("--address=$RAY_HEAD_IP:6379")


def test_a_region_that_is_no_name_of_a_group_becomes_one() -> None:
    odd = Host(name="alpha", ipv4="10.99.0.1", ipv6="", region="eu\n  hosts: {evil}")
    (name,) = yaml.safe_load(ansible([odd]))["all"]["children"]
    assert name.isidentifier()


def ssh_says(config: Path, host: str) -> set[str]:
    ran = subprocess.run(["ssh", "-G", "-F", str(config), host], capture_output=True, text=True, check=True)
    return set(ran.stdout.splitlines())
